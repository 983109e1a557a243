//! Every metric of the daemon, by name, with what it means and in which unit.
//!
//! Invariants: names, once published, stay (dashboards hang on them); the six names of the Go program exist;
//! units are Prometheus's (seconds, bytes, `_total` for counters); each series carries `node_id`; no label has
//! unbounded values; a value or a secret of the app's data is in none.

use std::ops::Deref;
use std::sync::Arc;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use super::instrument::{
    Maker, NamedGauge, QueueGauges, ReasonCounter, ReasonFlag, ShardGauge, TwinCounter,
};
use super::process::ProcessCollector;
use crate::change::position::NodeId;
use crate::config::PrometheusConfig;

/// Short work under the app's nose: scans and write locks, 100 us to 5 s.
const WORK_BUCKETS: [f64; 15] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// Ways through the broker: 500 us on one machine, minutes after an outage.
const WAY_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0,
    300.0,
];

/// Why the metrics could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// A name is not one that Prometheus allows.
    #[error(
        "the metric {name:?} cannot be registered: [prometheus] namespace and subsystem may hold letters, digits and `_`, and begin with no digit"
    )]
    Register {
        /// The full name.
        name: String,
        /// What the library says.
        #[source]
        source: prometheus::Error,
    },
    /// The text form could not be written.
    #[error("the metrics could not be encoded")]
    Encode(#[source] prometheus::Error),
}

/// All metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

/// The instruments by name. Their documentation is the text that `/metrics` shows.
pub struct Instruments {
    registry: Registry,

    // Names of the Go program, kept for its dashboards.
    /// Change-log rows that no echo has confirmed yet.
    pub pending_publish: IntGauge,
    /// 1 while applying is paused because the schema differs.
    pub schema_mismatch_paused: IntGauge,
    /// Seconds since the last verified snapshot; NaN where there is none.
    pub snapshot_age: Gauge,
    /// Seconds to count what is pending.
    pub count_changes: Histogram,
    /// Seconds of one scan of the change log.
    pub scan_changes: Histogram,

    // Snapshots.
    /// Bytes of the last verified snapshot.
    pub snapshot_size_bytes: IntGauge,
    /// Seconds that the last snapshot taken here took.
    pub snapshot_duration_seconds: Gauge,
    /// Bytes of the snapshot under way that are uploaded; 0 when none is.
    pub snapshot_progress_bytes: IntGauge,
    /// Bytes fetched of the snapshot that this node begins from.
    pub restore_progress_bytes: IntGauge,
    /// 1 on the node that takes the cluster's snapshots.
    pub snapshot_leader: IntGauge,
    /// Snapshots taken here.
    pub snapshots_taken: IntCounter,
    /// Snapshots that failed here.
    pub snapshot_failures: IntCounter,
    /// Messages that this node removed from the streams.
    pub purged_messages: IntCounter,
    /// Their bytes.
    pub purged_bytes: IntCounter,
    /// Bytes in a shard's stream.
    pub stream_bytes: ShardGauge,
    /// Bytes that a shard's stream may hold; 0: no limit.
    pub stream_limit_bytes: ShardGauge,
    /// 1 while nothing new is published because a stream is above its soft limit, or as much is kept of what was published as may be.
    pub publish_held_back: IntGauge,
    /// The number of the history that this node is in.
    pub history: IntGauge,
    /// Bytes kept of what was published until a snapshot covers it.
    pub kept_bytes: IntGauge,
    /// Batches that they are of.
    pub kept_batches: IntGauge,
    /// Bytes of large batches that lie in temporary files.
    pub spool_bytes: IntGauge,

    // Publishing.
    /// Batches that the stream acknowledged.
    pub batches_published: IntCounter,
    /// Rows of those batches; also the Go program's `published`.
    pub rows_published: TwinCounter,
    /// Payload bytes before compression.
    pub published_bytes_raw: IntCounter,
    /// Payload bytes as sent.
    pub published_bytes_sent: IntCounter,
    /// Publishes tried again after an error or a timeout.
    pub publish_retries: IntCounter,
    /// From sending a batch to seeing it in the stream.
    pub publish_to_echo: Histogram,

    // Applying.
    /// Batches of other nodes that were folded.
    pub batches_applied: IntCounter,
    /// Row operations of those batches.
    pub rows_applied: IntCounter,
    /// Own batches that came back.
    pub echoes: IntCounter,
    /// Times that other nodes' changes waited in vain for a batch of ours on its way, and were applied without it.
    pub holds_given_up: IntCounter,
    /// Messages ignored because that batch had been taken already.
    pub ignored_duplicate: IntCounter,
    /// Messages ignored because an earlier batch of their publisher is missing.
    pub ignored_gap: IntCounter,
    /// Messages ignored because their publisher has started anew since.
    pub ignored_stale_incarnation: IntCounter,
    /// How long one apply transaction held the write lock.
    pub apply_transaction: Histogram,
    /// From the commit on the origin to the commit here; clocks of two machines.
    pub commit_to_applied: Histogram,
    /// The sequence up to which a shard is folded.
    pub position: ShardGauge,
    /// The last sequence of a shard's stream.
    pub stream_last: ShardGauge,
    /// Messages of a shard between the two.
    pub lag_messages: ShardGauge,
    /// Overridden values that went to the conflict journal.
    pub conflicts: ReasonCounter,
    /// Tables whose rows may have been written without capture.
    pub unsure_tables: IntGauge,
    /// The app's triggers that fire for what other nodes have changed.
    pub app_triggers: IntGauge,
    /// Those of them that have failed for a row.
    pub app_triggers_failing: IntGauge,
    /// Rows written without capture that were found and entered in the change log.
    pub reconciled_rows: IntCounter,
    /// Entries in the dead-letter journal.
    pub dead_letters: IntGauge,
    /// Rows that `PRAGMA foreign_key_check` lists.
    pub foreign_key_violations: IntGauge,
    /// Which reason, if any, pauses applying.
    pub apply_paused: ReasonFlag,
    /// 1 for what an operator has paused.
    pub operator_paused: NamedGauge,
    /// Rows a second that an operator has limited a part to; 0: no limit.
    pub operator_limit: NamedGauge,

    /// Nodes that announce themselves, by whether they answer this one.
    pub peers: NamedGauge,
    /// Which kind of partition, if any, this node sees.
    pub partition: ReasonFlag,

    // The broker.
    /// 1 while connected.
    pub broker_connected: IntGauge,
    /// Connections made again after one was lost.
    pub broker_reconnects: IntCounter,
    /// Restarts of the managed nats-server.
    pub managed_server_restarts: IntCounter,

    /// Depth and bound of the queues.
    pub queues: QueueGauges,
}

impl Deref for Metrics {
    type Target = Instruments;

    fn deref(&self) -> &Instruments {
        &self.0
    }
}

impl Metrics {
    /// Makes and registers all metrics under the configured prefix.
    ///
    /// # Errors
    /// When namespace or subsystem make a name that Prometheus does not allow.
    pub fn new(config: &PrometheusConfig, node: NodeId) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let make = Maker {
            registry: &registry,
            namespace: &config.namespace,
            subsystem: &config.subsystem,
            node_id: node.to_string(),
        };

        let build = (
            "build_info",
            "Always 1; the label names the version.",
            "version",
            env!("CARGO_PKG_VERSION"),
        );
        make.gauge_with(build)?.set(1);
        let process =
            ProcessCollector::new(&make.node_id).map_err(|source| MetricsError::Register {
                name: "process_*".to_owned(),
                source,
            })?;
        make.register("process_*", Ok(process))?;

        let bytes = |form| {
            make.counter_with((
                "published_bytes_total",
                "Payload bytes published: raw before compression, sent as they went out.",
                "form",
                form,
            ))
        };
        let ignored = |reason| {
            make.counter_with((
                "ignored_messages_total",
                "Messages that every reader skips: duplicates, what follows a gap, publishers' earlier lives.",
                "reason",
                reason,
            ))
        };

        let instruments = Instruments {
            pending_publish: make.gauge(
                "pending_publish",
                "Change-log rows that no echo has confirmed yet.",
            )?,
            schema_mismatch_paused: make.gauge(
                "schema_mismatch_paused",
                "1 while applying is paused because the schema here lacks what a batch needs.",
            )?,
            snapshot_age: make.real_gauge(
                "snapshot_age",
                "Seconds since the last verified snapshot; NaN while none is known.",
            )?,
            count_changes: make.seconds(
                "count_changes",
                "Seconds to count the pending changes (the Go program observed microseconds).",
                &WORK_BUCKETS,
            )?,
            scan_changes: make.seconds(
                "scan_changes",
                "Seconds of one scan of the change log (the Go program observed microseconds).",
                &WORK_BUCKETS,
            )?,
            snapshot_size_bytes: make.gauge(
                "snapshot_size_bytes",
                "Bytes of the last verified snapshot.",
            )?,
            snapshot_duration_seconds: make.real_gauge(
                "snapshot_duration_seconds",
                "Seconds that the last snapshot taken by this node took, verification included.",
            )?,
            snapshot_progress_bytes: make.gauge(
                "snapshot_progress_bytes",
                "Bytes of the snapshot under way on this node that are uploaded; 0 when none is.",
            )?,
            restore_progress_bytes: make.gauge(
                "restore_progress_bytes",
                "Bytes fetched of the snapshot that this node begins from; 0 when none is.",
            )?,
            snapshot_leader: make.gauge(
                "snapshot_leader",
                "1 on the node that takes the cluster's snapshots and trims the streams.",
            )?,
            snapshots_taken: make.counter(
                "snapshots_taken_total",
                "Snapshots that this node has taken and verified.",
            )?,
            snapshot_failures: make.counter(
                "snapshot_failures_total",
                "Snapshots that this node began and could not finish.",
            )?,
            purged_messages: make.counter(
                "purged_messages_total",
                "Messages that this node has removed from the streams because a verified snapshot covers them.",
            )?,
            purged_bytes: make.counter(
                "purged_bytes_total",
                "Bytes of those messages.",
            )?,
            stream_bytes: ShardGauge(make.gauges(
                "stream_bytes",
                "Bytes in the shard's stream.",
                "shard",
            )?),
            stream_limit_bytes: ShardGauge(make.gauges(
                "stream_limit_bytes",
                "Bytes that the shard's stream may hold; 0 where it has no limit.",
                "shard",
            )?),
            publish_held_back: make.gauge(
                "publish_held_back",
                "1 while nothing new is published: a stream is above its soft limit, or kept_max_bytes is reached.",
            )?,
            history: make.gauge(
                "history",
                "The number of the log's history that this node is in; it rises when the broker has lost what was folded.",
            )?,
            kept_bytes: make.gauge(
                "kept_bytes",
                "Bytes kept beside the database of what was published until a snapshot covers it.",
            )?,
            kept_batches: make.gauge(
                "kept_batches",
                "Batches that are kept until a snapshot covers them.",
            )?,
            spool_bytes: make.gauge(
                "spool_bytes",
                "Bytes of large batches, outgoing and incoming, that lie in temporary files beside the database.",
            )?,
            batches_published: make.counter(
                "batches_published_total",
                "Batches that the stream acknowledged.",
            )?,
            rows_published: TwinCounter {
                old: make.counter(
                    "published",
                    "Rows published; the same count as rows_published_total.",
                )?,
                new: make.counter(
                    "rows_published_total",
                    "Rows of the batches that the stream acknowledged.",
                )?,
            },
            published_bytes_raw: bytes("raw")?,
            published_bytes_sent: bytes("sent")?,
            publish_retries: make.counter(
                "publish_retries_total",
                "Publishes tried again after an error or a timeout.",
            )?,
            publish_to_echo: make.seconds(
                "publish_to_echo_seconds",
                "From sending a batch to seeing it come back in the stream.",
                &WAY_BUCKETS,
            )?,
            batches_applied: make.counter(
                "batches_applied_total",
                "Batches of other nodes applied here.",
            )?,
            rows_applied: make.counter(
                "rows_applied_total",
                "Row operations of other nodes' batches applied here.",
            )?,
            echoes: make.counter("echoes_total", "Own batches that came back in the stream.")?,
            holds_given_up: make.counter(
                "holds_given_up_total",
                "Times that an incoming change was held back in vain for a batch of this node: its app may have seen an older value of its own for a while.",
            )?,
            ignored_duplicate: ignored("duplicate")?,
            ignored_gap: ignored("gap")?,
            ignored_stale_incarnation: ignored("stale_incarnation")?,
            apply_transaction: make.seconds(
                "apply_transaction_seconds",
                "How long one apply transaction held the database's write lock.",
                &WORK_BUCKETS,
            )?,
            commit_to_applied: make.seconds(
                "commit_to_applied_seconds",
                "From the commit on the origin to the commit here, by the clocks of both machines.",
                &WAY_BUCKETS,
            )?,
            position: ShardGauge(make.gauges(
                "position",
                "Stream sequence up to which everything is applied here.",
                "shard",
            )?),
            stream_last: ShardGauge(make.gauges(
                "stream_last",
                "Last sequence in the shard's stream.",
                "shard",
            )?),
            lag_messages: ShardGauge(make.gauges(
                "lag_messages",
                "Messages in the shard's stream that are not applied here yet.",
                "shard",
            )?),
            conflicts: ReasonCounter(make.counters(
                "conflicts_total",
                "Overridden values written to the conflict journal.",
                "reason",
            )?),
            foreign_key_violations: make.gauge(
                "foreign_key_violations",
                "Rows whose parent is gone, as PRAGMA foreign_key_check lists them; equal on all nodes.",
            )?,
            unsure_tables: make.gauge(
                "unsure_tables",
                "Tables whose rows may have been written without capture, and are not compared with the stream yet.",
            )?,
            app_triggers: make.gauge(
                "app_triggers",
                "Triggers of the application that fire for what other nodes have changed.",
            )?,
            app_triggers_failing: make.gauge(
                "app_triggers_failing",
                "Those of them that have failed for a row, which was written without them, since the schema last changed.",
            )?,
            reconciled_rows: make.counter(
                "reconciled_rows_total",
                "Rows written without capture that were found by comparing with the stream, and are published.",
            )?,
            dead_letters: make.gauge("dead_letters", "Entries in the dead-letter journal.")?,
            apply_paused: ReasonFlag(make.gauges(
                "apply_paused",
                "1 for the reason that pauses applying on this node.",
                "reason",
            )?),
            peers: NamedGauge(make.gauges(
                "peers",
                "Other nodes that announce themselves: heard answer this one over NATS, unheard do not.",
                "state",
            )?),
            partition: ReasonFlag(make.gauges(
                "partition",
                "1 for what this node sees of a partition: jetstream (nothing is stored), isolated (nobody answers), peers (some do not).",
                "reason",
            )?),
            operator_paused: NamedGauge(make.gauges(
                "operator_paused",
                "1 while an operator has paused this part of the node (harmonylite pause).",
                "part",
            )?),
            operator_limit: NamedGauge(make.gauges(
                "operator_limit_rows_per_second",
                "Rows a second that an operator has limited this part of the node to; 0: no limit.",
                "part",
            )?),
            broker_connected: make.gauge("broker_connected", "1 while connected to NATS.")?,
            broker_reconnects: make.counter(
                "broker_reconnects_total",
                "Connections made again after one was lost.",
            )?,
            managed_server_restarts: make.counter(
                "managed_server_restarts_total",
                "Restarts of the nats-server that this daemon runs.",
            )?,
            queues: QueueGauges {
                depth: make.gauges(
                    "queue_depth",
                    "Items (bytes where the name says so) in a queue.",
                    "queue",
                )?,
                limit: make.gauges("queue_limit", "Bound of a queue.", "queue")?,
            },
            registry: registry.clone(),
        };
        instruments.snapshot_age.set(f64::NAN);
        Ok(Self(Arc::new(instruments)))
    }

    /// The text form that `GET /metrics` answers with.
    ///
    /// # Errors
    /// When the library cannot encode a family.
    pub fn render(&self) -> Result<String, MetricsError> {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .map_err(MetricsError::Encode)
    }
}

#[cfg(test)]
mod tests;
