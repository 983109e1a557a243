//! The configuration as a user meets it: files on disk, flags on top, faults and notices in words.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use harmonylite::cli::args::Args;
use harmonylite::config::{Config, ConfigErrors, Loaded, LogFormat, Overrides, SnapshotStore};
use tempfile::TempDir;

const SECRET: &str = "hunter2";

/// A folder with a configuration file whose `DIR` stands for that folder.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new(text: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let text = text.replace("DIR", folder.path().to_str().unwrap());
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn load_with(&self, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
        Config::load(Some(&self.path().join("config.toml")), overrides)
    }

    fn load(&self) -> Result<Loaded, ConfigErrors> {
        self.load_with(&Overrides::default())
    }

    /// The sentences of every fault, with the folder's name as `DIR` again.
    fn faults(&self) -> Vec<String> {
        self.load()
            .unwrap_err()
            .to_string()
            .lines()
            .map(|line| line.replace(self.path().to_str().unwrap(), "DIR"))
            .collect()
    }
}

fn overrides(flags: &[&str]) -> Overrides {
    let arguments = std::iter::once("harmonylite").chain(flags.iter().copied());
    Args::parse(arguments.map(OsString::from))
        .unwrap()
        .overrides
}

/// Everything that an error says, by any way of printing it.
fn everything(error: &ConfigErrors) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    text
}

#[test]
fn each_fault_names_line_key_and_remedy() {
    // (Lines from 2, below `db_path`; the line and key that must be named; a word of the remedy.)
    let table = [
        ("node_id = 0", "line 2: node_id", "number from 1"),
        ("node_id = -3", "line 2: node_id", "number from 1"),
        (
            "node_id = '1'",
            "line 2: node_id",
            "whole number without quotes",
        ),
        ("publish = 'yes'", "line 2: publish", "true or false"),
        (
            "replicat = true",
            "line 2: replicat",
            "did you mean replicate?",
        ),
        (
            "scan_max_changes = 0",
            "line 2: scan_max_changes",
            "from 1 to 1000000",
        ),
        (
            "cleanup_interval = 5",
            "line 2: cleanup_interval",
            "from 100",
        ),
        ("sleep_timeout = -1", "line 2: sleep_timeout", "from 0"),
        (
            "[logging]\nfile = '/'",
            "line 3: logging.file",
            "is a folder",
        ),
        (
            "[logging]\nfile = 'DIR/./data.db-wal'",
            "line 3: logging.file",
            "is a file of the database",
        ),
        (
            "[logging]\nfile = 'DIR/nowhere/log'",
            "line 3: logging.file",
            "does not exist",
        ),
        (
            "polling_interval = -1",
            "line 2: polling_interval",
            "from 0",
        ),
        (
            "shards = 4",
            "line 2: shards",
            "did you mean replication_log.shards?",
        ),
        (
            "seq_map_path = 'DIR/no/map.cbor'",
            "line 2: seq_map_path",
            "create it",
        ),
        (
            "[replication_log]\nshards = 0",
            "line 3: replication_log.shards",
            "from 1 to 1024",
        ),
        (
            "[replication_log]\nmax_entries = -1",
            "line 3: replication_log.max_entries",
            "from 0",
        ),
        (
            "[replication_log]\nmax_bytes = 1024",
            "line 3: replication_log.max_bytes",
            "from 4194304",
        ),
        (
            "[replication_log]\nmax_age = -1",
            "line 3: replication_log.max_age",
            "from 0",
        ),
        (
            "[replication_log]\nreplicas = 6",
            "line 3: replication_log.replicas",
            "from 1 to 5",
        ),
        (
            "[replication_log]\ncompress_min_bytes = -1",
            "line 3: replication_log.compress_min_bytes",
            "from 0",
        ),
        (
            "[replication_log]\n\n shrads = 2",
            "line 4: replication_log.shrads",
            "did you mean replication_log.shards?",
        ),
        (
            "[replication]\ninclude = ['a', '[']",
            "line 3: replication.include",
            "'[' is never closed; write",
        ),
        (
            "[replication]\nexclude = ['']",
            "line 3: replication.exclude",
            "write a name",
        ),
        (
            "[replication]\nfire_triggers = ['']",
            "line 3: replication.fire_triggers",
            "give the names",
        ),
        (
            "[snapshot]\nstore = 'ftp'",
            "line 3: snapshot.store",
            "give \"nats\", \"s3\"",
        ),
        (
            "[snapshot]\nleader_ttl = 10",
            "line 3: snapshot.leader_ttl",
            "from 1000",
        ),
        (
            "[snapshot]\ninterval = -1",
            "line 3: snapshot.interval",
            "from 0",
        ),
        (
            "[snapshot]\nstore = 's3'",
            "snapshot.s3.bucket is missing",
            "needs the bucket's name",
        ),
        (
            "[snapshot]\nstore = 'webdav'",
            "snapshot.webdav.url is missing",
            "https://HOST",
        ),
        (
            "[snapshot]\nstore = 'sftp'",
            "snapshot.sftp.url is missing",
            "sftp://USER",
        ),
        (
            "[snapshot]\nstore = 'file'",
            "snapshot.file.path is missing",
            "path of a folder",
        ),
        (
            "[snapshot.file]\npath = 'DIR/config.toml'",
            "line 3: snapshot.file.path",
            "is not a folder",
        ),
        (
            "[snapshot.file]\npath = 'DIR'",
            "line 3: snapshot.file.path is the folder of the database",
            "a folder of its own",
        ),
        (
            "[snapshot.nats]\nreplicas = 0",
            "line 3: snapshot.nats.replicas",
            "from 1 to 5",
        ),
        (
            "[snapshot.nats]\nbucket = 'a.b'",
            "line 3: snapshot.nats.bucket",
            "use letters",
        ),
        (
            "[snapshot.s3]\nbucket = 'a b'",
            "line 3: snapshot.s3.bucket",
            "use 3 to 63",
        ),
        (
            "[snapshot.s3]\nendpoint = 'ftp://x'",
            "line 3: snapshot.s3.endpoint",
            "write HOST:PORT",
        ),
        (
            "[snapshot.s3]\nendpoint = 'http://x'\nuse_ssl = true",
            "line 4: snapshot.s3.use_ssl",
            "remove one",
        ),
        (
            "[snapshot.s3]\naccess_key = 'hunter2'",
            "line 3: snapshot.s3.access_key",
            "needs snapshot.s3.secret",
        ),
        (
            "[snapshot.s3]\nsecret = 'hunter2'",
            "line 3: snapshot.s3.secret",
            "needs snapshot.s3.access_key",
        ),
        (
            "[snapshot.s3]\nsession_token = 'hunter2'",
            "line 3: snapshot.s3.session_token",
            "set it too",
        ),
        (
            "[snapshot.webdav]\nurl = 'ftp://h/?secret=hunter2'",
            "line 3: snapshot.webdav.url",
            "write https://",
        ),
        (
            "[snapshot.webdav]\nurl = 'https://me:hunter2@h/'",
            "line 3: snapshot.webdav.url",
            "secret=PASSWORD",
        ),
        (
            "[snapshot.webdav]\nurl = 'https://h/?login=me&secret=x&hunter2'",
            "line 3: snapshot.webdav.url",
            "percent-encode",
        ),
        (
            "[snapshot.sftp]\nhost_key = 'SHA256:short'",
            "line 3: snapshot.sftp.host_key",
            "ssh-keygen -lf",
        ),
        (
            "[snapshot.sftp]\npassphrase = 'hunter2'",
            "line 3: snapshot.sftp.passphrase",
            "needs snapshot.sftp.key_file",
        ),
        (
            "[snapshot.sftp]\nkey_file = 'DIR/no'",
            "line 3: snapshot.sftp.key_file",
            "cannot be read",
        ),
        (
            "[snapshot.sftp]\nurl = 'https://me:hunter2@h/'",
            "line 3: snapshot.sftp.url",
            "write sftp://",
        ),
        (
            "[snapshot.sftp]\nurl = 'sftp://h/p'",
            "line 3: snapshot.sftp.url",
            "no user name; write sftp://",
        ),
        (
            "[snapshot.sftp]\nurl = 'sftp://me:hunter2@h:port/'",
            "line 3: snapshot.sftp.url",
            "percent-encode",
        ),
        (
            "[nats]\nurls = ['nats://a:1', 'http://me:hunter2@b']",
            "line 3: nats.urls entry 2",
            "write nats://HOST:PORT",
        ),
        (
            "[nats]\nurls = ['nats://me:hun#ter2@b']",
            "line 3: nats.urls entry 1",
            "write nats://",
        ),
        (
            "[nats]\nurls = ['']",
            "line 3: nats.urls entry 1",
            "write nats://",
        ),
        (
            "[nats]\nurls = 'nats://me:hunter2@a:1'",
            "line 3: nats.urls",
            "list in brackets",
        ),
        (
            "[nats]\nsubject_prefix = 'a.>'",
            "line 3: nats.subject_prefix",
            "without blanks",
        ),
        (
            "[nats]\nstream_prefix = 'a.b'",
            "line 3: nats.stream_prefix",
            "use letters",
        ),
        (
            "[nats]\nserver_config = 'DIR/no.conf'",
            "line 3: nats.server_config",
            "correct the path",
        ),
        (
            "[nats]\nserver_path = 'DIR/config.toml'",
            "line 3: nats.server_path",
            "path of the nats-server program",
        ),
        (
            "[nats]\nserver_path = 'DIR/no'",
            "line 3: nats.server_path",
            "correct the path",
        ),
        (
            "[nats]\nseed_file = 'DIR'",
            "line 3: nats.seed_file",
            "correct the path",
        ),
        (
            "[nats]\ncreds_file = 'DIR/no'",
            "line 3: nats.creds_file",
            "correct the path",
        ),
        (
            "[nats]\nca_file = 'DIR/no'",
            "line 3: nats.ca_file",
            "correct the path",
        ),
        (
            "[nats]\ncert_file = 'DIR/config.toml'",
            "line 3: nats.cert_file",
            "needs nats.key_file",
        ),
        (
            "[nats]\nkey_file = 'DIR/config.toml'",
            "line 3: nats.key_file",
            "needs nats.cert_file",
        ),
        (
            "[nats]\nuser_password = 'hunter2'",
            "line 3: nats.user_password",
            "needs nats.user_name",
        ),
        (
            "[nats]\nuser_password = 772",
            "line 3: nats.user_password",
            "text in quotes",
        ),
        (
            "[nats]\nuser_name = 'me'\ncreds_file = 'DIR/config.toml'",
            "line 4: nats.creds_file",
            "with nats.user_name; remove one",
        ),
        (
            "[nats]\nuser_name = 'me'\nseed_file = 'DIR/config.toml'",
            "line 4: nats.seed_file",
            "with nats.user_name; remove one",
        ),
        (
            "[nats]\nseed_file = 'DIR/config.toml'\ncreds_file = 'DIR/config.toml'",
            "line 4: nats.creds_file",
            "with nats.seed_file; remove one",
        ),
        (
            "[nats]\nbind_address = 'localhost'",
            "line 3: nats.bind_address",
            "write HOST:PORT",
        ),
        (
            "[nats]\nconnect_retries = -1",
            "line 3: nats.connect_retries",
            "from 0",
        ),
        (
            "[nats]\nreconnect_wait_seconds = 0",
            "line 3: nats.reconnect_wait_seconds",
            "from 1 to 3600",
        ),
        (
            "[logging]\nformat = 'xml'",
            "line 3: logging.format",
            "give \"console\" or \"json\"",
        ),
        (
            "[prometheus]\nbind = ':99999'",
            "line 3: prometheus.bind",
            "write HOST:PORT",
        ),
        (
            "[prometheus]\nnamespace = '9-lives'",
            "line 3: prometheus.namespace",
            "use letters",
        ),
        (
            "[prometheus]\nsubsystem = 'a b'",
            "line 3: prometheus.subsystem",
            "use letters",
        ),
        (
            "[health_check]\nbind = 'a b:1'",
            "line 3: health_check.bind",
            "write HOST:PORT",
        ),
        (
            "[health_check]\npath = 'health'",
            "line 3: health_check.path",
            "begin it with /",
        ),
        (
            "[prometheus]\nenable = true\n[health_check]\nenable = true\nbind = '127.0.0.1:3010'",
            "line 6: health_check.bind and prometheus.bind",
            "another port",
        ),
        (
            "[nats]\nbind_address = ':8090'\n[health_check]\nenable = true",
            "health_check.bind and nats.bind_address (line 3)",
            "another port",
        ),
        (
            "[nats]\nuser_password = hunter2",
            "line 3 cannot be read as TOML",
            "correct that line",
        ),
        (
            "[nats]\nuser_password = 'hunter2",
            "line 3 cannot be read as TOML",
            "correct that line",
        ),
        (
            "publish = true\npublish = false",
            "line 3 cannot be read as TOML",
            "correct that line",
        ),
        ("[natz]\nurls = []", "line 2: natz", "did you mean nats?"),
        ("nats = 3", "line 2: nats", "a section in brackets"),
    ];
    for (text, place, remedy) in table {
        let site = Site::new(&format!("db_path = 'DIR/data.db'\n{text}\n"));
        let faults = site.faults();
        assert_eq!(faults.len(), 1, "{text}: {faults:#?}");
        let fault = faults[0].strip_prefix("DIR/config.toml: ").unwrap();
        assert!(fault.starts_with(place), "{text}: {fault}");
        assert!(fault.contains(remedy), "{text}: {fault}");
        let said = everything(&site.load().unwrap_err());
        assert!(
            !said.contains(SECRET) && !said.contains("ter2") && !said.contains("772"),
            "{said}"
        );
    }
}

#[test]
fn faults_of_the_database_path() {
    for (value, words) in [
        (
            "",
            "db_path is missing; set it to the path of the SQLite database, or give -db FILE",
        ),
        ("db_path = ''", "line 1: db_path is missing"),
        (
            "db_path = ':memory:'",
            "line 1: db_path is \":memory:\", which lives in one process",
        ),
        (
            "db_path = 'file:a.db?mode=ro'",
            "line 1: db_path is \"file:a.db?mode=ro\", which is a URI",
        ),
        ("db_path = 'DIR'", "which is a folder; give the path"),
        (
            "db_path = 'DIR/no/data.db'",
            "line 1: db_path needs the folder DIR/no, which does not exist; create it",
        ),
        (
            "db_path = 'DIR/config.toml/data.db'",
            "line 1: db_path needs the folder DIR/config.toml, which is not a folder",
        ),
        (
            "db_path = 7",
            "line 1: db_path has a value of the wrong type; give text in quotes",
        ),
    ] {
        let faults = Site::new(value).faults();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains(words), "{}", faults[0]);
    }
}

#[test]
fn all_faults_of_a_file_are_said_at_once_from_top_to_bottom() {
    let site = Site::new(
        "node_id = 0\ndb_path = 'DIR/no/x.db'\nunknown_thing = 1\n[nats]\nurls = ['x://a']\n\
         cert_file = 'DIR/no.pem'\nkey_file = 'DIR/no.key'\n[prometheus]\nbind = 'x'\nenable = 1\n",
    );
    let lines: Vec<String> = site
        .faults()
        .iter()
        .map(|fault| fault.split(": ").nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "line 1", "line 2", "line 3", "line 5", "line 6", "line 7", "line 9", "line 10"
        ]
    );
}

#[test]
fn files_that_are_no_configuration() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("no.toml");
    let none = Overrides::default();
    let said = Config::load(Some(&missing), &none).unwrap_err().to_string();
    assert!(
        said.contains("cannot be read") && said.contains("correct the path"),
        "{said}"
    );
    let said = Config::load(Some(folder.path()), &none)
        .unwrap_err()
        .to_string();
    assert!(said.contains("is a directory"), "{said}");

    let file = folder.path().join("config.toml");
    fs::write(&file, b"db_path = 'a'\npublish = '\xff'\n").unwrap();
    let said = Config::load(Some(&file), &none).unwrap_err().to_string();
    assert!(
        said.ends_with("line 2 is not UTF-8 text; save it as UTF-8"),
        "{said}"
    );

    fs::write(&file, vec![b'\n'; (1 << 20) + 1]).unwrap();
    let said = Config::load(Some(&file), &none).unwrap_err().to_string();
    assert!(said.contains("larger than 1048576 bytes"), "{said}");
}

#[test]
fn the_example_is_the_defaults() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("data.db");
    let example = include_str!("../config.example.toml");
    assert!(example.contains("\ndb_path = \"/var/lib/harmonylite/data.db\"\n"));
    assert!(example.contains("\n# node_id = 1\n"));
    let text = example
        .replace("/var/lib/harmonylite/data.db", db.to_str().unwrap())
        .replace("# node_id = 1", "node_id = 1");
    let loaded = Site::new(&text).load().unwrap();
    assert_eq!(loaded.config, Config::with_defaults(&db, 1));
    assert_eq!(
        loaded.config.seq_map_path,
        folder.path().join("seq-map.cbor")
    );
}

#[test]
fn without_a_file_the_flags_are_enough() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("data.db");
    let loaded = Config::load(None, &overrides(&["-db", db.to_str().unwrap()])).unwrap();
    assert_eq!(
        loaded.config,
        Config::with_defaults(&db, loaded.config.node_id)
    );
    assert_ne!(loaded.config.node_id, 0);
    let again = Config::load(None, &overrides(&["-db", db.to_str().unwrap()])).unwrap();
    assert_eq!(again.config.node_id, loaded.config.node_id);

    let said = Config::load(None, &Overrides::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "db_path is missing; set it to the path of the SQLite database, or give -db FILE"
    );
    let lost = overrides(&["-db", folder.path().join("no/x.db").to_str().unwrap()]);
    let said = Config::load(None, &lost).unwrap_err().to_string();
    assert!(said.starts_with("-db needs the folder"), "{said}");
}

#[test]
fn what_the_file_says_is_taken() {
    let site = Site::new(
        "db_path = 'DIR/data.db'\nseq_map_path = 'DIR/map'\nnode_id = 9\nsleep_timeout = 1500\n\
         polling_interval = 20\n[replication_log]\nmax_age = 60000\n[snapshot]\nstore = 's3'\n\
         [snapshot.s3]\nbucket = 'backups'\naccess_key = 'id'\nsecret = 'hunter2'\n\
         [nats]\nurls = ['host-1', 'tls://me:hunter2@b:4223']\nreconnect_wait_seconds = 5\n\
         [logging]\nformat = 'json'\n",
    );
    let config = site.load().unwrap().config;
    assert_eq!(config.seq_map_path, site.path().join("map"));
    assert_eq!(config.node_id, 9);
    assert_eq!(config.sleep_timeout, Duration::from_millis(1500));
    assert_eq!(config.polling_interval, Duration::from_millis(20));
    assert_eq!(config.replication_log.max_age, Duration::from_secs(60));
    assert_eq!(config.snapshot.store, SnapshotStore::S3);
    assert_eq!(config.snapshot.s3.secret.expose(), SECRET);
    assert_eq!(config.nats.urls[1], "tls://me:hunter2@b:4223");
    assert_eq!(config.nats.reconnect_wait, Duration::from_secs(5));
    assert_eq!(config.logging.format, LogFormat::Json);
    for shown in [format!("{config:?}"), format!("{config:#?}")] {
        assert!(
            shown.contains("backups") && !shown.contains(SECRET),
            "{shown}"
        );
    }
}

#[test]
fn flags_go_before_the_file() {
    let site = Site::new("db_path = 'DIR/no/data.db'\nnode_id = 9\n");
    let db = site.path().join("other.db");
    let flags = overrides(&[
        "-db",
        db.to_str().unwrap(),
        "--node-id=7",
        "-cluster-addr",
        "127.0.0.1:6222",
        "-cluster-peers",
        "nats://me:hunter2@127.0.0.1:6223/",
        "-leaf-servers",
        "dns://leaf.local:7422/?min=1&hub=true",
    ]);
    assert_eq!(flags.node_id, NonZeroU64::new(7));
    let config = site.load_with(&flags).unwrap().config;
    assert_eq!((config.db_path, config.node_id), (db, 7));
    assert_eq!(config.seq_map_path, site.path().join("seq-map.cbor"));
    assert_eq!(config.nats.cluster_addr.as_deref(), Some("127.0.0.1:6222"));
    assert_eq!(config.nats.cluster_peers, flags.cluster_peers);
    assert!(config.nats.leaf_servers[0].hub);
    assert!(!format!("{:?} {flags:?}", config.nats).contains(SECRET));
}

#[test]
fn the_ports_of_a_cluster_are_two() {
    let site =
        Site::new("db_path = 'DIR/data.db'\n[health_check]\nenable = true\nbind = ':6223'\n");
    let said = |address: &str| {
        site.load_with(&overrides(&["-cluster-addr", address]))
            .unwrap_err()
            .to_string()
    };
    let leaf = said("0.0.0.0:6222");
    assert!(
        leaf.contains("leaf nodes") && leaf.contains("health_check.bind (line 4)"),
        "{leaf}"
    );
    let routes = said("0.0.0.0:6223");
    assert!(
        routes.contains("-cluster-addr and health_check.bind (line 4)"),
        "{routes}"
    );
    assert!(said(":65535").contains("needs a port from 1 to 65534"));
    assert!(said(":-1").contains("needs a port from 1 to 65534"));
    assert!(
        site.load_with(&overrides(&["-cluster-addr", ":6224"]))
            .is_ok()
    );
}

#[test]
fn no_key_is_silently_without_effect() {
    let site = Site::new(
        "db_path = 'DIR/data.db'\nnode_id = 1\n[replication_log]\nmax_age = 5\n[replication]\n\
         fire_triggers = ['t']\n[snapshot]\nenabled = true\n[snapshot.nats]\nreplicas = 3\n\
         [nats]\nurls = ['nats://a:1']\nbind_address = ':4222'\nserver_config = 'DIR/config.toml'\n",
    );
    let flags = overrides(&["-cluster-addr", ":6222", "-cluster-peers", "nats://b:1"]);
    let notices = site.load_with(&flags).unwrap().notices;
    for begin in [
        "-cluster-addr: without effect",
        "-cluster-peers: without effect",
        "nats.bind_address (line 13): without effect",
        "nats.server_config (line 14): without effect",
    ] {
        assert!(
            notices.iter().any(|notice| notice.starts_with(begin)),
            "{begin}: {notices:#?}"
        );
    }
    assert_eq!(notices.len(), 4, "{notices:#?}");
    let quiet = Site::new("db_path = 'DIR/data.db'\nnode_id = 1\n[replication_log]\nmax_age = 0\n");
    assert_eq!(quiet.load().unwrap().notices, Vec::<String>::new());
}

#[test]
fn a_folder_for_snapshots_may_be_mounted_later() {
    let site = Site::new(
        "db_path = 'DIR/data.db'\nnode_id = 1\n[snapshot]\nstore = 'file'\n[snapshot.file]\npath = 'DIR/no'\n",
    );
    let notices = site.load().unwrap().notices;
    assert_eq!(notices.len(), 1, "{notices:#?}");
    assert!(
        notices[0].contains("/no is not there: make it, mount it"),
        "{notices:#?}"
    );
    std::fs::create_dir(site.path().join("no")).unwrap();
    assert_eq!(site.load().unwrap().notices, Vec::<String>::new());
}

#[test]
fn choices_that_cost_something_are_warned_of() {
    let mut config = Config::with_defaults("data.db", 1);
    assert_eq!(config.warnings(), Vec::<String>::new());
    config.publish = false;
    assert!(config.warnings()[0].starts_with("publish is false"));
    config.replicate = false;
    assert!(config.warnings()[0].starts_with("publish and replicate are both false"));
    config.publish = true;
    assert!(config.warnings()[0].starts_with("replicate is false"));
    config.replicate = true;
    config.snapshot.enabled = false;
    config.replication_log.replicas = 3;
    config.nats.cluster_peers = overrides(&["-cluster-peers", "nats://b:1"]).cluster_peers;
    let warnings = config.warnings();
    for begin in [
        "snapshot.enabled",
        "replication_log.replicas",
        "-cluster-peers",
    ] {
        assert!(
            warnings.iter().any(|text| text.starts_with(begin)),
            "{warnings:?}"
        );
    }
    config.snapshot = Config::with_defaults("data.db", 1).snapshot;
    config.nats.urls = vec!["nats://a:1".into()];
    config.snapshot.store = SnapshotStore::S3;
    config.snapshot.s3.endpoint = "minio:9000".into();
    assert!(config.warnings()[0].contains("unencrypted"));
}

#[test]
fn the_bounds_of_the_journals_are_read_and_checked() {
    let site = Site::new(
        "db_path = 'DIR/data.db'\nnode_id = 1\n[journals]\nmax_conflicts = 7\nmax_conflict_age = 60000\nmax_dead_letter_bytes = 8388608\n",
    );
    let journals = site.load().unwrap().config.journals;
    assert_eq!(
        (
            journals.max_conflicts,
            journals.max_conflict_age.as_secs(),
            journals.max_dead_letter_bytes
        ),
        (7, 60, 8 << 20)
    );
    assert_eq!(journals.max_dead_letters, 1000);
    for (key, value) in [
        ("max_conflicts", "0"),
        ("max_conflict_age", "59999"),
        ("max_dead_letters", "100001"),
        ("max_dead_letter_age", "-1"),
        ("max_dead_letter_bytes", "8388607"),
    ] {
        let site = Site::new(&format!(
            "db_path = 'DIR/data.db'\nnode_id = 1\n[journals]\n{key} = {value}\n"
        ));
        let fault = site.load().unwrap_err().to_string();
        assert!(fault.contains(&format!("journals.{key}")), "{fault}");
    }
}

#[test]
fn what_a_panic_would_print_shows_no_secret() {
    let site = Site::new(
        "db_path = 'DIR/app.db'\n[nats]\nurls = ['nats://me:hunter2@h:4222', 'nats://hunter2@h']\n\
         user_name = 'ada'\nuser_password = 'hunter2'\n\
         [snapshot.s3]\nbucket = 'bucket'\naccess_key = 'hunter2'\nsecret = 'hunter2'\nsession_token = 'hunter2'\n\
         [snapshot.webdav]\nurl = 'https://h/?dir=/s&login=me&secret=hunter2'\n\
         [snapshot.sftp]\nurl = 'sftp://me:hunter2@h/s'\nkey_file = 'DIR/config.toml'\npassphrase = 'hunter2'\n",
    );
    let overrides = overrides(&[
        "-cluster-addr",
        "127.0.0.1:6222",
        "-cluster-peers",
        "nats://me:hunter2@h:1",
        "-leaf-servers",
        "nats://hunter2@h:1",
    ]);
    let loaded = site.load_with(&overrides).unwrap();
    let shown = format!("{loaded:?} {loaded:#?} {overrides:?}");
    assert!(
        shown.contains("bucket") && !shown.contains(SECRET),
        "{shown}"
    );
    // The flags are another matter: every user can read them.
    let told = |flag: &str| {
        loaded
            .notices
            .iter()
            .any(|n| n.starts_with(&format!("{flag} holds a login")))
    };
    assert!(
        told("-cluster-peers") && told("-leaf-servers"),
        "{:?}",
        loaded.notices
    );
}
