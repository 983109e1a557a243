//! Tables that nodes give another key at different times. Replicas on real files, without a broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "rekey/random.rs"]
mod random;
mod support;

use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming;
use harmonylite::change::position::Sequence;
use harmonylite::replica::group::Stopped;
use support::engine::Node;
use support::witness::{Snapshot, reconcile};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, v, w); INSERT INTO t VALUES(1, 'a', 1, 1), (2, 'b', 2, 2), (3, 'c', 3, 3);";

const ALL: &str = "SELECT id || uuid || v || w FROM t ORDER BY uuid";

/// The key becomes `uuid`; capture is made current, and what was not captured is looked for.
fn rekey(node: &mut Node, from: &Snapshot, stream: &[Bytes]) -> u64 {
    node.write("BEGIN IMMEDIATE; CREATE TABLE anew(id INTEGER, uuid TEXT PRIMARY KEY, v, w); INSERT INTO anew SELECT * FROM t; DROP TABLE t; ALTER TABLE anew RENAME TO t; COMMIT");
    let current = node
        .replica
        .make_capture_current(Duration::from_secs(5), &|| false);
    assert!(current.unwrap());
    let unsure = node.replica.unsure().unwrap();
    reconcile(node, unsure, from, stream)
}

fn apply(node: &mut Node, stream: &[Bytes]) -> Stopped {
    node.follow(stream).stopped
}

#[test]
fn what_a_late_node_writes_under_the_former_key_counts_in_the_order_of_the_stream() {
    let (mut early, mut late) = (Node::new(1, T), Node::new(2, T));
    let from = Snapshot::of_schema(T);
    assert_eq!(rekey(&mut early, &from, &[]), 0, "nothing is sent again");
    late.write("UPDATE t SET v = 'late' WHERE id = 1; UPDATE t SET v = 'late' WHERE id = 2; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES(4, 'd', 4, 4)");
    let mut stream = vec![late.scan()];
    apply(&mut early, &stream);
    assert_eq!(early.read(ALL), "1alate1,2blate2,4d44");
    early.write("UPDATE t SET v = 'newer' WHERE uuid = 'a'");
    stream.push(early.scan());
    // It waits, and then sets nothing back; what it has not sent is kept.
    assert_eq!(apply(&mut late, &stream[..1]), Stopped::No);
    assert!(matches!(apply(&mut late, &stream), Stopped::Schema(_)));
    late.write("UPDATE t SET w = 'mine' WHERE id = 1; DELETE FROM t WHERE id = 4");
    assert_eq!(rekey(&mut late, &from, &stream), 0);
    stream.push(late.scan());
    apply(&mut late, &stream);
    apply(&mut early, &stream);
    assert_eq!(late.read(ALL), "1anewermine,2blate2");
    assert_eq!(early.read(ALL), late.read(ALL));
    assert_eq!((early.pending(), late.pending()), (0, 0));
}

#[test]
fn what_is_on_its_way_when_the_key_changes_is_not_sent_again() {
    let (mut a, mut b) = (Node::new(1, T), Node::new(2, T));
    let from = Snapshot::of_schema(T);
    b.write("UPDATE t SET v = 'sent' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(5, 'e', 5, 5)");
    let mut stream = vec![b.scan()];
    rekey(&mut a, &from, &[]);
    apply(&mut a, &stream);
    a.write("UPDATE t SET v = 'over it' WHERE uuid = 'a'; DELETE FROM t WHERE uuid = 'e'");
    stream.push(a.scan());
    // Killed before its batch is back, and migrated while it was down.
    b.restart();
    let mut seen = b.replica.publishers().clone();
    let message = incoming::open(Sequence(1), &stream[0]);
    let incoming::Body::Batch(batch) = &message.body else {
        panic!("no batch");
    };
    b.replica.read_ahead(&mut seen, batch, Sequence(1)).unwrap();
    assert_eq!(rekey(&mut b, &from, &stream), 0);
    assert!(b.try_scan().is_none());
    apply(&mut b, &stream);
    assert_eq!(b.read(ALL), "1aover it1,3c33");
    apply(&mut a, &stream);
    assert_eq!(a.read(ALL), b.read(ALL));
}

#[test]
fn a_snapshot_under_either_key_tells_what_a_migration_has_changed() {
    for migrated in [false, true] {
        let (mut a, mut b) = (Node::new(1, T), Node::new(2, T));
        let begin = Snapshot::of_schema(T);
        rekey(&mut a, &begin, &[]);
        a.write("UPDATE t SET v = 'a' WHERE uuid = 'a'");
        b.write("UPDATE t SET w = 'b' WHERE id = 2");
        let mut stream = vec![b.scan(), a.scan()];
        apply(&mut a, &stream);
        let from = if migrated {
            Snapshot::of_node(&a)
        } else {
            begin
        };
        b.write("DELETE FROM t WHERE id = 3");
        stream.push(b.scan());
        apply(&mut a, &stream);
        // Its own migration has a change of its own, which no trigger sees.
        a.write("BEGIN IMMEDIATE; CREATE TABLE anew(id INTEGER, uuid TEXT PRIMARY KEY, v, w); INSERT INTO anew SELECT * FROM t; UPDATE anew SET w = 'found' WHERE uuid = 'b'; DROP TABLE t; ALTER TABLE anew RENAME TO t; COMMIT");
        let current = a
            .replica
            .make_capture_current(Duration::from_secs(5), &|| false);
        assert!(current.unwrap());
        let unsure = a.replica.unsure().unwrap();
        assert_eq!(reconcile(&mut a, unsure, &from, &stream), 1, "{migrated}");
        assert_eq!(a.read(ALL), "1aa1,2b2found");
    }
}
