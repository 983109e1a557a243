//! What the daemon shows over HTTP: `/metrics` for Prometheus, the health endpoint for probes, and beside it positions for apps.
//!
//! Invariants: a scrape and a probe read shared values and ask no loop, so they are answered however busy the loops
//! are and however many requests wait for a position; no request, however large, slow or frequent, costs more than a bounded share of memory and
//! connections; nothing here writes.

mod connections;
mod health;
mod positions;
mod pprof;
mod routes;
mod server;
pub mod status;

pub use positions::{Answering, PositionAnswer, PositionDesk, Positions};
pub use server::{HttpError, HttpServers};
pub use status::Status;
