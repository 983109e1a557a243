//! One daemon per database, and a way to talk to it from the command line.
//!
//! ```text
//!     app.db                     the app's, and SQLite's alone
//!     app.db-harmonylite.lock    held by the daemon while it lives   (lock)
//!     app.db-harmonylite.sock    its control socket                  (server, client)
//! ```
//!
//! Invariants: at most one process holds the lock of a database, and it ends with the process however that
//! ends; the lock file is never unlinked; the socket is made, replaced and removed by the lock's holder only, and
//! answers the daemon's own user and root only; no file of SQLite's is ever opened here.

pub mod client;
pub mod cluster;
pub mod lock;
pub mod protocol;
pub mod server;

mod paths;
mod socket;

pub use lock::{InstanceLock, LockError};
pub use protocol::{
    Outcome, PositionArguments, Refusal, Request, Span, VerifyArguments, WaitArguments,
};
pub use server::{ControlError, ControlServer, Reply};
