//! Talking to the other living nodes: the language, the asker's side, and the loop that answers.
//!
//! Invariants: every question has a deadline; at most [`AT_ONCE`] questions are answered at a time, and one more is refused, not kept; a question is only ever
//! about a node itself, so answering needs no other node.

pub mod ask;
pub mod protocol;
pub mod serve;

pub use serve::AT_ONCE;
