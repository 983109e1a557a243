//! Writing back what lost: a change like one of the app's, so that it reaches every node and whatever is there by then loses to it in turn.
//!
//! Invariants: one transaction, or nothing; nothing but the row in question is written, no other row is displaced; a generated column is left to
//! SQLite; what was written back is marked in the journal in the same transaction.

use rusqlite::{Connection, params, params_from_iter};

use super::{Cell, Conflict, RestoreError, find};
use crate::change::table::{Table, TableKey};
use crate::change::value::OwnedValue;
use crate::journals::target::{
    captured_table, key_places, key_values, nothing_in_the_way, row, shown,
};
use crate::journals::{JournalError, in_transaction};
use crate::sqlite::error::{Doing, Fault, SqliteError, fault_of};
use crate::sqlite::ident::quote;
use crate::sqlite::row_sql;
use crate::state::journal::rfc3339;

/// How to write a conflict back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct How {
    /// These columns only; empty: all of the conflict.
    pub columns: Vec<String>,
    /// As a row of its own, whatever became of the old one.
    pub as_new_row: bool,
    /// The key of the new row, one value a column; empty: SQLite chooses it.
    pub key: Vec<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// The table.
    pub table: String,
    /// The row's key, as SQL literals with commas.
    pub key: String,
    /// Whether the row was inserted, not updated.
    pub is_new: bool,
    /// What was written, by column.
    pub values: Vec<(String, OwnedValue)>,
}

/// Writes a conflict back, in a transaction of its own.
///
/// # Errors
/// See [`RestoreError`]; nothing is changed then.
pub fn restore(conn: &Connection, id: i64, how: &How) -> Result<Restored, RestoreError> {
    in_transaction(conn, || restore_here(conn, id, how))
}

fn restore_here(conn: &Connection, id: i64, how: &How) -> Result<Restored, RestoreError> {
    let conflict = find(conn, id)
        .map_err(JournalError::from)?
        .ok_or(JournalError::Unknown {
            kind: "conflict",
            id,
            remedy: "conflicts list shows their ids",
        })?;
    let cells = chosen(&conflict, how)?;
    let table = captured_table(conn, &conflict.table)?;
    let places = places(&table, &cells)?;
    let old_key = key_values(&conflict.key)?;
    let here = row(conn, &table, &old_key).map_err(JournalError::from)?;
    let restored = match here {
        _ if how.as_new_row => as_new_row(conn, &table, &places, how)?,
        Some(here) => update(conn, &table, &places, &here, &old_key)?,
        None => put_back(conn, &table, &places, &conflict, &old_key)?,
    };
    for cell in &cells {
        conn.execute(
            "UPDATE __harmonylite__conflicts SET restored = ?1 WHERE id BETWEEN ?2 AND ?3 AND column_name = ?4",
            params![
                rfc3339(time::OffsetDateTime::now_utc()),
                conflict.id,
                conflict.last,
                cell.column
            ],
        )
        .doing("mark the conflict as restored")
        .map_err(JournalError::from)?;
    }
    Ok(restored)
}

/// The values to write: those that were asked for, else those that were not written back before.
fn chosen<'c>(conflict: &'c Conflict, how: &How) -> Result<Vec<&'c Cell>, RestoreError> {
    if how.columns.is_empty() {
        let left: Vec<&Cell> = match how.as_new_row {
            // A new row has all there is.
            true if !conflict.is_restored() => conflict.cells.iter().collect(),
            _ => conflict
                .cells
                .iter()
                .filter(|c| c.restored.is_none())
                .collect(),
        };
        if left.is_empty() {
            let last = conflict
                .cells
                .iter()
                .filter_map(|c| c.restored.clone())
                .max();
            return Err(RestoreError::Already {
                id: conflict.id,
                time: last.unwrap_or_default(),
            });
        }
        return Ok(left);
    }
    how.columns
        .iter()
        .map(|name| {
            let same = |c: &&Cell| c.column.eq_ignore_ascii_case(name);
            conflict
                .cells
                .iter()
                .find(same)
                .ok_or_else(|| RestoreError::NoColumn {
                    column: name.clone(),
                    problem: "is not part of this conflict",
                    known: conflict.columns().join(", "),
                })
        })
        .collect()
}

/// Each value with the place of its column in the table as it is now.
fn places<'c>(table: &Table, cells: &[&'c Cell]) -> Result<Vec<(usize, &'c Cell)>, RestoreError> {
    cells
        .iter()
        .map(|cell| match table.column(&cell.column) {
            Some(at) => Ok((at, *cell)),
            None => Err(RestoreError::NoColumn {
                column: cell.column.clone(),
                problem: "is not in the table any more; name the others with --column",
                known: cells
                    .iter()
                    .map(|c| c.column.as_str())
                    .filter(|c| table.column(c).is_some())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        })
        .collect()
}

/// The row is there: its key stays, the other values become what lost.
fn update(
    conn: &Connection,
    table: &Table,
    places: &[(usize, &Cell)],
    here: &[OwnedValue],
    key: &[OwnedValue],
) -> Result<Restored, RestoreError> {
    let in_key = key_places(table);
    let changed: Vec<&(usize, &Cell)> = places
        .iter()
        .filter(|(at, _)| !in_key.contains(at))
        .collect();
    let offset = usize::from(matches!(table.key, TableKey::Rowid(_)));
    let mut values: Vec<Option<OwnedValue>> = here.iter().skip(offset).cloned().map(Some).collect();
    for (at, cell) in &changed {
        if let Some(slot) = values.get_mut(*at) {
            *slot = Some(cell.value.clone());
        }
    }
    nothing_in_the_way(conn, table, &values, key)?;
    if !changed.is_empty() {
        let sets: Vec<String> = changed
            .iter()
            .enumerate()
            .map(|(n, (_, cell))| format!("{} = ?{}", quote(&cell.column), n + 1))
            .collect();
        let sql = format!(
            "UPDATE {} SET {} WHERE {}",
            quote(&table.name),
            sets.join(", "),
            row_sql::key_is(table, changed.len() + 1)
        );
        let bound = changed.iter().map(|(_, c)| &c.value).chain(key);
        write(conn, table, &sql, bound)?;
    }
    Ok(Restored {
        table: table.name.clone(),
        key: shown(key),
        is_new: false,
        values: changed
            .iter()
            .map(|(_, c)| (c.column.clone(), c.value.clone()))
            .collect(),
    })
}

/// The row is gone: a whole one comes back under its own key.
fn put_back(
    conn: &Connection,
    table: &Table,
    places: &[(usize, &Cell)],
    conflict: &Conflict,
    key: &[OwnedValue],
) -> Result<Restored, RestoreError> {
    let keyless = key.len() != table.key_len() || key.iter().any(|v| v.as_value().is_null());
    let in_key = key_places(table);
    let is_whole = (0..table.columns.len())
        .filter(|at| !in_key.contains(at))
        .all(|at| places.iter().any(|(p, _)| *p == at));
    if keyless || !is_whole {
        return Err(RestoreError::RowGone {
            table: table.name.clone(),
            key: conflict.key.clone(),
        });
    }
    insert(conn, table, places, key)
}

/// A row of its own, under a key that SQLite or the operator chooses.
fn as_new_row(
    conn: &Connection,
    table: &Table,
    places: &[(usize, &Cell)],
    how: &How,
) -> Result<Restored, RestoreError> {
    let chosen_here = table.integer_key || matches!(table.key, TableKey::Rowid(_));
    if how.key.is_empty() && chosen_here {
        return insert(conn, table, places, &[]);
    }
    if how.key.len() != table.key_len() {
        let columns = table.key_names();
        let example: Vec<String> = columns.iter().map(|c| c.to_uppercase()).collect();
        return Err(RestoreError::KeyNeeded {
            table: table.name.clone(),
            columns: columns.join(", "),
            example: example.join(","),
        });
    }
    let key: Vec<OwnedValue> = how.key.iter().map(|text| key_value(text)).collect();
    if row(conn, table, &key)
        .map_err(JournalError::from)?
        .is_some()
    {
        return Err(RestoreError::KeyTaken {
            table: table.name.clone(),
            key: shown(&key),
        });
    }
    insert(conn, table, places, &key)
}

/// A part of a key as an operator writes it: bytes as SQL does (`x'00ff'`), anything else as text, of which the column's affinity makes a number where the
/// column is of numbers.
fn key_value(text: &str) -> OwnedValue {
    match key_values(text).map(<[OwnedValue; 1]>::try_from) {
        Ok(Ok([bytes @ OwnedValue::Blob(_)])) => bytes,
        _ => OwnedValue::Text(text.as_bytes().into()),
    }
}

/// Inserts the values under this key; an empty one leaves the choice to SQLite.
fn insert(
    conn: &Connection,
    table: &Table,
    places: &[(usize, &Cell)],
    key: &[OwnedValue],
) -> Result<Restored, RestoreError> {
    let in_key = key_places(table);
    let mut names: Vec<String> = Vec::new();
    let mut bound: Vec<&OwnedValue> = Vec::new();
    let mut values: Vec<Option<OwnedValue>> = vec![None; table.columns.len()];
    if !key.is_empty() {
        names.extend(table.key_names().iter().map(|k| quote(k)));
        bound.extend(key);
        for (at, value) in in_key.iter().zip(key) {
            if let Some(slot) = values.get_mut(*at) {
                *slot = Some(value.clone());
            }
        }
    }
    let others: Vec<&(usize, &Cell)> = places
        .iter()
        .filter(|(at, _)| !in_key.contains(at))
        .collect();
    for (at, cell) in &others {
        names.push(quote(&cell.column));
        bound.push(&cell.value);
        if let Some(slot) = values.get_mut(*at) {
            *slot = Some(cell.value.clone());
        }
    }
    nothing_in_the_way(conn, table, &values, key)?;
    let params: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
    let sql = if names.is_empty() {
        format!("INSERT INTO {} DEFAULT VALUES", quote(&table.name))
    } else {
        format!(
            "INSERT INTO {}({}) VALUES({})",
            quote(&table.name),
            names.join(", "),
            params.join(", ")
        )
    };
    write(conn, table, &sql, bound.into_iter())?;
    let key = if key.is_empty() {
        vec![OwnedValue::Integer(conn.last_insert_rowid())]
    } else {
        key.to_vec()
    };
    Ok(Restored {
        table: table.name.clone(),
        key: shown(&key),
        is_new: true,
        values: others
            .iter()
            .map(|(_, c)| (c.column.clone(), c.value.clone()))
            .collect(),
    })
}

/// Writes one row; SQLite's refusal names the table.
pub(in crate::journals) fn write<'v>(
    conn: &Connection,
    table: &Table,
    sql: &str,
    values: impl Iterator<Item = &'v OwnedValue>,
) -> Result<(), RestoreError> {
    let written = conn.execute(sql, params_from_iter(values));
    match written {
        Ok(0) => Err(RestoreError::Ignored(table.name.clone())),
        Ok(_) => Ok(()),
        Err(e) if fault_of(&e) == Fault::Busy => Err(JournalError::Locked.into()),
        Err(source) => Err(RestoreError::Refused {
            table: table.name.clone(),
            source: SqliteError {
                doing: "SQLite says".to_owned(),
                source,
            },
        }),
    }
}

#[cfg(test)]
mod tests;
