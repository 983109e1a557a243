//! Tables that a snapshot holds though its taker has none of them: the taker's application has dropped them, or never made them, and other nodes have them still.
//! Without them snapshot and stream would tell nobody what is in those tables.
//!
//! They bear names of ours, so that whoever begins from the snapshot has nothing of them but where its own application has the table.
//!
//! Invariants: such a table is its fold at the snapshot's position; it stands in snapshots, and in databases that are thrown away, alone: a database that goes on
//! would carry it along as it was.

use std::path::Path;

use rusqlite::Connection;

use super::reconcile::grow::{create, index_as_written};
use crate::change::table::{Table, TableKey};
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{self, ABSENT_PREFIX, has_table};
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;

const DOING: &str = "keep the fold of a table that is not here";

/// The names of the tables that a database holds so.
///
/// # Errors
/// SQLite's.
pub fn list(conn: &Connection) -> Result<Vec<String>, SqliteError> {
    conn.prepare_cached(
        "SELECT substr(name, length(?1) + 1) FROM main.sqlite_schema WHERE type = 'table' AND lower(substr(name, 1, length(?1))) = ?1 ORDER BY name",
    )
    .and_then(|mut s| s.query_map([ABSENT_PREFIX], |r| r.get(0))?.collect())
    .doing("list the tables that are kept though they are not here")
}

/// Removes them all.
///
/// # Errors
/// SQLite's.
pub fn remove(conn: &Connection) -> Result<(), SqliteError> {
    for name in list(conn)? {
        conn.execute_batch(&format!("DROP TABLE {}", quote(&hidden(&name))))
            .doing(DOING)?;
    }
    Ok(())
}

/// Makes the one of this name a table called `now`; `false` if there is none, or a table is called so already.
///
/// # Errors
/// SQLite's.
pub fn bring_back(conn: &Connection, name: &str, now: &str) -> Result<bool, SqliteError> {
    rename(conn, &hidden(name), now)
}

/// Hides a table that was brought back; `false` if there is none.
///
/// # Errors
/// SQLite's.
pub fn hide(conn: &Connection, name: &str) -> Result<bool, SqliteError> {
    rename(conn, name, &hidden(name))
}

fn rename(conn: &Connection, from: &str, to: &str) -> Result<bool, SqliteError> {
    if !has_table(conn, from)? || has_table(conn, to)? {
        return Ok(false);
    }
    // The application's views and triggers are not looked at: they may name what is not there.
    conn.execute_batch(&format!(
        "PRAGMA legacy_alter_table = ON; ALTER TABLE {} RENAME TO {}; PRAGMA legacy_alter_table = OFF",
        quote(from),
        quote(to)
    ))
    .doing(DOING)?;
    Ok(true)
}

fn hidden(name: &str) -> String {
    format!("{ABSENT_PREFIX}{name}")
}

/// Puts the tables of these names that `fold` has into a snapshot, in one transaction; which they are.
///
/// # Errors
/// SQLite's; nothing is changed then.
pub fn put(
    snapshot: &mut Connection,
    fold: &Path,
    names: &[String],
) -> Result<Vec<String>, SqliteError> {
    let fold = connection::open_reader(fold)?;
    let theirs = introspect::read_schema(&fold)?;
    let to = snapshot.transaction().doing(DOING)?;
    let mut put = Vec::new();
    for name in names {
        let known = theirs.table(name).filter(|_| !put.contains(name));
        if let Some(table) = known {
            put_one(&to, &fold, table)?;
            put.push(name.clone());
        }
    }
    to.commit().doing(DOING)?;
    Ok(put)
}

fn put_one(to: &Connection, fold: &Connection, table: &Table) -> Result<(), SqliteError> {
    let on = quote(&hidden(&table.name));
    let key = match &table.key {
        TableKey::Columns(_) => table.key_names(),
        TableKey::Rowid(_) => Vec::new(),
    };
    let columns: Vec<String> = table.columns.iter().map(|c| c.name.clone()).collect();
    to.execute_batch(&create(&on, &columns, &key, Some(table), None))
        .doing(DOING)?;
    let names = row_sql::whole_names(table).join(", ");
    let mut from = fold
        .prepare(&format!("SELECT {names} FROM {}", quote(&table.name)))
        .doing(DOING)?;
    let count = from.column_count();
    let mut into = to
        .prepare(&format!(
            "INSERT INTO {on}({names}) VALUES({})",
            vec!["?"; count].join(", ")
        ))
        .doing(DOING)?;
    let mut rows = from.query([]).doing(DOING)?;
    while let Some(row) = rows.next().doing(DOING)? {
        for i in 0..count {
            let value = row.get_ref(i).map(from_sql).doing(DOING)?;
            into.raw_bind_parameter(i + 1, value).doing(DOING)?;
        }
        into.raw_execute().doing(DOING)?;
    }
    for (n, index) in table.uniques.iter().enumerate() {
        let name = quote(&format!(
            "{}index_{n}_of_{}",
            introspect::OWN_PREFIX,
            hidden(&table.name)
        ));
        to.execute_batch(&format!(
            "CREATE UNIQUE INDEX {name} ON {on}{}",
            index_as_written(index)
        ))
        .doing(DOING)?;
    }
    Ok(())
}
