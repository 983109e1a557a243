//! Opening a database for its journals, and what can be in the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::{StateError, ddl};

/// How long a write waits for the app and the daemon: both hold the lock for moments.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a journal cannot be read or acted on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no file.
    #[error("there is no database {}: correct db_path, or give -db FILE", .0.display())]
    NoDatabase(PathBuf),
    /// No daemon has ever served it.
    #[error(
        "the database {} has no journals: harmonylite has not run with it yet, or -cleanup has removed them",
        .0.display()
    )]
    NoState(PathBuf),
    /// Its state tables are of an older format, which only the daemon changes.
    #[error(
        "the replication state in {} is of an older version: start this version's harmonylite with it once, which brings it up to date",
        .0.display()
    )]
    Older(PathBuf),
    /// Somebody holds the write lock.
    #[error("the database is locked by another process: try again")]
    Locked,
    /// The journal has no such entry.
    #[error("there is no {kind} {id}: {remedy}")]
    Unknown {
        /// What the journal keeps, as one of them is called.
        kind: &'static str,
        /// As given.
        id: i64,
        /// How the ids are found.
        remedy: &'static str,
    },
    /// The key in the journal is not one that was written there by us.
    #[error(
        "the key of this conflict cannot be read: somebody has changed the journal; conflicts show has the values"
    )]
    NoKey,
    /// State that this program cannot use.
    #[error(transparent)]
    State(#[from] StateError),
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

/// Opens a database to read its journals.
///
/// # Errors
/// No database, no state of ours in it, state of a newer program; SQLite's.
pub fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    if !path.exists() {
        return Err(JournalError::NoDatabase(path.to_owned()));
    }
    let conn = connection::open_reader(path)?;
    format_of(&conn, path)?;
    Ok(conn)
}

/// Opens a database to write as one of the app's connections does: triggers on, foreign keys enforced. What it writes to the app's tables is captured
/// where capture is installed.
///
/// # Errors
/// As [`open_to_read`]; state of an older program, which a daemon of this version has to bring up to date first.
pub fn open_as_app(path: &Path) -> Result<Connection, JournalError> {
    if !path.exists() {
        return Err(JournalError::NoDatabase(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .doing_with(|| format!("open the database {}", path.display()))?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)
        .and_then(|_| conn.execute_batch("PRAGMA foreign_keys = ON"))
        .doing_with(|| format!("prepare the connection to {}", path.display()))?;
    if format_of(&conn, path)? < ddl::FORMAT {
        return Err(JournalError::Older(path.to_owned()));
    }
    Ok(conn)
}

/// Runs `body` in one write transaction; what it does is undone where it fails.
///
/// # Errors
/// [`JournalError::Locked`] when the write lock cannot be had in time; those of `body`; SQLite's.
pub fn in_transaction<T, E: From<JournalError>>(
    conn: &Connection,
    body: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let begun =
        connection::begin_immediate(conn, PATIENCE, &|| false).map_err(JournalError::from)?;
    if !begun {
        return Err(JournalError::Locked.into());
    }
    let done = body().and_then(|value| {
        conn.execute_batch("COMMIT")
            .doing("commit what was written")
            .map_err(JournalError::from)?;
        Ok(value)
    });
    if done.is_err() {
        connection::rollback(conn);
    }
    done
}

/// The format of the state, which this program knows.
pub(super) fn format_of(conn: &Connection, path: &Path) -> Result<i64, JournalError> {
    match ddl::stored_format(conn)? {
        None => Err(JournalError::NoState(path.to_owned())),
        Some(found) if found > ddl::FORMAT => Err(StateError::Newer {
            found,
            known: ddl::FORMAT,
        }
        .into()),
        Some(found) => Ok(found),
    }
}
