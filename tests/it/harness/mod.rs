//! Nodes, clusters, the broker and comparisons.

pub mod app;
pub mod cable;
pub mod cluster;
pub mod http;
pub mod jetstream;
pub mod node;
pub mod spaces;
pub mod tables;
pub mod wait;

#[path = "../../support/nats.rs"]
#[allow(dead_code)]
pub mod nats;
#[path = "../../support/ports.rs"]
pub mod ports;

pub use cluster::Cluster;
pub use node::Node;
pub use wait::eventually;
