//! This node's schema, read from its database: with a running daemon beside it or without.
//!
//! Invariant: reads only.

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::entry::TableEntry;
use crate::capture::install;
use crate::replica::filter::TableFilter;
use crate::sqlite::error::SqliteError;
use crate::sqlite::introspect::Familiar;

/// A node's own schema.
#[derive(Debug, Clone, Serialize)]
pub struct Audit {
    /// Hash of what replication knows of it.
    pub schema_hash: String,
    /// Its replicated tables.
    pub tables: Vec<TableAudit>,
    /// Tables that are not replicated, with the reason.
    pub refused: Vec<(String, String)>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Changes that have not come back from the stream.
    pub pending: u64,
    /// What the running daemon says; `None`: none runs.
    pub daemon: Option<Running>,
}

/// A replicated table.
#[derive(Debug, Clone, Serialize)]
pub struct TableAudit {
    /// Name, columns, key and UNIQUE indexes.
    #[serde(flatten)]
    pub table: TableEntry,
    /// Whether its change log and triggers are there and fit its columns.
    pub capture: Capture,
    /// Changes of it that have not come back from the stream.
    pub pending: u64,
}

/// How a table's capture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// In place.
    Current,
    /// Made for other columns, or in part.
    Outdated,
    /// Not there.
    None,
}

impl Capture {
    /// In one word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Outdated => "outdated",
            Self::None => "none",
        }
    }
}

/// What a running daemon knows of its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Hash of the schema that capture was last made for.
    pub hash: String,
    /// The hash before the last change.
    pub previous_hash: String,
    /// What the schema lacks, while that pauses applying.
    pub waits_for: Option<String>,
    /// Since when (RFC 3339, UTC).
    #[serde(default)]
    pub waits_since: Option<String>,
    /// What else pauses applying.
    pub paused: Option<String>,
}

/// Looks at the database.
///
/// # Errors
/// SQLite's.
pub fn audit(conn: &Connection, filter: &TableFilter) -> Result<Audit, SqliteError> {
    let captured =
        install::describe_only(conn, &|t| filter.wants(conn, t), &mut Familiar::default())?;
    let mut tables = Vec::new();
    let mut pending = 0;
    let looked = install::look_at(conn, captured.tables.iter().map(|t| &t.table))?;
    for (table, looked) in captured.tables.iter().zip(looked) {
        let (capture, waiting) = match looked {
            None => (Capture::None, 0),
            Some((true, waiting)) => (Capture::Current, waiting),
            Some((false, waiting)) => (Capture::Outdated, waiting),
        };
        pending += waiting;
        tables.push(TableAudit {
            table: TableEntry::of(&table.table),
            capture,
            pending: waiting,
        });
    }
    Ok(Audit {
        schema_hash: captured.schema_hash(),
        tables,
        refused: captured.refused,
        warnings: captured.warnings,
        pending,
        daemon: None,
    })
}
