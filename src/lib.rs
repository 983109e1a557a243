//! HarmonyLite: a replication sidecar for SQLite.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic
    )
)]

pub mod change;
pub mod config;
pub mod http;
pub mod runtime;
pub mod telemetry;
