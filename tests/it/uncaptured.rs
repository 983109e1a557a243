//! Writes that no trigger saw: they are found, and arrive everywhere, and nothing that others wrote meanwhile is set back.

use crate::harness::{Cluster, Node, eventually};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v, n INTEGER NOT NULL DEFAULT 0);
    INSERT INTO t(id, v) VALUES(1, 'one'), (2, 'two'), (3, 'three'), (4, 'four'), (5, 'five'), (6, 'six');";

/// What Django and Alembic do: our triggers go with the old table.
const REBUILD: &str = "BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, v, n INTEGER NOT NULL, w TEXT NOT NULL);
    INSERT INTO new_t SELECT id, v, n, 'filled in' FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT;";

/// What the app does without being captured: every kind of write.
const WRITES: &str = "UPDATE t SET v = 'unseen' WHERE id = 1; DELETE FROM t WHERE id = 2; UPDATE t SET id = 60 WHERE id = 6; REPLACE INTO t(id, v, n) VALUES(5, 'replaced', 7); INSERT INTO t(id, v, n) VALUES(10, 'new', 1);";

fn replicating(count: u64, schema: &str) -> Cluster {
    let mut cluster = Cluster::prepared(count, schema);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster
}

/// The table that is there now is captured.
fn captured(node: &Node, table: &str) {
    eventually(&format!("node {} captures table {table}", node.id), || {
        node.integer(&format!("SELECT count(*) FROM sqlite_schema WHERE name = '__harmonylite__{table}_insert' AND tbl_name = '{table}'")) == 1
    });
}

/// Nothing is in doubt any more, and all of it is published.
fn certain(node: &Node) {
    eventually(
        &format!("node {} is certain of its tables", node.id),
        || node.integer("SELECT count(*) FROM __harmonylite__unsure") == 0 && node.pending() == 0,
    );
}

fn after(writes: &str) -> String {
    writes
        .replace(
            "INSERT INTO t(id, v, n) VALUES(10, 'new', 1)",
            "INSERT INTO t VALUES(10, 'new', 1, 'own')",
        )
        .replace(
            "REPLACE INTO t(id, v, n) VALUES(5, 'replaced', 7)",
            "REPLACE INTO t VALUES(5, 'replaced', 7, 'own')",
        )
}

#[test]
fn a_table_rebuilt_and_written_to_while_the_daemon_is_down() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[1].sql("UPDATE t SET n = 1 WHERE id = 3");
    cluster.converge();
    cluster[0].stop();
    // The other node migrates too, and goes on.
    cluster[1].sql(REBUILD);
    captured(&cluster[1], "t");
    cluster[1].sql(
        "UPDATE t SET w = 'elsewhere', v = 'elsewhere' WHERE id = 3; DELETE FROM t WHERE id = 4",
    );
    certain(&cluster[1]);
    cluster[0].sql(&format!("{REBUILD} {}", after(WRITES)));
    let mut expected = cluster[0].app();
    let all = "SELECT group_concat(id || v || n || w, ' ') FROM (SELECT * FROM t ORDER BY id)";
    cluster[0].start_replicating();
    cluster.converge();
    let text: String = expected.query_row(all, [], |r| r.get(0)).unwrap();
    assert_eq!(
        text,
        "1unseen0filled in 3elsewhere1elsewhere 5replaced7own 10new1own 60six0filled in"
    );
    expected = cluster[1].app();
    let text: String = expected
        .query_row(
            "SELECT group_concat(reason) FROM __harmonylite__conflicts",
            [],
            |r| r.get::<_, Option<String>>(0),
        )
        .unwrap()
        .unwrap_or_default();
    assert_eq!(text, "");
    certain(&cluster[0]);
    // Capture is as ever.
    cluster[0].sql("UPDATE t SET n = 99 WHERE id = 3");
    cluster.converge();
    assert_eq!(cluster[1].integer("SELECT n FROM t WHERE id = 3"), 99);
    cluster.assert_running();
}

#[test]
fn a_table_rebuilt_and_written_to_while_the_daemon_runs() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[1].sql("UPDATE t SET n = 1 WHERE id = 3");
    cluster.converge();
    cluster[1].sql(REBUILD);
    captured(&cluster[1], "t");
    certain(&cluster[1]);
    // In one go, so that nothing is captured on the way.
    let app = cluster[0].app();
    app.execute_batch(&format!(
        "{}{}COMMIT;",
        REBUILD.trim_end_matches("COMMIT;"),
        after(WRITES)
    ))
    .unwrap();
    cluster[1].sql("UPDATE t SET v = 'elsewhere', w = 'elsewhere' WHERE id = 3");
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 6);
    for node in [0, 1] {
        assert_eq!(cluster[node].integer("SELECT count(*) FROM t WHERE (id, v, w) IN (VALUES(1, 'unseen', 'filled in'), (3, 'elsewhere', 'elsewhere'), (5, 'replaced', 'own'), (10, 'new', 'own'), (60, 'six', 'filled in'))"), 5);
    }
    certain(&cluster[0]);
    cluster.assert_running();
}

#[test]
fn triggers_dropped_by_hand() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[1].sql("UPDATE t SET n = 1 WHERE id = 3");
    cluster.converge();
    let drop = "DROP TRIGGER __harmonylite__t_update; DROP TRIGGER __harmonylite__t_delete; DROP TRIGGER __harmonylite__t_insert; DROP TRIGGER __harmonylite__t_rekey;";
    cluster[0].sql(&format!("BEGIN; {drop} {WRITES} COMMIT"));
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    // One is enough, also while the daemon is down.
    cluster[0].kill();
    cluster[0].sql("DROP TRIGGER __harmonylite__t_delete; DELETE FROM t WHERE id IN (3, 5)");
    cluster[1].sql("UPDATE t SET v = 'elsewhere' WHERE id = 4");
    cluster[1].wait_published();
    cluster[0].start_replicating();
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 4);
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM t WHERE v = 'elsewhere'"),
        1
    );
    cluster.assert_running();
}

const NEW: &str = "BEGIN; CREATE TABLE plan(id INTEGER PRIMARY KEY, name TEXT, price INTEGER); INSERT INTO plan VALUES(1, 'small', 10), (2, 'large', 20), (3, 'gone soon', 0); COMMIT;";

#[test]
fn nothing_is_entered_while_an_operator_has_paused_applying() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[1].sql("UPDATE t SET n = 1 WHERE id = 3");
    cluster.converge();
    let paused = cluster[0].run(&["pause", "apply"]);
    assert_eq!(paused.code, Some(0), "{}", paused.said);
    cluster[0].sql(&format!(
        "BEGIN; DROP TRIGGER __harmonylite__t_update; DROP TRIGGER __harmonylite__t_delete; DROP TRIGGER __harmonylite__t_insert; DROP TRIGGER __harmonylite__t_rekey; {WRITES} COMMIT"
    ));
    cluster[0].wait_log("cannot be looked for yet: an operator has paused applying");
    assert_eq!(cluster[0].pending(), 0);
    cluster[1].sql("UPDATE t SET v = 'elsewhere' WHERE id = 4");
    cluster[1].wait_published();
    let resumed = cluster[0].run(&["resume", "apply"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.said);
    certain(&cluster[0]);
    cluster.converge();
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t WHERE (id, v) IN (VALUES(4, 'elsewhere'), (10, 'new'), (5, 'replaced'))"), 3);
    cluster.assert_running();
}

#[test]
fn a_table_that_a_migration_makes_and_fills_on_every_node() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[0].sql("UPDATE t SET n = 1");
    cluster.converge();
    cluster[0].sql(NEW);
    captured(&cluster[0], "plan");
    certain(&cluster[0]);
    cluster[0].sql("UPDATE plan SET price = 15 WHERE id = 1; DELETE FROM plan WHERE id = 3; INSERT INTO plan VALUES(4, 'added', 40)");
    cluster[0].wait_published();
    cluster[1].wait_log("applying is paused");
    // The migration comes later here: it must not bring back what was changed since.
    cluster[1].sql(&NEW.replace(
        "COMMIT",
        "INSERT INTO plan VALUES(7, 'of node 2', 70); COMMIT",
    ));
    let dump = cluster.converge();
    assert_eq!(dump["plan"].len(), 4);
    for node in [0, 1] {
        assert_eq!(
            cluster[node].integer("SELECT sum(id * price) FROM plan"),
            15 + 40 + 160 + 490
        );
    }
    certain(&cluster[1]);
    // And while both daemons are down.
    for node in &mut cluster.nodes {
        node.stop();
        node.sql(&NEW.replace("plan", "again"));
    }
    cluster[0].sql("INSERT INTO again VALUES(8, 'of node 1', 80)");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let dump = cluster.converge();
    assert_eq!(dump["again"].len(), 4);
    cluster.assert_running();
}

#[test]
fn many_tables_are_one_fold() {
    const TABLES: usize = 40;
    let each = |sql: &str| -> String {
        (0..TABLES)
            .map(|i| sql.replace('#', &i.to_string()))
            .collect()
    };
    let mut cluster = replicating(
        2,
        &each("CREATE TABLE t#(id INTEGER PRIMARY KEY, v); INSERT INTO t# VALUES(1, #);"),
    );
    cluster[1].sql(&each("UPDATE t# SET v = v + 1000;"));
    cluster.converge();
    cluster[0].stop();
    cluster[0].sql(&each("CREATE TABLE n(id INTEGER PRIMARY KEY, v); INSERT INTO n SELECT * FROM t#; DROP TABLE t#; ALTER TABLE n RENAME TO t#; INSERT INTO t# VALUES(2, #);"));
    let expected = cluster[0].dump();
    cluster[0].start_replicating();
    cluster.converge_to(&expected);
    let log = cluster[0].log();
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("tables are certain again"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("rows=40"), "{log}");
}

#[test]
fn a_node_killed_while_it_reconciles() {
    const ROWS: i64 = 100_000;
    let mut cluster = replicating(2, &format!("CREATE TABLE t(id INTEGER PRIMARY KEY, v, filler);
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) INSERT INTO t SELECT n, 0, 'x' FROM c;"));
    cluster[0].stop();
    cluster[0].sql("DROP TRIGGER __harmonylite__t_update; UPDATE t SET v = id; DELETE FROM t WHERE id % 10 = 0; INSERT INTO t SELECT id + 1000000, 1, 'y' FROM t WHERE id % 10 = 1");
    let expected = cluster[0].dump();
    cluster[0].start();
    eventually("some rows are entered", || {
        cluster[0].integer("SELECT (SELECT count(*) FROM __harmonylite__unsure) > 0 AND EXISTS(SELECT 1 FROM __harmonylite__t_change_log WHERE id > 1000)") == 1
    });
    cluster[0].kill();
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM __harmonylite__unsure"),
        1
    );
    cluster[0].start_replicating();
    cluster.converge_to(&expected);
    certain(&cluster[0]);
    cluster.assert_running();
}

/// What `-cleanup` leaves beside the database.
fn left(node: &Node) -> bool {
    node.folder.join("app.db-harmonylite.left").exists()
}

#[test]
fn written_to_between_a_cleanup_and_the_next_start() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[0].sql("UPDATE t SET n = 5 WHERE id = 5");
    cluster[1].sql("UPDATE t SET n = 1 WHERE id = 3");
    cluster.converge();
    // Through the daemon, and then once more by a process of its own.
    for (round, key) in [(0, 10), (1, 100)] {
        let cleaned = cluster[0].run(&["-cleanup"]);
        assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
        if round == 0 {
            cluster[0].wait_end();
        }
        assert_eq!(
            cluster[0]
                .integer("SELECT count(*) FROM sqlite_schema WHERE name GLOB '*harmonylite*'"),
            0
        );
        assert!(left(&cluster[0]));
        cluster[0].sql(&WRITES.replace("10", &key.to_string()).replace(
            "id = 60 WHERE id = 6",
            &format!("id = {} WHERE id IN (6, 60)", 60 + 600 * round),
        ));
        cluster[1].sql(&format!(
            "UPDATE t SET v = 'elsewhere {round}' WHERE id = 3; DELETE FROM t WHERE id = 4"
        ));
        cluster[1].wait_published();
        cluster[0].start_replicating();
        cluster.converge();
        certain(&cluster[0]);
        assert!(!left(&cluster[0]));
        for node in [0, 1] {
            assert_eq!(
                cluster[node].integer(&format!("SELECT count(*) FROM t WHERE (id, v) IN (VALUES(1, 'unseen'), (3, 'elsewhere {round}'), (5, 'replaced'), ({key}, 'new'), ({}, 'six'))", 60 + 600 * round)),
                5
            );
            assert_eq!(
                cluster[node].integer("SELECT count(*) FROM t WHERE id IN (2, 4)"),
                0
            );
        }
        if round == 0 {
            cluster[0].stop();
        }
    }
    cluster.assert_running();
}

#[test]
fn another_file_in_the_place_of_one_that_was_cleaned_up_joins_as_any_other() {
    let mut cluster = replicating(2, SCHEMA);
    let old = cluster[0].folder.join("old.db");
    cluster[0].sql("UPDATE t SET n = 5 WHERE id = 5");
    cluster.converge();
    cluster[0].run(&["-cleanup"]);
    cluster[0].wait_end();
    // Of the time before this program ever ran on it.
    crate::harness::app::create(&old, SCHEMA);
    std::fs::rename(&old, cluster[0].database()).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(cluster[0].folder.join(format!("app.db{suffix}")));
    }
    let expected = cluster[1].dump();
    cluster[0].start_replicating();
    cluster.converge_to(&expected);
    cluster.assert_running();
}

#[test]
fn a_cleaned_up_database_moves_to_another_cluster() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[0].sql("UPDATE t SET n = 5 WHERE id = 5");
    cluster.converge();
    cluster[0].run(&["-cleanup"]);
    cluster[0].wait_end();
    cluster[0]
        .sections
        .push_str("stream_prefix = \"other\"\nsubject_prefix = \"other-log\"\n");
    cluster[0].start_replicating();
    cluster[0].sql("INSERT INTO t(id, v) VALUES(77, 'elsewhere')");
    cluster[0].wait_published();
    assert!(!left(&cluster[0]));
    assert_eq!(cluster[0].integer("SELECT n FROM t WHERE id = 5"), 5);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM t WHERE id = 77"),
        0
    );
}

#[test]
fn a_snapshot_put_in_place_by_hand_and_written_to_before_the_start() {
    let mut cluster = replicating(2, SCHEMA);
    cluster[0].sql("UPDATE t SET n = 5 WHERE id = 5");
    cluster.converge();
    let saved = cluster[1].run(&["-save-snapshot"]);
    assert_eq!(saved.code, Some(0), "{}", saved.said);
    cluster[0].stop();
    for name in ["app.db", "app.db-wal", "app.db-shm"] {
        let _ = std::fs::remove_file(cluster[0].folder.join(name));
    }
    let fetched = cluster[1].run(&[
        "snapshot",
        "fetch",
        "latest",
        cluster[0].database().to_str().unwrap(),
    ]);
    assert_eq!(fetched.code, Some(0), "{}", fetched.said);
    cluster[0].sql(WRITES);
    cluster[1].sql("UPDATE t SET v = 'elsewhere' WHERE id = 3");
    cluster[1].wait_published();
    cluster[0].start_replicating();
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 6);
    for node in [0, 1] {
        assert_eq!(
            cluster[node].integer("SELECT count(*) FROM t WHERE (id, v) IN (VALUES(1, 'unseen'), (3, 'elsewhere'), (5, 'replaced'), (10, 'new'), (60, 'six'))"),
            5
        );
    }
    certain(&cluster[0]);
    cluster.assert_running();
}
