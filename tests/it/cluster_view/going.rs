//! Leaving, forgetting, and coming back.

use super::{SCHEMA, done, json, of, refused, status, wait_state};
use crate::harness::cable::Cable;
use crate::harness::{Cluster, eventually};
use crate::snapshots::{insert, position, prepared, start, stream_first};

#[test]
fn a_node_that_leaves_publishes_all_and_holds_up_nothing() {
    let mut cluster = Cluster::prepared(3, SCHEMA);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    // Asked while much is pending.
    cluster[2].sql(
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 50000) INSERT INTO t SELECT n, 'left' FROM c",
    );
    let left = cluster[2].run(&["leave"]);
    refused(&left, 0, &["has left the cluster"]);
    assert_eq!(cluster[2].wait_end().code, Some(0));
    assert_eq!(cluster[2].pending(), 0);
    cluster[0].sql("INSERT INTO u VALUES(1, 'later')");
    let waited = cluster[0].run(&["wait"]);
    refused(&waited, 0, &["(1, 2)"]);
    let verified = cluster[0].run(&["verify"]);
    done(&verified);
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t"), 50_000);
    // It is listed, but nobody expects it.
    let seen = status(&cluster[0]);
    assert_eq!(of(&seen, 3)["state"], "left");
    done(&cluster[0].run(&["status"]));
    let listed = json(&cluster[1].run(&["nodes", "--json"]));
    assert_eq!(listed[2]["state"], "left");
    refused(&cluster[0].run(&["nodes", "forget", "3"]), 0, &["had left"]);
    let listed = json(&cluster[1].run(&["nodes", "--json"]));
    assert_eq!(listed.as_array().unwrap().len(), 2);
    // A start brings it back.
    cluster[2].sql("INSERT INTO u VALUES(2, 'meanwhile')");
    cluster[2].start_replicating();
    wait_state(&cluster[0], 3, "running");
    assert_eq!(cluster.converge()["u"].len(), 2);
}

#[test]
fn a_node_that_cannot_publish_all_does_not_leave() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    for node in &mut cluster.nodes {
        node.wait_log("replicating position");
    }
    // Its database is locked: what it has sent cannot be folded.
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    cluster.converge();
    let app = cluster[0].app();
    app.execute_batch("INSERT INTO t VALUES(2, 2); BEGIN IMMEDIATE")
        .unwrap();
    let left = cluster[0].run(&["leave", "--timeout", "2s"]);
    refused(&left, 75, &["has not left and goes on"]);
    app.execute_batch("COMMIT").unwrap();
    cluster.converge();
    cluster.assert_running();
    cluster.server.kill();
    eventually("it knows that the broker is away", || {
        let left = cluster[0].run(&["leave", "--timeout", "1s"]);
        left.code == Some(69) && left.said.contains("not connected to NATS")
    });
    cluster.assert_running();
    refused(
        &cluster[0].run(&["leave", "--timeout", "soon"]),
        64,
        &["-timeout"],
    );
}

/// Little is kept in the streams, but nodes that are away count for an hour.
const PATIENT: &str =
    "[replication_log]\nmax_entries = 1\n[snapshot]\ninterval = 200\nleader_ttl = 1000\n";

#[test]
fn a_forgotten_node_holds_up_no_trimming_and_may_come_back() {
    let mut cluster = prepared(3, PATIENT);
    start(&mut cluster);
    for node in &cluster.nodes {
        insert(node, 20, 10);
    }
    cluster.converge();
    // It lives: refused, with both named.
    let living = cluster[0].run(&["nodes", "forget", "3"]);
    let pid = format!("process {}", cluster[2].pid());
    refused(
        &living,
        75,
        &["node 3 is not forgotten", &pid, "app.db", "node 1"],
    );
    // It dies with changes of its own, and is behind.
    cluster[2].kill();
    insert(&cluster[2], 33, 10);
    wait_state(&cluster[0], 3, "lost");
    let behind = position(&cluster[2]);
    let snapshots = || json(&cluster[0].run(&["snapshot", "list", "--json"]));
    // However many snapshots are taken: what it lacks stays.
    let mut seen = 0;
    eventually("ten more snapshots are taken", || {
        insert(&cluster[0], 3, 10);
        insert(&cluster[1], 3, 10);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let newest = snapshots()[0]["sequence"].as_u64().unwrap();
        if newest > behind + 2 * seen {
            seen += 1;
        }
        seen > 10
    });
    assert!(stream_first(&cluster, "harmonylite-changes-1") <= behind + 1);
    refused(
        &cluster[1].run(&["nodes", "forget", "3"]),
        0,
        &["node 3 is forgotten"],
    );
    refused(
        &cluster[0].run(&["nodes", "forget", "3"]),
        0,
        &["forgotten already"],
    );
    eventually("the stream is trimmed past it", || {
        insert(&cluster[0], 3, 10);
        std::thread::sleep(std::time::Duration::from_millis(100));
        stream_first(&cluster, "harmonylite-changes-1") > behind + 1
    });
    assert_eq!(of(&status(&cluster[0]), 3)["state"], "forgotten");
    // It comes back, with what it had not published.
    cluster[2].start_replicating();
    wait_state(&cluster[0], 3, "running");
    let dump = cluster.converge();
    let third = cluster[0].integer("SELECT count(*) FROM events WHERE node = 3");
    assert_eq!(third, 20 + 33);
    assert!(dump["events"].len() as i64 > third);
    cluster.assert_running();
}

#[test]
fn a_node_that_was_only_cut_off_and_is_forgotten_loses_nothing() {
    let mut cluster = prepared(3, PATIENT);
    let cable = Cable::to(cluster.server.port());
    let direct = cluster.server.url();
    cluster[2].sections = cluster[2].sections.replace(&direct, &cable.url());
    start(&mut cluster);
    insert(&cluster[2], 20, 10);
    cluster.converge();
    cable.cut();
    insert(&cluster[2], 33, 10);
    wait_state(&cluster[0], 3, "lost");
    done(&cluster[0].run(&["nodes", "forget", "3"]));
    let behind = position(&cluster[2]);
    eventually("the stream is trimmed past it", || {
        insert(&cluster[0], 3, 10);
        insert(&cluster[1], 3, 10);
        std::thread::sleep(std::time::Duration::from_millis(100));
        stream_first(&cluster, "harmonylite-changes-1") > behind + 1
    });
    // It ran all the while, and announces itself again.
    cable.mend();
    cluster[2].wait_log("restored from the snapshot");
    wait_state(&cluster[0], 3, "running");
    cluster.converge();
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM events WHERE node = 3"),
        53
    );
    cluster.assert_running();
}
