//! Inbound changes: which messages count, how their rows are folded under what is pending here, and what loses on the way.
//!
//! The one idea: **a node's database = fold of the stream so far + its own pending changes on top.** Each rule here keeps that equation true.

mod dropped_index;
pub mod evaluator;
pub mod fold;
pub mod former_key;
pub mod incoming;
pub mod order;
pub mod plan;
pub mod rows;
pub mod write;
