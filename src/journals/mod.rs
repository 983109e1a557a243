//! What a person does with the journals: reading them, writing back what lost, clearing them away. Works on the database file, with or without a
//! daemon beside it.
//!
//! Invariants: reading changes nothing; what is written back is a write like one of the app's, captured and replicated like one; a journal of a
//! format that this program does not know is not touched.

pub mod conflicts;
mod open;

pub use open::{JournalError, open_to_read};
