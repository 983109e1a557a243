//! New histories of the engine, without a broker: the base that a node gives, what a node makes of it that has folded something else, and what it keeps of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use harmonylite::apply::incoming::{Body, Incoming, IncomingBatch};
use harmonylite::change::history::History;
use harmonylite::change::position::{Incarnation, Sequence};
use harmonylite::replica::base::{self, Base};
use harmonylite::replica::copy;
use harmonylite::replica::restore::{RestoreOptions, Restored};
use support::engine::{Node, stream};

const SECOND: History = History { number: 2, id: 7 };
const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES(1, 'x', 'x'), (2, 'x', 'x'), (3, 'x', 'x');";
const ALL: &str = "SELECT id || a || b FROM t ORDER BY id";

fn keeping(id: u64, schema: &str) -> Node {
    let mut node = Node::new(id, schema);
    node.replica.keep(1 << 20).unwrap();
    node
}

/// The base that a node gives: `remains` is what the stream holds now.
fn base(of: &Node, remains: &[Incoming], void: &[Sequence]) -> PathBuf {
    let path = of.folder().join("base.db");
    let mut copied = copy::copy(of.reader().path().unwrap().as_ref(), &path, || false).unwrap();
    let me = of.replica.node_id();
    let own: Vec<&IncomingBatch> = remains
        .iter()
        .filter_map(|m| match &m.body {
            Body::Batch(b) if b.record.node == me => Some(&**b),
            _ => None,
        })
        .collect();
    let contained =
        base::contains(&copied, own.iter().copied().filter(|b| !is_taken(of, b))).unwrap();
    let ended = Incarnation {
        counter: of.replica.stored_incarnation().unwrap() + 1,
        nonce: 99,
    };
    let base = Base {
        history: SECOND,
        position: remains
            .first()
            .map_or(Sequence(0), |m| Sequence(m.sequence.0 - 1)),
        void,
        ended: contained.then_some((me, ended)),
    };
    base::make(&mut copied, &base).unwrap();
    copy::finish(copied).unwrap();
    path
}

fn is_taken(node: &Node, batch: &IncomingBatch) -> bool {
    let last = node.replica.publishers().get(&batch.record.node);
    last.is_some_and(|l| l.incarnation == batch.record.incarnation && l.batch >= batch.record.batch)
}

fn restore(node: &mut Node, snapshot: &Path, remains: &[Incoming]) -> Restored {
    let options = RestoreOptions {
        cluster: "c",
        keep_ours: false,
        patience: Duration::from_secs(5),
        stop: &|| false,
        progress: &|_| {},
    };
    let restored = node.replica.restore(snapshot, &options).unwrap();
    assert_eq!(node.replica.history(), SECOND);
    node.new_life();
    let mut seen = node.replica.publishers().clone();
    for message in remains {
        if let Body::Batch(batch) = &message.body
            && batch.record.node == node.replica.node_id()
        {
            node.replica
                .read_ahead(&mut seen, batch, message.sequence)
                .unwrap();
        }
    }
    restored
}

/// All nodes fold what the stream holds, publish what is pending in the order of their ids, and fold that.
fn go_on(nodes: &mut [&mut Node], remains: &[&Bytes]) -> usize {
    let mut log: Vec<Bytes> = remains.iter().map(|b| (*b).clone()).collect();
    let before = log.len();
    for node in nodes.iter_mut() {
        log.extend(node.try_scan());
    }
    let published = log.len() - before;
    let log: Vec<&Bytes> = log.iter().collect();
    for node in nodes.iter_mut() {
        let at = node.replica.position().sequence.0 as usize;
        node.apply(&stream(&log)[at..]);
        assert_eq!(node.pending(), 0);
    }
    let first = nodes[0].read(ALL);
    for node in nodes.iter() {
        assert_eq!(node.read(ALL), first);
    }
    published
}

#[test]
fn nodes_that_folded_different_amounts_of_a_stream_that_lost_its_tail_and_regrew() {
    let (mut one, mut two, mut three) = (keeping(1, T), keeping(2, T), keeping(3, T));
    one.write("UPDATE t SET a = 'kept' WHERE id = 1");
    let first = one.scan();
    for node in [&mut one, &mut two, &mut three] {
        node.apply(&stream(&[&first]));
    }
    // Two more, which only the second and, in part, the first have folded.
    two.write("UPDATE t SET a = 'lost, folded by two' WHERE id = 2");
    let second = two.scan();
    one.write("UPDATE t SET b = 'lost, own, folded by two' WHERE id = 2");
    let third = one.scan();
    one.apply(&stream(&[&first, &second])[1..]);
    two.apply(&stream(&[&first, &second, &third])[1..]);
    // The third stands in their place.
    three.write("UPDATE t SET a = 'regrown' WHERE id = 3");
    let instead = three.scan();
    let all = [&first, &instead];
    let remains = stream(&all);
    three.apply(&remains[1..]);
    let given = base(&two, &remains, &[]);
    for node in [&mut one, &mut two, &mut three] {
        restore(node, &given, &remains);
    }
    // The first's is contained, the third's stands in the stream.
    assert_eq!((one.pending(), two.pending(), three.pending()), (0, 0, 1));
    assert_eq!(
        three.read(ALL),
        "1keptx,2lost, folded by twolost, own, folded by two,3regrownx"
    );
    assert_eq!(go_on(&mut [&mut one, &mut two, &mut three], &all), 0);
    assert_eq!(
        one.read(ALL),
        "1keptx,2lost, folded by twolost, own, folded by two,3regrownx"
    );
}

#[test]
fn an_own_batch_that_nobody_else_has_comes_again_once_and_is_never_out_of_sight() {
    let (mut one, mut two) = (keeping(1, T), keeping(2, T));
    one.write("UPDATE t SET a = 'mine' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(9, 'mine', 'mine')");
    let lost = one.scan();
    one.apply(&stream(&[&lost]));
    assert_eq!(one.pending(), 0);
    let kept = one.replica.kept().unwrap();
    assert_eq!(kept.batches(), 1);
    assert!(kept.bytes() > 0);
    two.write("UPDATE t SET b = 'theirs' WHERE id = 1");
    let given = base(&two, &[], &[]);
    let restored = restore(&mut one, &given, &[]);
    assert_eq!(restored.entered, 3);
    assert_eq!(one.read(ALL), "1minetheirs,3xx,9minemine");
    assert_eq!(one.replica.kept().unwrap().bytes(), 0);
    restore(&mut two, &given, &[]);
    assert_eq!(go_on(&mut [&mut one, &mut two], &[]), 1);
    assert_eq!(two.read(ALL), "1minetheirs,3xx,9minemine");
}

#[test]
fn what_is_pending_in_the_node_that_gives_the_base_is_not_published_again() {
    let (mut one, mut two) = (keeping(1, T), keeping(2, T));
    one.write("UPDATE t SET a = 'folded' WHERE id = 1");
    let folded = one.scan();
    one.apply(&stream(&[&folded]));
    two.apply(&stream(&[&folded]));
    one.write("UPDATE t SET a = 'sent' WHERE id = 1");
    let sent = one.scan();
    one.write("UPDATE t SET a = 'newer' WHERE id = 1; INSERT INTO t VALUES(4, 'new', 'new')");
    let all = [&folded, &sent];
    let remains = stream(&all);
    let given = base(&one, &remains, &[]);
    // The app goes on meanwhile.
    one.write("UPDATE t SET b = 'after' WHERE id = 3");
    for node in [&mut one, &mut two] {
        let restored = restore(node, &given, &remains);
        assert_eq!(
            (restored.entered, restored.position.sequence),
            (0, Sequence(0))
        );
    }
    assert_eq!((one.pending(), two.pending()), (1, 0));
    two.write("UPDATE t SET a = 'two saw it' WHERE id = 1");
    assert_eq!(go_on(&mut [&mut one, &mut two], &all), 2);
    assert_eq!(one.read(ALL), "1two saw itx,2xx,3xafter,4newnew");
}

#[test]
fn a_base_of_a_file_that_does_not_know_its_own_batches_ends_no_life() {
    let mut one = keeping(1, T);
    let older = one.folder().join("older.db");
    copy::finish(copy::copy(one.reader().path().unwrap().as_ref(), &older, || false).unwrap())
        .unwrap();
    one.write("UPDATE t SET a = 'sent later' WHERE id = 1");
    let sent = one.scan();
    // An older file stands in its place, whose app writes something else.
    let mut back = Node::on_file(1, &older);
    back.replica.keep(1 << 20).unwrap();
    back.write("UPDATE t SET b = 'back' WHERE id = 2");
    let all = [&sent];
    let remains = stream(&all);
    let given = base(&back, &remains, &[]);
    let mut two = keeping(2, T);
    restore(&mut back, &given, &remains);
    restore(&mut two, &given, &remains);
    assert_eq!(back.pending(), 1);
    // The older life's batch counts, since nothing of the base contains it.
    two.apply(&remains);
    assert_eq!(two.read(ALL), "1sent laterx,2xback,3xx");
}

#[test]
fn a_row_that_the_base_lost_comes_back_with_who_changed_it() {
    let (mut one, mut two) = (keeping(1, T), keeping(2, T));
    // Made by a third node that is gone for ever, and changed by the first.
    let mut gone = keeping(3, T);
    gone.write("INSERT INTO t VALUES(7, 'row', 'row')");
    let insert = gone.scan();
    one.apply(&stream(&[&insert]));
    one.write("UPDATE t SET a = 'own' WHERE id = 7");
    let update = one.scan();
    one.apply(&stream(&[&insert, &update])[1..]);
    one.write("UPDATE t SET b = 'pending' WHERE id = 7");
    let given = base(&two, &[], &[]);
    restore(&mut two, &given, &[]);
    restore(&mut one, &given, &[]);
    assert_eq!(one.read(ALL), "1xx,2xx,3xx,7ownpending");
    go_on(&mut [&mut one, &mut two], &[]);
    assert_eq!(two.read(ALL), "1xx,2xx,3xx,7ownpending");
}

#[test]
fn void_messages_count_in_their_order_and_change_nothing_on_any_node() {
    let (mut one, mut two) = (keeping(1, T), keeping(2, T));
    one.write("UPDATE t SET a = 'void' WHERE id = 1");
    let void = one.scan();
    one.write("UPDATE t SET a = 'counts' WHERE id = 2");
    let counts = one.scan();
    let all = [&void, &counts];
    let remains = stream(&all);
    let given = base(&two, &remains, &[Sequence(1)]);
    for node in [&mut one, &mut two] {
        restore(node, &given, &remains);
        assert!(node.replica.skips(Sequence(1)) && !node.replica.skips(Sequence(2)));
    }
    assert_eq!(go_on(&mut [&mut one, &mut two], &all), 1);
    assert_eq!(two.read(ALL), "1voidx,2countsx,3xx");
}

#[test]
fn what_the_base_contains_is_not_entered() {
    let (mut one, mut two) = (keeping(1, T), keeping(2, T));
    one.write("UPDATE t SET a = 'first' WHERE id = 1");
    let first = one.scan();
    one.apply(&stream(&[&first]));
    two.apply(&stream(&[&first]));
    two.write("UPDATE t SET a = 'second' WHERE id = 1");
    let second = two.scan();
    two.apply(&stream(&[&first, &second])[1..]);
    let given = base(&two, &[], &[]);
    let restored = restore(&mut one, &given, &[]);
    assert_eq!((restored.entered, one.pending()), (0, 0));
    assert_eq!(one.read(ALL), "1secondx,2xx,3xx");
}

#[test]
fn what_is_kept_goes_when_a_snapshot_covers_it_and_survives_a_torn_end() {
    let mut one = keeping(1, T);
    let mut log: Vec<Bytes> = Vec::new();
    for n in 0..4 {
        one.write(&format!(
            "UPDATE t SET a = {n}, b = {n} WHERE id = 1; INSERT INTO t VALUES({n} + 10, 1, 1)"
        ));
        log.push(one.scan());
        let all: Vec<&Bytes> = log.iter().collect();
        one.apply(&stream(&all)[n..]);
        if n == 1 {
            one.replica.covered_by(Sequence(1)).unwrap();
        }
    }
    let kept = one.replica.kept().unwrap();
    let (bytes, batches) = (kept.bytes(), kept.batches());
    assert_eq!(batches, 4);
    one.replica.sync_kept().unwrap();
    // As a crash leaves it.
    let mut last: Vec<PathBuf> = std::fs::read_dir(one.folder())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_string_lossy().contains(".kept-"))
        .collect();
    last.sort();
    assert_eq!(last.len(), 2);
    let mut torn = std::fs::OpenOptions::new()
        .append(true)
        .open(last.pop().unwrap())
        .unwrap();
    std::io::Write::write_all(&mut torn, &[9, 0, 0, 0, 1, 2, 3]).unwrap();
    one.replica.keep(1 << 20).unwrap();
    let kept = one.replica.kept().unwrap();
    assert_eq!((kept.bytes(), kept.batches()), (bytes, batches));
    // The first file holds the first two.
    one.replica.covered_by(Sequence(2)).unwrap();
    assert_eq!(one.replica.kept().unwrap().batches(), 2);
    let two = keeping(2, T);
    let given = base(&two, &[], &[]);
    let restored = restore(&mut one, &given, &[]);
    assert_eq!(restored.entered, 4);
    assert!(!one.replica.kept().unwrap().wants_snapshot());
}

#[test]
fn publishing_is_to_wait_at_the_bound() {
    let mut one = keeping(1, T);
    one.replica.keep(2).unwrap();
    assert!(!one.replica.kept().unwrap().wants_snapshot());
    one.write("UPDATE t SET a = 1");
    let batch = one.scan();
    one.apply(&stream(&[&batch]));
    let kept = one.replica.kept().unwrap();
    assert!(kept.wants_snapshot() && kept.is_full());
}
