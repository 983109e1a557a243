//! Opening a database for its journals, and what can be in the way.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::sqlite::connection;
use crate::sqlite::error::SqliteError;
use crate::state::{StateError, ddl};

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
