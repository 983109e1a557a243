//! The change log: what the triggers noted, which of it is in flight, and what is done with.
//!
//! Invariants: a scan and the application of messages never overlap (both hold the [`in_flight::InFlight`] state for their whole
//! length), so each sees what the other has decided; a change-log row goes only when a batch that covers it (same id and stamp) was
//! folded, or when its cells were forgotten with their row.

pub mod commit_points;
pub mod cut;
mod former_deletes;
pub mod in_flight;
pub mod marks;
pub mod pending;
pub mod reduce;
pub mod retire;
pub mod scan;
pub mod watch;
