//! The nouns of replication, without I/O.

pub mod position;
