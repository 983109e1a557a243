//! The conflict journal: what lost to another write.
//!
//! The table has a row for each lost value. Rows that were written one after the other for the same row of the app's, at the same place of the
//! stream, are one *conflict*, and the id of the first is the conflict's.

mod purge;
mod read;
mod refusal;
mod restore;

pub use purge::purge;
pub use read::{Filter, find, list};
pub use refusal::RestoreError;
pub(in crate::journals) use restore::write;
pub use restore::{How, Restored, restore};

use crate::change::value::OwnedValue;

/// What lost at one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Its number in the journal: that of its first value.
    pub id: i64,
    /// The number of its last value.
    pub last: i64,
    /// When it was noticed here, RFC 3339 in UTC.
    pub time: String,
    /// The table.
    pub table: String,
    /// The row's key, as SQL literals with commas.
    pub key: String,
    /// Why, as a word.
    pub reason: String,
    /// Whose write lost; empty where that is not known.
    pub losing_node: String,
    /// Whose write won.
    pub winning_node: String,
    /// The message of the order stream at which it happened.
    pub position: u64,
    /// What lost.
    pub cells: Vec<Cell>,
}

/// A value that lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Its column.
    pub column: String,
    /// The value; NULL in a list, which reads none.
    pub value: OwnedValue,
    /// When it was written back, RFC 3339 in UTC.
    pub restored: Option<String>,
}

impl Conflict {
    /// Whether all of it was written back.
    #[must_use]
    pub fn is_restored(&self) -> bool {
        self.cells.iter().all(|c| c.restored.is_some())
    }

    /// The columns that lost.
    #[must_use]
    pub fn columns(&self) -> Vec<&str> {
        self.cells.iter().map(|c| c.column.as_str()).collect()
    }
}
