//! Fills an empty database with a snapshot's schema and rows, in the transaction of the restore: what `VACUUM` does, into a database that others may have
//! open.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::runtime::page_cache::{self, Passage};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::OWN_PREFIX;

const DOING: &str = "fill the empty database from the snapshot";

/// The name of the attached snapshot.
const SNAPSHOT: &str = "harmonylite_snapshot";

/// Attaches the snapshot, which must be done before the transaction begins.
///
/// # Errors
/// SQLite's: the snapshot's text encoding must be that of the database.
pub fn attach(conn: &Connection, snapshot: &Path) -> Result<(), SqliteError> {
    let path = snapshot.to_string_lossy();
    conn.execute(&format!("ATTACH DATABASE ?1 AS {SNAPSHOT}"), [path])
        .doing("attach the snapshot")?;
    Ok(())
}

/// Lets what is read of the snapshot and written to the write-ahead log leave the page cache as it goes, until the snapshot is [detached](detach). Where that cannot be
/// had, it is only slower.
pub fn pass_by(conn: &mut Connection, snapshot: &Path) {
    /// Steps of SQLite's machine between two looks: well under a millisecond.
    const STEPS: i32 = 10_000;
    let Some(log) = conn.path().map(|database| format!("{database}-wal")) else {
        return;
    };
    // Files of SQLite that carry none of its locks, or that are this process's alone: closing them by hand takes no lock from anybody.
    let (Ok(log), Ok(snapshot)) = (File::open(log), File::open(snapshot)) else {
        return;
    };
    let mut passage = Passage::default();
    let _ = conn.progress_handler(
        STEPS,
        Some(move || {
            let written = log.metadata().map_or(0, |m| m.len());
            if passage.is_due(written) {
                passage.advance(&log, written);
                page_cache::leave(&snapshot);
            }
            false
        }),
    );
}

/// Whether a snapshot is attached.
///
/// # Errors
/// SQLite's.
pub fn is_attached(conn: &Connection) -> Result<bool, SqliteError> {
    conn.query_row(
        "SELECT EXISTS(SELECT 1 FROM pragma_database_list WHERE name = ?1)",
        [SNAPSHOT],
        |r| r.get(0),
    )
    .doing(DOING)
}

/// Detaches it, if it is attached.
pub fn detach(conn: &mut Connection) {
    let _ = conn.progress_handler(0, None::<fn() -> bool>);
    let _ = conn.execute_batch(&format!("DETACH DATABASE {SNAPSHOT}"));
}

/// Copies schema and rows. Inside the write transaction.
///
/// # Errors
/// SQLite's.
pub fn fill(conn: &Connection) -> Result<(), SqliteError> {
    let app = format!(
        "lower(substr(name, 1, {})) <> '{OWN_PREFIX}' AND lower(substr(name, 1, 7)) <> 'sqlite_'",
        OWN_PREFIX.len()
    );
    // Tables that hold rows, shadow tables of virtual ones among them; the virtual tables themselves come with views and triggers.
    let tables = texts(
        conn,
        &format!(
            "SELECT sql FROM {SNAPSHOT}.sqlite_schema WHERE type = 'table' AND coalesce(rootpage, 0) > 0 AND sql IS NOT NULL AND {app}"
        ),
    )?;
    for sql in &tables {
        conn.execute_batch(sql).doing(DOING)?;
    }
    let names = texts(
        conn,
        &format!(
            "SELECT name FROM {SNAPSHOT}.sqlite_schema WHERE type = 'table' AND coalesce(rootpage, 0) > 0 AND {app}"
        ),
    )?;
    for name in &names {
        copy_rows(conn, name)?;
    }
    let indexes = texts(
        conn,
        &format!(
            "SELECT sql FROM {SNAPSHOT}.sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND {app}"
        ),
    )?;
    for sql in &indexes {
        conn.execute_batch(sql).doing(DOING)?;
    }
    copy_sequences(conn)?;
    copy_the_rest(conn, &app)
}

fn copy_rows(conn: &Connection, table: &str) -> Result<(), SqliteError> {
    let all: Vec<(String, bool, bool)> = {
        let mut stmt = conn
            .prepare(&format!(
                "SELECT name, pk > 0, hidden > 0 FROM pragma_table_xinfo(?1, '{SNAPSHOT}')"
            ))
            .doing(DOING)?;
        stmt.query_map([table], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .and_then(Iterator::collect)
            .doing(DOING)?
    };
    let on = quote(table);
    // In this form, and in no other, SQLite copies records as they are, without taking them apart. It may number the rows of a table without a key anew.
    if all.iter().all(|(_, _, hidden)| !hidden) && all.iter().any(|(_, key, _)| *key) {
        conn.execute(
            &format!("INSERT INTO main.{on} SELECT * FROM {SNAPSHOT}.{on}"),
            [],
        )
        .doing(DOING)?;
        return Ok(());
    }
    let columns: Vec<(String, bool)> = all
        .into_iter()
        .filter(|(_, _, hidden)| !hidden)
        .map(|(name, key, _)| (name, key))
        .collect();
    let mut names: Vec<String> = columns.iter().map(|(c, _)| quote(c)).collect();
    // Rows without a primary key are known by their rowid.
    if columns.iter().all(|(_, key)| !key) {
        let hidden = |n: &&str| columns.iter().all(|(c, _)| !c.eq_ignore_ascii_case(n));
        if let Some(rowid) = ["rowid", "_rowid_", "oid"].iter().find(|n| hidden(n)) {
            names.insert(0, (*rowid).to_owned());
        }
    }
    let names = names.join(", ");
    conn.execute(
        &format!("INSERT INTO main.{on}({names}) SELECT {names} FROM {SNAPSHOT}.{on}"),
        [],
    )
    .doing(DOING)?;
    Ok(())
}

/// What AUTOINCREMENT has given out.
fn copy_sequences(conn: &Connection) -> Result<(), SqliteError> {
    let there: Option<i64> = conn
        .query_row(
            &format!("SELECT 1 FROM {SNAPSHOT}.sqlite_schema WHERE name = 'sqlite_sequence'"),
            [],
            |r| r.get(0),
        )
        .optional()
        .doing(DOING)?;
    if there.is_some() {
        conn.execute_batch(&format!(
            "DELETE FROM main.sqlite_sequence; INSERT INTO main.sqlite_sequence SELECT * FROM {SNAPSHOT}.sqlite_sequence"
        ))
        .doing(DOING)?;
    }
    Ok(())
}

/// Views, triggers and virtual tables, whose shadow tables are there already: their entries are copied, as VACUUM does. And the numbers by which apps
/// know their schema.
fn copy_the_rest(conn: &Connection, app: &str) -> Result<(), SqliteError> {
    let done = conn
        .execute_batch("PRAGMA writable_schema = ON")
        .and_then(|()| {
            conn.execute(
                &format!(
                    "INSERT INTO main.sqlite_schema SELECT type, name, tbl_name, 0, sql FROM {SNAPSHOT}.sqlite_schema
                     WHERE (type IN ('view', 'trigger') OR (type = 'table' AND coalesce(rootpage, 0) = 0)) AND {app}"
                ),
                [],
            )
        });
    let ended = conn.execute_batch("PRAGMA writable_schema = RESET");
    done.and(ended).doing(DOING)?;
    for pragma in ["user_version", "application_id"] {
        let value: i64 = conn
            .query_row(&format!("PRAGMA {SNAPSHOT}.{pragma}"), [], |r| r.get(0))
            .doing(DOING)?;
        conn.execute_batch(&format!("PRAGMA main.{pragma} = {value}"))
            .doing(DOING)?;
    }
    // Other connections must see the new entries.
    let version: i64 = conn
        .query_row("PRAGMA main.schema_version", [], |r| r.get(0))
        .doing(DOING)?;
    conn.execute_batch(&format!("PRAGMA main.schema_version = {}", version + 1))
        .doing(DOING)?;
    Ok(())
}

fn texts(conn: &Connection, sql: &str) -> Result<Vec<String>, SqliteError> {
    let mut stmt = conn.prepare(sql).doing(DOING)?;
    stmt.query_map([], |r| r.get(0))
        .and_then(Iterator::collect)
        .doing(DOING)
}
