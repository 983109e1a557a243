//! Statements that reach one row by its key.

use super::ident::quote;
use crate::change::table::{Table, TableKey};
use crate::change::value::Value;

/// Condition that a row has the key in the parameters from `first` on, compared as the key's index compares.
#[must_use]
pub fn key_is(table: &Table, first: usize) -> String {
    let parts: Vec<String> = match &table.key {
        TableKey::Rowid(name) => vec![format!("{} = ?{first}", quote(name))],
        TableKey::Columns(columns) if table.integer_key => columns
            .iter()
            .filter_map(|(i, _)| table.columns.get(*i))
            .map(|c| format!("{} = ?{first}", quote(&c.name)))
            .collect(),
        TableKey::Columns(columns) => columns
            .iter()
            .enumerate()
            .filter_map(|(n, (i, collation))| {
                table.columns.get(*i).map(|c| {
                    format!(
                        "{} = ?{} COLLATE {}",
                        quote(&c.name),
                        first + n,
                        collation.name()
                    )
                })
            })
            .collect(),
    };
    parts.join(" AND ")
}

/// Condition that two rows have the same key, compared as the key's index compares, whatever the compared columns themselves are declared as. `one` and `other`: a key value of
/// each, by its name; `is`: `=` or `IS`.
#[must_use]
pub fn same_key(
    table: &Table,
    is: &str,
    one: impl Fn(&str) -> String,
    other: impl Fn(&str) -> String,
) -> String {
    let names = table.key_names();
    let parts: Vec<String> = match &table.key {
        TableKey::Columns(columns) if !table.integer_key => names
            .iter()
            .zip(columns)
            .map(|(name, (_, by))| {
                format!("{} {is} {} COLLATE {}", one(name), other(name), by.name())
            })
            .collect(),
        TableKey::Columns(_) | TableKey::Rowid(_) => names
            .iter()
            .map(|name| format!("{} {is} {}", one(name), other(name)))
            .collect(),
    };
    parts.join(" AND ")
}

/// The names of all values of a whole row: before the columns the rowid, where that is the key.
#[must_use]
pub fn whole_names(table: &Table) -> Vec<String> {
    let mut names = Vec::with_capacity(table.columns.len() + 1);
    if let TableKey::Rowid(name) = &table.key {
        names.push(quote(name));
    }
    names.extend(table.columns.iter().map(|c| quote(&c.name)));
    names
}

/// The key inside a whole row.
#[must_use]
pub fn key_in<'v>(table: &Table, row: &[Value<'v>]) -> Vec<Value<'v>> {
    match &table.key {
        TableKey::Rowid(_) => row.first().copied().into_iter().collect(),
        TableKey::Columns(columns) => columns
            .iter()
            .filter_map(|(i, _)| row.get(*i).copied())
            .collect(),
    }
}

/// Reads a whole row.
#[must_use]
pub fn select_whole(table: &Table) -> String {
    format!(
        "SELECT {} FROM {} WHERE {}",
        whole_names(table).join(", "),
        quote(&table.name),
        key_is(table, 1)
    )
}

/// Deletes a row.
#[must_use]
pub fn delete(table: &Table) -> String {
    format!(
        "DELETE FROM {} WHERE {}",
        quote(&table.name),
        key_is(table, 1)
    )
}
