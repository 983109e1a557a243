//! The instruments by name: one table, in which the comment of a field is also the text that a scrape shows for it.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::MetricsError;
use crate::telemetry::instrument::{
    Maker, NamedGauge, NamedReal, PeerGauge, QueueGauges, ReasonCounter, ReasonFlag, ShardGauge,
    ShardSeconds, TwinCounter, TwinGauge, TwinHistogram,
};

/// Short work under the app's nose: scans and write locks, 100 us to 5 s.
const WORK_BUCKETS: [f64; 15] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// Ways through the broker: 100 us at the very best, minutes after an outage.
const WAY_BUCKETS: [f64; 18] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 30.0, 60.0, 300.0,
];

/// The struct and what makes it.
macro_rules! instruments {
    (|$make:ident, $help:ident| $(#[doc = $text:literal] $field:ident: $shape:ty = $made:expr;)+) => {
        /// The instruments by name.
        pub struct Instruments {
            $(#[doc = $text] pub $field: $shape,)+
        }

        impl Instruments {
            pub(super) fn new($make: &Maker<'_>) -> Result<Self, MetricsError> {
                Ok(Self {
                    $($field: {
                        let $help = $text.trim();
                        $made?
                    },)+
                })
            }
        }
    };
}

instruments! { |make, help|
    // Names of the Go program, kept for its dashboards.
    /// Change-log rows that no echo has confirmed yet.
    pending_publish: IntGauge = make.gauge("pending_publish", help);
    /// 1 while applying is paused because the schema here lacks what a batch needs.
    schema_mismatch_paused: IntGauge = make.gauge("schema_mismatch_paused", help);
    /// Seconds since the last verified snapshot; NaN while none is known.
    snapshot_age: TwinGauge = make.twin_gauge("snapshot_age", "snapshot_age_seconds", help);
    /// Seconds to count the pending changes (the Go program observed microseconds).
    count_changes: TwinHistogram = make.twin_seconds("count_changes", "count_changes_seconds", help, &WORK_BUCKETS);
    /// Seconds of one scan of the change log (the Go program observed microseconds).
    scan_changes: TwinHistogram = make.twin_seconds("scan_changes", "scan_changes_seconds", help, &WORK_BUCKETS);
    /// Rows of the batches that the stream acknowledged.
    rows_published: TwinCounter = make.twin_counter("published", "rows_published_total", help);

    // Where this node is, and where the others are.
    /// Stream sequence up to which everything is applied here; of shards from 2 on, the last payload that was applied since the start.
    position: ShardGauge = make.gauges("position", help, &["shard"]).map(ShardGauge);
    /// Last sequence in the shard's stream.
    stream_last: ShardGauge = make.gauges("stream_last", help, &["shard"]).map(ShardGauge);
    /// Messages in the shard's stream that are not applied here yet.
    lag_messages: ShardGauge = make.gauges("lag_messages", help, &["shard"]).map(ShardGauge);
    /// How long the first message that is not applied here has been in the stream, by the clock of the NATS server; 0 when all of the shard are.
    lag_seconds: ShardSeconds = make.reals("lag_seconds", help, &["shard"]).map(ShardSeconds);
    /// Position of another node, as it has announced it.
    peer_position: PeerGauge = make.reals("peer_position", help, &["peer", "shard"]).map(PeerGauge);
    /// Messages in the shard's stream behind the position of another node.
    peer_lag_messages: PeerGauge = make.reals("peer_lag_messages", help, &["peer", "shard"]).map(PeerGauge);
    /// How long the first message behind the position of another node has been in the stream, by the clock of the NATS server.
    peer_lag_seconds: PeerGauge = make.reals("peer_lag_seconds", help, &["peer", "shard"]).map(PeerGauge);
    /// Change-log rows of another node that no echo has confirmed, as it has announced them.
    peer_pending: PeerGauge = make.reals("peer_pending", help, &["peer"]).map(PeerGauge);
    /// Seconds since another node last announced itself.
    peer_last_seen_seconds: PeerGauge = make.reals("peer_last_seen_seconds", help, &["peer"]).map(PeerGauge);
    /// Other nodes that announce themselves: heard answer this one over NATS, unheard do not.
    peers: NamedGauge = make.gauges("peers", help, &["state"]).map(NamedGauge);
    /// 1 for what this node sees of a partition: jetstream (nothing is stored), isolated (nobody answers), peers (some do not), alone (all others are silent).
    partition: ReasonFlag = make.gauges("partition", help, &["reason"]).map(ReasonFlag);
    /// The number of the log's history that this node is in; it rises when the broker has lost what was folded.
    history: IntGauge = make.gauge("history", help);

    // Publishing.
    /// Batches that the stream acknowledged.
    batches_published: IntCounter = make.counter("batches_published_total", help);
    /// Messages that the stream acknowledged: commit records, and the pieces of large batches.
    parts_published: IntCounter = make.counter("parts_published_total", help);
    /// Payload bytes published: raw before compression, sent as they went out.
    published_bytes_raw: IntCounter = make.counter_with(("published_bytes_total", help, "form", "raw"));
    /// Payload bytes published: raw before compression, sent as they went out.
    published_bytes_sent: IntCounter = make.counter_with(("published_bytes_total", help, "form", "sent"));
    /// Publishes that ended in an error or a timeout.
    publish_retries: IntCounter = make.counter("publish_retries_total", help);
    /// Batches that were sent more than once, by the times: not acknowledged in time, lost by the stream, or in doubt after a reconnect.
    resends: IntCounter = make.counter("resends_total", help);
    /// For how long the oldest change that no echo has confirmed waits, as far as this life of the daemon knows; 0 when none does.
    pending_age_seconds: Gauge = make.real_gauge("pending_age_seconds", help);
    /// 1 while nothing new is published: a stream is above its soft limit, kept_max_bytes is reached, or an operator holds publishing back.
    publish_held_back: IntGauge = make.gauge("publish_held_back", help);
    /// From the moment at which a commit of the app was noticed until the stream has acknowledged its batch.
    commit_to_publish: Histogram = make.seconds("commit_to_publish_seconds", help, &WAY_BUCKETS);
    /// From sending a batch to seeing it come back in the stream.
    publish_to_echo: Histogram = make.seconds("publish_to_echo_seconds", help, &WAY_BUCKETS);
    /// Bytes kept beside the database of what was published until a snapshot covers it.
    kept_bytes: IntGauge = make.gauge("kept_bytes", help);
    /// Batches that are kept until a snapshot covers them.
    kept_batches: IntGauge = make.gauge("kept_batches", help);
    /// Bytes of large batches, outgoing and incoming, that lie in temporary files beside the database.
    spool_bytes: IntGauge = make.gauge("spool_bytes", help);

    // Applying.
    /// Messages read from the order stream.
    messages_read: IntCounter = make.counter("messages_read_total", help);
    /// Bytes of these messages, as they came.
    read_bytes: IntCounter = make.counter("read_bytes_total", help);
    /// Batches of other nodes applied here.
    batches_applied: IntCounter = make.counter("batches_applied_total", help);
    /// Row operations of other nodes' batches applied here.
    rows_applied: IntCounter = make.counter("rows_applied_total", help);
    /// Own batches that came back in the stream.
    echoes: IntCounter = make.counter("echoes_total", help);
    /// Times that an incoming change was held back in vain for a batch of this node: its app may have seen an older value of its own for a while.
    holds_given_up: IntCounter = make.counter("holds_given_up_total", help);
    /// Messages that every reader skips: duplicates, what follows a gap, earlier lives of their publishers.
    ignored_duplicate: IntCounter = make.counter_with(("ignored_messages_total", help, "reason", "duplicate"));
    /// Messages that every reader skips: duplicates, what follows a gap, earlier lives of their publishers.
    ignored_gap: IntCounter = make.counter_with(("ignored_messages_total", help, "reason", "gap"));
    /// Messages that every reader skips: duplicates, what follows a gap, earlier lives of their publishers.
    ignored_stale_incarnation: IntCounter = make.counter_with(("ignored_messages_total", help, "reason", "stale_incarnation"));
    /// How long one apply transaction held the database's write lock.
    apply_transaction: Histogram = make.seconds("apply_transaction_seconds", help, &WORK_BUCKETS);
    /// From the moment at which the origin noticed the commit to the commit here, by the clocks of both machines.
    commit_to_applied: Histogram = make.seconds("commit_to_applied_seconds", help, &WAY_BUCKETS);
    /// Overridden values written to the conflict journal.
    conflicts: ReasonCounter = make.counters("conflicts_total", help, "reason").map(ReasonCounter);
    /// Entries in the dead-letter journal.
    dead_letters: IntGauge = make.gauge("dead_letters", help);
    /// Rows whose parent is gone, as PRAGMA foreign_key_check lists them; equal on all nodes.
    foreign_key_violations: IntGauge = make.gauge("foreign_key_violations", help);
    /// Tables whose rows may have been written without capture, and are not compared with the stream yet.
    unsure_tables: IntGauge = make.gauge("unsure_tables", help);
    /// Rows written without capture that were found by comparing with the stream, and are published.
    reconciled_rows: IntCounter = make.counter("reconciled_rows_total", help);
    /// Triggers of the application that fire for what other nodes have changed.
    app_triggers: IntGauge = make.gauge("app_triggers", help);
    /// Those of them that have failed for a row, which was written without them, since the schema last changed.
    app_triggers_failing: IntGauge = make.gauge("app_triggers_failing", help);
    /// 1 for the reason that pauses applying on this node.
    apply_paused: ReasonFlag = make.gauges("apply_paused", help, &["reason"]).map(ReasonFlag);
    /// 1 while an operator has paused this part of the node (harmonylite pause).
    operator_paused: NamedGauge = make.gauges("operator_paused", help, &["part"]).map(NamedGauge);
    /// Rows a second that an operator has limited this part of the node to; 0: no limit.
    operator_limit: NamedGauge = make.gauges("operator_limit_rows_per_second", help, &["part"]).map(NamedGauge);

    // Snapshots and streams.
    /// Bytes of the last verified snapshot.
    snapshot_size_bytes: IntGauge = make.gauge("snapshot_size_bytes", help);
    /// Seconds that the last snapshot taken by this node took, verification included.
    snapshot_duration_seconds: Gauge = make.real_gauge("snapshot_duration_seconds", help);
    /// Bytes of the snapshot under way on this node that are uploaded; 0 when none is.
    snapshot_progress_bytes: IntGauge = make.gauge("snapshot_progress_bytes", help);
    /// Bytes fetched of the snapshot that this node begins from; 0 when none is.
    restore_progress_bytes: IntGauge = make.gauge("restore_progress_bytes", help);
    /// 1 on the node that takes the cluster's snapshots and trims the streams.
    snapshot_leader: IntGauge = make.gauge("snapshot_leader", help);
    /// Snapshots that this node has taken and verified.
    snapshots_taken: IntCounter = make.counter("snapshots_taken_total", help);
    /// Snapshots that this node began and could not finish.
    snapshot_failures: IntCounter = make.counter("snapshot_failures_total", help);
    /// Messages that this node has removed from the streams because a verified snapshot covers them.
    purged_messages: IntCounter = make.counter("purged_messages_total", help);
    /// Bytes of those messages.
    purged_bytes: IntCounter = make.counter("purged_bytes_total", help);
    /// Bytes in the shard's stream.
    stream_bytes: ShardGauge = make.gauges("stream_bytes", help, &["shard"]).map(ShardGauge);
    /// Bytes that the shard's stream may hold; 0 where it has no limit.
    stream_limit_bytes: ShardGauge = make.gauges("stream_limit_bytes", help, &["shard"]).map(ShardGauge);

    // The broker.
    /// 1 while connected to NATS.
    broker_connected: IntGauge = make.gauge("broker_connected", help);
    /// Connections made again after one was lost.
    broker_reconnects: IntCounter = make.counter("broker_reconnects_total", help);
    /// Restarts of the nats-server that this daemon runs.
    managed_server_restarts: IntCounter = make.counter("managed_server_restarts_total", help);
    /// Consumers of the order stream that were made anew.
    consumer_recreations: IntCounter = make.counter("consumer_recreations_total", help);
    /// Those of them that were made anew because the stream held messages and none came.
    consumer_stalls: IntCounter = make.counter("consumer_stalls_total", help);

    // The daemon and its machine.
    /// State of a component as in health: 0 ok or off, 1 warning, 2 failing.
    component_state: NamedGauge = make.gauges("component_state", help, &["component"]).map(NamedGauge);
    /// 1 while the health endpoint answers 200.
    healthy: IntGauge = make.gauge("healthy", help);
    /// 1 while the readiness endpoint answers 200.
    ready: IntGauge = make.gauge("ready", help);
    /// Seconds since a loop last made progress; 0 while it waits for long work such as a restore.
    loop_silence: NamedReal = make.reals("loop_silence_seconds", help, &["loop"]).map(NamedReal);
    /// Bytes free to this user in the file system of the database and its temporary files.
    disk_free_bytes: IntGauge = make.gauge("disk_free_bytes", help);
    /// Free bytes below which this node is unhealthy (health_check.min_free_bytes); 0: no limit.
    disk_limit_bytes: IntGauge = make.gauge("disk_limit_bytes", help);
    /// Log lines that were written, by where to.
    log_lines_written: ReasonCounter = make.counters("log_lines_written_total", help, "to").map(ReasonCounter);
    /// Log lines that were not written: the queue to the thread that writes was full, the file could not be written, or nobody read standard error.
    log_lines_dropped: ReasonCounter = make.counters("log_lines_dropped_total", help, "by").map(ReasonCounter);
    /// Writes of a log line that failed.
    log_write_failures: ReasonCounter = make.counters("log_write_failures_total", help, "to").map(ReasonCounter);
    /// Items (bytes where the name says so) in a queue.
    queues: QueueGauges = make.queues(("queue_depth", help), ("queue_limit", "Bound of a queue."));
}
