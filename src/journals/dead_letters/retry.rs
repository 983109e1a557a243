//! Writing a dead letter's rows, now that they can be read: as changes of this node, so that all nodes get them at the same place of the stream.
//!
//! Invariants: one transaction, or nothing; no other row is displaced; the letter leaves the journal with the write.

use rusqlite::Connection;

use super::{Reading, find, read_again};
use crate::apply::incoming::IncomingBatch;
use crate::change::operation::ColumnMask;
use crate::change::table::{Table, TableKey};
use crate::change::value::{OwnedValue, Value};
use crate::codec::commit::TableDefinition;
use crate::codec::rows::{RowOp, RowReader};
use crate::journals::conflicts::{RestoreError, write};
use crate::journals::target::{captured_table, key_places, nothing_in_the_way, row};
use crate::journals::{JournalError, in_transaction};
use crate::sqlite::error::Doing;
use crate::sqlite::ident::{quote, quote_list};
use crate::sqlite::row_sql;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retried {
    /// Rows inserted, updated or deleted.
    pub rows: usize,
    /// Updates and deletes of rows that are not here: nothing.
    pub absent: usize,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// It still cannot be read, or has no rows of its own.
    #[error("dead letter {id} still cannot be applied: {reason}")]
    Unreadable {
        /// Its number.
        id: i64,
        /// Why.
        reason: String,
    },
    /// A table has another key here.
    #[error(
        "table \"{table}\" has another primary key here than where the message comes from: nothing was written"
    )]
    OtherKey {
        /// The table.
        table: String,
    },
    /// A row could not be written.
    #[error(transparent)]
    Row(#[from] RestoreError),
}

impl From<JournalError> for RetryError {
    fn from(error: JournalError) -> Self {
        Self::Row(error.into())
    }
}

/// Writes a dead letter's rows in a transaction of its own.
///
/// # Errors
/// See [`RetryError`]; nothing is changed then.
pub fn retry(conn: &Connection, id: i64) -> Result<Retried, RetryError> {
    in_transaction(conn, || {
        let (letter, bytes) = find(conn, id)?;
        let batch = match read_again(&letter, &bytes) {
            Reading::Batch(batch) => batch,
            Reading::Record(_, reason) | Reading::Nothing(reason) => {
                return Err(RetryError::Unreadable { id, reason });
            }
        };
        // Rows stand in the order of their tables, so a child may come before its parent: they are looked at when all are there.
        conn.execute_batch("PRAGMA defer_foreign_keys = ON")
            .doing("put foreign keys off until the commit")
            .map_err(JournalError::from)?;
        let done = write_rows(conn, id, &batch)?;
        conn.execute(
            "DELETE FROM __harmonylite__dead_letters WHERE id = ?1",
            [id],
        )
        .doing("take the dead letter out of its journal")
        .map_err(JournalError::from)?;
        Ok(done)
    })
}

fn write_rows(conn: &Connection, id: i64, batch: &IncomingBatch) -> Result<Retried, RetryError> {
    let definitions = &batch.record.tables;
    let tables: Vec<Table> = definitions
        .iter()
        .map(|d| table_of(conn, d))
        .collect::<Result<_, _>>()?;
    let mut done = Retried { rows: 0, absent: 0 };
    let mut reader = RowReader::new(&batch.record.rows, definitions);
    let mut values = Vec::new();
    loop {
        let next = reader
            .next(&mut values)
            .map_err(|e| RetryError::Unreadable {
                id,
                reason: e.to_string(),
            })?;
        let Some((at, op)) = next else {
            return Ok(done);
        };
        let (Some(table), Some(definition)) =
            (tables.get(at as usize), definitions.get(at as usize))
        else {
            continue;
        };
        if one(conn, table, definition, op, &values)? {
            done.rows += 1;
        } else {
            done.absent += 1;
        }
    }
}

/// The table here, which must have the message's columns and key.
fn table_of(conn: &Connection, definition: &TableDefinition) -> Result<Table, RetryError> {
    let table = captured_table(conn, &definition.name)?;
    for column in &definition.columns {
        let same = |c: &&crate::change::table::Column| c.name.eq_ignore_ascii_case(column);
        if !table.columns.iter().any(|c| same(&c)) {
            let known: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            return Err(RestoreError::NoColumn {
                column: column.clone(),
                problem: "is not in the table here: run the same ALTER TABLE as on the node that wrote it",
                known: known.join(", "),
            }
            .into());
        }
    }
    let there: Vec<&str> = definition
        .key
        .iter()
        .filter_map(|k| definition.columns.get(usize::try_from(*k).ok()?))
        .map(String::as_str)
        .collect();
    let here = match table.key {
        TableKey::Columns(_) => table.key_names(),
        TableKey::Rowid(_) => Vec::new(),
    };
    let same = there.len() == here.len()
        && there
            .iter()
            .zip(&here)
            .all(|(a, b)| a.eq_ignore_ascii_case(b));
    if same {
        Ok(table)
    } else {
        Err(RetryError::OtherKey {
            table: definition.name.clone(),
        })
    }
}

/// Does one row's operation; whether there was anything to do.
fn one(
    conn: &Connection,
    table: &Table,
    definition: &TableDefinition,
    op: RowOp,
    values: &[Value<'_>],
) -> Result<bool, RetryError> {
    let owned = |values: &[Value<'_>]| values.iter().map(Value::to_owned).collect::<Vec<_>>();
    let key = owned(&definition.key_of(op, values));
    let rest = match op {
        RowOp::Delete => Vec::new(),
        RowOp::Cells(mask) => {
            let cells = values.get(definition.key_len()..).unwrap_or_default();
            cells_of(definition, mask, cells)
        }
        RowOp::Whole => {
            let columns = values
                .get(usize::from(definition.key.is_empty())..)
                .unwrap_or_default();
            let all = definition.columns.iter().zip(columns);
            all.map(|(name, v)| (name.as_str(), v.to_owned())).collect()
        }
    };
    let here = row(conn, table, &key).map_err(JournalError::from)?;
    let sql_key = |first| row_sql::key_is(table, first);
    match (op, here) {
        (RowOp::Delete | RowOp::Cells(_), None) => Ok(false),
        (RowOp::Delete, Some(_)) => {
            let sql = format!("DELETE FROM {} WHERE {}", quote(&table.name), sql_key(1));
            write(conn, table, &sql, key.iter())?;
            Ok(true)
        }
        (_, here) => {
            let offset = usize::from(matches!(table.key, TableKey::Rowid(_)));
            let mut merged: Vec<Option<OwnedValue>> = match &here {
                Some(here) => here.iter().skip(offset).cloned().map(Some).collect(),
                None => vec![None; table.columns.len()],
            };
            for (name, value) in &rest {
                let place = table.column(name);
                if let Some(slot) = place.and_then(|p| merged.get_mut(p)) {
                    *slot = Some(value.clone());
                }
            }
            nothing_in_the_way(
                conn,
                table,
                &merged,
                if here.is_some() { &key } else { &[] },
            )?;
            put(conn, table, here.is_some(), &key, &rest)?;
            Ok(true)
        }
    }
}

fn cells_of<'d>(
    definition: &'d TableDefinition,
    mask: ColumnMask,
    cells: &[Value<'_>],
) -> Vec<(&'d str, OwnedValue)> {
    mask.columns()
        .filter_map(|c| definition.columns.get(c))
        .zip(cells)
        .map(|(name, v)| (name.as_str(), v.to_owned()))
        .collect()
}

/// Inserts or updates one row.
fn put(
    conn: &Connection,
    table: &Table,
    is_here: bool,
    key: &[OwnedValue],
    values: &[(&str, OwnedValue)],
) -> Result<(), RetryError> {
    let in_key = key_places(table);
    let is_key = |name: &str| table.column(name).is_some_and(|c| in_key.contains(&c));
    let others: Vec<&(&str, OwnedValue)> = values.iter().filter(|(n, _)| !is_key(n)).collect();
    if is_here {
        if others.is_empty() {
            return Ok(());
        }
        let sets: Vec<String> = others
            .iter()
            .enumerate()
            .map(|(n, (name, _))| format!("{} = ?{}", quote(name), n + 1))
            .collect();
        let sql = format!(
            "UPDATE {} SET {} WHERE {}",
            quote(&table.name),
            sets.join(", "),
            row_sql::key_is(table, others.len() + 1)
        );
        write(conn, table, &sql, others.iter().map(|(_, v)| v).chain(key))?;
    } else {
        let names = table
            .key_names()
            .into_iter()
            .chain(others.iter().map(|(n, _)| *n));
        let count = key.len() + others.len();
        let params: Vec<String> = (1..=count).map(|n| format!("?{n}")).collect();
        let sql = format!(
            "INSERT INTO {}({}) VALUES({})",
            quote(&table.name),
            quote_list(names),
            params.join(", ")
        );
        write(
            conn,
            table,
            &sql,
            key.iter().chain(others.iter().map(|(_, v)| v)),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
