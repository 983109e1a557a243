//! Where values are written to: the table as it is now, the row, and what stands in the way.

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::conflicts::RestoreError;
use crate::capture::layout;
use crate::capture::unique_sql::collides_with_terms;
use crate::change::literal::{sql_literal, sql_literals};
use crate::change::table::{Table, TableKey, UniqueIndex};
use crate::change::value::{OwnedValue, Value};
use crate::journals::JournalError;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::{quote, quote_list};
use crate::sqlite::introspect::read_schema;
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;

/// The table of this name, which must be captured: what is written to it would stay on this node otherwise.
pub(super) fn captured_table(conn: &Connection, name: &str) -> Result<Table, RestoreError> {
    let schema = read_schema(conn).map_err(JournalError::from)?;
    let table = schema
        .table(name)
        .cloned()
        .ok_or_else(|| RestoreError::NoTable(name.to_owned()))?;
    for what in ["insert", "update", "delete"] {
        let there: bool = conn
            .query_row(
                "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1 COLLATE NOCASE AND tbl_name = ?2 COLLATE NOCASE)",
                [&layout::trigger(&table.name, what), &table.name],
                |r| r.get(0),
            )
            .doing("look for the capture triggers")
            .map_err(JournalError::from)?;
        if !there {
            return Err(RestoreError::NotCaptured(table.name));
        }
    }
    Ok(table)
}

/// The values of a key that the journal holds as SQL literals.
///
/// They are evaluated by a database of their own, in memory, where there is nothing that any SQL could read or change.
pub(super) fn key_values(literals: &str) -> Result<Vec<OwnedValue>, JournalError> {
    const DOING: &str = "read the key of a conflict";
    let alone = Connection::open_in_memory().doing(DOING)?;
    let mut stmt = alone.prepare(&format!("SELECT {literals}")).doing(DOING)?;
    let count = stmt.column_count();
    Ok(stmt
        .query_row([], |row| {
            (0..count)
                .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
                .collect()
        })
        .doing(DOING)?)
}

/// The row with this key, in the order of [`row_sql::whole_names`].
pub(super) fn row(
    conn: &Connection,
    table: &Table,
    key: &[OwnedValue],
) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
    if key.len() != table.key_len() {
        return Ok(None);
    }
    let doing = || format!("read a row of table \"{}\"", table.name);
    let mut stmt = conn
        .prepare(&row_sql::select_whole(table))
        .doing_with(doing)?;
    let count = stmt.column_count();
    stmt.query_row(params_from_iter(key), |row| {
        (0..count)
            .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect()
    })
    .optional()
    .doing_with(doing)
}

/// The place of each key column among the columns; none for a rowid.
pub(super) fn key_places(table: &Table) -> Vec<usize> {
    match &table.key {
        TableKey::Columns(columns) => columns.iter().map(|(i, _)| *i).collect(),
        TableKey::Rowid(_) => Vec::new(),
    }
}

/// That no other row holds a UNIQUE value of the row that is about to be written. `values`: of all columns, in their order; `key`: of the row itself,
/// empty for a new one. What an index on an expression refuses, SQLite says.
pub(super) fn nothing_in_the_way(
    conn: &Connection,
    table: &Table,
    values: &[Option<OwnedValue>],
    key: &[OwnedValue],
) -> Result<(), RestoreError> {
    for index in table.uniques.iter().filter(|i| i.is_plain()) {
        let terms: Option<Vec<OwnedValue>> = index
            .terms
            .iter()
            .map(|t| values.get(t.column?)?.clone())
            .collect();
        let Some(terms) = terms else { continue };
        let others = holders(conn, table, index, &terms, key).map_err(JournalError::from)?;
        if let Some(other) = others.first() {
            let taken: Vec<Value<'_>> = terms.iter().map(OwnedValue::as_value).collect();
            let other: Vec<Value<'_>> = other.iter().map(OwnedValue::as_value).collect();
            return Err(RestoreError::Taken {
                table: table.name.clone(),
                columns: index
                    .terms
                    .iter()
                    .filter_map(|t| table.columns.get(t.column?))
                    .map(|c| c.name.clone())
                    .collect::<Vec<_>>()
                    .join(", "),
                value: sql_literals(&taken),
                other: sql_literals(&other),
            });
        }
    }
    Ok(())
}

/// The keys of the rows other than this one that hold these terms of an index.
fn holders(
    conn: &Connection,
    table: &Table,
    index: &UniqueIndex,
    terms: &[OwnedValue],
    key: &[OwnedValue],
) -> Result<Vec<Vec<OwnedValue>>, SqliteError> {
    let doing = || format!("look for rows in the way on index \"{}\"", index.name);
    let names = quote_list(table.key_names());
    let mut sql = format!(
        "SELECT {names} FROM {} WHERE {}",
        quote(&table.name),
        collides_with_terms(index)
    );
    if !key.is_empty() {
        sql.push_str(&format!(
            " AND NOT ({})",
            row_sql::key_is(table, terms.len() + 1)
        ));
    }
    let mut stmt = conn.prepare(&sql).doing_with(doing)?;
    let count = stmt.column_count();
    stmt.query_map(params_from_iter(terms.iter().chain(key)), |row| {
        (0..count)
            .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect()
    })
    .and_then(Iterator::collect)
    .doing_with(doing)
}

/// A key as people read it.
pub(super) fn shown(key: &[OwnedValue]) -> String {
    let parts: Vec<String> = key.iter().map(|v| sql_literal(&v.as_value())).collect();
    parts.join(", ")
}
