//! What a node remembers inside the database, beside the data: who it is, how far it has folded, what it took from whom, and the
//! journals. Written in the same transactions as the data, so that both are always of one moment.
//!
//! Invariants: the format number says which program may read it; older ones are migrated, newer ones refused.

pub mod covered;
pub mod ddl;
pub mod journal;
pub mod node;
pub mod past;
pub mod publishers;
pub mod skips;
pub mod unsure;

/// Why the state in a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Written by a newer program.
    #[error(
        "the replication state in the database has format {found}, this program knows formats up to {known}: start the newer harmonylite that wrote it, or upgrade this one"
    )]
    Newer {
        /// The format found.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// There is none where there should be.
    #[error("the database holds no replication state")]
    Missing,
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] crate::sqlite::error::SqliteError),
}
