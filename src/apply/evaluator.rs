//! Works out what a row means to indexes on expressions, on generated columns, or with a WHERE clause: by inserting it into a copy of the
//! table in memory and asking SQLite, which alone knows affinity, collation and functions exactly.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, OptionalExtension};

use super::plan::Plan;
use crate::change::table::{Table, UniqueIndex};
use crate::change::value::{OwnedValue, Value};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::{quote, quote_list};
use crate::sqlite::value::from_sql;

/// Copies of the tables that were asked for, by name.
#[derive(Debug, Default)]
pub struct Evaluators(HashMap<String, Evaluator>);

impl Evaluators {
    /// The terms of `index` for a whole row of the plan's message, or `None` if the index does not hold the row.
    ///
    /// # Errors
    /// SQLite's.
    pub fn terms(
        &mut self,
        database: &Connection,
        plan: &Plan,
        index: &UniqueIndex,
        values: &[Value<'_>],
    ) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
        if index.is_plain() {
            let terms = index.terms.iter().map(|t| {
                t.column
                    .and_then(|c| plan.value_at(c))
                    .and_then(|i| values.get(i))
                    .map(Value::to_owned)
            });
            return Ok(terms.collect());
        }
        let table = &plan.table.table;
        let evaluator = match self.0.entry(table.name.clone()) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(Evaluator::new(database, table)?),
        };
        let offset = usize::from(plan.definition.key.is_empty());
        evaluator.terms(
            index,
            &plan.definition.columns,
            values.get(offset..).unwrap_or_default(),
        )
    }
}

/// An empty copy of one table.
#[derive(Debug)]
struct Evaluator {
    conn: Connection,
    table: String,
}

impl Evaluator {
    /// Copies the definition of a table out of the database.
    ///
    /// # Errors
    /// SQLite's.
    fn new(database: &Connection, table: &Table) -> Result<Self, SqliteError> {
        let doing = || format!("copy the definition of table \"{}\"", table.name);
        let sql: Option<String> = database
            .query_row(
                "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1",
                [&table.name],
                |r| r.get(0),
            )
            .optional()
            .doing_with(doing)?;
        let conn = Connection::open_in_memory().doing_with(doing)?;
        conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;")
            .doing_with(doing)?;
        conn.execute_batch(sql.as_deref().unwrap_or_default())
            .doing_with(doing)?;
        Ok(Self {
            conn,
            table: table.name.clone(),
        })
    }

    /// The terms of `index` for a row, or `None` if the index does not hold the row. `values` are those of `columns`, by name.
    ///
    /// # Errors
    /// SQLite's.
    fn terms(
        &self,
        index: &UniqueIndex,
        columns: &[String],
        values: &[Value<'_>],
    ) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
        let doing = || format!("work out the terms of index \"{}\"", index.name);
        let on = quote(&self.table);
        let params: Vec<String> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
        self.conn
            .execute_batch(&format!("DELETE FROM {on}"))
            .doing_with(doing)?;
        self.conn
            .prepare_cached(&format!(
                "INSERT INTO {on}({}) VALUES({})",
                quote_list(columns.iter().map(String::as_str)),
                params.join(", ")
            ))
            .and_then(|mut s| s.execute(rusqlite::params_from_iter(values.iter())))
            .doing_with(doing)?;
        let terms: Vec<&str> = index.terms.iter().map(|t| t.sql.as_str()).collect();
        let holds = index
            .predicate
            .as_ref()
            .map_or(String::new(), |p| format!(" WHERE ({p})"));
        let sql = format!("SELECT {} FROM {on}{holds}", terms.join(", "));
        let mut stmt = self.conn.prepare_cached(&sql).doing_with(doing)?;
        stmt.query_row([], |row| {
            (0..terms.len())
                .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
                .collect()
        })
        .optional()
        .doing_with(doing)
    }
}
