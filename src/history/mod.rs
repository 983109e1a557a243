//! What mends a broken history of the log: a new one, agreed on by the nodes.
//!
//! ```text
//!   proposed ─▶ every node says where it stands ─▶ chosen: whose fold is the base ─▶ the base is in the store ─▶ settled: all restore onto it
//! ```
//!
//! Invariants: what was agreed changes by compare-and-set alone, in one key; who dies at it is followed by another; nothing rests on all nodes having heard of
//! it at once, since who has not goes on in the history before, and restores when it hears.

pub mod agree;
pub mod choose;
pub mod mend;
pub mod standing;
pub mod watch;
