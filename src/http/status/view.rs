//! What is known of this node at one moment: plain values, which the verdict and the answers are made of.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::steps::At;
use crate::brakes::Set;
use crate::change::position::NodeId;
use crate::telemetry::logging::LastError;

/// A part of the daemon that can be in trouble of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Opening, reading or writing the database.
    Database,
    /// Triggers and change-log tables.
    Capture,
    /// The NATS connection and the managed server.
    Broker,
    /// The outbound loop.
    Publish,
    /// The inbound loop.
    Apply,
    /// Taking snapshots, and trimming.
    Snapshots,
    /// The log file.
    Logs,
    /// Listing what the snapshot store holds.
    SnapshotStore,
    /// The streams.
    #[serde(rename = "jetstream")]
    JetStream,
}

/// A loop whose standstill makes the node unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loop {
    /// Change log to stream.
    Publish,
    /// Stream to database.
    Consume,
}

impl Loop {
    /// The loop's name in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Consume => "consume",
        }
    }
}

/// The last trouble of a component, until it works again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What went wrong, as one sentence without secrets.
    pub error: String,
    /// When the component last came into trouble, with this sentence or another.
    pub since: SystemTime,
}

/// What this node sees of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name in metrics.
    pub kind: &'static str,
    /// Whether this node is cut off as a whole, not only from some.
    pub cut_off: bool,
    /// For people.
    pub sentence: String,
}

/// Room in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes free to this user.
    pub free: u64,
    /// Bytes below which there are too few; 0: no limit.
    pub limit: u64,
}

/// Everything known at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// This node.
    pub node_id: NodeId,
    /// `publish` of the configuration.
    pub publish: bool,
    /// `replicate` of the configuration.
    pub replicate: bool,
    /// Since the daemon began.
    pub uptime: Duration,
    /// The start has come to its end.
    pub started: bool,
    /// Stopping was requested.
    pub stopping: bool,
    /// The database is open and answers.
    pub db_connected: bool,
    /// The broker is connected.
    pub nats_connected: bool,
    /// Capture is in place on every replicated table.
    pub cdc_installed: bool,
    /// Number of replicated tables.
    pub tables_tracked: u64,
    /// Change-log rows that no echo has confirmed yet.
    pub pending: u64,
    /// When a batch was last acknowledged.
    pub last_published: Option<SystemTime>,
    /// When another node's batch was last applied.
    pub last_replicated: Option<SystemTime>,
    /// Hash of the schema; empty until known.
    pub schema_hash: String,
    /// The hash before the last change; empty if there was none.
    pub schema_previous_hash: String,
    /// What the schema here lacks, while that pauses applying.
    pub schema_paused: Option<String>,
    /// Since when it does.
    pub schema_paused_since: Option<SystemTime>,
    /// What else pauses applying.
    pub apply_paused: Option<String>,
    /// What an operator holds back.
    pub brakes: Set,
    /// What is seen of a partition.
    pub partition: Option<Partition>,
    /// Whether snapshots are enabled.
    pub snapshots: bool,
    /// Messages of the order stream that are not applied here; `None`: not known yet.
    pub lag_messages: Option<u64>,
    /// By shard, why nothing can be read from its stream, if that is so.
    pub consumers: BTreeMap<u64, Option<String>>,
    /// Room in the file system of the database.
    pub disk: Option<Disk>,
    /// Why the database cannot be read, as of the last look.
    pub database_error: Option<String>,
    /// Tables whose rows may have been written without capture, and what that waits for.
    pub unsure: Option<String>,
    /// Triggers of the app that fail for what other nodes have changed.
    pub triggers: Option<String>,
    /// Entries in the dead-letter journal.
    pub dead_letters: u64,
    /// Troubles that last, by component.
    pub troubles: BTreeMap<Component, Trouble>,
    /// Running loops and the time since each last made progress.
    pub loops: BTreeMap<Loop, Duration>,
    /// What each loop is at.
    pub at: BTreeMap<&'static str, At>,
    /// Events of `ERROR` and of `WARN` since the start.
    pub logged: (u64, u64),
    /// The last event of `ERROR`.
    pub last_error: Option<LastError>,
}
