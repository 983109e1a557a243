//! Comparing a table with its fold, without a broker: which rows are entered in the change log, and as what.

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

use harmonylite::apply::incoming::Body;
use harmonylite::change::position::Sequence;
use harmonylite::changelog::in_flight::Carrier;
use harmonylite::replica::Replica;
use harmonylite::replica::group::{ApplyOptions, Stopped};
use harmonylite::replica::lifecycle::OpenOptions;
use harmonylite::replica::reconcile::{Ahead, Difference, Entered, grow, name_as_here};
use harmonylite::replica::{absent, copy};
use harmonylite::snapshot::fold as folding;
use harmonylite::sqlite::connection::open_reader;
use rusqlite::Connection;
use support::engine::{Node, stream};

const PATIENCE: Duration = Duration::from_secs(5);

/// The fold at this moment, in a file of its own. Nothing may be pending.
fn fold(node: &Node) -> PathBuf {
    let path = node.folder().join("fold.db");
    copy::finish(copy::copy(node.reader().path().unwrap().as_ref(), &path, || false).unwrap())
        .unwrap();
    path
}

/// Takes capture away as a rebuilt table does, and makes it again after `writes`: what they did is in no log.
fn without_capture(node: &mut Node, writes: &str) {
    let triggers: Vec<String> = node
        .reader()
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '__harmonylite__*'")
        .unwrap()
        .query_map([], |r| r.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for name in triggers {
        node.write(&format!("DROP TRIGGER \"{name}\""));
    }
    node.write(writes);
    assert!(node.replica.refresh_capture(PATIENCE, &|| false).unwrap());
}

/// Compares and enters; how many rows. The fold has nothing of what is on its way.
fn reconcile(node: &mut Node, fold: &Path) -> u64 {
    reconcile_with(node, fold, None)
}

/// As [`reconcile`]; `folded`: the fold has so much of what is on its way.
fn reconcile_with(node: &mut Node, fold: &Path, folded: Option<Carrier>) -> u64 {
    let unsure = node.replica.unsure().unwrap();
    let ahead = Ahead {
        folded,
        last: node.replica.last_on_its_way(),
    };
    assert!(!unsure.is_empty());
    let mut difference = Difference::find(
        node.replica.path(),
        fold,
        (node.replica.position().sequence, ahead),
        node.replica.captured(),
        &unsure,
        &[],
        &|| false,
    )
    .unwrap()
    .unwrap();
    let mut rows = 0;
    loop {
        match node
            .replica
            .enter_difference(&mut difference, PATIENCE, &|| false)
            .unwrap()
        {
            Entered::More(more) => rows += more,
            Entered::Done(more) => {
                assert!(node.replica.unsure().unwrap().is_empty());
                return rows + more;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A fold, opened to be folded on.
fn nobody(fold: &Path) -> Replica {
    let options = OpenOptions {
        fire_triggers: Some(Vec::new()),
        ..folding::nobody(Vec::new(), Vec::new())
    };
    Replica::open(fold, &options, PATIENCE, &|| false).unwrap()
}

/// The change log: key, kind, mask.
fn log(node: &Node, table: &str, key: &str) -> String {
    node.read(&format!(
        "SELECT coalesce(val_{key}, 'NULL') || ':' || type || ':' || mask FROM __harmonylite__{table}_change_log WHERE type <> 3 ORDER BY id"
    ))
}

/// A node whose table is this, and what is logged for writes that nobody captured. The other node is then equal to the bit.
fn logged(schema: &str, key: &str, writes: &str) -> String {
    let mut node = Node::new(1, schema);
    let mut other = Node::new(2, schema);
    let fold = fold(&node);
    without_capture(&mut node, writes);
    let rows = reconcile(&mut node, &fold);
    let log = log(&node, "t", key);
    if rows == 0 {
        assert_eq!(log, "");
        return log;
    }
    let batch = node.scan();
    other.apply(&stream(&[&batch]));
    let dump = |of: &Node| {
        let conn: Connection = open_reader(of.replica.path()).unwrap();
        let mut all = conn.prepare("SELECT * FROM t").unwrap();
        let n = all.column_count();
        let mut rows: Vec<String> = all
            .query_map([], |r| {
                Ok((0..n)
                    .map(|i| match r.get_ref(i).unwrap() {
                        rusqlite::types::ValueRef::Real(x) => format!("{:x}", x.to_bits()),
                        other => format!("{other:?}"),
                    })
                    .collect())
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        rows.sort();
        rows
    };
    assert_eq!(dump(&node), dump(&other));
    log
}

const PLAIN: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES(1, 'x', 1), (2, NULL, 2), (3, 'z', 3), (4, 0.0, 4);";

#[test]
fn every_kind_of_write_and_nothing_else() {
    assert_eq!(
        logged(
            PLAIN,
            "id",
            "UPDATE t SET b = 9 WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(5, 'n', NULL)"
        ),
        "1:2:4,5:1:0,2:0:0"
    );
    assert_eq!(logged(PLAIN, "id", "UPDATE t SET b = b"), "");
}

#[test]
fn values_differ_by_storage_class_and_bytes() {
    for (write, entered) in [
        ("UPDATE t SET b = 1.0 WHERE id = 1", "1:2:4"),
        ("UPDATE t SET a = CAST(a AS BLOB) WHERE id = 1", "1:2:2"),
        ("UPDATE t SET a = 'X' WHERE id = 1", "1:2:2"),
        ("UPDATE t SET a = '' WHERE id = 2", "2:2:2"),
        ("UPDATE t SET a = NULL WHERE id = 3", "3:2:2"),
        ("UPDATE t SET a = -0.0 WHERE id = 4", "4:2:2"),
        ("UPDATE t SET a = 0 WHERE id = 4", "4:2:2"),
        ("UPDATE t SET a = 9e999 - 9e999 WHERE id = 3", "3:2:2"),
    ] {
        let got = logged(PLAIN, "id", write);
        assert_eq!(got, entered, "{write}");
    }
}

#[test]
fn keys_of_every_form() {
    let nocase = "CREATE TABLE t(k TEXT PRIMARY KEY COLLATE NOCASE, v) WITHOUT ROWID; INSERT INTO t VALUES('Aa', 1), ('b', 2);";
    // The same row by its key, with other bytes.
    assert_eq!(
        logged(nocase, "k", "UPDATE t SET k = 'aA' WHERE k = 'aa'"),
        "aA:4:0"
    );
    assert_eq!(
        logged(
            nocase,
            "k",
            "DELETE FROM t WHERE k = 'AA'; INSERT INTO t VALUES('c', 3)"
        ),
        "c:1:0,Aa:0:0"
    );
    let loose =
        "CREATE TABLE t(k PRIMARY KEY, v); INSERT INTO t VALUES(1, 'i'), ('1', 't'), (x'31', 'b');";
    assert_eq!(
        logged(
            loose,
            "k",
            "UPDATE t SET v = 'u' WHERE typeof(k) = 'text'; DELETE FROM t WHERE typeof(k) = 'blob'"
        ),
        "1:2:2,1:0:0"
    );
    let rowid = "CREATE TABLE t(a, b); INSERT INTO t VALUES(1, 1), (2, 2), (3, 3);";
    assert_eq!(
        logged(
            rowid,
            "rowid",
            "UPDATE t SET b = 9 WHERE a = 2; DELETE FROM t WHERE a = 3; INSERT INTO t(rowid, a) VALUES(77, 7)"
        ),
        "2:2:2,77:1:0,3:0:0"
    );
    let pair = "CREATE TABLE t(x TEXT, y INTEGER, v, PRIMARY KEY(y, x)); INSERT INTO t VALUES('a', 1, 'v'), ('b', 1, 'w'), ('c', NULL, 'none');";
    assert_eq!(
        logged(pair, "x", "UPDATE t SET v = 'u' WHERE x = 'b'"),
        "b:2:4"
    );
}

#[test]
fn columns_that_travel_with_their_row() {
    let unique = "CREATE TABLE t(id INTEGER PRIMARY KEY, email TEXT UNIQUE, v); INSERT INTO t VALUES(1, 'a', 1), (2, 'b', 2);";
    assert_eq!(
        logged(
            unique,
            "id",
            "UPDATE t SET email = 'n' WHERE id = 1; UPDATE t SET v = 9 WHERE id = 2"
        ),
        "1:4:0,2:2:4"
    );
    // Two rows that have changed places.
    assert_eq!(
        logged(
            unique,
            "id",
            "UPDATE t SET email = NULL WHERE id = 1; UPDATE t SET email = 'a' WHERE id = 2; UPDATE t SET email = 'b' WHERE id = 1"
        ),
        "1:4:0,2:4:0"
    );
    // REPLACE, whose victim no trigger would see either.
    assert_eq!(
        logged(unique, "id", "REPLACE INTO t VALUES(3, 'a', 3)"),
        "3:1:0,1:0:0"
    );
    let generated = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a * 2) STORED, b); INSERT INTO t(id, a, b) VALUES(1, 1, 1);";
    assert_eq!(logged(generated, "id", "UPDATE t SET b = 2"), "1:2:4");
    let names: Vec<String> = (0..70).map(|i| format!("c{i}")).collect();
    let wide = format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, {}); INSERT INTO t(id) VALUES(1);",
        names.join(", ")
    );
    assert_eq!(logged(&wide, "id", "UPDATE t SET c69 = 1"), "1:4:0");
}

#[test]
fn what_is_pending_is_not_entered_twice() {
    let mut node = Node::new(1, PLAIN);
    let fold = fold(&node);
    node.write("UPDATE t SET a = 'mine' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(5, 'n', 5); UPDATE t SET a = 'mine' WHERE id = 3");
    without_capture(&mut node, "UPDATE t SET b = 9 WHERE id = 1");
    assert_eq!(reconcile(&mut node, &fold), 1);
    assert_eq!(log(&node, "t", "id"), "1:2:2,2:0:0,5:1:0,3:2:2,1:2:4");
}

#[test]
fn what_was_on_its_way_and_changed_without_capture_is_sent_once_more() {
    let mut node = Node::new(1, PLAIN);
    let fold = fold(&node);
    node.write("UPDATE t SET a = 'sent' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(5, 'sent', 5), (6, 'sent', 6); UPDATE t SET a = 'sent' WHERE id = 3");
    let first = node.scan();
    without_capture(
        &mut node,
        "UPDATE t SET a = 'late' WHERE id = 1; INSERT INTO t VALUES(2, 'back', 2); DELETE FROM t WHERE id = 5; UPDATE t SET b = 60 WHERE id = 6; UPDATE t SET a = 'z' WHERE id = 3",
    );
    reconcile(&mut node, &fold);
    let second = node.scan();
    let mut other = Node::new(2, PLAIN);
    let messages = stream(&[&first, &second]);
    other.apply(&messages);
    node.apply(&messages);
    let all = "SELECT id || coalesce(a, '-') || b FROM t ORDER BY id";
    assert_eq!(node.read(all), "1late1,2back2,3z3,40.04,6sent60");
    assert_eq!(other.read(all), node.read(all));
    assert_eq!(node.pending(), 0);
}

#[test]
fn columns_that_the_fold_does_not_have() {
    let mut node = Node::new(1, PLAIN);
    let fold = fold(&node);
    without_capture(
        &mut node,
        "ALTER TABLE t ADD COLUMN w TEXT DEFAULT 7; ALTER TABLE t ADD COLUMN f; UPDATE t SET f = 'filled'; UPDATE t SET f = 'own' WHERE id = 2; UPDATE t SET w = 'set' WHERE id = 3",
    );
    reconcile(&mut node, &fold);
    assert_eq!(log(&node, "t", "id"), "2:2:16,3:2:8");
}

#[test]
fn a_table_that_the_fold_does_not_have_is_entered_whole() {
    let mut node = Node::new(1, PLAIN);
    let fold = fold(&node);
    Connection::open(&fold)
        .unwrap()
        .execute_batch("DROP TABLE t")
        .unwrap();
    without_capture(&mut node, "INSERT INTO t VALUES(9, 'n', 9)");
    assert_eq!(reconcile(&mut node, &fold), 5);
    assert_eq!(log(&node, "t", "id"), "1:1:0,2:1:0,3:1:0,4:1:0,9:1:0");
}

#[test]
fn applying_waits_where_somebody_reconciles() {
    let mut node = Node::new(1, PLAIN);
    let mut other = Node::new(2, PLAIN);
    let fold = fold(&node);
    other.write("UPDATE t SET a = 'theirs' WHERE id = 1");
    let theirs = other.scan();
    node.replica.watch_unsure(true);
    without_capture(&mut node, "UPDATE t SET a = 'mine' WHERE id = 1");
    assert!(node.replica.applying_waits());
    assert_eq!(node.apply(&stream(&[&theirs])).consumed, 0);
    reconcile(&mut node, &fold);
    node.replica.pause_applying(false);
    assert_eq!(node.apply(&stream(&[&theirs])).consumed, 1);
    assert_eq!(node.read("SELECT a FROM t WHERE id = 1"), "mine");
}

#[test]
fn the_fold_follows_a_schema_that_has_changed_since_its_snapshot() {
    let mut node = Node::new(
        1,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, email TEXT, a); INSERT INTO t VALUES(1, 'One', 1), (2, 'Two', 2), (3, 'Three', 3);",
    );
    let fold = fold(&node);
    without_capture(
        &mut node,
        "ALTER TABLE t ADD COLUMN w TEXT NOT NULL DEFAULT 'usual'; ALTER TABLE t DROP COLUMN a;
         CREATE UNIQUE INDEX by_email ON t(lower(email)); CREATE UNIQUE INDEX some ON t(w COLLATE NOCASE) WHERE w <> 'usual';
         CREATE TABLE u(k TEXT COLLATE NOCASE PRIMARY KEY, v) WITHOUT ROWID",
    );
    node.write("UPDATE t SET w = 'set' WHERE id = 1; DELETE FROM t WHERE id = 2; INSERT INTO t VALUES(4, 'ONE!', 'four'); INSERT INTO u VALUES('a', 1)");
    let batch = node.scan();
    let messages = stream(&[&batch]);
    let mut replica = nobody(&fold);
    let options = ApplyOptions {
        max_time: PATIENCE,
        given_up: true,
        patience: PATIENCE,
        stop: &|| false,
    };
    let stopped = replica.apply(&messages, &options).unwrap().stopped;
    assert!(matches!(stopped, Stopped::Schema(_)), "{stopped:?}");
    let Body::Batch(batch) = &messages[0].body else {
        panic!("no batch");
    };
    let grown = grow(&mut replica, &batch.record, node.replica.captured())
        .unwrap()
        .unwrap();
    assert!(grown.iter().any(|g| g.is("T", "W")));
    assert_eq!(replica.apply(&messages, &options).unwrap().consumed, 1);
    drop(replica);
    let unsure = node.replica.unsure().unwrap();
    let difference = Difference::find(
        node.replica.path(),
        &fold,
        (node.replica.position().sequence, Ahead::default()),
        node.replica.captured(),
        &unsure,
        &grown,
        &|| false,
    );
    assert!(difference.unwrap().is_some());
    let found = Connection::open(&fold).unwrap();
    let count = |sql: &str| found.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(
        count(
            "SELECT count(*) FROM t WHERE (id, email, w) IN (VALUES(1, 'One', 'set'), (4, 'ONE!', 'four'))"
        ),
        2
    );
    assert_eq!(count("SELECT count(*) FROM u WHERE k = 'a'"), 1);
    // Row 3 has NULL where nobody has written: the default is no news.
    let differing = "SELECT count(*) FROM __harmonylite__differing_0 WHERE k1 = 3";
    assert_eq!(count(differing), 0);
}

#[test]
fn what_was_on_its_way_is_not_sent_again_where_the_fold_has_it() {
    let mut node = Node::new(1, PLAIN);
    let fold = fold(&node);
    node.write("INSERT INTO t VALUES(5, 'sent', 5), (6, 'sent', 6); UPDATE t SET a = 'sent' WHERE id = 3; DELETE FROM t WHERE id = 2");
    let sent = node.scan();
    // Scanned by the time of the comparison, but not seen in the stream.
    node.write("UPDATE t SET a = 'unseen' WHERE id = 4");
    let unseen = node.scan();
    without_capture(&mut node, "UPDATE t SET b = 60 WHERE id = 6");
    let mut replica = nobody(&fold);
    let last = node.replica.last_on_its_way();
    let messages = stream(&[&sent]);
    replica = folding::apply(replica, messages, None).unwrap().0;
    let me = node.replica.node_id();
    let taken = replica.publishers().get(&me).copied().unwrap();
    drop(replica);
    let folded = node.replica.carrier_of(taken);
    assert!(Some(folded) < last);
    assert_eq!(reconcile_with(&mut node, &fold, Some(folded)), 2);
    assert!(log(&node, "t", "id").ends_with(",4:2:2,4:2:2,6:2:4"));
    let mut other = Node::new(2, PLAIN);
    other.write("UPDATE t SET b = 'other' WHERE id = 3");
    let theirs = other.scan();
    let late = node.scan();
    let messages = stream(&[&sent, &unseen, &theirs, &late]);
    other.apply(&messages);
    node.apply(&messages);
    let all = "SELECT id || coalesce(a, '-') || b FROM t ORDER BY id";
    assert_eq!(node.read(all), "1x1,3sentother,4unseen4,5sent5,6sent60");
    assert_eq!(other.read(all), node.read(all));
}

#[test]
fn a_table_made_anew_with_other_columns_keeps_to_what_was_changed() {
    let mut node = Node::new(1, PLAIN);
    let fold = fold(&node);
    node.write("UPDATE t SET b = 'mine' WHERE id = 1; UPDATE t SET a = 'z' WHERE id = 2; INSERT INTO t VALUES(5, 'new', 5)");
    node.write(
        "CREATE TABLE n(id INTEGER PRIMARY KEY, b, x DEFAULT 7, a); INSERT INTO n(id, a, b) SELECT id, a, b FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t",
    );
    assert!(node.replica.refresh_capture(PATIENCE, &|| false).unwrap());
    reconcile(&mut node, &fold);
    assert_eq!(log(&node, "t", "id"), "1:2:2,2:2:8,5:1:0");
    // A column that is gone may have another name now: what was changed in it is among what is new, as it is here.
    node.forget_pending();
    std::fs::remove_file(fold).unwrap();
    let fold = self::fold(&node);
    node.write("UPDATE t SET a = 'was a' WHERE id = 1");
    node.write(
        "CREATE TABLE n(id INTEGER PRIMARY KEY, b, x DEFAULT 7, y DEFAULT 'was a'); INSERT INTO n SELECT id, b, x, a FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; UPDATE t SET y = 'was a'",
    );
    assert!(node.replica.refresh_capture(PATIENCE, &|| false).unwrap());
    reconcile(&mut node, &fold);
    assert_eq!(log(&node, "t", "id"), "1:2:8");
}

#[test]
fn the_fold_follows_former_names() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, a, b UNIQUE, c); CREATE VIEW v AS SELECT a FROM t; CREATE TABLE log(id INTEGER PRIMARY KEY);
                  INSERT INTO t VALUES('1', 1, 1, 1), ('2', 2, 2, 2), ('3', 3, 3, 3)";
    let (mut node, mut other) = (Node::new(1, schema), Node::new(2, schema));
    let fold = fold(&node);
    let captured = |node: &mut Node| {
        assert!(
            node.replica
                .make_capture_current(PATIENCE, &|| false)
                .unwrap()
        );
    };
    // In the stream under the names of before, by a node that adds a column which nobody has any more.
    other.write("ALTER TABLE t ADD COLUMN d; UPDATE t SET a = 'other', d = 1 WHERE k = '1'; DELETE FROM t WHERE k = '2'; INSERT INTO t(k, a, b) VALUES('4', 4, 4)");
    captured(&mut other);
    let batch = other.scan();
    node.write("ALTER TABLE t ADD COLUMN d");
    captured(&mut node);
    node.apply(&stream(&[&batch]));
    node.write("ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN b TO b2; ALTER TABLE u RENAME COLUMN k TO key");
    captured(&mut node);
    node.write("ALTER TABLE u DROP COLUMN d");
    captured(&mut node);
    assert_eq!(node.pending(), 0);
    node.write(
        "DROP VIEW v; CREATE TABLE n(key TEXT PRIMARY KEY, b2 UNIQUE, a, c); INSERT INTO n SELECT key, b2, a, c FROM u; DROP TABLE u; ALTER TABLE n RENAME TO u; UPDATE u SET c = 'mine' WHERE key = '3'",
    );
    captured(&mut node);
    name_as_here(&fold, node.replica.captured(), ["u"]).unwrap();
    let replica = nobody(&fold);
    let like = Some(&**node.replica.captured());
    let (replica, _) = folding::apply(replica, stream(&[&batch]), like).unwrap();
    drop(replica);
    assert_eq!(reconcile(&mut node, &fold), 1);
    assert_eq!(log(&node, "u", "key"), "3:2:8");
}

#[test]
fn a_snapshot_of_a_node_without_a_table_holds_what_others_have_in_it() {
    let schema = "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v, w UNIQUE); CREATE TABLE r(a); CREATE TABLE i(id INTEGER PRIMARY KEY, a);
                  INSERT INTO t VALUES('a', 1, 1), ('b', x'00', 2); INSERT INTO r(rowid, a) VALUES(7, 1.0); INSERT INTO i VALUES(3, 3)";
    let (mut node, mut other) = (Node::new(1, schema), Node::new(2, schema));
    let before = fold(&node);
    node.write("DROP TABLE t; DROP TABLE r; DROP TABLE i");
    assert!(node.replica.refresh_capture(PATIENCE, &|| false).unwrap());
    other.write("INSERT INTO t VALUES('d', 4, 4); DELETE FROM t WHERE k = 'A'; UPDATE r SET a = 2");
    let batch = other.scan();
    node.apply(&stream(&[&batch]));
    // Twice: from one snapshot to the next.
    let mut from = before;
    for n in 0..2 {
        let names = ["t", "r", "i", "never"].map(str::to_owned);
        let conn = Connection::open(&from).unwrap();
        for name in &names {
            absent::bring_back(&conn, name, name).unwrap();
        }
        drop(conn);
        let replica = nobody(&from);
        let behind = replica.position().sequence.0 as usize;
        let rest = stream(&[&batch]).split_off(behind);
        let (replica, _) = folding::apply(replica, rest, None).unwrap();
        assert_eq!(replica.position().sequence, Sequence(1));
        drop(replica);
        let snapshot = node.folder().join(format!("snapshot-{n}.db"));
        let mut copied =
            copy::copy(node.reader().path().unwrap().as_ref(), &snapshot, || false).unwrap();
        let put = absent::put(&mut copied, &from, &names).unwrap();
        assert_eq!(put, names[..3]);
        copy::finish(copied).unwrap();
        from = snapshot;
    }
    // Nobody who begins from it has anything of them.
    let placed = Node::on_file(3, &from);
    assert_eq!(
        placed.read("SELECT name FROM sqlite_schema WHERE name LIKE '%absent%'"),
        ""
    );
    // Made again: what was there is gone, as by DELETE.
    node.write("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v, w UNIQUE); INSERT INTO t VALUES('D', 'mine', 4); CREATE TABLE r(a); CREATE TABLE i(id INTEGER PRIMARY KEY, a)");
    assert!(node.replica.refresh_capture(PATIENCE, &|| false).unwrap());
    name_as_here(&from, node.replica.captured(), ["t", "r", "i"]).unwrap();
    reconcile(&mut node, &from);
    let late = node.scan();
    other.apply(&stream(&[&batch, &late]));
    let all = "SELECT k || v || w FROM t UNION ALL SELECT a FROM r UNION ALL SELECT a FROM i";
    assert_eq!(other.read(all), "Dmine4");
}

#[test]
fn the_fold_goes_back_to_names_that_only_the_snapshots_taker_has_changed() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, a, b); INSERT INTO t VALUES('1', 1, 1), ('2', 2, 2), ('3', 3, 3)";
    let (mut node, mut other) = (Node::new(1, schema), Node::new(2, schema));
    other.write("ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN b TO b2; ALTER TABLE u RENAME COLUMN k TO key");
    assert!(other.replica.refresh_capture(PATIENCE, &|| false).unwrap());
    let fold = fold(&other);
    node.write(
        "CREATE TABLE n(k TEXT PRIMARY KEY, b, a); INSERT INTO n SELECT k, b, a FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; UPDATE t SET b = 'mine' WHERE k = '3'",
    );
    assert!(node.replica.refresh_capture(PATIENCE, &|| false).unwrap());
    name_as_here(&fold, node.replica.captured(), ["t"]).unwrap();
    assert_eq!(reconcile(&mut node, &fold), 1);
    assert_eq!(log(&node, "t", "k"), "3:2:2");
}
