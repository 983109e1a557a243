//! The whole program against real dependencies: daemons of this build, a real nats-server, real SQLite files under real app connections, real
//! signals. Each test has a folder, a server and ports of its own, waits for conditions and never for time, and takes its processes with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]

mod harness;

mod app_untouched;
mod apps;
mod bench;
mod broker_faults;
mod choosing_keys;
mod cluster_view;
mod commands;
mod conflicts;
mod counter;
mod django;
mod doctor;
mod fidelity;
mod fights;
mod files;
mod full_streams;
mod histories;
mod journals;
mod large;
mod life;
mod limits;
mod logs;
mod made_anew;
mod manual;
mod modes;
mod monitoring;
mod outages;
mod recovery;
mod rekey;
mod replication;
mod schema;
mod schema_changes;
mod schema_rolling;
mod schema_status;
mod security;
mod service;
mod snapshots;
mod uncaptured;
mod verify;
mod virtual_tables;
mod wait;
mod whole_transactions;
