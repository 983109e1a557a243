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

pub mod apply;
pub mod bench;
pub mod brakes;
pub mod capture;
pub mod change;
pub mod changelog;
pub mod cli;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod consume;
pub mod control;
pub mod daemon;
pub mod diagnose;
pub mod doctor;
pub mod engine;
pub mod history;
pub mod http;
pub mod journals;
pub mod peers;
pub mod planted;
pub mod publish;
pub mod registry;
pub mod replica;
pub mod runtime;
pub mod snapshot;
pub mod sqlite;
pub mod state;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod verify;
pub mod wait;
