//! What a person does about collisions: knowing where they are to be expected, reading the journals, writing back what lost, clearing them away. Works on the database file, with or without a
//! daemon beside it.
//!
//! Invariants: reading changes nothing; what is written back is a write like one of the app's, captured and replicated like one; a journal of a
//! format that this program does not know is not touched.

mod chosen_keys;
pub mod conflicts;
pub mod dead_letters;
mod open;
mod target;

pub use chosen_keys::chosen_keys;
pub use open::{JournalError, in_transaction, open_as_app, open_to_read};

/// Which entries of a journal go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those written before this time, RFC 3339 in UTC.
    Before(String),
    /// These.
    These(Vec<i64>),
}
