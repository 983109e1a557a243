//! Between batches and bytes: the frame around every message, the commit record, the marker, the stream of rows, the sequence map.
//!
//! Invariants: a version stands in every frame; nothing is decoded whose hash does not fit; decoded sizes are bounded
//! before memory is taken; decoding never panics, whatever the bytes.

pub mod batch;
pub mod bounds;
pub mod commit;
pub mod covers;
pub mod frame;
pub mod marker;
pub mod payload;
pub mod rows;
pub mod sequence_map;
pub mod spool;
