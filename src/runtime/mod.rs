//! How the daemon lives: one request to stop that everybody hears, waits that grow, signals, what
//! the service manager is told, and what the system is told of large files and memory.
//!
//! Invariant: every wait made here ends when stopping is requested.

pub mod allocator;
pub mod backoff;
pub mod child;
pub mod duration;
pub mod moment;
pub mod notify;
pub mod page_cache;
pub mod shutdown;
pub mod signals;

pub use backoff::Backoff;
pub use shutdown::Shutdown;
