//! A copy of the database as a snapshot: one read transaction's view of it, with positions inside and without capture.
//!
//! Invariants: the application is not held up (only the write-ahead log is kept meanwhile); the copy is a plain SQLite file that can be put in place by hand;
//! it names no database identity, by which a node recognises it as a snapshot; its bytes hold no value of a row that is not in it, nor of the change logs and journals of its taker.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::capture::{keep_names, remove};
use crate::runtime::page_cache::Passage;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect;

/// Copies the database into a new file, and syncs it. What is pending in it stays in its change logs: [`finish`] takes those out.
///
/// # Errors
/// SQLite's, also when `stop` says so: the file must not exist, the disk must have room.
pub fn copy(
    database: &Path,
    to: &Path,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<Connection, SqliteError> {
    /// Steps of SQLite's machine between two looks: well under a millisecond.
    const STEPS: i32 = 10_000;
    let doing = || format!("copy the database to {}", to.display());
    let mut reader = connection::open_reader(database)?;
    let mode = database.metadata().map(|m| m.mode() & 0o777);
    // Made before SQLite does: whoever may not read the database may not read its copy. Where this fails, SQLite says why.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode.unwrap_or(0o600))
        .open(to)
        .ok();
    let mut passage = Passage::default();
    let looks = move || {
        if let Some(file) = &file {
            passage.advance(file, file.metadata().map_or(0, |m| m.len()));
        }
        stop()
    };
    reader
        .progress_handler(STEPS, Some(looks))
        .doing_with(doing)?;
    // The copy is made by this connection's handle, which is not to write otherwise.
    reader
        .pragma_update(None, "query_only", false)
        .doing_with(doing)?;
    reader
        .execute("VACUUM main INTO ?1", [to.to_string_lossy()])
        .doing_with(doing)?;
    drop(reader);
    connection::open_writer(to)
}

/// Takes capture and what is this node's alone out of the copy, and closes it. It is synced once, at the end: a page that the disk did not take would otherwise be read back as what
/// was there before, be hashed and be believed.
///
/// # Errors
/// SQLite's; the disk's.
pub fn finish(copy: Connection) -> Result<(), SqliteError> {
    let doing = "make a snapshot of the copy";
    connection::overwrite_deleted(&copy)?;
    copy.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF; BEGIN IMMEDIATE")
        .doing(doing)?;
    remove::remove_capture(&copy)?;
    keep_names(&copy)?;
    copy.execute_batch(
        "DELETE FROM __harmonylite__tables; DELETE FROM __harmonylite__unsure; DELETE FROM __harmonylite__conflicts; DELETE FROM __harmonylite__dead_letters;
         DELETE FROM __harmonylite__skips; UPDATE __harmonylite__node SET database_id = '', incarnation = 0, nonce = 0, settled = 0;
         COMMIT",
    )
    .doing(doing)?;
    let path = copy.path().map(PathBuf::from);
    copy.close().map_err(|(_, e)| e).doing(doing)?;
    match path {
        Some(path) => File::open(path)
            .and_then(|file| file.sync_data())
            .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
            .doing(doing),
        None => Ok(()),
    }
}

/// Whether the tables in a database hold no row at all.
///
/// # Errors
/// SQLite's.
pub fn holds_no_rows(conn: &Connection) -> Result<bool, SqliteError> {
    for table in introspect::read_schema(conn)?.tables {
        let sql = format!("SELECT EXISTS(SELECT 1 FROM {})", quote(&table.name));
        let any: bool = conn
            .query_row(&sql, [], |r| r.get(0))
            .doing("look for rows")?;
        if any {
            return Ok(false);
        }
    }
    Ok(true)
}
