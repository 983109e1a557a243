//! Schemas as apps have them, and as they change them while the daemon runs.

use crate::harness::{Cluster, Node, eventually, node, tables};

#[test]
fn names_that_need_quotes_and_tables_of_extensions_do_not_stop_the_start() {
    let schema = r#"
        CREATE TABLE "order"("group" INTEGER PRIMARY KEY, "select" TEXT, "a b" TEXT, "quote""d" TEXT);
        CREATE TABLE "my table"("primary" TEXT, "key" INTEGER, "val_x" TEXT, PRIMARY KEY("primary", "key"));
        CREATE TABLE "tab'le"(id INTEGER PRIMARY KEY, "it's" TEXT);
        CREATE TABLE "_global"(id INTEGER PRIMARY KEY, v);
        CREATE TABLE "schrödinger"("katze" TEXT PRIMARY KEY, "lebt" BOOLEAN);
        CREATE TABLE generated(id INTEGER PRIMARY KEY, a INTEGER, doubled AS (a * 2) STORED, tripled AS (a * 3));
        CREATE TABLE strict_one(id INTEGER PRIMARY KEY, v ANY, t TEXT) STRICT;
        CREATE TABLE automatic(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
        CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT);
        CREATE VIRTUAL TABLE words USING fts5(body, content='docs', content_rowid='id');
        CREATE VIRTUAL TABLE notes USING fts5(title, text);
        CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
        CREATE VIEW both AS SELECT id, body FROM docs;
        CREATE TRIGGER docs_fts AFTER INSERT ON docs BEGIN INSERT INTO words(rowid, body) VALUES(new.id, new.body); END;
    "#;
    let mut cluster = Cluster::new(2, 2, schema);
    let app = cluster[0].app();
    app.execute_batch(
        r#"
        INSERT INTO "order" VALUES(1, 'where', 'b', 'q'), (2, 'from', 'c', 'r');
        UPDATE "order" SET "a b" = 'changed', "quote""d" = 'too' WHERE "group" = 2;
        INSERT INTO "my table" VALUES('p', 1, 'v'), ('p', 2, 'w');
        DELETE FROM "my table" WHERE "key" = 1;
        INSERT INTO "tab'le" VALUES(1, 'isn''t');
        INSERT INTO "_global" VALUES(1, 2);
        INSERT INTO "schrödinger" VALUES('Mieze', 1);
        INSERT INTO generated(id, a) VALUES(1, 10);
        UPDATE generated SET a = 11;
        INSERT INTO strict_one VALUES(1, x'00', 't'), (2, 2.5, 'u');
        INSERT INTO automatic(v) VALUES('x'), ('y');
        INSERT INTO docs VALUES(1, 'some words');
        INSERT INTO notes VALUES('a', 'b');
        INSERT INTO boxes VALUES(1, 0, 1);
        "#,
    )
    .unwrap();
    let ordinary = [
        "order",
        "my table",
        "tab'le",
        "_global",
        "schrödinger",
        "generated",
        "strict_one",
        "automatic",
        "docs",
    ];
    let copy = |node: &Node| {
        let conn = node.app();
        ordinary.map(|table| tables::rows(&conn, &format!("SELECT * FROM \"{table}\"")))
    };
    let expected = copy(&cluster[0]);
    assert!(expected.iter().all(|rows| !rows.is_empty()));
    eventually("the tables are equal", || copy(&cluster[1]) == expected);
    // The app's own index works on, and nothing was written into virtual tables elsewhere.
    assert_eq!(
        app.query_row(
            "SELECT count(*) FROM words WHERE words MATCH 'words'",
            [],
            |row| row.get::<_, i64>(0)
        )
        .unwrap(),
        1
    );
    assert_eq!(cluster[1].integer("SELECT count(*) FROM notes"), 0);
    cluster.assert_running();
    // A second start finds everything in place.
    cluster[0].stop();
    cluster[0].start_replicating();
    cluster[0].sql(r#"INSERT INTO "order" VALUES(3, 'x', 'y', 'z')"#);
    let expected = copy(&cluster[0]);
    eventually("the tables are equal again", || {
        copy(&cluster[1]) == expected
    });
}

#[test]
fn an_added_column_replicates_at_once() {
    let mut cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 'old'), (2, 'old')",
    );
    cluster[0].sql("UPDATE t SET a = 'before' WHERE id = 1");
    cluster.converge();
    // Other nodes know the column when values for it come.
    cluster[1].sql("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'dflt'");
    let app = cluster[0].app();
    // In one go, so that the first writes happen under triggers that do not know the column.
    app.execute_batch("ALTER TABLE t ADD COLUMN b TEXT DEFAULT 'dflt'; UPDATE t SET b = 'set' WHERE id = 1; INSERT INTO t VALUES(3, 'new', 'with b')").unwrap();
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    app.execute_batch("UPDATE t SET b = 'later' WHERE id = 2")
        .unwrap();
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    cluster[1].sql("UPDATE t SET b = 'from two' WHERE id = 3");
    let expected = cluster[1].dump();
    cluster.converge_to(&expected);
    // The app's writes go on after a restart too.
    cluster[0].kill();
    app.execute_batch("UPDATE t SET b = 'while down' WHERE id = 1")
        .unwrap();
    cluster[0].start();
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
}

#[test]
fn a_node_without_the_column_waits_visibly_and_goes_on_after_its_own_alter_table() {
    let mut cluster = Cluster::new(3, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, a)");
    cluster[0].sql("INSERT INTO t VALUES(1, 'x')");
    cluster.converge();
    cluster[0].sql("ALTER TABLE t ADD COLUMN b");
    cluster[1].sql("ALTER TABLE t ADD COLUMN b");
    cluster[0].sql("INSERT INTO t VALUES(2, 'y', 'needs b'); INSERT INTO t VALUES(3, 'z', NULL)");
    // The other node does not wait.
    eventually("the node with the column has the rows", || {
        cluster[1].integer("SELECT count(*) FROM t") == 3
    });
    cluster[2].wait_log("applying is paused");
    let said = cluster[2].log();
    let sentence = said
        .lines()
        .find(|line| line.contains("applying is paused"))
        .unwrap();
    assert!(
        sentence.contains('t') && sentence.contains("\"b\""),
        "names table and column: {sentence}"
    );
    assert_eq!(cluster[2].integer("SELECT count(*) FROM t"), 1);
    // A node that waits still publishes.
    cluster[2].sql("INSERT INTO t VALUES(10, 'from the paused node')");
    eventually("the paused node publishes", || {
        cluster[0].integer("SELECT count(*) FROM t WHERE id = 10") == 1
    });
    // Killed and started again, it waits at the same place.
    cluster[2].kill();
    cluster[2].start();
    cluster[2].wait_log("applying is paused");
    cluster[2].sql("ALTER TABLE t ADD COLUMN b");
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 4);
    cluster.assert_running();
}

#[test]
fn tables_made_while_the_daemon_runs_replicate_with_all_their_rows() {
    let cluster = Cluster::new(2, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    cluster[1].sql("CREATE TABLE late(id INTEGER PRIMARY KEY, v UNIQUE)");
    cluster[0].sql("BEGIN; CREATE TABLE late(id INTEGER PRIMARY KEY, v UNIQUE); INSERT INTO late VALUES(1, 'in the same transaction'); COMMIT; INSERT INTO late VALUES(2, 'right after')");
    let expected = cluster[0].dump();
    assert_eq!(expected["late"].len(), 2);
    cluster.converge_to(&expected);
    cluster[1].sql("UPDATE late SET v = 'from two' WHERE id = 2; DROP TABLE t");
    eventually("the change arrives", || {
        cluster[0].integer("SELECT count(*) FROM late WHERE v = 'from two'") == 1
    });
}

#[test]
fn a_missing_database_is_made_and_filled() {
    let server = node::broker();
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
    let mut first = Node::new(1, &server.url(), schema);
    first.start();
    first.sql("INSERT INTO t VALUES(1, 'a'), (2, 'b')");
    first.wait_published();
    let mut second = Node::bare(2, &server.url());
    assert!(!second.database().exists());
    second.start();
    assert!(second.database().exists());
    second.wait_log("there is no database");
    eventually("the rows arrive", || second.dump() == first.dump());
    second.sql("INSERT INTO t VALUES(3, 'back')");
    eventually("the way back works", || second.dump() == first.dump());
    // Tables do not travel.
    let more = "CREATE TABLE more(id INTEGER PRIMARY KEY, v)";
    first.sql(&format!("{more}; INSERT INTO more VALUES(1, 'a')"));
    second.wait_log("applying is paused");
    second.sql(more);
    eventually("rows of a later table arrive", || {
        second.dump() == first.dump()
    });
}

const REBUILD: &str = "BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, v, w DEFAULT 'w'); INSERT INTO new_t(id, v) SELECT id, v FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT";

#[test]
fn writes_that_nobody_captured_are_named() {
    let mut cluster = Cluster::new(1, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    cluster[0].wait_log("replicating position");
    cluster[0].sql(&format!(
        "{REBUILD}; INSERT INTO t VALUES(1, 'right after', 'unseen')"
    ));
    cluster[0].wait_log("the triggers on table \"t\" were gone");
    cluster[0].stop();
    // Someone drops our triggers.
    cluster[0].sql("DROP TRIGGER __harmonylite__t_insert");
    cluster[0].start();
    cluster[0].wait_log("the triggers on table \"t\" were gone");
}

#[test]
fn writes_right_after_a_rebuild_arrive() {
    let cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'x')",
    );
    cluster[1].sql(REBUILD);
    cluster[0].sql(&format!("{REBUILD}; INSERT INTO t VALUES(2, 'right after', 'unseen'); UPDATE t SET w = 'unseen' WHERE id = 1"));
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
}

#[test]
fn the_rows_of_the_first_table_of_an_empty_database_arrive() {
    let mut cluster = Cluster::prepared(2, "");
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster[0].sql("BEGIN; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'with the table'); COMMIT;");
    cluster[1].sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    cluster[0].sql("INSERT INTO t VALUES(2, 'later')");
    cluster.converge();
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t"), 2);
    cluster.assert_running();
}

#[test]
fn a_column_renamed_right_after_writing_does_not_stop_its_node() {
    let mut cluster = Cluster::new(1, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    let app = cluster[0].app();
    for i in 0..100 {
        app.execute("INSERT INTO t VALUES(?1, 'x')", [i]).unwrap();
    }
    app.execute_batch("ALTER TABLE t RENAME COLUMN b TO bb; INSERT INTO t VALUES(1000, 'after')")
        .unwrap();
    eventually("everything is published", || cluster[0].pending() == 0);
    cluster.assert_running();
}

#[test]
fn a_delete_is_not_lost_when_its_table_or_key_is_renamed_before_it_is_sent() {
    let schema = "CREATE TABLE o(id INTEGER PRIMARY KEY, v); CREATE TABLE k(a TEXT PRIMARY KEY, v);
        INSERT INTO o VALUES(1, 'goes'), (2, 'stays'); INSERT INTO k VALUES('goes', 1), ('stays', 2);";
    let mut cluster = Cluster::new(2, 1, schema);
    cluster[1].stop();
    cluster[0].stop();
    let rename = "ALTER TABLE o RENAME TO p; ALTER TABLE k RENAME COLUMN a TO kk;";
    cluster[0].sql(&format!(
        "DELETE FROM o WHERE id = 1; DELETE FROM k WHERE a = 'goes'; {rename}"
    ));
    cluster[1].sql(rename);
    cluster[0].start_replicating();
    cluster[1].start_replicating();
    cluster.converge();
    for node in [0, 1] {
        assert_eq!(cluster[node].integer("SELECT count(*) FROM p"), 1);
        assert_eq!(cluster[node].integer("SELECT count(*) FROM k"), 1);
    }
}

#[test]
fn a_stop_does_not_wait_for_an_app_that_holds_the_lock() {
    let mut cluster = Cluster::new(1, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let app = cluster[0].app();
    // The schema is another, so the daemon wants the lock to make capture current, and the app keeps it.
    app.execute_batch(
        "CREATE TABLE u(id INTEGER PRIMARY KEY); BEGIN IMMEDIATE; INSERT INTO u VALUES(1)",
    )
    .unwrap();
    let ended = cluster[0].terminate();
    assert_eq!(ended.code, Some(0), "{}", cluster[0].log());
    app.execute_batch("COMMIT").unwrap();
}
