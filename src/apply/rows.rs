//! Single rows of the database: reading, comparing, writing by plan.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Statement};
use smallvec::SmallVec;

use super::plan::Plan;
use super::write;
use crate::capture::FormerValues;
use crate::capture::unique_sql::collides_with_terms;
use crate::change::table::{Table, TableKey, UniqueIndex};
use crate::change::value::{OwnedValue, Value};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;

/// The key inside a whole row of the message.
#[must_use]
pub fn key_of<'v>(plan: &Plan, values: &[Value<'v>]) -> SmallVec<[Value<'v>; 4]> {
    plan.key_at
        .iter()
        .filter_map(|&i| values.get(i).copied())
        .collect()
}

/// How many values stand before the columns in a row read by [`read_here`].
#[must_use]
pub fn offset_here(plan: &Plan) -> usize {
    usize::from(matches!(plan.table.table.key, TableKey::Rowid(_)))
}

/// Runs a statement, kept prepared.
///
/// # Errors
/// SQLite's.
pub fn execute(conn: &Connection, sql: &str, values: &[Value<'_>]) -> rusqlite::Result<usize> {
    bind_and_run(&mut *conn.prepare_cached(sql)?, values)
}

/// The statement that was run last, kept at hand: the rows of a table come one after the other, and looking their statement up costs a tenth of writing them.
#[derive(Default)]
pub struct LastStatement<'c>(Option<(String, CachedStatement<'c>)>);

impl<'c> LastStatement<'c> {
    /// Runs a statement, as [`execute`] does.
    ///
    /// # Errors
    /// SQLite's.
    pub fn execute(
        &mut self,
        conn: &'c Connection,
        sql: &str,
        values: &[Value<'_>],
    ) -> rusqlite::Result<usize> {
        let stmt = match &mut self.0 {
            Some((last, stmt)) if last == sql => stmt,
            other => {
                // Before the next is looked up: a statement that is at hand is not among those that are kept.
                *other = None;
                &mut other.insert((sql.to_owned(), conn.prepare_cached(sql)?)).1
            }
        };
        bind_and_run(stmt, values)
    }
}

fn bind_and_run(stmt: &mut Statement<'_>, values: &[Value<'_>]) -> rusqlite::Result<usize> {
    for (i, v) in values.iter().enumerate() {
        stmt.raw_bind_parameter(i + 1, *v)?;
    }
    stmt.raw_execute()
}

/// The keys that a query of one id finds, each behind an id of its own. Nothing reads on when this returns.
///
/// # Errors
/// SQLite's.
pub fn keys(
    conn: &Connection,
    sql: &str,
    id: i64,
    width: usize,
) -> rusqlite::Result<Vec<(i64, Vec<OwnedValue>)>> {
    let mut stmt = conn.prepare_cached(sql)?;
    stmt.query_map([id], |row| {
        let key = (1..=width)
            .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect::<rusqlite::Result<_>>()?;
        Ok((row.get(0)?, key))
    })?
    .collect()
}

/// The whole row as it is here, in the order of the columns here (after the rowid, where that is the key).
///
/// # Errors
/// SQLite's.
pub fn read_here(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
    read(conn, &plan.select_here, key).doing_with(|| reading(plan))
}

/// What a statement reads of the row with this key, if it is here.
///
/// # Errors
/// SQLite's.
pub fn read(
    conn: &Connection,
    select: &str,
    key: &[Value<'_>],
) -> rusqlite::Result<Option<Vec<OwnedValue>>> {
    let mut stmt = conn.prepare_cached(select)?;
    let count = stmt.column_count();
    stmt.query_row(rusqlite::params_from_iter(key.iter()), |row| {
        (0..count)
            .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect()
    })
    .optional()
}

/// All rows that a query finds. Nothing reads on when this returns.
///
/// # Errors
/// SQLite's.
pub fn all(
    conn: &Connection,
    sql: &str,
    values: &[Value<'_>],
) -> rusqlite::Result<Vec<Vec<OwnedValue>>> {
    let mut stmt = conn.prepare_cached(sql)?;
    let count = stmt.column_count();
    stmt.query_map(rusqlite::params_from_iter(values.iter()), |row| {
        (0..count)
            .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect()
    })?
    .collect()
}

/// Whether the row is here with exactly these values.
///
/// # Errors
/// SQLite's.
pub fn has_row(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
    values: &[Value<'_>],
) -> Result<bool, SqliteError> {
    same(conn, plan, &plan.select, key, values)
}

/// Whether the row is here with exactly these cells.
///
/// # Errors
/// SQLite's.
pub fn has_cells(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
    columns: &[usize],
    cells: &[Value<'_>],
) -> Result<bool, SqliteError> {
    let names: Vec<String> = columns
        .iter()
        .filter_map(|c| plan.definition.columns.get(*c))
        .map(|n| quote(n))
        .collect();
    let table = &plan.table.table;
    let sql = format!(
        "SELECT {} FROM {} WHERE {}",
        names.join(", "),
        quote(&table.name),
        row_sql::key_is(table, 1)
    );
    same(conn, plan, &sql, key, cells)
}

fn same(
    conn: &Connection,
    plan: &Plan,
    select: &str,
    key: &[Value<'_>],
    values: &[Value<'_>],
) -> Result<bool, SqliteError> {
    let mut stmt = conn.prepare_cached(select).doing_with(|| reading(plan))?;
    let mut rows = stmt
        .query(rusqlite::params_from_iter(key.iter()))
        .doing_with(|| reading(plan))?;
    let Some(row) = rows.next().doing_with(|| reading(plan))? else {
        return Ok(false);
    };
    for (i, v) in values.iter().enumerate() {
        if !from_sql(row.get_ref(i).doing_with(|| reading(plan))?).same_bytes(v) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The keys of the other rows that collide with a row on an index, given the row's terms; an empty `key` is a row that is not there yet.
///
/// # Errors
/// SQLite's.
pub fn colliding(
    conn: &Connection,
    table: &Table,
    index: &UniqueIndex,
    terms: &[OwnedValue],
    key: &[Value<'_>],
) -> Result<Vec<Vec<OwnedValue>>, SqliteError> {
    let doing = || {
        format!(
            "look for rows of table \"{}\" in the way on index \"{}\"",
            table.name, index.name
        )
    };
    let keys: Vec<String> = table.key_names().iter().map(|k| quote(k)).collect();
    let mut sql = format!(
        "SELECT {} FROM {} WHERE {}",
        keys.join(", "),
        quote(&table.name),
        collides_with_terms(index)
    );
    if !key.is_empty() {
        let same = row_sql::key_is(table, terms.len() + 1);
        sql.push_str(&format!(" AND NOT ({same})"));
    }
    let mut stmt = conn.prepare_cached(&sql).doing_with(doing)?;
    for (i, v) in terms
        .iter()
        .map(OwnedValue::as_value)
        .chain(key.iter().copied())
        .enumerate()
    {
        stmt.raw_bind_parameter(i + 1, v).doing_with(doing)?;
    }
    let mut rows = stmt.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next().doing_with(doing)? {
        out.push(
            (0..keys.len())
                .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
                .collect::<Result<_, _>>()
                .doing_with(doing)?,
        );
    }
    Ok(out)
}

/// The former values that the first of these changes has, in the order of its columns.
///
/// # Errors
/// SQLite's.
pub fn former_values(
    conn: &Connection,
    former: &FormerValues,
    changes: &[i64],
) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
    let doing = "read the values that a row had before";
    let mut stmt = conn.prepare_cached(&former.select).doing(doing)?;
    for change in changes {
        let found = stmt
            .query_row([change], |row| {
                (0..former.columns.len())
                    .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
                    .collect()
            })
            .optional()
            .doing(doing)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Takes out the rows without a key (NULL in it) that collide with a row on an index, and returns them in the order of the columns here. They are on no
/// other node's account: nothing is pending of them, and nothing but the index they stand in matters.
///
/// # Errors
/// SQLite's.
pub fn take_keyless(
    conn: &Connection,
    plan: &Plan,
    index: &UniqueIndex,
    terms: &[OwnedValue],
) -> Result<Vec<Vec<OwnedValue>>, SqliteError> {
    let table = &plan.table.table;
    let TableKey::Columns(columns) = &table.key else {
        return Ok(Vec::new());
    };
    if table.integer_key {
        return Ok(Vec::new());
    }
    let doing = || {
        format!(
            "remove rows without a key of table \"{}\" in the way on index \"{}\"",
            table.name, index.name
        )
    };
    let null: Vec<String> = columns
        .iter()
        .filter_map(|(i, _)| table.columns.get(*i))
        .map(|c| format!("{} IS NULL", quote(&c.name)))
        .collect();
    let condition = format!(
        "FROM {} WHERE {} AND ({})",
        quote(&table.name),
        collides_with_terms(index),
        null.join(" OR ")
    );
    let names = row_sql::whole_names(table);
    let mut stmt = conn
        .prepare_cached(&format!("SELECT {} {condition}", names.join(", ")))
        .doing_with(doing)?;
    let out: Vec<Vec<OwnedValue>> = stmt
        .query_map(rusqlite::params_from_iter(terms), |row| {
            (0..names.len())
                .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
                .collect()
        })
        .and_then(Iterator::collect)
        .doing_with(doing)?;
    if !out.is_empty() {
        let terms: Vec<Value<'_>> = terms.iter().map(OwnedValue::as_value).collect();
        write::delete_where(conn, plan, &condition, &terms).doing_with(doing)?;
    }
    Ok(out)
}

fn reading(plan: &Plan) -> String {
    format!("read a row of table \"{}\"", plan.table.table.name)
}
