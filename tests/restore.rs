//! Snapshots and restores of the engine, without a broker: what a restore makes of a database, under what is pending there.

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

use harmonylite::replica::reconcile::name_as_here;
use harmonylite::replica::restore::{Adopted, RestoreError, RestoreOptions, Restored};
use harmonylite::replica::{absent, copy};
use harmonylite::state::unsure::Reason;
use rusqlite::Connection;
use support::engine::{Node, stream};

fn snapshot(of: &Node) -> PathBuf {
    let path = of.folder().join("snapshot.db");
    let _ = std::fs::remove_file(&path);
    copy::finish(copy::copy(of.reader().path().unwrap().as_ref(), &path, || false).unwrap())
        .unwrap();
    path
}

fn restore(node: &mut Node, snapshot: &Path) -> Result<Restored, RestoreError> {
    let options = RestoreOptions {
        cluster: "c",
        keep_ours: false,
        patience: Duration::from_secs(5),
        stop: &|| false,
        progress: &|_| {},
    };
    let restored = node.replica.restore(snapshot, &options);
    if restored.is_ok() {
        node.new_life();
    }
    restored
}

const USERS: &str = "CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    INSERT INTO u VALUES(1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three');";
const ALL: &str = "SELECT id || email || name FROM u ORDER BY id";

/// What node 1 has done that node 2 has not heard of, up to a snapshot of node 1.
fn behind(writes: &str) -> (Node, Node, PathBuf) {
    let (mut leader, node) = (Node::new(1, USERS), Node::new(2, USERS));
    leader.write(writes);
    let batch = leader.scan();
    leader.apply(&stream(&[&batch]));
    let snapshot = snapshot(&leader);
    (leader, node, snapshot)
}

#[test]
fn a_node_that_is_behind_becomes_what_the_snapshot_is() {
    let (leader, mut node, snapshot) = behind(
        "DELETE FROM u WHERE id = 1; UPDATE u SET email = 'a' WHERE id = 2; UPDATE u SET email = 'b', name = 'x' WHERE id = 3; INSERT INTO u VALUES(4, 'd', 'four')",
    );
    let restored = restore(&mut node, &snapshot).unwrap();
    assert_eq!(node.read(ALL), leader.read(ALL));
    assert_eq!(restored.position, leader.replica.position());
    assert_eq!(node.replica.publishers(), leader.replica.publishers());
    // What it writes from there on is its own as ever.
    node.write("INSERT INTO u VALUES(5, 'e', 'five')");
    node.scan();
}

#[test]
fn an_equal_database_is_not_written() {
    let (leader, mut node, snapshot) = behind("UPDATE u SET name = 'x' WHERE id = 1");
    node.write("UPDATE u SET name = 'x' WHERE id = 1");
    node.forget_pending();
    let restored = restore(&mut node, &snapshot).unwrap();
    assert_eq!((restored.written, restored.removed), (0, 0));
    assert_eq!(node.read(ALL), leader.read(ALL));
}

#[test]
fn what_is_pending_stays_on_top() {
    let (_leader, mut node, snapshot) = behind(
        "UPDATE u SET name = 'theirs'; DELETE FROM u WHERE id = 3; INSERT INTO u VALUES(4, 'd', 'four'), (5, 'e', 'five')",
    );
    node.write("UPDATE u SET name = 'mine' WHERE id = 1; DELETE FROM u WHERE id = 2; UPDATE u SET name = 'gone' WHERE id = 3; INSERT INTO u VALUES(4, 'mine', 'mine')");
    let restored = restore(&mut node, &snapshot).unwrap();
    assert_eq!(restored.kept, 1);
    assert_eq!(node.read(ALL), "1amine,4minemine,5efive");
    assert_eq!(
        node.read(
            "SELECT key || column_name || losing_value || reason FROM __harmonylite__conflicts"
        ),
        "3namegonedeleted-elsewhere"
    );
    // It goes out: the update, the delete, the insert, and not the update of the row that is gone.
    assert_eq!(node.pending(), 3);
    let mut other = Node::new(3, USERS);
    restore(&mut other, &snapshot).unwrap();
    let mine = node.scan();
    other.apply(&stream(&[&mine, &mine])[1..]);
    assert_eq!(other.read(ALL), "1amine,4minemine,5efive");
}

#[test]
fn a_pending_row_wins_a_unique_value_and_the_loser_is_deleted_everywhere() {
    let (mut leader, mut node, snapshot) = behind("INSERT INTO u VALUES(4, 'wanted', 'theirs')");
    node.write("INSERT INTO u VALUES(9, 'wanted', 'mine')");
    restore(&mut node, &snapshot).unwrap();
    assert_eq!(node.read(ALL), "1aone,2btwo,3cthree,9wantedmine");
    // The app moves its row away before the scan: the loser is gone all the same.
    node.write("UPDATE u SET email = 'other' WHERE id = 9");
    let mine = node.scan();
    leader.apply(&stream(&[&mine, &mine])[1..]);
    assert_eq!(leader.read(ALL), "1aone,2btwo,3cthree,9othermine");
    assert_eq!(node.read(ALL), leader.read(ALL));
}

#[test]
fn what_the_snapshot_contains_of_ones_own_log_is_not_sent_again() {
    let (mut leader, mut node) = (Node::new(1, USERS), Node::new(2, USERS));
    node.write("UPDATE u SET name = 'mine' WHERE id = 1");
    let first = node.scan();
    let all = stream(&[&first]);
    leader.apply(&all);
    leader.write("UPDATE u SET name = 'later' WHERE id = 1");
    let second = leader.scan();
    leader.apply(&stream(&[&first, &second])[1..]);
    let snapshot = snapshot(&leader);
    node.write("UPDATE u SET name = 'new' WHERE id = 2");
    restore(&mut node, &snapshot).unwrap();
    assert_eq!(node.read(ALL), "1alater,2bnew,3cthree");
    assert_eq!(node.pending(), 1);
}

#[test]
fn nor_is_what_it_contains_under_a_former_name_of_the_table() {
    let (mut leader, mut node) = (Node::new(1, USERS), Node::new(2, USERS));
    node.write("UPDATE u SET name = 'mine' WHERE id = 1");
    let mine = node.scan();
    leader.apply(&stream(&[&mine]));
    for each in [&mut leader, &mut node] {
        each.write("ALTER TABLE u RENAME TO people");
        let current = each
            .replica
            .make_capture_current(Duration::from_secs(5), &|| false);
        assert!(current.unwrap());
    }
    let snapshot = snapshot(&leader);
    assert_eq!(node.pending(), 1);
    restore(&mut node, &snapshot).unwrap();
    assert_eq!(node.pending(), 0);
}

#[test]
fn the_leaders_own_pending_changes_in_a_snapshot_come_to_the_same() {
    let (mut leader, mut node) = (Node::new(1, USERS), Node::new(2, USERS));
    leader.write("UPDATE u SET email = 'z' WHERE id = 1; DELETE FROM u WHERE id = 2; UPDATE u SET name = 'cell' WHERE id = 3");
    let snapshot = snapshot(&leader);
    let batch = leader.scan();
    restore(&mut node, &snapshot).unwrap();
    let all = stream(&[&batch]);
    leader.apply(&all);
    node.apply(&all);
    assert_eq!(node.read(ALL), "1zone,3ccell");
    assert_eq!(node.read(ALL), leader.read(ALL));
}

#[test]
fn a_schema_that_would_lose_something_stops_it_untouched() {
    let (leader, mut node) = (
        Node::new(
            1,
            &format!("{USERS} ALTER TABLE u ADD COLUMN more DEFAULT 7"),
        ),
        Node::new(2, USERS),
    );
    let snap = snapshot(&leader);
    node.write("UPDATE u SET name = 'mine' WHERE id = 1");
    let error = restore(&mut node, &snap).unwrap_err();
    assert!(
        matches!(&error, RestoreError::Schema(text) if text.contains("\"more\"") && text.contains("ALTER TABLE")),
        "{error}"
    );
    assert_eq!(node.pending(), 1);
    // The other way round nothing is lost: the column keeps its values.
    node.write("ALTER TABLE u ADD COLUMN more DEFAULT 8; UPDATE u SET more = 9 WHERE id = 2; ALTER TABLE u ADD COLUMN own DEFAULT 3; UPDATE u SET own = 4 WHERE id = 3");
    restore(&mut node, &snap).unwrap();
    assert_eq!(node.read("SELECT id || own FROM u ORDER BY id"), "13,23,34");
    leader.write("SELECT 1");
}

#[test]
fn an_empty_database_is_filled_with_schema_and_rows() {
    let schema = "PRAGMA user_version = 42; PRAGMA application_id = 7;
        CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v, g AS (v || '!'));
        INSERT INTO a(v) VALUES('x'), ('y'); DELETE FROM a WHERE id = 2;
        CREATE TABLE k(v); INSERT INTO k(rowid, v) VALUES(7, 'seven'), (9, 'nine');
        CREATE TABLE w(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID; INSERT INTO w VALUES(1, 2);
        CREATE UNIQUE INDEX av ON a(v); CREATE VIEW seen AS SELECT v FROM a;
        CREATE TABLE log(v); CREATE TRIGGER logged AFTER INSERT ON w BEGIN INSERT INTO log VALUES(new.a); END;
        CREATE VIRTUAL TABLE words USING fts5(text); INSERT INTO words VALUES('hello world');";
    let (leader, mut node) = (Node::new(1, schema), Node::new(2, ""));
    let restored = restore(&mut node, &snapshot(&leader)).unwrap();
    assert!(restored.filled);
    for sql in [
        "SELECT id || v || g FROM a",
        "SELECT rowid || v FROM k ORDER BY rowid",
        "SELECT a || b FROM w",
        "SELECT v FROM seen",
        "SELECT text FROM words WHERE words MATCH 'hello'",
        "SELECT name || seq FROM sqlite_sequence ORDER BY name",
        "SELECT type || name || coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE '\\_\\_harmony%' ESCAPE '\\' ORDER BY name",
        "SELECT CAST(user_version AS TEXT) FROM pragma_user_version",
        "SELECT CAST(application_id AS TEXT) FROM pragma_application_id",
        "SELECT integrity_check FROM pragma_integrity_check",
    ] {
        // As a connection of the app sees it that was open before.
        assert_eq!(node.read(sql), leader.read(sql), "{sql}");
        assert_ne!(node.read(sql), "", "{sql}");
    }
    assert_eq!(node.pending(), 0);
    node.write("INSERT INTO w VALUES(3, 4)");
    assert_eq!(node.read("SELECT CAST(v AS TEXT) FROM log"), "3");
    assert_eq!(node.pending(), 2);
}

#[test]
fn a_snapshot_is_a_plain_file_that_can_be_put_in_place() {
    let (leader, _, snapshot) = behind("UPDATE u SET name = 'x' WHERE id = 1");
    let conn = Connection::open(&snapshot).unwrap();
    let own: i64 = conn
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')",
            [],
            |r| r.get(0),
        )
        .unwrap();
    assert_eq!(own, 0);
    drop(conn);
    let node = Node::on_file(4, &snapshot);
    assert_eq!(node.read(ALL), leader.read(ALL));
    assert_eq!(node.replica.position(), leader.replica.position());
    assert_eq!(node.pending(), 0);
    node.write("DELETE FROM u");
    assert_eq!(node.pending(), 3);
}

#[test]
fn a_trigger_that_has_deletes_ignored_does_not_stop_a_restore() {
    const SEARCHED: &str = "CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
        CREATE VIRTUAL TABLE found USING fts5(name);
        CREATE TRIGGER kept BEFORE DELETE ON u BEGIN INSERT INTO found VALUES(OLD.name); SELECT RAISE(IGNORE); END;
        INSERT INTO u VALUES(1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', 'three');";
    let (mut leader, mut node) = (Node::new(1, USERS), Node::new(2, SEARCHED));
    leader.write("DELETE FROM u WHERE id <> 3");
    let batch = leader.scan();
    leader.apply(&stream(&[&batch]));
    let snapshot = snapshot(&leader);
    restore(&mut node, &snapshot).unwrap();
    assert_eq!(node.read(ALL), "3cthree");
}

#[test]
fn a_table_that_is_behind_waits_for_a_snapshot_that_has_it() {
    let patience = Duration::from_secs(5);
    let table =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'old'), (2, 'old');";
    let (mut leader, mut node) = (Node::new(1, table), Node::new(2, table));
    // The cluster's table, which the leader has dropped by now: its snapshots carry it for others.
    leader.write("ALTER TABLE t ADD COLUMN w DEFAULT 0");
    assert!(
        leader
            .replica
            .make_capture_current(patience, &|| false)
            .unwrap()
    );
    leader.write("UPDATE t SET v = 'new'; DELETE FROM t WHERE id = 2");
    leader.forget_pending();
    let from = leader.folder().join("from.db");
    std::fs::rename(snapshot(&leader), &from).unwrap();
    leader.write("DROP TABLE t");
    assert!(
        leader
            .replica
            .make_capture_current(patience, &|| false)
            .unwrap()
    );
    let carries = leader.folder().join("carries.db");
    let mut copied =
        copy::copy(leader.reader().path().unwrap().as_ref(), &carries, || false).unwrap();
    absent::put(&mut copied, &from, &["t".to_owned()]).unwrap();
    copy::finish(copied).unwrap();
    let later = leader.folder().join("later.db");
    std::fs::copy(&carries, &later).unwrap();

    // Here it lacks a column: the restore passes it over.
    restore(&mut node, &carries).unwrap();
    let marks = |node: &Node| {
        let unsure = node.replica.unsure().unwrap();
        unsure.iter().map(|u| u.reason).collect::<Vec<_>>()
    };
    assert_eq!(marks(&node), [Reason::Behind]);
    node.write("ALTER TABLE t ADD COLUMN w DEFAULT 0");
    assert!(
        node.replica
            .make_capture_current(patience, &|| false)
            .unwrap()
    );
    let mut adopt = |fold: &Path| {
        let captured = std::sync::Arc::clone(node.replica.captured());
        let had = name_as_here(fold, &captured, ["t"]).unwrap();
        let at = (node.replica.position().sequence, had == ["t"]);
        let unsure = node.replica.unsure().unwrap();
        let options = RestoreOptions {
            cluster: "c",
            keep_ours: false,
            patience,
            stop: &|| false,
            progress: &|_| {},
        };
        let adopted = node.replica.adopt(fold, at, &unsure[0], &options).unwrap();
        (adopted, marks(&node), node.pending())
    };
    // What is here is old: it must not be sent as this node's own.
    let lacks = snapshot(&leader);
    assert_eq!(adopt(&lacks), (Adopted::Lacking, vec![Reason::Behind], 0));
    let (adopted, left, _) = adopt(&later);
    assert!(matches!(adopted, Adopted::Done(_)), "{adopted:?}");
    assert_eq!(left, []);
    assert_eq!(
        node.read("SELECT id || v || w FROM t WHERE id = 1"),
        "1new0"
    );
}
