//! Everything that can be found, each under a name of its own, by which `docs/doctor.md` tells its cause and its remedy.
//!
//! Invariants: a name keeps its meaning for ever, since scripts go by it; a test holds the page to this list both ways.

use super::report::Level;
use crate::cli::exit::ExitCode;

/// What is looked at. One line of the report, or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The configuration file, flags, environment and credentials.
    Configuration,
    /// Owners and modes of the files beside the database.
    Files,
    /// The sequence map.
    SequenceMap,
    /// Room on the file system of the database.
    Disk,
    /// The database opens.
    Database,
    /// What SQLite finds wrong with it.
    Integrity,
    /// Journal mode and encoding.
    Journal,
    /// Versions of SQLite.
    Sqlite,
    /// The replication state in it.
    State,
    /// The journals of what could not be applied.
    Journals,
    /// Triggers and change logs.
    Capture,
    /// Tables that are not replicated, or with a limit.
    Tables,
    /// The application's triggers.
    Triggers,
    /// What another program has left in it.
    Leftovers,
    /// The running daemon.
    Daemon,
    /// Processes that have the database open.
    Processes,
    /// What the daemon says of its health.
    Health,
    /// The service manager and the limits of the process.
    Service,
    /// Ports that the daemon listens on.
    Ports,
    /// Each NATS server.
    Server,
    /// What the NATS server is.
    Broker,
    /// JetStream and its account.
    JetStream,
    /// When JetStream writes to its disk.
    Sync,
    /// Copies of the streams.
    Copies,
    /// This machine's clock.
    Clock,
    /// The streams.
    Streams,
    /// Where this node is in the order stream.
    Position,
    /// The other nodes.
    Nodes,
    /// Their schemas.
    Schema,
    /// Their clocks.
    PeerClocks,
    /// The snapshot store.
    Store,
    /// The newest snapshot.
    Snapshot,
}

impl Check {
    /// The heading that it stands under, and what its line begins with.
    #[must_use]
    pub const fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Configuration => ("This machine", "configuration"),
            Self::Files => ("This machine", "files"),
            Self::SequenceMap => ("This machine", "sequence map"),
            Self::Disk => ("This machine", "disk space"),
            Self::Service => ("This machine", "service"),
            Self::Ports => ("This machine", "ports"),
            Self::Database => ("Database", "database"),
            Self::Integrity => ("Database", "integrity"),
            Self::Journal => ("Database", "journal mode"),
            Self::Sqlite => ("Database", "SQLite"),
            Self::State => ("Database", "state"),
            Self::Journals => ("Database", "journals"),
            Self::Capture => ("Database", "capture"),
            Self::Tables => ("Database", "tables"),
            Self::Triggers => ("Database", "app's triggers"),
            Self::Leftovers => ("Database", "leftovers"),
            Self::Daemon => ("Daemon", "daemon"),
            Self::Processes => ("Daemon", "processes"),
            Self::Health => ("Daemon", "health"),
            Self::Server => ("NATS", "server"),
            Self::Broker => ("NATS", "version"),
            Self::JetStream => ("NATS", "JetStream"),
            Self::Sync => ("NATS", "sync_interval"),
            Self::Copies => ("NATS", "copies"),
            Self::Clock => ("NATS", "clock"),
            Self::Streams => ("NATS", "streams"),
            Self::Position => ("Cluster", "position"),
            Self::Nodes => ("Cluster", "nodes"),
            Self::Schema => ("Cluster", "schemas"),
            Self::PeerClocks => ("Cluster", "clocks"),
            Self::Store => ("Snapshots", "store"),
            Self::Snapshot => ("Snapshots", "newest"),
        }
    }
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $check:ident, $level:ident, $exit:ident;)*) => {
        /// Something that is wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Problem { $($(#[$doc])* $name,)* }

        impl Problem {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name for scripts and for the documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What was looked at.
            #[must_use]
            pub const fn check(self) -> Check {
                match self { $(Self::$name => Check::$check,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }

            /// What the process ends with where this is the first failure.
            #[must_use]
            pub const fn exit(self) -> ExitCode {
                match self { $(Self::$name => ExitCode::$exit,)* }
            }
        }
    };
}

problems! {
    /// A check came to no end in time.
    Unfinished = "unfinished", Configuration, Warn, Failed;
    /// The configuration has a fault.
    ConfigFault = "config-fault", Configuration, Fail, Config;
    /// The configuration deserves a word.
    ConfigNotice = "config-notice", Configuration, Warn, Failed;
    /// A file cannot be read or written.
    Access = "access", Files, Fail, NoPermission;
    /// A file of the database belongs to another user than the database.
    Owner = "owner", Files, Warn, Failed;
    /// A file or a folder can be changed, or one of ours read, by every user.
    OpenToAll = "open-to-all", Files, Warn, Failed;
    /// A log beside the database is another's.
    ForeignLog = "foreign-log", Files, Warn, Failed;
    /// The file that says what is paused does not read.
    BrakesDamaged = "brakes-damaged", Files, Fail, DataError;
    /// The sequence map was removed.
    MapRemoved = "sequence-map-removed", SequenceMap, Warn, Failed;
    /// The sequence map does not read.
    MapDamaged = "sequence-map-damaged", SequenceMap, Warn, Failed;
    /// The sequence map is of a newer program.
    MapNewer = "sequence-map-newer", SequenceMap, Fail, DataError;
    /// The disk is nearly full.
    DiskFull = "disk-full", Disk, Fail, Io;
    /// There is not enough room for a snapshot.
    DiskLow = "disk-low", Disk, Warn, Failed;
    /// Few files may be open.
    OpenFiles = "open-files", Service, Warn, Failed;
    /// The service manager does not watch the daemon.
    NoWatchdog = "no-watchdog", Service, Warn, Failed;
    /// A port is taken by another process.
    PortTaken = "port-taken", Ports, Fail, CannotCreate;
    /// The daemon does not answer on its port.
    PortSilent = "port-silent", Ports, Warn, Failed;
    /// The database does not open.
    Unreadable = "database-unreadable", Database, Fail, DataError;
    /// The database is damaged.
    Damaged = "damaged", Integrity, Fail, DataError;
    /// The database is not in WAL mode.
    NotWal = "not-wal", Journal, Warn, Failed;
    /// The database is not encoded in UTF-8.
    Encoding = "encoding", Journal, Warn, Failed;
    /// An old SQLite has written to the database.
    OldSqlite = "old-sqlite", Sqlite, Warn, Failed;
    /// The state is of a newer program.
    StateNewer = "state-newer", State, Fail, DataError;
    /// The state is another node's.
    StateOther = "state-of-another-node", State, Warn, Failed;
    /// Rows of tables are not certain.
    Unsure = "unsure-tables", State, Warn, Failed;
    /// There are dead letters.
    DeadLetters = "dead-letters", Journals, Warn, Failed;
    /// A table has no capture, or an old one.
    NotCaptured = "not-captured", Capture, Warn, Failed;
    /// A table is not replicated.
    TableRefused = "table-refused", Tables, Warn, Failed;
    /// A table that no snapshot can hold.
    TableBlocks = "table-blocks-snapshots", Tables, Fail, CannotCreate;
    /// A table is replicated with a limit.
    TableLimit = "table-limit", Tables, Warn, Failed;
    /// A trigger of the app does not run for what other nodes change.
    TriggerLimit = "trigger-limit", Triggers, Warn, Failed;
    /// The Go program, or Marmot, has left tables or triggers.
    GoLeftovers = "go-leftovers", Leftovers, Warn, Failed;
    /// No daemon runs.
    DaemonDown = "daemon-down", Daemon, Warn, Failed;
    /// A daemon runs and does not answer.
    DaemonSilent = "daemon-silent", Daemon, Fail, TempFail;
    /// The daemon is of another version.
    DaemonVersion = "daemon-version", Daemon, Warn, Failed;
    /// Another process replicates this database.
    SecondDaemon = "second-daemon", Processes, Fail, TempFail;
    /// The node is unhealthy.
    Unhealthy = "unhealthy", Health, Fail, TempFail;
    /// The daemon has a warning.
    HealthWarning = "health-warning", Health, Warn, Failed;
    /// A name has no address.
    Dns = "dns", Server, Fail, Unavailable;
    /// Nobody listens.
    Tcp = "tcp", Server, Fail, Unavailable;
    /// Something listens that is no NATS server.
    NotNats = "not-nats", Server, Fail, Unavailable;
    /// TLS fails.
    Tls = "tls", Server, Fail, NoPermission;
    /// The login is refused.
    Login = "login", Server, Fail, NoPermission;
    /// There is no nats-server program to run.
    NoServerProgram = "no-nats-server", Server, Fail, Unavailable;
    /// The server is too old.
    BrokerTooOld = "broker-too-old", Broker, Fail, Unavailable;
    /// The server is old.
    BrokerOld = "broker-old", Broker, Warn, Failed;
    /// The server is shutting down.
    LameDuck = "lame-duck", Broker, Warn, Failed;
    /// Messages must be small.
    MaxPayload = "max-payload", Broker, Warn, Failed;
    /// JetStream is not there.
    NoJetStream = "no-jetstream", JetStream, Fail, Unavailable;
    /// The account has too little room.
    AccountStorage = "account-storage", JetStream, Warn, Failed;
    /// The account may have too few streams.
    AccountStreams = "account-streams", JetStream, Fail, Unavailable;
    /// The account may have too few consumers.
    AccountConsumers = "account-consumers", JetStream, Warn, Failed;
    /// One copy, where there could be three.
    OneCopy = "one-copy", Copies, Warn, Failed;
    /// More copies than servers.
    TooManyCopies = "too-many-copies", Copies, Fail, Unavailable;
    /// A copy is offline or behind.
    CopyBehind = "copy-behind", Copies, Warn, Failed;
    /// This machine's clock is off.
    ClockOff = "clock-off", Clock, Warn, Failed;
    /// A stream is gone.
    StreamGone = "stream-gone", Streams, Fail, DataError;
    /// Another stream has the subject.
    SubjectTaken = "subject-taken", Streams, Fail, Unavailable;
    /// A stream has other settings.
    StreamDiffers = "stream-differs", Streams, Warn, Failed;
    /// A stream is nearly full.
    StreamFull = "stream-full", Streams, Warn, Failed;
    /// This node is far behind.
    Lag = "lag", Position, Warn, Failed;
    /// The stream begins after this node's position.
    NeedsSnapshot = "needs-snapshot", Position, Warn, Failed;
    /// The same, and there is no snapshot.
    NoWayBack = "no-way-back", Position, Fail, DataError;
    /// The stream is not the one that this node has folded.
    HistoryBroken = "history-broken", Position, Warn, Failed;
    /// Another daemon holds the node id.
    NodeIdTaken = "node-id-taken", Nodes, Fail, TempFail;
    /// The database is of another cluster.
    OtherCluster = "other-cluster", Nodes, Fail, Config;
    /// A node is lost or silent.
    NodeLost = "node-lost", Nodes, Warn, Failed;
    /// A node is not well.
    NodeUnwell = "node-unwell", Nodes, Warn, Failed;
    /// Nodes run different versions.
    Versions = "versions-differ", Nodes, Warn, Failed;
    /// A node has another schema.
    SchemaDiffers = "schema-differs", Schema, Warn, Failed;
    /// The clock of a node is off.
    PeerClock = "peer-clock", PeerClocks, Warn, Failed;
    /// The store cannot be used.
    StoreFails = "store-fails", Store, Fail, Unavailable;
    /// There is no verified snapshot.
    NoSnapshot = "no-snapshot", Snapshot, Warn, Failed;
    /// The newest snapshot is older than it should be.
    SnapshotOld = "snapshot-old", Snapshot, Warn, Failed;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_plain_and_of_one_problem_each() {
        let names: BTreeSet<&str> = Problem::ALL.iter().map(|p| p.name()).collect();
        assert_eq!(names.len(), Problem::ALL.len());
        let plain = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(names.iter().all(|n| n.chars().all(plain)));
        // What is only worth a look ends with 1, what fails with a code of its own.
        for problem in Problem::ALL {
            let warns = problem.level() == Level::Warn;
            assert_eq!(warns, problem.exit() == ExitCode::Failed, "{problem:?}");
        }
    }
}
