//! The bundle: everything that helps is in it, and neither a secret nor a row.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::SCHEMA;
use crate::harness::http::{free_port, observed};
use crate::harness::nats::{NatsServer, binary};
use crate::harness::node::folder;
use crate::harness::{Node, eventually};

/// The files of a bundle by name, as another program unpacks them.
fn unpacked(bundle: &Path) -> BTreeMap<String, String> {
    let to = folder();
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(bundle)
        .arg("-C")
        .arg(to.path())
        .status();
    assert!(status.unwrap().success());
    let inside = to.path().join("harmonylite-diagnose");
    let all: BTreeMap<String, String> = std::fs::read_dir(inside)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0);
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
            (entry.file_name().into_string().unwrap(), text)
        })
        .collect();
    let readme = &all["README.txt"];
    for (name, text) in &all {
        let listed = readme.lines().any(|line| {
            let mut words = line.split_whitespace();
            let sized = |word: Option<&str>| word == Some(&text.len().to_string());
            words.next() == Some(name) && (name == "README.txt" || sized(words.next()))
        });
        assert!(listed, "{name} ({}) is not listed: {readme}", text.len());
    }
    all
}

#[test]
fn no_secret_and_no_row_is_in_a_bundle() {
    let planted = [
        "marker1-password",
        "marker2-access",
        "marker3-secret",
        "marker4-token",
        "marker5-webdav",
        "marker6-sftp",
        "marker7-phrase",
        "marker8-variable",
        "marker9-peer",
        "markerA-key",
        "markerB-value",
        "markerC-lost",
        "markerD-letter",
        "770881599",
    ];
    let server = NatsServer::with("authorization { user: ada, password: marker1-password }");
    let mut node = Node::new(1, &server.url(), SCHEMA);
    let closed = free_port();
    node.sections
        .push_str("user_name = \"ada\"\nuser_password = \"marker1-password\"\n");
    observed(&mut node);
    let key = node.folder.join("key");
    std::fs::write(&key, "x").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    node.sections.push_str(&format!(
        "[snapshot.s3]\nbucket = \"bucket\"\nendpoint = \"127.0.0.1:{closed}\"\naccess_key = \"marker2-access\"\nsecret = \"marker3-secret\"\nsession_token = \"marker4-token\"\n\
         [snapshot.webdav]\nurl = \"http://127.0.0.1:{closed}/?dir=/s&login=me&secret=marker5-webdav\"\n\
         [snapshot.sftp]\nurl = \"sftp://me:marker6-sftp@127.0.0.1:{closed}/s\"\npassphrase = \"marker7-phrase\"\nkey_file = {key:?}\n"
    ));
    // A variable of the daemon's, and what other programs write where it writes.
    node.environment = vec![(
        "HARMONYLITE_SNAPSHOT_S3_SECRET".to_owned(),
        "marker8-variable".to_owned(),
    )];
    node.start_replicating();
    node.sql("INSERT INTO t VALUES('markerA-key', 'markerB-value'), ('b', 770881599)");
    node.wait_published();
    node.sql(
        "INSERT INTO __harmonylite__conflicts(time, table_name, key, column_name, losing_value, losing_node, winning_node, position, reason)
             VALUES('2026-11-22T00:00:00Z', 't', 'markerA-key', 'v', 'markerC-lost', '1', '2', 1, 'cell');
         INSERT INTO __harmonylite__dead_letters VALUES(1, '2026-11-22T00:00:00Z', 1, 1, 'unreadable', CAST('markerD-letter' AS BLOB))",
    );
    // Pending as it is looked at.
    assert_eq!(node.run(&["pause", "publish"]).code, Some(0));
    node.sql("INSERT INTO t VALUES('markerA-key-2', 'markerB-value')");
    let mut log = std::fs::File::options()
        .append(true)
        .open(node.folder.join("daemon.log"))
        .unwrap();
    writeln!(log, "another program says marker1-password").unwrap();
    writeln!(log, "and what only the daemon was given: marker8-variable").unwrap();

    let bundle = node.folder.join("bundle.tar.gz");
    let name = bundle.display().to_string();
    let ended = node.run(&["diagnose", "-o", &name]);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(
        ended.said.contains("look through it before you send it"),
        "{}",
        ended.said
    );
    assert_eq!(
        std::fs::metadata(&bundle).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let all = unpacked(&bundle);
    for (file, text) in &all {
        for secret in planted {
            // Names of tests and folders are no secrets; what is planted is in none.
            assert!(!text.contains(secret), "{secret} shows in {file}:\n{text}");
        }
    }
    // A second one never replaces the first.
    let again = node.run(&["diagnose", "--output", &name]);
    assert_eq!(again.code, Some(73), "{}", again.said);
    for (file, words) in [
        ("README.txt", "Before you send it"),
        ("doctor.txt", "[dead-letters]"),
        ("doctor.json", "\"dead-letters\""),
        ("configuration.txt", "user_password: (secret)"),
        ("configuration.txt", "nats.user_password"),
        ("system.txt", "== /proc/meminfo"),
        ("version.txt", env!("CARGO_PKG_VERSION")),
        ("process.txt", "HARMONYLITE_SNAPSHOT_S3_SECRET"),
        ("process.txt", "Max open files"),
        ("files.txt", "app.db-harmonylite.lock"),
        ("status.json", "\"node_id\": 1"),
        ("streams.json", "harmonylite-changes-1"),
        ("health.json", "\"status\":\"unhealthy\""),
        ("metrics.txt", "harmonylite_pending_publish"),
        ("schema.sql", "CREATE TABLE t(id TEXT PRIMARY KEY, v);"),
        ("schema.json", "\"capture\": \"current\""),
        ("state.txt", "journal_mode: wal"),
        ("state.txt", "__harmonylite__t_change_log"),
        ("state.txt", "t  cell  1"),
        ("standard-error.txt", "another program says (secret)"),
        ("standard-error.txt", "replicating position"),
    ] {
        let text = all
            .get(file)
            .unwrap_or_else(|| panic!("no {file}: {:?}", all.keys()));
        assert!(text.contains(words), "{words:?} is not in {file}:\n{text}");
    }
}

#[test]
fn a_bundle_is_made_of_what_there_is() {
    // A configuration that does not load, with a secret in it.
    let mut node = Node::new(1, "nats://127.0.0.1:1", SCHEMA);
    node.sections
        .push_str("user_pasword = \"marker1-password\"\n");
    let at = |name: &str| node.folder.join(name).display().to_string();
    let first = at("first.tar.gz");
    let ended = node.run(&["diagnose", "-o", &first]);
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    let all = unpacked(Path::new(&first));
    assert!(all["configuration.txt"].contains("nats.user_pasword is not a known key"));
    assert!(all["doctor.txt"].contains("[config-fault]"));
    assert!(
        all.values().all(|text| !text.contains("marker1")),
        "{all:#?}"
    );
    // No daemon, no database, a managed server that never ran; then one that runs.
    let mut node = Node::bare(1, "");
    node.sections = format!("[nats]\nserver_path = {:?}\n", binary());
    let bundle = |name: &str| {
        let path = node.folder.join(name).display().to_string();
        let ended = node.run(&["diagnose", "-o", &path]);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        unpacked(Path::new(&path))
    };
    let all = bundle("second.tar.gz");
    assert!(all["nats-varz.json"].contains("does not run"));
    assert!(
        all["version.txt"].contains("nats-server: v2."),
        "{}",
        all["version.txt"]
    );
    crate::harness::app::create(&node.database(), SCHEMA);
    node.start_replicating();
    let mut tried = 0;
    eventually("the managed server tells of itself", || {
        tried += 1;
        let path = node
            .folder
            .join(format!("third-{tried}.tar.gz"))
            .display()
            .to_string();
        assert_eq!(node.run(&["diagnose", "-o", &path]).code, Some(0));
        let all = unpacked(Path::new(&path));
        all["nats-varz.json"].contains("\"server_name\"")
            && all["nats-jsz.json"].contains("\"streams\"")
    });
    node.stop();
}
