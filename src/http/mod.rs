//! What the daemon shows over HTTP: `/metrics` for Prometheus and the health endpoint for probes.
//!
//! Invariants: a request reads shared values and asks no loop, so a probe is answered however busy the loops
//! are; no request, however large, slow or frequent, costs more than a bounded share of memory and
//! connections; nothing here writes.

mod routes;
mod server;
pub mod status;

pub use server::{HttpError, HttpServers};
pub use status::Status;
