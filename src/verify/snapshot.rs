//! A node's database at a marker: a read transaction that begins after the marker was folded and before anything behind it is.
//!
//! Invariant: what it shows is the fold up to the marker with this node's own pending changes on top, and the change logs in it name exactly those.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use crate::capture::Captured;
use crate::change::position::Sequence;
use crate::sqlite::connection::{is_wal, open_reader, schema_version};
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::{StateError, node};

/// The snapshot.
#[derive(Debug)]
pub struct Snapshot {
    /// A connection inside its read transaction.
    pub conn: Connection,
    /// What is captured.
    pub captured: Arc<Captured>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum NoSnapshot {
    /// Something came between: another marker may do.
    #[error("{0}")]
    Missed(&'static str),
    /// Holding one would stop the app.
    #[error(
        "its database is not in WAL mode, in which a snapshot would make the app wait: PRAGMA journal_mode = WAL in the application mends that"
    )]
    NotWal,
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// Our state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Begins the snapshot of a node that has folded exactly up to `at`.
///
/// # Errors
/// See [`NoSnapshot`].
pub fn take(
    database: &Path,
    captured: Arc<Captured>,
    at: Sequence,
) -> Result<Snapshot, NoSnapshot> {
    let conn = open_reader(database)?;
    if !is_wal(&conn)? {
        return Err(NoSnapshot::NotWal);
    }
    conn.execute_batch("BEGIN")
        .doing("begin a snapshot for a comparison")?;
    // The first read makes the transaction's snapshot.
    if schema_version(&conn)? != captured.schema_version {
        return Err(NoSnapshot::Missed("its schema has just changed"));
    }
    if node::read(&conn)?.map(|n| n.position.sequence) != Some(at) {
        return Err(NoSnapshot::Missed("it had gone on already"));
    }
    Ok(Snapshot { conn, captured })
}
