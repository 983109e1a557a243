//! Triggers that fail for what other nodes have changed: every row arrives all the same, and people are told.

use std::process::Command;

use super::running;
use crate::harness::{Cluster, eventually, http};

/// Triggers that let the first node write and refuse the same elsewhere: what is not replicated differs.
const REFUSES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT UNIQUE);
    CREATE TABLE x_here(word TEXT PRIMARY KEY); CREATE TABLE x_log(id INTEGER PRIMARY KEY, what TEXT UNIQUE);
    CREATE VIRTUAL TABLE ft USING fts5(a);
    CREATE TRIGGER healthy AFTER INSERT ON t BEGIN INSERT INTO ft(rowid, a) VALUES(new.id, new.a); END;
    CREATE TRIGGER refuses BEFORE INSERT ON t BEGIN
        INSERT INTO x_log(what) VALUES('insert ' || new.id);
        SELECT RAISE(ROLLBACK, 'not here') WHERE new.a IN (SELECT word FROM x_here);
        SELECT RAISE(IGNORE) WHERE 'ignore ' || new.a IN (SELECT word FROM x_here); END;
    CREATE TRIGGER refuses_u AFTER UPDATE ON t BEGIN
        INSERT INTO x_log(what) VALUES('update ' || new.id);
        SELECT RAISE(FAIL, 'not here') WHERE new.a IN (SELECT word FROM x_here); END;
    CREATE TRIGGER refuses_d BEFORE DELETE ON t BEGIN
        INSERT OR ROLLBACK INTO x_log(what) VALUES('delete ' || old.id);
        SELECT RAISE(IGNORE) WHERE old.a IN (SELECT word FROM x_here); END;
";

#[test]
fn rows_are_written_without_a_trigger_that_fails() {
    let mut cluster = Cluster::prepared(2, REFUSES);
    let (health, metrics) = http::observed(&mut cluster[1]);
    cluster[1].sql(
        "INSERT INTO x_here VALUES('bad'), ('ignore sad'); INSERT INTO x_log(what) VALUES('insert 4'), ('delete 5')",
    );
    for node in &mut cluster.nodes {
        node.sections
            .push_str("[replication]\nexclude = [\"x_*\"]\n");
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO t VALUES(1, 'bad', 'b1'), (2, 'sad', 'b2'), (3, 'good', 'b3'), (4, 'good', 'b4'), (5, 'good', 'b5')");
    eventually("all rows are there", || {
        cluster[1].integer("SELECT count(*) FROM t") == 5
    });
    cluster[0].sql("UPDATE t SET a = 'bad' WHERE id = 3; UPDATE t SET a = 'fine' WHERE id = 4; DELETE FROM t WHERE id IN (1, 5)");
    let rows =
        "SELECT group_concat(id || a || b, ' ' ORDER BY id) = '2sadb2 3badb3 4fineb4' FROM t";
    eventually("all changes are there", || cluster[1].integer(rows) == 1);
    assert_eq!(cluster[0].integer(rows), 1);
    // The other trigger has fired for all, once.
    assert_eq!(cluster[1].integer("SELECT count(*) FROM ft"), 5);
    let logged = |what: &str| {
        cluster[1].integer(&format!("SELECT count(*) FROM x_log WHERE what = '{what}'"))
    };
    let expected = [
        ("insert 1", 0),
        ("insert 2", 0),
        ("insert 3", 1),
        ("insert 4", 1),
        ("insert 5", 1),
        ("update 3", 0),
        ("update 4", 1),
        ("delete 1", 0),
        ("delete 5", 1),
    ];
    for (what, times) in expected {
        assert_eq!(logged(what), times, "{what}");
    }
    let log = cluster[1].log();
    assert!(
        log.contains("the trigger fails for what another node has changed"),
        "{log}"
    );
    eventually("health tells", || {
        http::get(health, "/health").is_some_and(|(status, text)| {
            status == 200 && text.contains("refuses") && text.contains("written without it")
        })
    });
    eventually("metrics tell", || {
        http::metric(metrics, "harmonylite_app_triggers_failing") == Some(3.0)
            && http::metric(metrics, "harmonylite_app_triggers") == Some(4.0)
    });
    cluster.assert_running();
}

#[test]
fn a_trigger_that_needs_the_apps_own_functions_holds_nothing_up() {
    let mut cluster = running(
        2,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, at TEXT); CREATE VIRTUAL TABLE ft USING fts5(a);
         CREATE TRIGGER stems AFTER INSERT ON t BEGIN INSERT INTO ft(rowid, a) VALUES(new.id, stem(new.a)); END;
         CREATE TRIGGER stamps AFTER INSERT ON t BEGIN UPDATE t SET at = app_now() WHERE id = new.id; END;",
        "",
    );
    const APP: &str = "import sqlite3, sys
app = sqlite3.connect(sys.argv[1], timeout=60)
app.create_function('stem', 1, lambda word: word)
app.create_function('app_now', 0, lambda: 'now')
with app: app.execute('INSERT INTO t(id, a) VALUES(?, ?)', (sys.argv[2], 'x'))";
    for node in &cluster.nodes {
        let ran = Command::new("python3")
            .args(["-c", APP])
            .arg(node.database())
            .arg(node.id.to_string())
            .status();
        assert!(ran.unwrap().success());
    }
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), 2);
    let log = cluster[0].log();
    assert!(
        log.contains("trigger \"stems\" on \"t\" cannot be fired here (no such function: stem)"),
        "{log}"
    );
    assert!(!log.contains("\"stamps\""), "{log}");
    cluster.assert_running();
}
