//! The nouns of replication, without I/O: positions, values, keys, tables, row operations.

pub mod history;
pub mod key;
pub mod literal;
pub mod operation;
pub mod position;
pub mod table;
pub mod value;
