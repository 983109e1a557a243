//! Restoring where schemas differ, and where the database was never part of the cluster.

use super::{beside, stored_in, trim_past, trimmed_in};
use crate::harness::node::folder;
use crate::harness::{Cluster, Node, app, eventually};
use crate::snapshots::{TRIMMED, done, insert, prepared, start};

#[test]
fn what_the_snapshot_has_more_is_waited_for_and_what_is_here_more_stays() {
    let mut cluster = prepared(2, TRIMMED);
    for node in &cluster.nodes {
        node.sql("CREATE TABLE keyless(v)");
    }
    start(&mut cluster);
    insert(&cluster[0], 20, 10);
    cluster[1].sql("INSERT INTO keyless(rowid, v) VALUES(7, 'seven'), (9, 'nine')");
    cluster.converge();
    cluster[1].stop();
    cluster[1].sql("ALTER TABLE events ADD COLUMN own DEFAULT 'here'; CREATE TABLE mine(id INTEGER PRIMARY KEY, v); INSERT INTO mine VALUES(1, 'here');
        INSERT INTO events(uid, node) VALUES('pending', 2)");
    cluster[0].sql("ALTER TABLE events ADD COLUMN more DEFAULT 'there'; CREATE TABLE theirs(id INTEGER PRIMARY KEY, v)");
    cluster[0].sql("INSERT INTO events(uid, node, more) VALUES('x', 1, 'given'); INSERT INTO theirs VALUES(1, 'there'); INSERT INTO keyless(rowid, v) VALUES(20, 'twenty')");
    cluster[0].wait_published();
    trim_past(&cluster, &[0], 1);
    cluster[1].start();
    cluster[1].wait_log("the snapshot cannot be restored here yet");
    assert!(
        cluster[1].log().contains("\"more\""),
        "{}",
        cluster[1].log()
    );
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM events WHERE uid = 'x'"),
        0
    );
    cluster[1].sql("ALTER TABLE events ADD COLUMN more DEFAULT 'there'");
    eventually("the table is waited for", || {
        cluster[1].log().contains("\"theirs\"")
    });
    cluster[1].sql("CREATE TABLE theirs(id INTEGER PRIMARY KEY, v)");
    cluster[1].wait_log("restored from the snapshot");
    // One file was fetched for all the tries of one snapshot.
    let names: Vec<String> = cluster[1]
        .log()
        .lines()
        .filter(|line| line.contains("restoring from a snapshot"))
        .map(|line| {
            line.split("snapshot=")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let mut once = names.clone();
    once.dedup();
    assert_eq!(names, once);
    cluster[0].sql("ALTER TABLE events ADD COLUMN own DEFAULT 'here'; CREATE TABLE mine(id INTEGER PRIMARY KEY, v)");
    let count = |node: &Node, sql: &str| node.integer(&format!("SELECT count(*) FROM {sql}"));
    eventually("all is on both", || {
        cluster.nodes.iter().all(|node| {
            count(node, "events WHERE uid = 'x' AND more = 'given'") == 1
                && count(node, "events WHERE uid = 'pending'") == 1
                && count(node, "theirs WHERE v = 'there'") == 1
                && count(node, "mine WHERE v = 'here'") == 1
                && count(
                    node,
                    "keyless WHERE (rowid, v) IN (VALUES(7, 'seven'), (9, 'nine'), (20, 'twenty'))",
                ) == 3
                && node.pending() == 0
        })
    });
    cluster.assert_running();
}

#[test]
fn a_database_that_was_never_part_is_kept_in_a_copy() {
    let store = folder();
    let mut cluster = prepared(1, &stored_in(store.path()));
    start(&mut cluster);
    insert(&cluster[0], 20, 10);
    cluster[0].wait_published();
    done(&cluster[0].run(&["snapshot", "save"]));
    let mut foreign = Node::new(2, &cluster.server.url(), crate::snapshots::SCHEMA);
    foreign.sections.clone_from(&cluster[0].sections);
    foreign.sql("INSERT INTO events(uid, node) VALUES('foreign', 9)");
    foreign.start_replicating();
    foreign.wait_log("was not part of the cluster and differed from it");
    let copies = beside(&foreign, ".before-restore-");
    assert_eq!(copies.len(), 1, "{copies:?}");
    let copy = app::look(&foreign.folder.join(&copies[0])).unwrap();
    assert_eq!(
        app::integer(&copy, "SELECT count(*) FROM events WHERE uid = 'foreign'"),
        1
    );
    drop(copy);
    cluster.nodes.push(foreign);
    assert_eq!(cluster.converge()["events"].len(), 20);

    // One that equals the snapshot is not written, and no copy is kept.
    let mut equal = Node::bare(3, &cluster.server.url());
    equal.sections.clone_from(&cluster[0].sections);
    cluster[0].sql(&format!("VACUUM INTO '{}'", equal.database().display()));
    done(&equal.run(&["-cleanup"]));
    done(&cluster[0].run(&["snapshot", "save"]));
    equal.start_replicating();
    let log = equal.log();
    assert!(log.contains("written=0 removed=0"), "{log}");
    assert_eq!(beside(&equal, ".before-restore-"), [""; 0]);
    cluster.nodes.push(equal);
    cluster.converge();
}

#[test]
fn a_node_without_tables_waits_for_them_or_for_a_node_that_has_some() {
    let store = folder();
    let mut cluster = Cluster::prepared(0, "");
    for id in 1..=2 {
        let mut node = Node::bare(id, &cluster.server.url());
        node.sections.push_str(&trimmed_in(store.path()));
        node.start();
        cluster.nodes.push(node);
    }
    // An empty file, as some apps make it before anything else.
    let mut empty = Node::bare(3, &cluster.server.url());
    empty.sections.push_str(&trimmed_in(store.path()));
    std::fs::write(empty.database(), "").unwrap();
    empty.start();
    cluster.nodes.push(empty);
    cluster[1].sql(crate::snapshots::SCHEMA);
    insert(&cluster[1], 5, 10);
    for node in &mut cluster.nodes {
        node.wait_log("replicating position");
    }
    let has = |node: &Node| node.dump().contains_key("events");
    eventually("all have the table", || cluster.nodes.iter().all(has));
    insert(&cluster[2], 5, 10);
    assert_eq!(cluster.converge()["events"].len(), 10);
}
