//! Where values are written to: the table as it is now, the row, and what stands in the way.

use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::conflicts::RestoreError;
use crate::apply::rows::colliding;
use crate::capture::layout;
use crate::change::literal::{sql_literal, sql_literals};
use crate::change::table::{Table, TableKey};
use crate::change::value::{OwnedValue, Value};
use crate::journals::JournalError;
use crate::sqlite::error::{Doing, SqliteError};
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
/// SQLite reads them, in a database of its own in memory; nothing but literals gets there, whoever wrote to the journal.
pub(super) fn key_values(literals: &str) -> Result<Vec<OwnedValue>, JournalError> {
    const DOING: &str = "read the key of a conflict";
    if !are_literals(literals) {
        return Err(JournalError::NoKey);
    }
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

/// Whether a text is made of what `change::literal` writes: numbers, quoted text and bytes, NULL, a cast of bytes to text.
fn are_literals(text: &str) -> bool {
    const WORDS: [&str; 6] = ["x", "e", "NULL", "CAST", "AS", "TEXT"];
    // Of quotes that stand doubled inside of text, every other piece is inside.
    text.split('\'').step_by(2).all(|outside| {
        let plain = outside
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " ,.-()".contains(c));
        plain
            && !outside.contains("--")
            && outside
                .split(|c: char| !c.is_ascii_alphabetic())
                .filter(|word| !word.is_empty())
                .all(|word| WORDS.contains(&word))
    }) && text.matches('\'').count().is_multiple_of(2)
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
    let key: Vec<Value<'_>> = key.iter().map(OwnedValue::as_value).collect();
    for index in table.uniques.iter().filter(|i| i.is_plain()) {
        let terms: Option<Vec<OwnedValue>> = index
            .terms
            .iter()
            .map(|t| values.get(t.column?)?.clone())
            .collect();
        let Some(terms) = terms else { continue };
        let others = colliding(conn, table, index, &terms, &key).map_err(JournalError::from)?;
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

/// A key as people read it.
pub(super) fn shown(key: &[OwnedValue]) -> String {
    let parts: Vec<String> = key.iter().map(|v| sql_literal(&v.as_value())).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::value::Value;

    #[test]
    fn keys_are_read_back_and_nothing_else_is_run() {
        for key in [
            vec![OwnedValue::Null],
            vec![OwnedValue::Integer(i64::MIN), OwnedValue::Integer(-3)],
            vec![
                OwnedValue::Real(1e300),
                OwnedValue::Real(-0.5),
                OwnedValue::Real(f64::INFINITY),
                OwnedValue::Real(f64::NEG_INFINITY),
            ],
            vec![
                OwnedValue::Text(b"it's 'a', (SELECT 1)".to_vec().into()),
                OwnedValue::Text(b"\xff\0'".to_vec().into()),
                OwnedValue::Text(Box::default()),
                OwnedValue::Blob(b"\0\x01".to_vec().into()),
            ],
        ] {
            let values: Vec<Value<'_>> = key.iter().map(OwnedValue::as_value).collect();
            assert_eq!(key_values(&sql_literals(&values)).unwrap(), key);
        }
        for other in [
            "",
            "1; DROP TABLE t",
            "(SELECT 1)",
            "randomblob(9)",
            "'a",
            "a.b",
            "1 --",
        ] {
            assert!(key_values(other).is_err(), "{other}");
        }
    }
}
