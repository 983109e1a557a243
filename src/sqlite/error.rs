//! SQLite failures with what we were doing, and how to take them: wait, stop, or tell the operator.

use rusqlite::ErrorCode;

/// A failure inside SQLite.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct SqliteError {
    /// What we were doing, in words that complete "could not …".
    pub doing: String,
    /// SQLite's own answer.
    #[source]
    pub source: rusqlite::Error,
}

/// How a failure is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else holds a lock: wait and try again.
    Busy,
    /// The disk is full, or an I/O error: pause visibly and try again.
    Disk,
    /// The file may not be written.
    ReadOnly,
    /// The file is damaged or no database.
    Corrupt,
    /// A UNIQUE index or the key refused a row.
    Unique,
    /// The schema changed under a statement; prepare it again.
    Schema,
    /// Anything else.
    Other,
}

impl SqliteError {
    /// Classifies the failure.
    #[must_use]
    pub fn fault(&self) -> Fault {
        fault_of(&self.source)
    }

    /// What the operator can do about it, if anything.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self.fault() {
            Fault::Disk => {
                Some("free space on the disk of the database; replication goes on by itself then")
            }
            Fault::ReadOnly => Some(
                "make the database, its folder and its -wal and -shm files writable for the user of this daemon",
            ),
            Fault::Corrupt => Some(
                "run PRAGMA integrity_check; stop the daemon, put a sound copy or a snapshot in place and start again",
            ),
            Fault::Busy => Some(
                "another process holds the database's lock; replication goes on when it lets go (an application with PRAGMA locking_mode = EXCLUSIVE never does)",
            ),
            Fault::Unique | Fault::Schema | Fault::Other => None,
        }
    }
}

/// Classifies a failure of rusqlite.
#[must_use]
pub fn fault_of(error: &rusqlite::Error) -> Fault {
    let rusqlite::Error::SqliteFailure(e, _) = error else {
        return Fault::Other;
    };
    match e.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Fault::Busy,
        ErrorCode::DiskFull | ErrorCode::SystemIoFailure => Fault::Disk,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
            Fault::ReadOnly
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Fault::Corrupt,
        ErrorCode::ConstraintViolation
            if matches!(
                e.extended_code,
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                    | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                    | rusqlite::ffi::SQLITE_CONSTRAINT_ROWID
            ) =>
        {
            Fault::Unique
        }
        ErrorCode::SchemaChanged => Fault::Schema,
        _ => Fault::Other,
    }
}

/// Adds what we were doing to a result of rusqlite.
pub trait Doing<T> {
    /// `what` completes "could not …".
    ///
    /// # Errors
    /// The failure, with `what`.
    fn doing(self, what: &str) -> Result<T, SqliteError>;
    /// As [`Doing::doing`], with a text that is made only on failure.
    ///
    /// # Errors
    /// The failure, with the text.
    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, SqliteError>;
}

impl<T> Doing<T> for Result<T, rusqlite::Error> {
    fn doing(self, what: &str) -> Result<T, SqliteError> {
        self.map_err(|source| SqliteError {
            doing: format!("could not {what}"),
            source,
        })
    }

    fn doing_with(self, what: impl FnOnce() -> String) -> Result<T, SqliteError> {
        self.map_err(|source| SqliteError {
            doing: format!("could not {}", what()),
            source,
        })
    }
}
