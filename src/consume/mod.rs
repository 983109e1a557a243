//! The inbound way: reading the order stream, fetching payload, and the loop that applies.

pub mod braking;
pub mod intake;
mod lock_sharing;
pub mod markers;
pub mod payload;
pub mod run;
