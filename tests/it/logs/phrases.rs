//! The phrases that the guide tells people to look for begin the lines, or the sentences, that tell of it.

use super::{SCHEMA, health, logging};
use crate::harness::{Cluster, Node, eventually, nats, node};

/// The text of the line that begins with a phrase, after time and level.
fn line(log: &str, phrase: &str) -> Option<String> {
    let texts = log.lines().filter_map(|line| line.get(34..));
    texts
        .map(str::to_owned)
        .find(|text| text.starts_with(phrase))
}

fn begins(node: &mut Node, phrase: &str) -> String {
    node.wait_log(phrase);
    let log = node.log();
    line(&log, phrase).unwrap_or_else(|| panic!("no line begins with {phrase:?}: {log}"))
}

#[test]
fn failed_to_connect_to_nats() {
    let mut node = Node::new(1, "nats://127.0.0.1:1", SCHEMA);
    node.start();
    let said = begins(&mut node, "Failed to connect to NATS");
    assert!(said.contains("127.0.0.1:1"), "{said}");
    node.stop();
}

#[test]
fn failed_to_create_snapshot() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let folder = cluster[0].folder.join("not-there");
    cluster[0].sections.push_str(&format!(
        "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {folder:?}\n"
    ));
    cluster[0].start();
    let said = begins(&mut cluster[0], "Failed to create snapshot");
    assert!(said.contains("not-there"), "{said}");
    let asked = cluster[0].run(&["-save-snapshot"]);
    assert!(asked.code != Some(0), "{}", asked.said);
    cluster[0].stop();
}

#[test]
fn failed_to_restore_snapshot() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let folder = node::folder();
    let store = format!(
        "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {:?}\n",
        folder.path()
    );
    cluster[0].sections.push_str(&store);
    cluster[0].start_replicating();
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    cluster[0].wait_published();
    let saved = cluster[0].run(&["-save-snapshot"]);
    assert_eq!(saved.code, Some(0), "{}", saved.said);
    // Cut in the middle.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "db") {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    let mut joins = Node::bare(2, &cluster.server.url());
    joins.sections.push_str(&store);
    joins.start();
    begins(&mut joins, "Failed to restore snapshot");
}

#[test]
fn failed_to_create_stream() {
    // Without JetStream nobody responds.
    let server = nats::NatsServer::with("jetstream: disabled");
    let (mut node, port) = logging(&server.url(), SCHEMA, "");
    node.start();
    let said = begins(&mut node, "Failed to create stream");
    assert!(
        said.to_lowercase().contains("no responders available"),
        "{said}"
    );
    eventually("health says why", || {
        health(port)["errors"]
            .to_string()
            .contains("Failed to create stream")
    });
    node.stop();
}

#[test]
fn database_is_locked() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster.converge();
    let app = cluster[1].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    begins(&mut cluster[1], "database is locked");
    app.execute_batch("COMMIT").unwrap();
    cluster.converge();
    // Told once, however often it was tried.
    let log = cluster[1].log();
    assert_eq!(
        log.matches("database is locked by another process: changes")
            .count(),
        1,
        "{log}"
    );
}

#[test]
fn invalid_configuration_and_a_malformed_database() {
    let mut node = Node::new(1, "nats://127.0.0.1:1", SCHEMA);
    node.root = "publsh = true".to_owned();
    for flags in [&["-check"][..], &[]] {
        let said = node.run(flags);
        assert_eq!(said.code, Some(78), "{}", said.said);
        assert!(
            said.said.starts_with("Invalid configuration"),
            "{}",
            said.said
        );
        assert!(
            said.said.contains("publsh") && said.said.contains("publish"),
            "{}",
            said.said
        );
    }
    node.root.clear();
    let database = node.database();
    let mut bytes = std::fs::read(&database).unwrap();
    bytes[100..].fill(0xa5);
    std::fs::write(&database, bytes).unwrap();
    let said = node.run(&[]);
    assert_eq!(said.code, Some(65), "{}", said.said);
    assert!(said.said.contains("malformed"), "{}", said.said);
}
