//! The statements that make capture current, once it is known which they are.
//!
//! Invariant: a step does nothing that was not found wanting when the schema was read; it is for the caller to see to it that the schema is still that one.

use rusqlite::Connection;

use super::known::{KnownTable, StoredObject, write_known};
use super::rekey::Rekeyed;
use super::triggers::Object;
use crate::change::table::Table;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::state::unsure::{self, Reason, Unsure};

/// One thing to do.
#[derive(Debug)]
pub(super) enum Step {
    /// The table's rows are not certain.
    Mark(String, Reason),
    /// So are those of a table that was not known, if it has any.
    MarkIfRows(String),
    /// What is known of the table from now on.
    Know(String, KnownTable),
    /// The table is not there any more.
    Unmark(Unsure),
    /// An object of ours goes.
    Drop {
        /// `table`, `trigger` or `view`.
        kind: String,
        /// Its name.
        name: String,
    },
    /// An object of ours comes.
    Create(Object),
    /// A change log is put aside, on its way to another key.
    SetAside(Rekeyed),
    /// It goes over to that key.
    GoOver(Rekeyed),
    /// Rows are logged.
    Log(String),
}

impl Step {
    pub fn drop(object: &StoredObject) -> Self {
        Self::Drop {
            kind: object.kind.clone(),
            name: object.name.clone(),
        }
    }

    /// Whether it changes the schema.
    pub const fn is_of_schema(&self) -> bool {
        matches!(self, Self::Drop { .. } | Self::Create(_) | Self::GoOver(_))
    }

    pub fn run(&self, conn: &Connection) -> Result<(), SqliteError> {
        match self {
            Self::Mark(table, reason) => unsure::mark(conn, table, *reason),
            Self::MarkIfRows(table) => {
                if has_rows(conn, table)? {
                    unsure::mark(conn, table, Reason::New)?;
                }
                Ok(())
            }
            Self::Know(table, known) => write_known(conn, table, known),
            Self::Unmark(gone) => unsure::clear(conn, gone),
            Self::Drop { kind, name } => conn
                .execute_batch(&format!(
                    "DROP {} IF EXISTS {}",
                    kind.to_ascii_uppercase(),
                    quote(name)
                ))
                .doing_with(|| format!("drop {kind} {name}")),
            Self::Create(object) => conn
                .execute_batch(&object.sql)
                .doing_with(|| format!("create {} {}", object.kind, object.name)),
            Self::SetAside(moved) => moved.set_aside(conn),
            Self::GoOver(moved) => moved.go_over(conn),
            Self::Log(sql) => conn.execute_batch(sql).doing("log the rows of a new table"),
        }
    }
}

/// What a table needs that was not known: all of it, and nothing else, so that it may be captured before others are.
#[derive(Debug)]
pub(super) struct NewTable {
    pub table: Table,
    pub steps: Vec<Step>,
}

fn has_rows(conn: &Connection, table: &str) -> Result<bool, SqliteError> {
    let sql = format!("SELECT EXISTS(SELECT 1 FROM {})", quote(table));
    conn.query_row(&sql, [], |r| r.get(0))
        .doing_with(|| format!("look for rows of table \"{table}\""))
}
