//! Configuration: the keys of `config.toml`, their defaults, and the checks made before anything starts.
//!
//! Invariants: loading binds nothing, opens no database and needs no network; every key of the file is
//! either used, or named at start as not built yet, or refused; a secret is a [`Secret`], whose `Debug`
//! and `Display` never show it.

mod address;
mod defaults;
mod fault;
mod file;
pub mod live;
mod load;
mod names;
mod nearest;
mod node_id;
mod notice;
mod outside;
mod parse;
mod peer_url;
mod rights;
mod secret;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

pub use address::{AddressProblem, ListenAddress};
pub use fault::{ConfigErrors, Fault, FaultKind, Origin};
pub use load::{Loaded, Overrides, keys_in};
pub use nearest::nearest;
pub use outside::secrets_among;
pub use peer_url::{LeafUrl, Login, PeerUrl, UrlProblem};
pub use secret::Secret;

/// Everything the daemon and the commands need to know, checked and with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The SQLite database beside which we run.
    pub db_path: PathBuf,
    /// The CBOR sequence map; `seq-map.cbor` beside the database unless set.
    pub seq_map_path: PathBuf,
    /// This node's number; never 0.
    pub node_id: u64,
    /// Capture and publish this node's changes.
    pub publish: bool,
    /// Apply other nodes' changes.
    pub replicate: bool,
    /// Change-log rows read in one step while a part is built.
    pub scan_max_changes: u32,
    /// How often change logs and journals are tidied beyond what echoes delete at once.
    pub cleanup_interval: Duration,
    /// Stop after this long without any change; zero: never.
    pub sleep_timeout: Duration,
    /// Poll the database at this interval instead of waking on file events; zero: file events.
    pub polling_interval: Duration,
    /// `[replication_log]`
    pub replication_log: ReplicationLogConfig,
    /// `[replication]`
    pub replication: ReplicationConfig,
    /// `[snapshot]`
    pub snapshot: SnapshotConfig,
    /// `[nats]` and the cluster flags
    pub nats: NatsConfig,
    /// `[journals]`
    pub journals: JournalsConfig,
    /// `[logging]`
    pub logging: LoggingConfig,
    /// `[prometheus]`
    pub prometheus: PrometheusConfig,
    /// `[health_check]`
    pub health_check: HealthCheckConfig,
}

impl Config {
    /// The folder of the database, where large batches are put aside and the managed server keeps its files.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        let parent = self.db_path.parent();
        parent
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(std::path::Path::new("."))
    }
}

/// `[replication_log]`: the JetStream streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationLogConfig {
    /// Number of streams.
    pub shards: u64,
    /// Entries that stay in a shard after trimming.
    pub max_entries: u64,
    /// Stream cap in bytes per shard, past which the stream pushes back.
    pub max_bytes: u64,
    /// Trim older entries too where a snapshot covers them; zero: off.
    pub max_age: Duration,
    /// A node that has said nothing for this long holds up trimming no more.
    pub silent_after: Duration,
    /// Bytes kept of what this node has published until a snapshot covers it, past which publishing waits.
    pub kept_max_bytes: u64,
    /// JetStream replicas.
    pub replicas: usize,
    /// Compress messages with zstd.
    pub compress: bool,
    /// Size below which a message stays plain.
    pub compress_min_bytes: usize,
    /// Change a stream whose settings differ instead of reporting it.
    pub update_existing: bool,
}

/// `[replication]`: which tables, and which triggers fire for other nodes' changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplicationConfig {
    /// Globs of tables to replicate; empty: all.
    pub include: Vec<String>,
    /// Globs of tables to leave out.
    pub exclude: Vec<String>,
    /// App triggers to fire on every node too.
    pub fire_triggers: Vec<String>,
}

/// `[journals]`: how much the conflict journal and the dead-letter journal keep. The oldest entries go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalsConfig {
    /// Lost values that the conflict journal keeps.
    pub max_conflicts: u64,
    /// How long it keeps them.
    pub max_conflict_age: Duration,
    /// Messages that the dead-letter journal keeps.
    pub max_dead_letters: u64,
    /// How long it keeps them.
    pub max_dead_letter_age: Duration,
    /// How many bytes of messages it keeps.
    pub max_dead_letter_bytes: u64,
}

/// `[snapshot]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Whether snapshots are taken and restored.
    pub enabled: bool,
    /// Time between snapshots; zero: by log growth only.
    pub interval: Duration,
    /// Lease of the node that takes snapshots.
    pub leader_ttl: Duration,
    /// Which store.
    pub store: SnapshotStore,
    /// `[snapshot.nats]` replicas.
    pub nats_replicas: usize,
    /// `[snapshot.nats]` bucket; empty: from `stream_prefix`.
    pub nats_bucket: String,
    /// `[snapshot.s3]`
    pub s3: S3Config,
    /// `[snapshot.webdav]` url, with its login and password inside.
    pub webdav_url: Secret,
    /// `[snapshot.sftp]`
    pub sftp: SftpConfig,
    /// `[snapshot.file]` path.
    pub file_path: PathBuf,
}

/// Where snapshots are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotStore {
    /// NATS object store.
    Nats,
    /// S3 or compatible.
    S3,
    /// WebDAV.
    WebDav,
    /// SFTP.
    Sftp,
    /// A folder.
    File,
}

/// `[snapshot.s3]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct S3Config {
    /// Host and port, without scheme as in the Go program, or a URL.
    pub endpoint: String,
    /// Prefix within the bucket.
    pub path: String,
    /// Bucket.
    pub bucket: String,
    /// HTTPS.
    pub use_ssl: bool,
    /// Access key id.
    pub access_key: Secret,
    /// Secret access key.
    pub secret: Secret,
    /// Session token.
    pub session_token: Secret,
    /// Region.
    pub region: String,
    /// Path-style addressing.
    pub force_path_style: bool,
}

/// `[snapshot.sftp]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SftpConfig {
    /// `sftp://USER:PASSWORD@HOST:PORT/PATH`; without a password: key file or agent.
    pub url: Secret,
    /// Private key to log in with.
    pub key_file: Option<PathBuf>,
    /// What the private key is encrypted with.
    pub passphrase: Secret,
    /// File with the host keys to trust; `None`: the user's and the system's.
    pub known_hosts: Option<PathBuf>,
    /// The one host key to trust, as `SHA256:...`; empty: by `known_hosts`.
    pub host_key: String,
}

/// `[nats]` and the flags about clustering.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// Servers to use, `nats://` or `tls://`; empty: run the managed server. May hold logins, which `Debug` leaves out.
    pub urls: Vec<String>,
    /// Subject prefix of the shards.
    pub subject_prefix: String,
    /// Stream prefix of the shards; bucket names follow it.
    pub stream_prefix: String,
    /// Extra nats-server configuration file that the managed server includes.
    pub server_config: Option<PathBuf>,
    /// The nats-server binary; `None`: from PATH.
    pub server_path: Option<PathBuf>,
    /// nkey seed file.
    pub seed_file: Option<PathBuf>,
    /// credentials file.
    pub creds_file: Option<PathBuf>,
    /// User name.
    pub user_name: String,
    /// Password.
    pub user_password: Secret,
    /// CA that the servers' certificates must chain to.
    pub ca_file: Option<PathBuf>,
    /// Client certificate.
    pub cert_file: Option<PathBuf>,
    /// Client key.
    pub key_file: Option<PathBuf>,
    /// Where the managed server listens for clients; port -1: any free one.
    pub bind_address: String,
    /// Tries after which health says why there is no connection; trying goes on.
    pub connect_retries: u32,
    /// First wait between tries.
    pub reconnect_wait: Duration,
    /// `-cluster-addr`: where the managed server listens for routes.
    pub cluster_addr: Option<String>,
    /// `-cluster-peers`: routes, `nats://` or `dns://`.
    pub cluster_peers: Vec<PeerUrl>,
    /// `-leaf-servers`: leaf-node remotes.
    pub leaf_servers: Vec<LeafUrl>,
}

/// `[logging]`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoggingConfig {
    /// Debug level.
    pub verbose: bool,
    /// Shape of a line.
    pub format: LogFormat,
    /// A file beside standard error; `None`: none.
    pub file: Option<PathBuf>,
    /// For how long the same event is counted instead of told again; zero: every one is told.
    pub repeat_interval: Duration,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Console,
    /// For machines.
    Json,
}

/// `[prometheus]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// Serve `/metrics`.
    pub enable: bool,
    /// Address; an empty host means all.
    pub bind: String,
    /// Metric name prefix.
    pub namespace: String,
    /// Second part of the prefix.
    pub subsystem: String,
}

/// `[health_check]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheckConfig {
    /// Serve the health endpoint.
    pub enable: bool,
    /// Address.
    pub bind: String,
    /// Path.
    pub path: String,
    /// Answer with a JSON body.
    pub detailed: bool,
    /// Messages that this node may lack of the stream and still be ready; 0: any number.
    pub ready_lag_messages: u64,
    /// Free bytes of the database's file system below which this node is unhealthy; 0: no limit.
    pub min_free_bytes: u64,
}
