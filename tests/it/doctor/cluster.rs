//! What is wrong with the streams, this node's place in them, the other nodes and the snapshots.

use serde_json::{Value as Json, json};

use super::{SCHEMA, doctor, stopped};
use crate::harness::node::folder;
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node, eventually};

const STREAM: &str = "harmonylite-changes-1";
const SUBJECT: &str = "harmonylite-change-log-1";

/// Changes what a key of a bucket holds.
fn edit(
    outsider: &crate::harness::jetstream::Outsider,
    bucket: &str,
    key: &str,
    change: impl FnOnce(&mut Json),
) {
    let mut value: Json = serde_json::from_str(&outsider.value(bucket, key)).unwrap();
    change(&mut value);
    outsider.put(bucket, key, &value.to_string());
}

#[test]
fn streams_that_differ_are_full_or_gone_are_found() {
    let (mut node, _server, outsider) = stopped(2);
    node.sections
        .push_str("[replication_log]\nmax_bytes = 4194304\n");
    doctor(&node).assert_found("stream-differs", "max_bytes is 1073741824, not 4194304");
    for _ in 0..1001 {
        outsider.publish(SUBJECT, b"x");
    }
    doctor(&node).assert_found("lag", "1001 messages behind");
    outsider.delete_stream(STREAM);
    let report = doctor(&node);
    report.assert_found("stream-gone", STREAM);
    assert_eq!(report.code, Some(65));
    outsider.create_stream(STREAM, SUBJECT);
    doctor(&node).assert_found("history-broken", "ends at 0");
}

#[test]
fn a_full_stream_is_found() {
    let server = crate::harness::node::broker();
    let mut node = Node::new(1, &server.url(), SCHEMA);
    node.sections
        .push_str("[replication_log]\nmax_bytes = 4194304\n");
    node.start_replicating();
    node.stop();
    let outsider = crate::harness::jetstream::Outsider::new(&server.url());
    for _ in 0..7 {
        outsider.publish(SUBJECT, &[0; 512 << 10]);
    }
    doctor(&node).assert_found("stream-full", "of 4096 KiB");
}

#[test]
fn a_node_behind_the_stream_needs_a_snapshot() {
    let (node, _server, outsider) = stopped(2);
    for _ in 0..3 {
        outsider.publish(SUBJECT, b"x");
    }
    let last = outsider.last(STREAM);
    // What it had folded, and more.
    for sequence in outsider.first(STREAM)..last {
        outsider.remove(STREAM, sequence);
    }
    let report = doctor(&node);
    report.assert_found("no-way-back", "it needs a snapshot");
    assert_eq!(report.code, Some(65));
    edit(
        &outsider,
        "harmonylite-changes-snapshots",
        "verified",
        |v| v[0]["sequence"] = json!(last - 1),
    );
    doctor(&node).assert_found("needs-snapshot", &format!("covers {}", last - 1));
}

#[test]
fn snapshots_that_are_missing_old_or_out_of_reach_are_found() {
    let store = folder();
    let server = crate::harness::node::broker();
    let mut node = Node::new(1, &server.url(), SCHEMA);
    node.sections.push_str(&format!(
        "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {:?}\n",
        store.path()
    ));
    node.start_replicating();
    node.stop();
    assert_eq!(doctor(&node).problems(), ["daemon-down"]);
    node.sections = node
        .sections
        .replace("[snapshot]\n", "[snapshot]\ninterval = 1000\n");
    let outsider = crate::harness::jetstream::Outsider::new(&server.url());
    edit(
        &outsider,
        "harmonylite-changes-snapshots",
        "verified",
        |v| v[0]["time"] = json!("2020-01-01T00:00:00Z"),
    );
    doctor(&node).assert_found("snapshot-old", "taken every 1 s");
    for entry in std::fs::read_dir(store.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    doctor(&node).assert_found("no-snapshot", "the store does not hold it");
    std::fs::remove_dir(store.path()).unwrap();
    let report = doctor(&node);
    report.assert_found("store-fails", "list");
    assert_eq!(report.code, Some(69));
    std::fs::create_dir(store.path()).unwrap();
}

#[test]
fn other_nodes_their_schemas_and_their_clocks_are_looked_at() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    assert_eq!(cluster[1].run(&["pause", "apply"]).code, Some(0));
    cluster[1].sql("ALTER TABLE t ADD COLUMN w");
    let found = |node: &Node, problem: &str, words: &str| {
        eventually_ok(problem, || {
            let report = doctor(node);
            match report.problems().contains(&problem) {
                true => Ok(report),
                false => Err(format!("{report:#?}")),
            }
        })
        .assert_found(problem, words);
    };
    found(&cluster[0], "node-unwell", "node 2");
    found(
        &cluster[0],
        "schema-differs",
        "has column \"w\" of table \"t\", which is not here",
    );
    cluster[1].kill();
    found(&cluster[0], "node-lost", "node 2");
}

#[test]
fn what_nats_says_of_this_node_and_its_cluster_is_compared() {
    let (node, _server, outsider) = stopped(1);
    let holder = |node: u64| {
        json!({
            "database": "another", "nonce": "1", "host": "elsewhere", "boot_id": "b", "pid_namespace": "p",
            "pid": 4711, "process_start": 1, "version": "0.1.0", "node": node,
        })
        .to_string()
    };
    let leases = "harmonylite-changes-leases";
    // Gone after ten seconds, so it is written for each look.
    eventually("another holds the id", || {
        outsider.put(leases, "node-1", &holder(1));
        let report = doctor(&node);
        if report.problems().contains(&"node-id-taken") {
            report.assert_found("node-id-taken", "process 4711 on host elsewhere");
            assert_eq!(report.code, Some(75));
            return true;
        }
        false
    });
    let mut entry: Json =
        serde_json::from_str(&outsider.value("harmonylite-schema-registry", "node-1")).unwrap();
    entry["node_id"] = json!(2);
    entry["updated_at"] = json!("2020-01-01T00:00:00Z");
    outsider.put("harmonylite-schema-registry", "node-2", &entry.to_string());
    eventually("its clock is behind", || {
        outsider.put(leases, "node-2", &holder(2));
        let report = doctor(&node);
        if report.problems().contains(&"peer-clock") {
            report.assert_found("peer-clock", "the clock of node 2 is");
            return true;
        }
        false
    });
    edit(&outsider, "harmonylite-changes-cluster", "cluster", |v| {
        v["id"] = json!("other")
    });
    let report = doctor(&node);
    report.assert_found("other-cluster", "NATS has cluster other");
}
