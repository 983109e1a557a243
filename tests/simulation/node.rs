//! One simulated node: an application and a replica on one real database file, and what both hold in memory.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use harmonylite::change::position::{BatchNumber, NodeId, ShardId};
use harmonylite::changelog::cut::Cutter;
use harmonylite::codec::batch::Limits;
use harmonylite::publish::flying::FlyingBatches;
use harmonylite::publish::gate::Gate;
use harmonylite::replica::Replica;
use harmonylite::sqlite::connection::{data_version, open_reader};
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode};

use crate::Out;
use crate::model::{Key, Rows, State, Val};
use crate::schema::{PRIVATE, TableSpec};
use crate::snapshots::Line;

impl ToSql for Val {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Int(i) => ToSqlOutput::Borrowed(ValueRef::Integer(*i)),
            Self::Real(r) => ToSqlOutput::Borrowed(ValueRef::Real(f64::from_bits(*r))),
            Self::Text(t) => ToSqlOutput::Borrowed(ValueRef::Text(t)),
            Self::Blob(b) => ToSqlOutput::Borrowed(ValueRef::Blob(b)),
        })
    }
}

pub fn val(v: ValueRef<'_>) -> Val {
    match v {
        ValueRef::Null => Val::Null,
        ValueRef::Integer(i) => Val::Int(i),
        ValueRef::Real(r) => Val::Real(r.to_bits()),
        ValueRef::Text(t) => Val::Text(t.to_vec()),
        ValueRef::Blob(b) => Val::Blob(b.to_vec()),
    }
}

/// What is pending of a row, as its change log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    Whole,
    Delete,
    Cells(u64),
}

impl Pending {
    fn then(before: Option<Self>, kind: i64, mask: i64) -> Self {
        match (before, kind) {
            (_, 0) => Self::Delete,
            (_, 1 | 4) => Self::Whole,
            (None, _) => Self::Cells(mask as u64),
            (Some(Self::Cells(m)), _) => Self::Cells(m | mask as u64),
            (Some(_), _) => Self::Whole,
        }
    }
}

/// What is pending of one table's rows, and whether a batch on its way carries some of it.
pub type PendingRows = std::collections::BTreeMap<Key, (Pending, bool)>;

/// The tables and change logs of a node at one moment.
pub struct View {
    pub state: State,
    pub pending: Vec<PendingRows>,
}

/// Which change-log rows batches on their way carry: by table everything up to an id, and single rows by id and stamp.
#[derive(Debug, Default)]
pub struct Flying {
    pub up_to: std::collections::HashMap<&'static str, i64>,
    pub rows: std::collections::HashSet<(String, i64, i64)>,
}

impl Flying {
    fn has(&self, table: &str, id: i64, stamp: i64) -> bool {
        self.up_to.get(table).is_some_and(|w| id <= *w)
            || (!self.rows.is_empty() && self.rows.contains(&(table.to_owned(), id, stamp)))
    }
}

pub struct Node {
    /// Names the private row; never used twice.
    pub uid: i64,
    pub id: NodeId,
    pub path: PathBuf,
    pub app: Connection,
    /// An application's transaction is open; the private count that it wrote.
    pub held: Option<Option<i64>>,
    pub replica: Option<Replica>,
    pub reader: Option<Connection>,
    /// The reader of a daemon that is gone: opening another one costs more than a step.
    pub spare_reader: Option<Connection>,
    /// What was last seen, and the data version that it was seen at.
    pub seen: Option<(i64, Rc<View>)>,
    /// Where its batches are cut.
    pub cutter: Cutter,
    /// Up to where its change logs are scanned.
    pub scanned: std::collections::HashMap<&'static str, i64>,
    /// Batches whose echo is not folded.
    pub sending: FlyingBatches,
    /// The last batch of this life whose echo was folded.
    pub echoed: BatchNumber,
    pub flying: Flying,
    /// In which tables the late column is there.
    pub late: Vec<bool>,
    /// The connection is a new one: the history is to be compared before anything is read.
    pub unverified: bool,
    /// The last batch that was read ahead at the start, and its fingerprint.
    pub ahead: (usize, u64),
    /// A planted bug: everything up to there counts as applied.
    #[cfg(feature = "planted-bugs")]
    pub skip_to: usize,
    /// Rises with each end of its daemon.
    pub life: u64,
    /// Whether its triggers are there: an application writes to no database without.
    pub captures: bool,
    /// It does not reach the broker.
    pub cut_off: bool,
    /// The sequence map was removed: it is to restore if it can.
    pub asked: bool,
    /// Whether others know of it, so that payload is kept for it.
    pub gate: Gate,
    /// What it comes to until it is what everybody has: it has begun from a snapshot.
    pub line: Option<Rc<Line>>,
    /// It stands still, and says why.
    pub halted: Option<String>,
    /// What the stream came to at its position, where the broker has lost that since.
    pub history: Option<State>,
    /// As configured.
    pub publish: bool,
    pub replicate: bool,
    /// With `replicate = false`: up to where the stream was read for echoes, and what was read there.
    pub read_at: (usize, u64),
    /// Up to there the stream must be folded before the node is its fold again: it has run with `replicate = false`.
    pub behind: usize,
    pub limits: Limits,
    /// The private count last committed here, since the file was last put back.
    pub last_own: Option<i64>,
    /// The private count that the stream had when the file was put back, if nothing in the file undoes it.
    pub floor: i64,
    /// The highest private count that was visible here.
    pub seen_own: i64,
}

/// The pragmas of the application's connection.
#[derive(Debug, Clone, Copy)]
pub struct AppOptions {
    pub foreign_keys: bool,
    pub recursive_triggers: bool,
}

pub fn open_app(path: &Path, options: AppOptions) -> Out<Connection> {
    let conn = Connection::open(path).map_err(|e| e.to_string())?;
    conn.busy_timeout(Duration::ZERO)
        .map_err(|e| e.to_string())?;
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA foreign_keys = {}; PRAGMA recursive_triggers = {};",
        options.foreign_keys, options.recursive_triggers
    ))
    .map_err(|e| e.to_string())?;
    conn.set_prepared_statement_cache_capacity(256);
    Ok(conn)
}

pub fn remove_file(path: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut p = path.as_os_str().to_owned();
        p.push(suffix);
        let _ = std::fs::remove_file(p);
    }
}

/// Whether a statement's failure is one that applications must live with.
pub fn is_refusal(e: &rusqlite::Error) -> bool {
    matches!(e, rusqlite::Error::SqliteFailure(f, _) if matches!(f.code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch))
}

/// Whether a change log is not there: `publish = false`.
pub fn is_no_table(e: &rusqlite::Error) -> bool {
    e.to_string().contains("no such table")
}

/// In which tables the late column is there.
pub fn late_columns(conn: &Connection, specs: &[TableSpec]) -> Out<Vec<bool>> {
    let there = |spec: &TableSpec| match &spec.late {
        None => Ok(true),
        Some(_) => conn
            .prepare_cached("SELECT count(*) FROM pragma_table_info(?1) WHERE name = 'late'")
            .and_then(|mut q| q.query_row([spec.name], |r| r.get::<_, i64>(0)))
            .map(|n| n > 0),
    };
    specs
        .iter()
        .map(|s| there(s).map_err(|e| e.to_string()))
        .collect()
}

/// All replicated tables as a connection sees them. Rows with NULL in their key are not replicated and left out.
pub fn read_state(conn: &Connection, specs: &[TableSpec], late: &[bool]) -> Out<State> {
    let mut out = State::default();
    for (spec, late) in specs.iter().zip(late) {
        let mut rows = Rows::new();
        let mut stmt = conn
            .prepare_cached(&spec.select(*late))
            .map_err(|e| e.to_string())?;
        let n = stmt.column_count();
        let mut found = stmt.query([]).map_err(|e| e.to_string())?;
        while let Some(row) = found.next().map_err(|e| e.to_string())? {
            let mut row: Vec<Val> = (0..n)
                .map(|i| row.get_ref(i).map(val))
                .collect::<Result<_, _>>()
                .map_err(|e| e.to_string())?;
            if !late {
                spec.widen(&mut row, None);
            }
            let key = spec.key_of(&row);
            if !key.contains(&Val::Null) && rows.insert(key, row).is_some() {
                return Err(format!("table {} holds one key twice", spec.name));
            }
        }
        out.tables.push(Rc::new(rows));
    }
    Ok(out)
}

/// What the change log of a table says, by key.
pub fn read_pending(conn: &Connection, spec: &TableSpec, flying: &Flying) -> Out<PendingRows> {
    let keys: Vec<String> = spec
        .key_names()
        .iter()
        .map(|k| format!("val_{k}"))
        .collect();
    // What triggers of an older generation logged may have changed columns that they do not know.
    let sql = format!(
        "SELECT type, mask, id, stamp, CASE WHEN type <> 2 THEN 0
         WHEN generation <> (SELECT t.generation FROM __harmonylite__tables t WHERE t.table_name = '{name}') THEN 1
         WHEN NOT EXISTS(SELECT 1 FROM __harmonylite__tables t WHERE t.table_name = '{name}' AND t.columns GLOB '*late*') THEN 2 ELSE 0 END, {} FROM __harmonylite__{name}_change_log WHERE type <> 3 ORDER BY id",
        keys.join(", "),
        name = spec.name
    );
    let mut out = PendingRows::new();
    let mut stmt = match conn.prepare_cached(&sql) {
        Ok(stmt) => stmt,
        // `publish = false`: there is no change log.
        Err(e) if is_no_table(&e) => return Ok(out),
        Err(e) => return Err(e.to_string()),
    };
    let mut rows = stmt.query([]).map_err(|e| e.to_string())?;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break,
            Err(e) if is_no_table(&e) => break,
            Err(e) => return Err(e.to_string()),
        };
        let get = |i: usize| row.get::<_, i64>(i).map_err(|e| e.to_string());
        let (kind, mask) = (get(0)?, get(1)?);
        let key: Vec<Val> = (0..keys.len())
            .map(|i| row.get_ref(i + 5).map(val))
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        let key = spec.normal(&key);
        if key.contains(&Val::Null) {
            continue;
        }
        let before = out.get(&key).copied();
        // A row that was written whole since may be given up, whatever is on its way of it.
        let sent = flying.has(spec.name, get(2)?, get(3)?);
        let (kind, mask) = match get(4)? {
            1 => (1, mask),
            // Triggers of before the late column have not seen it change.
            2 if spec.late.is_some() => (kind, mask | 1 << (spec.columns.len() - 1).min(62)),
            _ => (kind, mask),
        };
        let flies = sent || (before.is_some_and(|b| b.1) && kind == 2);
        out.insert(key, (Pending::then(before.map(|b| b.0), kind, mask), flies));
    }
    Ok(out)
}

/// The newest id of each change log.
pub fn newest_ids(
    conn: &Connection,
    specs: &[TableSpec],
) -> Out<std::collections::HashMap<&'static str, i64>> {
    specs
        .iter()
        .map(|s| {
            let sql = format!(
                "SELECT coalesce(max(id), 0) FROM __harmonylite__{}_change_log",
                s.name
            );
            let id = conn
                .prepare_cached(&sql)
                .and_then(|mut q| q.query_row([], |r| r.get(0)));
            match id {
                Ok(id) => Ok((s.name, id)),
                Err(e) if is_no_table(&e) => Ok((s.name, 0)),
                Err(e) => Err(e.to_string()),
            }
        })
        .collect()
}

pub fn view(conn: &Connection, specs: &[TableSpec], late: &[bool], flying: &Flying) -> Out<View> {
    conn.execute_batch("BEGIN").map_err(|e| e.to_string())?;
    let state = read_state(conn, specs, late);
    let pending: Out<Vec<_>> = specs
        .iter()
        .map(|s| read_pending(conn, s, flying))
        .collect();
    conn.execute_batch("COMMIT").map_err(|e| e.to_string())?;
    Ok(View {
        state: state?,
        pending: pending?,
    })
}

/// The private count of a node in a state.
pub fn private_count(specs: &[TableSpec], state: &State, uid: i64) -> i64 {
    let at = specs
        .iter()
        .position(|s| s.name == PRIVATE)
        .expect("the private table");
    match state.tables[at].get(&vec![Val::Int(uid)]).map(|r| &r[1]) {
        Some(Val::Int(n)) => *n,
        _ => 0,
    }
}

impl Node {
    /// Echoes were taken.
    pub fn came_back(&mut self, echoes: &[BatchNumber]) {
        let last = echoes.iter().copied().max().unwrap_or_default();
        self.echoed = self.echoed.max(last);
    }

    /// The tables and change logs as the daemon's reader sees them.
    pub fn look(&mut self, specs: &[TableSpec]) -> Out<Rc<View>> {
        let reader = self.reader.as_ref().ok_or("no reader")?;
        let version = data_version(reader).map_err(|e| e.to_string())?;
        if let Some((at, seen)) = &self.seen
            && *at == version
        {
            return Ok(Rc::clone(seen));
        }
        let seen = Rc::new(view(reader, specs, &self.late, &self.flying)?);
        self.seen = Some((version, Rc::clone(&seen)));
        Ok(seen)
    }

    /// At the end of a run nobody needs a checkpoint.
    pub fn close_quickly(&mut self) {
        let quick = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        let writer = self.replica.as_mut().map(|r| &*r.writer());
        let others = [self.reader.as_ref(), self.spare_reader.as_ref(), writer];
        for conn in others.into_iter().flatten().chain([&self.app]) {
            let _ = conn.set_db_config(quick, true);
        }
    }

    pub fn position(&self) -> usize {
        self.replica
            .as_ref()
            .map_or(0, |r| r.position().sequence.0 as usize)
    }

    /// Whether the application's tables are there: not in a database that is empty yet.
    pub fn has_tables(&self) -> Out<bool> {
        let sql = format!("SELECT EXISTS(SELECT 1 FROM sqlite_schema WHERE name = '{PRIVATE}')");
        self.app
            .query_row(&sql, [], |r| r.get(0))
            .map_err(|e| e.to_string())
    }

    /// How far the file is folded.
    pub fn stored_position(&self) -> Out<usize> {
        // Not by the application's connection, which would keep what it reads for a transaction that it has begun.
        let conn = open_reader(&self.path).map_err(|e| e.to_string())?;
        conn.query_row("SELECT position FROM __harmonylite__node", [], |r| {
            r.get::<_, i64>(0)
        })
        .map(|n| n as usize)
        .or_else(|e| {
            if is_no_table(&e) {
                Ok(0)
            } else {
                Err(e.to_string())
            }
        })
    }

    /// The messages of batches in flight that were made and may still arrive, once their publisher is gone.
    pub fn abandon(&mut self) -> Vec<(ShardId, Bytes)> {
        let mut out = Vec::new();
        if let Some(flying) = self.sending.unacknowledged() {
            for piece in flying.outbox.missing() {
                if let Ok(Some(message)) = flying.outbox.piece(piece) {
                    out.push(message);
                }
            }
            if let Some(record) = flying.outbox.commit() {
                out.push((ShardId::ORDER, record));
            }
        }
        self.sending.clear();
        out
    }
}
