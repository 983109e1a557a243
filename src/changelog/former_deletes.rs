//! Deletes that were logged under a key that the table had before (see [`crate::capture::rekey`]): they are sent under that key, since nobody knows the rows' new one.
//!
//! Invariant: they stand before everything else in the batch, as all deletes do, so that a row that was written since under the same former key is not meant.

use rusqlite::Connection;

use super::in_flight::InFlight;
use super::scan::Range;
use crate::capture::CapturedTable;
use crate::capture::rekey::former_column;
use crate::change::key::{Collation, KeyBytes, push_normal};
use crate::change::value::Value;
use crate::codec::batch::BatchWriter;
use crate::codec::commit::TableDefinition;
use crate::sqlite::error::Doing;
use crate::sqlite::value::from_sql;

/// The definitions under which such deletes are sent.
pub(super) struct FormerDeletes {
    /// How many tables stand before them in the batch.
    after: usize,
    pub tables: Vec<TableDefinition>,
}

impl FormerDeletes {
    pub const fn after(tables: usize) -> Self {
        Self {
            after: tables,
            tables: Vec::new(),
        }
    }

    /// Writes those of one table.
    pub fn scan(
        &mut self,
        reader: &Connection,
        range: &Range<'_>,
        in_flight: &InFlight,
        writer: &mut BatchWriter,
    ) -> Result<(), super::scan::ScanError> {
        let table = range.table;
        let Some(condition) = table.is_under_former_key() else {
            return Ok(());
        };
        let doing = || {
            format!(
                "read deletes of table \"{}\" under its former key",
                table.table.name
            )
        };
        let columns: Vec<String> = table
            .former_logged
            .iter()
            .map(|c| former_column(c))
            .collect();
        let mut stmt = reader
            .prepare_cached(&format!(
                "SELECT id, stamp, {} FROM {} WHERE id > ?1 AND id <= ?2 AND {condition} ORDER BY id",
                columns.join(", "),
                table.log
            ))
            .doing_with(doing)?;
        let mut rows = stmt.query([range.from, range.to]).doing_with(doing)?;
        while let Some(row) = rows.next().doing_with(doing)? {
            let (id, stamp): (i64, i64) = row
                .get(0)
                .and_then(|id| Ok((id, row.get(1)?)))
                .doing_with(doing)?;
            if in_flight.is_ahead(&table.table.name, id, stamp as u32) {
                continue;
            }
            let values: Vec<Value<'_>> = (0..columns.len())
                .map(|i| row.get_ref(2 + i).map(from_sql))
                .collect::<Result<_, _>>()
                .doing_with(doing)?;
            let logged: Vec<(&str, Value<'_>)> = table
                .former_logged
                .iter()
                .map(String::as_str)
                .zip(values)
                .filter(|(_, v)| !v.is_null())
                .collect();
            let Some(names) = key_of(table, &logged) else {
                continue;
            };
            let key: Vec<Value<'_>> = names
                .iter()
                .filter_map(|name| logged.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)))
                .map(|(_, v)| *v)
                .collect();
            let index = self.index(table, names);
            writer.delete(&table.table.name, index, &key)?;
        }
        Ok(())
    }

    /// The place of the definition with this key among the batch's tables. It has the columns of the key of now, too: what tells the one key by the other must be in the batch.
    fn index(&mut self, table: &CapturedTable, key: Vec<String>) -> u32 {
        let mut columns = key;
        let key = (0..columns.len() as u64).collect();
        for now in table.table.key_names() {
            if !columns.iter().any(|c| c.eq_ignore_ascii_case(now)) {
                columns.push(now.to_owned());
            }
        }
        let definition = TableDefinition {
            name: table.table.name.clone(),
            columns,
            key,
            uniques: Vec::new(),
        };
        let at = self
            .tables
            .iter()
            .position(|t| *t == definition)
            .unwrap_or_else(|| {
                self.tables.push(definition);
                self.tables.len() - 1
            });
        u32::try_from(self.after + at).unwrap_or(u32::MAX)
    }
}

/// The former key whose columns these are, in its order.
fn key_of(table: &CapturedTable, logged: &[(&str, Value<'_>)]) -> Option<Vec<String>> {
    table.formerly.keys().find(|key| {
        key.len() == logged.len()
            && key
                .iter()
                .all(|k| logged.iter().any(|(n, _)| n.eq_ignore_ascii_case(k)))
    })
}

/// Those that are in the log behind an id, by the former key: the id of the last of each.
pub(super) fn read(
    conn: &Connection,
    table: &CapturedTable,
    after: i64,
) -> rusqlite::Result<Vec<(KeyBytes, i64)>> {
    let Some(condition) = table.is_under_former_key() else {
        return Ok(Vec::new());
    };
    let columns: Vec<String> = table
        .former_logged
        .iter()
        .map(|c| former_column(c))
        .collect();
    let mut stmt = conn.prepare_cached(&format!(
        "SELECT id, {} FROM {} WHERE id > ?1 AND {condition} ORDER BY id",
        columns.join(", "),
        table.log
    ))?;
    stmt.query_map([after], |row| {
        let mut logged = Vec::new();
        for (i, name) in table.former_logged.iter().enumerate() {
            let value = from_sql(row.get_ref(1 + i)?);
            if !value.is_null() {
                logged.push((name.to_ascii_lowercase(), value));
            }
        }
        Ok((normal(logged), row.get(0)?))
    })?
    .collect()
}

/// What a row with these values is called by a former key; `None` where it has none.
pub(super) fn former_key<'v>(
    table: &CapturedTable,
    key: &[String],
    values: &impl Fn(usize) -> Option<Value<'v>>,
) -> Option<KeyBytes> {
    let value = |name: &String| {
        let now = table.formerly.column(name).flatten().unwrap_or(name);
        let value = values(table.table.column(now)?)?;
        (!value.is_null()).then(|| (name.clone(), value))
    };
    key.iter().map(value).collect::<Option<_>>().map(normal)
}

/// By name, so that the order does not matter in which the log has them.
fn normal(mut key: Vec<(String, Value<'_>)>) -> KeyBytes {
    key.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut out = KeyBytes::new();
    for (name, value) in &key {
        push_normal(&mut out, &Value::Text(name.as_bytes()), Collation::Binary);
        push_normal(&mut out, value, Collation::Binary);
    }
    out
}
