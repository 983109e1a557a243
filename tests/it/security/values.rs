//! Row values: in the database, in the streams, in snapshots; never in a log, a metric or an answer over HTTP.

use std::os::unix::fs::PermissionsExt as _;

use super::markers::Watch;
use crate::harness::http::observed;
use crate::harness::jetstream::Outsider;
use crate::harness::{Cluster, eventually};

const SCHEMA: &str = "CREATE TABLE people(id TEXT PRIMARY KEY, mail TEXT UNIQUE, note TEXT CHECK(length(note) < 100), n INTEGER);
     CREATE TABLE loose(a, b)";

#[test]
fn no_row_value_shows_in_logs_metrics_or_over_http() {
    let planted = [
        "marker1key",
        "marker2mail",
        "marker3note",
        "marker4loose",
        "marker5new",
        "770881599",
    ];
    let mut watch = Watch::new(&planted);
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let mut ports = Vec::new();
    for node in &mut cluster.nodes {
        ports.extend(<[u16; 2]>::from(observed(node)));
        node.sections.push_str("[logging]\nverbose = true\n");
        node.environment = vec![("HARMONYLITE_LOG".to_owned(), "trace".to_owned())];
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO people VALUES('marker1key', 'marker2mail', 'marker3note', 770881599); INSERT INTO loose VALUES('marker4loose', x'00')");
    cluster.converge();
    // Conflicts of each kind: cells, UNIQUE values, deletes.
    cluster.concurrently(&[
        "UPDATE people SET note = 'marker5new', n = 770881599; INSERT INTO people VALUES('marker1key-a', 'marker2mail-x', NULL, 1); DELETE FROM loose",
        "UPDATE people SET note = 'marker3note-b'; INSERT INTO people VALUES('marker1key-b', 'marker2mail-x', NULL, 2); UPDATE loose SET a = 'marker4loose-b'",
    ]);
    let held = cluster.converge();
    assert!(!held.is_empty());
    let conflicts =
        |at: usize| cluster[at].integer("SELECT count(*) FROM __harmonylite__conflicts");
    eventually("conflicts are journaled", || {
        conflicts(0) + conflicts(1) > 0
    });
    // Dead letters: one that no node can read, with values in it.
    let outsider = Outsider::new(&cluster.server.url());
    outsider.publish(
        "harmonylite-change-log-1",
        b"HL\x01\x01\x00marker5new marker3note",
    );
    for node in &cluster.nodes {
        eventually("it is a dead letter", || {
            node.integer("SELECT count(*) FROM __harmonylite__dead_letters") == 1
        });
    }
    // A schema that differs, a database that is locked, errors of SQLite.
    cluster[1].sql("ALTER TABLE people ADD COLUMN w DEFAULT 'marker5new'; INSERT INTO people VALUES('marker1key-c', NULL, NULL, 3, 'marker5new')");
    eventually("the other node pauses", || {
        cluster[0].log().contains("people")
            && cluster[0].integer("SELECT count(*) FROM people WHERE n = 3") == 0
    });
    let locking = cluster[0].app();
    locking.execute_batch("BEGIN IMMEDIATE; INSERT INTO people VALUES('marker1key-d', 'marker2mail-d', 'marker3note', 4)").unwrap();
    for (node, ports) in cluster.nodes.iter().zip(ports.chunks(2)) {
        watch.look_at(node, ports);
        for word in [
            &["conflicts", "list"][..],
            &["dead-letters", "list"],
            &["position"],
            &["-check"],
        ] {
            // What these print is for the node's owner, and passes no log.
            let _ = node.run(word);
        }
        watch.look_at(node, ports);
    }
    locking.execute_batch("COMMIT").unwrap();
    cluster[0].sql("ALTER TABLE people ADD COLUMN w DEFAULT 'marker5new'");
    cluster.converge();
    let shown = cluster[0].run(&["conflicts", "list", "--json"]).said
        + &cluster[1].run(&["conflicts", "list", "--json"]).said;
    assert!(
        shown.contains("marker"),
        "the owner does not get to see them: {shown}"
    );
    // Comparing nodes names keys to who asks, not to the log.
    assert_eq!(cluster[0].run(&["verify"]).code, Some(0));
    for (node, ports) in cluster.nodes.iter().zip(ports.chunks(2)) {
        watch.look_at(node, ports);
    }
    watch.assert_places(40);
    cluster.assert_running();
}

#[test]
fn what_lies_beside_a_database_is_as_private_as_the_database() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let database = cluster[0].database();
    std::fs::set_permissions(&database, std::fs::Permissions::from_mode(0o600)).unwrap();
    cluster[0].start_replicating();
    cluster[0].sql("INSERT INTO people VALUES('a', 'b', 'c', 1)");
    cluster[0].wait_published();
    // A snapshot is a copy on its way.
    assert_eq!(cluster[0].run(&["snapshot", "save"]).code, Some(0));
    cluster[0].sql("INSERT INTO people VALUES('d', 'e', 'f', 1)");
    cluster[0].wait_published();
    eventually("what was published is kept", || {
        std::fs::read_dir(&cluster[0].folder)
            .unwrap()
            .flatten()
            .any(|e| e.file_name().to_string_lossy().contains(".kept-"))
    });
    for entry in std::fs::read_dir(&cluster[0].folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // The harness's own, and what says how far the node is.
        if !name.contains("app.db") {
            continue;
        }
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{name}");
    }
    cluster[0].stop();
}
