//! The value of every key that is not set, and why it is that.
//!
//! Invariant: `config.example.toml` shows the same values; a test compares the two.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{
    Config, HealthCheckConfig, JournalsConfig, LogFormat, LoggingConfig, NatsConfig,
    PrometheusConfig, ReplicationConfig, ReplicationLogConfig, S3Config, Secret, SftpConfig,
    SnapshotConfig, SnapshotStore,
};

/// As in the Go program: a step of this size reads in well under a millisecond and holds little memory.
pub(super) const SCAN_MAX_CHANGES: u32 = 512;
/// As in the Go program: echoes delete nearly everything at once, so tidying the rest is not urgent.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(5);
/// One stream carries more than SQLite can apply; more of them only spread payload over brokers.
const SHARDS: u64 = 1;
/// As in the Go program: enough for a node that was away for moments to catch up without a snapshot.
pub(super) const MAX_ENTRIES: u64 = 1024;
/// Room for hours of busy writing between snapshots, on a disk that any server has to spare.
const MAX_BYTES: u64 = 1 << 30;
/// A node that restarts or loses its network for a while catches up from the stream; one that is away for longer restores a snapshot.
const SILENT_AFTER: Duration = Duration::from_secs(3600);
/// Keys of some millions of changed rows, which is more than a log holds that has outgrown no snapshot yet.
const KEPT_MAX_BYTES: u64 = 256 << 20;
/// Runs on a single server; clusters should set 3.
const REPLICAS: usize = 1;
/// Measured: below about 1 KB zstd makes messages larger, not smaller.
const COMPRESS_MIN_BYTES: usize = 1024;
/// A journal is for people, who read hundreds; ten thousand values leave room for a bad night.
const MAX_CONFLICTS: u64 = 10_000;
/// A month is time enough to notice that a value is missing.
const JOURNAL_AGE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Dead letters are rare and each is one to look into; a flood of them is one and the same cause.
const MAX_DEAD_LETTERS: u64 = 1000;
/// Room for a few dozen messages of the largest usual size (1 MiB) in the app's own database.
const MAX_DEAD_LETTER_BYTES: u64 = 64 << 20;
/// As in the Go program: a leader that died is replaced within half a minute, and renewing costs nothing.
const LEADER_TTL: Duration = Duration::from_secs(30);
/// As in the Go program, so that dashboards and `nats` commands keep working.
const SUBJECT_PREFIX: &str = "harmonylite-change-log";
/// As in the Go program.
const STREAM_PREFIX: &str = "harmonylite-changes";
/// The managed server is for this daemon alone unless told otherwise: any free port will do.
const NATS_BIND: &str = ":-1";
/// As in the Go program: ten seconds of trying are a restart of the broker, not yet a fault to report.
const CONNECT_RETRIES: u32 = 5;
/// As in the Go program.
const RECONNECT_WAIT: Duration = Duration::from_secs(2);
/// A trouble that lasts is a line a minute: seen by who looks, and small after a night.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// As in the Go program, so that scrape configurations keep working.
const PROMETHEUS_BIND: &str = ":3010";
/// As in the Go program, so that dashboards keep working.
const PROMETHEUS_NAMESPACE: &str = "harmonylite";
/// As in the Go program, so that probes keep working.
const HEALTH_BIND: &str = "0.0.0.0:8090";
/// As in the Go program.
const HEALTH_PATH: &str = "/health";
/// A moment of writing at full speed; a node that lacks more shows its users what is old.
const READY_LAG_MESSAGES: u64 = 1000;
/// Room for a large batch and for SQLite's log while somebody makes more.
const MIN_FREE_BYTES: u64 = 64 << 20;

impl Config {
    /// The configuration of node `node_id` for `db_path` with every other key at its default. Nothing is checked.
    pub fn with_defaults(db_path: impl Into<PathBuf>, node_id: u64) -> Self {
        let db_path = db_path.into();
        Self {
            seq_map_path: folder_of(&db_path).join("seq-map.cbor"),
            db_path,
            node_id,
            publish: true,
            replicate: true,
            scan_max_changes: SCAN_MAX_CHANGES,
            cleanup_interval: CLEANUP_INTERVAL,
            // A daemon runs until it is stopped.
            sleep_timeout: Duration::ZERO,
            // File events notice a commit in microseconds and cost nothing while idle.
            polling_interval: Duration::ZERO,
            replication_log: ReplicationLogConfig {
                shards: SHARDS,
                max_entries: MAX_ENTRIES,
                max_bytes: MAX_BYTES,
                // Space is bounded by bytes already; age is a policy that somebody must want.
                max_age: Duration::ZERO,
                silent_after: SILENT_AFTER,
                kept_max_bytes: KEPT_MAX_BYTES,
                replicas: REPLICAS,
                // Rows compress to about half, and networks are slower than zstd.
                compress: true,
                compress_min_bytes: COMPRESS_MIN_BYTES,
                // A stream may be shared or tuned by hand: report a difference, do not undo it.
                update_existing: false,
            },
            // All tables, and only the triggers that must fire.
            replication: ReplicationConfig::default(),
            journals: JournalsConfig::default(),
            snapshot: SnapshotConfig {
                // Without snapshots a node that is away for long cannot come back.
                enabled: true,
                // The growth of the log decides; a clock adds cost without safety.
                interval: Duration::ZERO,
                leader_ttl: LEADER_TTL,
                // The store that every node can reach already.
                store: SnapshotStore::Nats,
                nats_replicas: REPLICAS,
                nats_bucket: String::new(),
                // `use_ssl` is false as in the Go program, whose endpoints would otherwise stop working.
                s3: S3Config::default(),
                webdav_url: Secret::default(),
                sftp: SftpConfig::default(),
                file_path: PathBuf::new(),
            },
            nats: NatsConfig {
                urls: Vec::new(),
                subject_prefix: SUBJECT_PREFIX.to_owned(),
                stream_prefix: STREAM_PREFIX.to_owned(),
                server_config: None,
                server_path: None,
                seed_file: None,
                creds_file: None,
                user_name: String::new(),
                user_password: Secret::default(),
                ca_file: None,
                cert_file: None,
                key_file: None,
                bind_address: NATS_BIND.to_owned(),
                connect_retries: CONNECT_RETRIES,
                reconnect_wait: RECONNECT_WAIT,
                cluster_addr: None,
                cluster_peers: Vec::new(),
                leaf_servers: Vec::new(),
            },
            logging: LoggingConfig {
                verbose: false,
                format: LogFormat::Console,
                // The journal has it all.
                file: None,
                repeat_interval: REPEAT_INTERVAL,
            },
            // Neither endpoint opens a port that nobody asked for.
            prometheus: PrometheusConfig {
                enable: false,
                bind: PROMETHEUS_BIND.to_owned(),
                namespace: PROMETHEUS_NAMESPACE.to_owned(),
                subsystem: String::new(),
            },
            health_check: HealthCheckConfig {
                enable: false,
                bind: HEALTH_BIND.to_owned(),
                path: HEALTH_PATH.to_owned(),
                detailed: true,
                ready_lag_messages: READY_LAG_MESSAGES,
                min_free_bytes: MIN_FREE_BYTES,
            },
        }
    }
}

impl Default for JournalsConfig {
    fn default() -> Self {
        Self {
            max_conflicts: MAX_CONFLICTS,
            max_conflict_age: JOURNAL_AGE,
            max_dead_letters: MAX_DEAD_LETTERS,
            max_dead_letter_age: JOURNAL_AGE,
            max_dead_letter_bytes: MAX_DEAD_LETTER_BYTES,
        }
    }
}

/// The folder that `path` lies in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        None => path,
    }
}
