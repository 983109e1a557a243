//! The engine without a broker: replicas on real files that hand one another the bytes they publish. For what depends on the very order of
//! scans and messages, which real daemons cannot be made to take.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

#[path = "engine/copies.rs"]
mod copies;
#[path = "engine/cut.rs"]
mod cut;
#[path = "engine/dropped_index.rs"]
mod dropped_index;
#[path = "engine/loose_keys.rs"]
mod loose_keys;
mod support;

use std::time::Duration;

use harmonylite::apply::incoming::Body;
use harmonylite::changelog::in_flight::Carrier;
use harmonylite::replica::group::Stopped;
use support::engine::{Node, stream};

const USERS: &str = "CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    INSERT INTO u VALUES(1, 'a', 'one'), (2, 'b', 'two');";

#[test]
fn a_row_that_yields_a_unique_value_has_its_former_one_back() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted', name = 'changed' WHERE id = 1");
    let applied = here.apply(&stream(&[&theirs]));
    assert_eq!(applied.fold.given_back, 1);
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), "1achanged,2wantedtwo");
    assert_eq!(
        here.read(
            "SELECT key || column_name || losing_value || reason FROM __harmonylite__conflicts"
        ),
        "1emailwantedunique-collision"
    );
    let ours = here.scan();
    let all = stream(&[&theirs, &ours]);
    there.apply(&all);
    here.apply(&all[1..]);
    assert_eq!(there.read(users), "1achanged,2wantedtwo");
    assert_eq!(here.read(users), "1achanged,2wantedtwo");
    let kept = "SELECT CAST(count(*) AS TEXT) FROM __harmonylite__u_former_values";
    assert_eq!(here.read(kept), "0", "what was sent needs no former values");
}

const PATIENCE: Duration = Duration::from_secs(5);

/// A change of the schema, of which capture takes note.
fn migrate(node: &mut Node, sql: &str) {
    node.write(sql);
    assert!(
        node.replica
            .make_capture_current(PATIENCE, &|| false)
            .unwrap()
    );
}

#[test]
fn a_table_name_that_is_used_again_means_the_newer_table() {
    let mut node = Node::new(1, "CREATE TABLE log(id INTEGER PRIMARY KEY, v)");
    node.write("INSERT INTO log VALUES(1, 'a')");
    node.scan();
    migrate(&mut node, "ALTER TABLE log RENAME TO log_01");
    let meant = |node: &Node| {
        let meant = node.replica.captured().table_meant("log");
        meant.map(|t| t.table.name.clone())
    };
    assert_eq!(meant(&node).as_deref(), Some("log_01"));
    migrate(&mut node, "CREATE TABLE log(id INTEGER PRIMARY KEY, v)");
    node.write("INSERT INTO log VALUES(1, 'b'), (2, 'c'), (3, 'd')");
    node.scan();
    migrate(&mut node, "ALTER TABLE log RENAME TO log_02");
    assert_eq!(meant(&node).as_deref(), Some("log_02"));
    // What of each table is on its way is known of each by itself.
    assert!(node.try_scan().is_none());
    node.write("UPDATE log_01 SET v = 'later'");
    assert!(node.try_scan().is_some());
    migrate(&mut node, "CREATE TABLE log(id INTEGER PRIMARY KEY, v)");
    migrate(&mut node, "DROP TABLE log");
    assert_eq!(meant(&node), None);
}

#[test]
fn what_was_sent_under_a_former_name_is_not_sent_again() {
    let mut node = Node::new(1, USERS);
    node.write("UPDATE u SET name = 'mine' WHERE id = 1");
    let sent = stream(&[&node.scan()]);
    migrate(&mut node, "ALTER TABLE u RENAME TO people");
    node.new_life();
    let mut seen = node.replica.publishers().clone();
    for message in &sent {
        let Body::Batch(batch) = &message.body else {
            panic!("a batch");
        };
        let ahead = node.replica.read_ahead(&mut seen, batch, message.sequence);
        ahead.unwrap();
    }
    assert_eq!(node.pending(), 1);
    assert!(node.try_scan().is_none());
}

#[test]
fn what_was_settled_under_former_names_is_pending_again() {
    let mut node = Node::new(1, USERS);
    node.write("UPDATE u SET name = 'mine' WHERE id = 1");
    let sent = stream(&[&node.scan()]);
    let settled = node
        .replica
        .apply_echoes_only(&sent, PATIENCE, &|| false)
        .unwrap();
    assert_eq!((settled.consumed, node.pending()), (1, 0));
    migrate(
        &mut node,
        "ALTER TABLE u RENAME TO people; ALTER TABLE people RENAME COLUMN name TO called",
    );
    node.new_life();
    let own: Vec<_> = sent
        .into_iter()
        .filter_map(|m| match m.body {
            Body::Batch(batch) => Some((m.sequence, *batch)),
            _ => None,
        })
        .collect();
    let entered = node.replica.enter_settled(&own, PATIENCE, &|| false);
    assert_eq!((entered.unwrap(), node.pending()), (1, 1));
    let masks = "SELECT type || ':' || mask FROM __harmonylite__people_change_log WHERE type <> 3";
    assert_eq!(node.read(masks), "2:4");
}

#[test]
fn a_former_value_that_is_taken_is_not_given_back() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted' WHERE id = 1; INSERT INTO u VALUES(3, 'a', 'three')");
    here.apply(&stream(&[&theirs]));
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), "2wantedtwo,3athree");
    let ours = here.scan();
    there.apply(&stream(&[&theirs, &ours]));
    assert_eq!(there.read(users), "2wantedtwo,3athree");
}

#[test]
fn what_is_on_its_way_waits_for_its_own_batch_and_for_no_other() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted' WHERE id = 1");
    let first = here.scan();
    here.write("INSERT INTO u VALUES(3, 'c', 'three')");
    let second = here.scan();
    here.write("UPDATE u SET name = 'unsent' WHERE id = 1");
    let all = stream(&[&theirs, &first, &second]);

    // The row is carried by the first batch: without it, the message waits.
    let applied = here.apply(&all[..1]);
    assert!(matches!(
        applied.stopped,
        Stopped::Hold(Carrier::Batch(b)) if b.0 == 1
    ));
    assert_eq!(applied.consumed, 0);
    // With it, both are folded at once, and the app sees what it had written all along: also what is not on its way yet.
    let applied = here.apply(&all[..2]);
    assert_eq!((applied.consumed, &applied.stopped), (2, &Stopped::No));
    let mine = "SELECT email || name FROM u WHERE id = 1";
    assert_eq!(here.read(mine), "wantedunsent");
    let journal = "SELECT DISTINCT key FROM __harmonylite__conflicts";
    assert_eq!(here.read(journal), "2", "nothing of row 1 was lost");

    here.apply(&all[2..]);
    let rest = here.scan();
    let all = stream(&[&theirs, &first, &second, &rest]);
    there.apply(&all);
    here.apply(&all[3..]);
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), there.read(users));
    assert_eq!(here.read(mine), "wantedunsent");
}

#[test]
fn own_batches_that_depend_on_one_another_are_folded_at_once() {
    let (mut here, mut there) = (Node::new(1, USERS), Node::new(2, USERS));
    there.write("UPDATE u SET email = 'wanted' WHERE id = 2");
    let theirs = there.scan();
    here.write("UPDATE u SET email = 'wanted' WHERE id = 1");
    let first = here.scan();
    // The first batch displaces the row that these cells are of.
    here.write("UPDATE u SET name = 'later' WHERE id = 2");
    let second = here.scan();
    let all = stream(&[&theirs, &first, &second]);
    let applied = here.apply(&all[..2]);
    assert!(matches!(
        applied.stopped,
        Stopped::Hold(Carrier::Batch(b)) if b.0 == 2
    ));
    let applied = here.apply(&all);
    assert_eq!((applied.consumed, &applied.stopped), (3, &Stopped::No));
    there.apply(&all);
    let users = "SELECT id || email || name FROM u ORDER BY id";
    assert_eq!(here.read(users), "1wantedone");
    assert_eq!(there.read(users), "1wantedone");
}

#[test]
fn what_was_on_its_way_when_its_table_was_dropped_is_done_with() {
    let schema = "CREATE TABLE d(id TEXT PRIMARY KEY, v); CREATE TABLE other(id TEXT PRIMARY KEY)";
    let (mut here, mut there) = (Node::new(1, schema), Node::new(2, schema));
    here.write("INSERT INTO d VALUES('b', 1)");
    let sent = here.scan();
    migrate(&mut here, "DROP TABLE d");
    let all = stream(&[&sent]);
    here.apply(&all);
    there.apply(&all);
    migrate(&mut here, "CREATE TABLE d(id TEXT PRIMARY KEY, v)");
    // What others write to the row comes through: nothing of this node's is in its way.
    there.write("UPDATE d SET v = 2");
    let theirs = there.scan();
    let all = stream(&[&sent, &theirs]);
    here.apply(&all[1..]);
    here.write("INSERT INTO d VALUES('c', 3)");
    here.scan();
    assert_eq!(here.pending(), 1);
}
