//! Positions for people and apps: where everything that this node's app has committed stands in the stream, when a node has folded a position, and
//! when all living nodes have.
//!
//! Invariants: every wait has a deadline and ends when the daemon stops; nothing here holds the replica while it waits; a node that was seen living
//! when a wait began and has not got there is never passed over, unless its id has expired and it has no connection any more.

mod error;
mod everywhere;
mod here;
pub mod token;

pub use error::WaitError;
pub use everywhere::{Everywhere, everywhere};
pub use here::{committed, identity, reached};
pub use token::Token;
