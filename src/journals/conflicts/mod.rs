//! The conflict journal: what lost to another write.
//!
//! The table has a row for each lost value. Rows that were written one after the other for the same row of the app's, at the same place of the
//! stream, are one *conflict*, and the id of the first is the conflict's.

mod read;

pub use read::{Filter, find, list};

use crate::change::value::OwnedValue;

/// What lost at one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Its number in the journal.
    pub id: i64,
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
    /// The columns that lost, each with its value (NULL in a list, which reads none).
    pub cells: Vec<(String, OwnedValue)>,
}
