//! Comparing all nodes at one and the same position of the stream, and mending what differs.
//!
//! ```text
//!   coordinator ── prepare ──▶ every node
//!               ── marker ───▶ order stream ──▶ every node folds up to it, and takes a snapshot before it goes on
//!               ◀─ tables, rows with pending changes ── every node          (set apart, on all nodes alike)
//!               ◀─ digests of 1,024 buckets a table ─── every node
//!               ◀─ rows of the buckets that differ ──── every node
//! ```
//!
//! Invariants: what is compared is the fold at the marker and nothing else, since each node's snapshot is that fold with its own pending changes on top,
//! and those rows are left out everywhere; replication and the apps go on meanwhile; memory is bounded on both sides whatever the size of the
//! tables; nothing is written unless a repair is asked for, and then only rows that differ, as changes of the node that was named.

mod comparison;
mod coordinator;
mod digest;
mod error;
mod examiner;
mod meeting;
mod members;
mod pages;
mod report;
mod rows;
mod run;
mod schema;
mod snapshot;
mod values;

pub use comparison::{Comparison, Comparisons};
pub use coordinator::Options;
pub use error::VerifyError;
pub use examiner::Resender;
pub use members::Say;
pub use report::{KeyReport, NotCompared, Report, Resent, TableReport};
pub use run::verify;
