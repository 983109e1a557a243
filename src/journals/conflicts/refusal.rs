//! Why a value was not written back: one sentence each, with what to do instead.

use crate::journals::JournalError;
use crate::sqlite::error::SqliteError;

/// Why nothing was written back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It was written back before.
    #[error(
        "conflict {id} was restored at {time} already; give --column NAME to write a column again"
    )]
    Already {
        /// Its number.
        id: i64,
        /// When.
        time: String,
    },
    /// The table is gone, or cannot be replicated.
    #[error("there is no table \"{0}\" here that is replicated: create it first")]
    NoTable(String),
    /// Capture triggers are missing.
    #[error(
        "changes of table \"{0}\" are not captured (publish is false, the table is excluded, or no daemon has served it yet), so other nodes would not get the row: start harmonylite with publish = true first"
    )]
    NotCaptured(String),
    /// A column is not part of the conflict, or not of the table any more.
    #[error("column \"{column}\" {problem}; it can be one of: {known}")]
    NoColumn {
        /// As given, or as journaled.
        column: String,
        /// What is wrong with it.
        problem: &'static str,
        /// Those that can be written back.
        known: String,
    },
    /// The row that the values belong to is not there.
    #[error(
        "the row with key {key} of table \"{table}\" is gone: give --as-new-row to insert these values as a row of their own"
    )]
    RowGone {
        /// The table.
        table: String,
        /// The key.
        key: String,
    },
    /// Another row holds a UNIQUE value.
    #[error(
        "{columns} = {value} is taken by the row with key {other} of table \"{table}\": change that row first, or restore other columns with --column"
    )]
    Taken {
        /// The table.
        table: String,
        /// The columns of the index.
        columns: String,
        /// The value.
        value: String,
        /// The key of the row that holds it.
        other: String,
    },
    /// The key of the new row is taken.
    #[error("table \"{table}\" has a row with key {key} already: give another --key")]
    KeyTaken {
        /// The table.
        table: String,
        /// The key.
        key: String,
    },
    /// The new row needs a key.
    #[error(
        "table \"{table}\" has a key that SQLite does not choose ({columns}): give --key {example}"
    )]
    KeyNeeded {
        /// The table.
        table: String,
        /// Its key columns.
        columns: String,
        /// How it is written.
        example: String,
    },
    /// SQLite or a trigger of the app's refused the row.
    #[error("table \"{table}\" does not take the row: {source}")]
    Refused {
        /// The table.
        table: String,
        /// SQLite's answer.
        #[source]
        source: SqliteError,
    },
    /// A trigger of the app's dropped the row without an error.
    #[error("a trigger of table \"{0}\" kept the row from being written")]
    Ignored(String),
}
