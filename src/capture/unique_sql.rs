//! The condition under which a row stands in the way of a new one on a UNIQUE index, as SQL text: for the triggers, where the new
//! row is `NEW`, and for the fold, where its terms are parameters.

use super::droppable::{Kind, survives_drop};
use crate::change::table::{Column, Table, UniqueIndex};
use crate::sqlite::ident::{quote, text};

/// Condition on the rows of `table` that collide with the trigger's `NEW` row on `index`.
#[must_use]
pub fn collides_with_new(table: &Table, index: &UniqueIndex) -> String {
    let mut parts = Vec::new();
    for term in &index.terms {
        let new = match term.column.and_then(|c| table.columns.get(c)) {
            Some(column) => new_value(column),
            // A generated column is a plain quoted name; anything else is an expression, which we evaluate over the new row by
            // giving it a FROM clause in which its column names mean that row's.
            None if term.sql.starts_with('"') => format!("NEW.{}", term.sql),
            None => {
                let of_new = format!(
                    "(SELECT {} FROM (SELECT {}) AS {})",
                    term.sql,
                    new_row(table),
                    quote(&table.name)
                );
                survives_drop(table, &of_new, Kind::Value)
            }
        };
        parts.push(format!("{} = {new} COLLATE {}", term.sql, term.collation));
    }
    // Only so that SQLite can use a partial index; whether the new row is in it does not matter, a note is no deletion.
    if let Some(p) = &index.predicate {
        parts.push(format!("({p})"));
    }
    parts.join(" AND ")
}

/// Condition on the rows of a table that collide on `index` with a row whose terms are the parameters `?1`, `?2`, …
#[must_use]
pub fn collides_with_terms(index: &UniqueIndex) -> String {
    let mut parts: Vec<String> = index
        .terms
        .iter()
        .enumerate()
        .map(|(i, term)| format!("{} = ?{} COLLATE {}", term.sql, i + 1, term.collation))
        .collect();
    if let Some(p) = &index.predicate {
        parts.push(format!("({p})"));
    }
    parts.join(" AND ")
}

/// The value that the row will have: REPLACE turns a NULL in a NOT NULL column into the default.
fn new_value(column: &Column) -> String {
    let name = quote(&column.name);
    match &column.default {
        Some(default) if column.not_null => {
            format!("coalesce(NEW.{name}, {})", default_value(default))
        }
        _ => format!("NEW.{name}"),
    }
}

/// The text of a DEFAULT clause as an expression that means the same elsewhere: a name there is a string.
pub(super) fn default_value(default: &str) -> String {
    const WORDS: [&str; 6] = [
        "null",
        "true",
        "false",
        "current_time",
        "current_date",
        "current_timestamp",
    ];
    let inner = match default.as_bytes() {
        [b'"', .., b'"'] | [b'`', .., b'`'] | [b'[', .., b']'] => {
            default.get(1..default.len() - 1).unwrap_or_default()
        }
        [first, ..]
            if (first.is_ascii_alphabetic() || *first == b'_')
                && default.chars().all(|c| c.is_alphanumeric() || c == '_')
                && !WORDS.iter().any(|w| default.eq_ignore_ascii_case(w)) =>
        {
            default
        }
        _ => return format!("({default})"),
    };
    text(&inner.replace("\"\"", "\""))
}

fn new_row(table: &Table) -> String {
    let parts: Vec<String> = table
        .columns
        .iter()
        .map(|c| format!("{} AS {}", new_value(c), quote(&c.name)))
        .collect();
    parts.join(", ")
}
