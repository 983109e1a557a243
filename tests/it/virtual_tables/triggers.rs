//! Which of the app's triggers fire where.

use super::{running, same_everywhere};
use crate::harness::{Cluster, eventually, tables::Cell};

#[test]
fn what_triggers_write_to_replicated_tables_is_not_done_twice() {
    let mut cluster = Cluster::new(
        3,
        1,
        "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, changed INTEGER DEFAULT 0);
         CREATE TABLE audit(uid TEXT PRIMARY KEY DEFAULT (hex(randomblob(12))), what TEXT, item INTEGER);
         CREATE TABLE counts(name TEXT PRIMARY KEY, n INTEGER); INSERT INTO counts VALUES('items', 0);
         CREATE TRIGGER a_i AFTER INSERT ON items BEGIN
            INSERT INTO audit(what, item) VALUES('insert', new.id); UPDATE counts SET n = n + 1 WHERE name = 'items'; END;
         CREATE TRIGGER a_u AFTER UPDATE OF name ON items BEGIN
            INSERT INTO audit(what, item) VALUES('update', new.id); UPDATE items SET changed = changed + 1 WHERE id = new.id; END;
         CREATE TRIGGER a_d AFTER DELETE ON items BEGIN
            INSERT INTO audit(what, item) VALUES('delete', old.id); UPDATE counts SET n = n - 1 WHERE name = 'items'; END;",
    );
    cluster[0].sql("INSERT INTO items(id, name) VALUES(1, 'a'), (2, 'b'), (3, 'c')");
    cluster.converge();
    cluster[1].sql("UPDATE items SET name = 'x' WHERE id = 1; DELETE FROM items WHERE id = 2");
    cluster.converge();
    cluster[2].sql("UPDATE items SET name = 'y' WHERE id = 1");
    let dump = cluster.converge();
    assert_eq!(dump["audit"].len(), 6);
    for node in &cluster.nodes {
        assert_eq!(node.integer("SELECT n FROM counts"), 2);
        assert_eq!(node.integer("SELECT changed FROM items WHERE id = 1"), 2);
    }
    cluster.assert_running();
}

/// An audit log that is not replicated, with what a trigger sees.
const SEEN: &str = "
    CREATE TABLE \"order\"(id INTEGER PRIMARY KEY, \"it's\" TEXT, b, c INTEGER);
    CREATE TABLE seen(what TEXT, id INTEGER, before, after, UNIQUE(what, id, before, after));
    CREATE TABLE latest(id INTEGER PRIMARY KEY, b);
    CREATE TRIGGER \"order\" AFTER INSERT ON \"order\" BEGIN INSERT INTO seen VALUES('insert', new.id, NULL, new.b); END;
    CREATE TRIGGER [select] AFTER UPDATE OF b ON main.\"order\" FOR EACH ROW WHEN new.c > 0 BEGIN
        INSERT INTO seen VALUES('update', new.id, old.b, new.b);
        INSERT OR REPLACE INTO latest SELECT id, b FROM \"order\" WHERE id = new.id; END;
    CREATE TRIGGER `d \"x` BEFORE DELETE ON 'order' BEGIN INSERT INTO seen VALUES(\"delete\", old.id, old.b, NULL); END;
    CREATE TRIGGER nested AFTER INSERT ON latest BEGIN INSERT OR IGNORE INTO seen VALUES('latest', new.id, upper(new.b), (SELECT count(*) FROM latest)); END;
";

#[test]
fn what_they_write_to_excluded_tables_is_written_on_every_node() {
    let mut cluster = running(2, SEEN, "[replication]\nexclude = [\"seen\", \"latest\"]\n");
    cluster[0].sql("INSERT INTO \"order\" VALUES(1, 'x', 'a', 1), (2, 'y', 'b', 0)");
    cluster.converge();
    // A cell, an update of another cell, one that the condition does not want, and a new key.
    cluster[1].sql("UPDATE \"order\" SET b = 'a2' WHERE id = 1");
    cluster.converge();
    cluster[1]
        .sql("UPDATE \"order\" SET c = 2 WHERE id = 1; UPDATE \"order\" SET b = 'b2' WHERE id = 2");
    cluster.converge();
    cluster[0].sql("DELETE FROM \"order\" WHERE id = 1");
    // What is not replicated is equal all the same.
    cluster.converge();
    let text = |t: &str| Cell::Text(t.as_bytes().to_vec());
    for node in &cluster.nodes {
        let seen = crate::harness::tables::rows(&node.app(), "SELECT * FROM seen");
        let row = |what: &str, id: i64, before: Cell, after: Cell| {
            vec![text(what), Cell::Integer(id), before, after]
        };
        for expected in [
            row("insert", 1, Cell::Null, text("a")),
            row("insert", 2, Cell::Null, text("b")),
            row("update", 1, text("a"), text("a2")),
            row("latest", 1, text("A2"), Cell::Integer(1)),
            row("delete", 1, text("a2"), Cell::Null),
        ] {
            assert!(seen.contains(&expected), "node {}: {seen:#?}", node.id);
        }
        let updates = "SELECT count(*) FROM seen WHERE what = 'update'";
        assert_eq!(node.integer(updates), 1, "{seen:#?}");
    }
    // A new key is an update here, and elsewhere a row that goes and another that comes.
    cluster[0].sql("UPDATE \"order\" SET id = 3 WHERE id = 2");
    eventually("the row has its new key", || {
        cluster[1].integer("SELECT count(*) FROM \"order\" WHERE id = 3") == 1
    });
    let count = |n: usize| cluster[n].integer("SELECT count(*) FROM seen");
    assert_eq!((count(0), count(1)), (5, 7));
    cluster.assert_running();
}

#[test]
fn a_mixed_trigger_fires_in_part_where_it_is_named() {
    const MIXED: &str = "
        CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); CREATE TABLE counts(name TEXT PRIMARY KEY, n INTEGER); INSERT INTO counts VALUES('notes', 0);
        CREATE VIRTUAL TABLE ft USING fts5(body);
        CREATE TRIGGER mixed AFTER INSERT ON notes BEGIN UPDATE counts SET n = n + 1; INSERT INTO ft(rowid, body) VALUES(new.id, new.body); END;
    ";
    let mut cluster = Cluster::prepared(3, MIXED);
    cluster[1]
        .sections
        .push_str("[replication]\nfire_triggers = [\"Mixed\", \"gone\"]\n");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO notes VALUES(1, 'one'), (2, 'two')");
    cluster.converge();
    for (node, found) in [(0, 2), (1, 2), (2, 0)] {
        assert_eq!(
            cluster[node].integer("SELECT count(*) FROM ft('one OR two')"),
            found
        );
        assert_eq!(cluster[node].integer("SELECT n FROM counts"), 2);
    }
    let log = cluster[2].log();
    assert!(
        log.contains("trigger \"mixed\" on table \"notes\" writes to replicated tables (counts) and to others (ft)"),
        "{log}"
    );
    let log = cluster[1].log();
    assert!(
        log.contains("replication.fire_triggers names \"gone\""),
        "{log}"
    );
    // It comes, and is fired.
    cluster[1].sql("CREATE VIRTUAL TABLE later USING fts5(body); CREATE TRIGGER gone AFTER INSERT ON notes BEGIN INSERT INTO later(body) VALUES(new.body); UPDATE counts SET n = n + 0; END");
    cluster[0].sql("INSERT INTO notes VALUES(3, 'three')");
    cluster.converge();
    assert_eq!(cluster[1].integer("SELECT count(*) FROM later('three')"), 1);
    same_everywhere(&cluster, "SELECT n FROM counts");
    cluster.assert_running();
}
