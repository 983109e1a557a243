//! What the stream means, worked out without the engine: plain maps instead of tables, whole states instead of statements, its own rule
//! of which batches count and its own fold. Only the decoding is shared.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use harmonylite::change::value::Value;
use harmonylite::codec::commit::CommitRecord;
use harmonylite::codec::rows::{RowOp, RowReader};
use rusqlite::Connection;

use crate::Out;
use crate::schema::TableSpec;

/// A value, equal only to the bit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Val {
    Null,
    Int(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl Val {
    pub fn text(s: &str) -> Self {
        Self::Text(s.as_bytes().to_vec())
    }

    pub fn real(r: f64) -> Self {
        Self::Real(r.to_bits())
    }

    fn of(v: &Value<'_>) -> Self {
        match v {
            Value::Null => Self::Null,
            Value::Integer(i) => Self::Int(*i),
            Value::Real(r) => Self::Real(r.to_bits()),
            Value::Text(t) => Self::Text(t.to_vec()),
            Value::Blob(b) => Self::Blob(b.to_vec()),
        }
    }

    /// For traces.
    pub fn show(&self) -> String {
        let bytes = |b: &[u8]| {
            if b.len() > 24 {
                format!("{} bytes", b.len())
            } else {
                b.escape_ascii().to_string()
            }
        };
        match self {
            Self::Null => "NULL".into(),
            Self::Int(i) => i.to_string(),
            Self::Real(r) => format!("{:?}", f64::from_bits(*r)),
            Self::Text(t) => format!("'{}'", bytes(t)),
            Self::Blob(b) => format!("x'{}'", bytes(b)),
        }
    }
}

pub fn show(row: &[Val]) -> String {
    let parts: Vec<String> = row.iter().take(8).map(Val::show).collect();
    format!(
        "({}{})",
        parts.join(", "),
        if row.len() > 8 { ", …" } else { "" }
    )
}

/// All values of a row; before the columns the rowid, where that is the key.
pub type Row = Vec<Val>;
/// A key in normal form: rows whose keys are equal here are one row.
pub type Key = Vec<Val>;
/// A table.
pub type Rows = BTreeMap<Key, Row>;

/// All replicated tables at one moment.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub tables: Vec<Rc<Rows>>,
}

/// Whether a record counts, given what was taken before: batch n only after n-1, a higher incarnation from its first batch on.
#[derive(Debug, Clone, Default)]
pub struct Accepts(HashMap<u64, (u64, u64, u64)>);

impl Accepts {
    /// What a database has noted of it.
    pub fn read(conn: &Connection) -> Out<Self> {
        let sql = "SELECT node_id, incarnation, nonce, batch FROM __harmonylite__publishers";
        let read = conn.prepare(sql).and_then(|mut stmt| {
            stmt.query_map([], |r| {
                let node: String = r.get(0)?;
                let number = |i| r.get::<_, i64>(i).map(i64::cast_unsigned);
                Ok((
                    node.parse().unwrap_or_default(),
                    (number(1)?, number(2)?, number(3)?),
                ))
            })?
            .collect()
        });
        read.map(Self).map_err(|e| e.to_string())
    }

    pub fn take(&mut self, record: &CommitRecord) -> bool {
        let (counter, nonce, n) = (
            record.incarnation.counter,
            record.incarnation.nonce,
            record.batch.0,
        );
        let last = self.0.entry(record.node.0).or_default();
        let next = counter == last.0 && nonce == last.1 && n == last.2 + 1;
        let anew = counter > last.0 && n == 1;
        if next || anew {
            *last = (counter, nonce, n);
        }
        next || anew
    }
}

enum Op {
    Delete(Key),
    Cells(Key, Vec<(usize, Val)>),
    Whole(Key, Row),
}

/// The state after a batch: deletes first, then cells where the row exists, then whole rows, each removing whatever other row stands in its
/// way on a UNIQUE index. Rows that the batch rewrites are out of the way before.
pub fn fold(specs: &[TableSpec], state: &State, record: &CommitRecord, rows: &[Vec<u8>]) -> State {
    let mut ops: Vec<(usize, Op)> = Vec::new();
    for bytes in rows {
        let mut reader = RowReader::new(bytes, &record.tables);
        let mut values = Vec::new();
        while let Some((table, op)) = reader.next(&mut values).expect("rows that decode") {
            let name = &record.tables[table as usize].name;
            let index = specs
                .iter()
                .position(|s| s.name == name)
                .expect("a known table");
            let spec = &specs[index];
            let mut row: Row = values.iter().map(Val::of).collect();
            let offset = usize::from(spec.key.is_empty());
            if op == RowOp::Whole && row.len() < spec.columns.len() + offset {
                // A publisher without the late column: what is there keeps its own.
                let key = spec.key_of(&row);
                let here = state.tables[index].get(&key).and_then(|r| r.last());
                spec.widen(&mut row, here);
            }
            ops.push((
                index,
                match op {
                    RowOp::Delete => Op::Delete(spec.normal(&row)),
                    RowOp::Whole => Op::Whole(spec.key_of(&row), row),
                    RowOp::Cells(mask) => {
                        let (key, cells) = row.split_at(spec.key_len());
                        let columns = (0..64).filter(|c| mask.0 >> c & 1 == 1);
                        Op::Cells(
                            spec.normal(key),
                            columns
                                .map(|c| c + offset)
                                .zip(cells.iter().cloned())
                                .collect(),
                        )
                    }
                },
            ));
        }
    }
    let mut out = state.clone();
    for (t, op) in &ops {
        if let Op::Delete(key) = op {
            Rc::make_mut(&mut out.tables[*t]).remove(key);
        }
    }
    for (t, op) in &ops {
        if let Op::Cells(key, cells) = op
            && out.tables[*t].contains_key(key)
            && let Some(row) = Rc::make_mut(&mut out.tables[*t]).get_mut(key)
        {
            for (c, v) in cells {
                row[*c] = v.clone();
            }
        }
    }
    for (t, op) in &ops {
        if let Op::Whole(key, _) = op {
            Rc::make_mut(&mut out.tables[*t]).remove(key);
        }
    }
    for (t, op) in ops {
        if let Op::Whole(key, row) = op {
            let spec = &specs[t];
            let table = Rc::make_mut(&mut out.tables[t]);
            for terms in &spec.uniques {
                if let Some(mine) = terms(&row) {
                    table.retain(|_, other| terms(other).as_ref() != Some(&mine));
                }
            }
            table.insert(key, row);
        }
    }
    out
}
