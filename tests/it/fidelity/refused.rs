//! What is refused or warned of, in the same sentences at the start and in `-check`; and collations and functions that only the app has.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, Node, app, eventually};

/// A collation and a function that only this app has; then the statements of its second argument.
const APP: &str = "
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
conn.create_collation('mine', lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
conn.create_function('backwards', 1, lambda text: text and text[::-1], deterministic=True)
conn.executescript(sys.argv[2])
";

/// Runs SQL in the app that has them.
fn app_with_collation(database: &Path, sql: &str) {
    let output = Command::new("python3")
        .args(["-c", APP])
        .arg(database)
        .arg(sql)
        .output()
        .expect("python3 runs");
    assert!(
        output.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// What is refused, with a part of the sentence.
const REFUSED: &[(&str, &str)] = &[
    (
        "own_index",
        "needs what only the application has (no such collation sequence: mine)",
    ),
    (
        "own_column",
        "needs what only the application has (no such collation sequence: mine)",
    ),
    (
        "own_partial",
        "needs what only the application has (no such function: backwards)",
    ),
    (
        "own_expression",
        "needs what only the application has (no such function: backwards)",
    ),
    (
        "own_generated",
        "needs what only the application has (no such function: backwards)",
    ),
    (
        "own_check",
        "needs what only the application has (no such function: backwards)",
    ),
    (
        "own_unique",
        "only the application has (its UNIQUE index \"sqlite_autoindex_own_unique_1\" uses the collation \"mine\")",
    ),
    (
        "own_key",
        "only the application has (its primary key uses the collation \"mine\")",
    ),
    (
        "no_rowid",
        "columns named rowid, _rowid_ and oid hide its rowid",
    ),
    ("widest", "more than 2000 values; give it a primary key"),
    (
        "__harmonylite__mine",
        "names that begin with __harmonylite__ are this program's own; rename the table",
    ),
];

fn refused_tables() -> String {
    let columns: Vec<String> = (0..2000).map(|c| format!("c{c}")).collect();
    format!(
        "CREATE TABLE own_column(id INTEGER PRIMARY KEY, a COLLATE mine);
         CREATE TABLE own_index(id INTEGER PRIMARY KEY, a COLLATE mine); CREATE INDEX own_index_a ON own_index(a);
         CREATE TABLE own_partial(id INTEGER PRIMARY KEY, a); CREATE INDEX own_partial_a ON own_partial(a) WHERE backwards(a) > 'm';
         CREATE TABLE own_expression(id INTEGER PRIMARY KEY, a); CREATE INDEX own_expression_a ON own_expression(backwards(a));
         CREATE TABLE own_generated(id INTEGER PRIMARY KEY, a, b AS (backwards(a)) STORED);
         CREATE TABLE own_check(id INTEGER PRIMARY KEY, a CHECK(backwards(a) <> 'bad'));
         CREATE TABLE own_unique(id INTEGER PRIMARY KEY, a COLLATE mine UNIQUE);
         CREATE TABLE own_key(a COLLATE mine PRIMARY KEY, b);
         CREATE TABLE no_rowid(rowid, _rowid_, oid);
         CREATE TABLE widest({});
         CREATE TABLE __harmonylite__mine(id INTEGER PRIMARY KEY);",
        columns.join(", ")
    )
}

#[test]
fn what_is_refused_is_named_at_the_start_and_by_check() {
    let mut node = Node::bare(1, "nats://127.0.0.1:1");
    app::create(
        &node.database(),
        "PRAGMA journal_mode = DELETE; CREATE TABLE good(id INTEGER PRIMARY KEY, v)",
    );
    app_with_collation(&node.database(), &refused_tables());
    app_with_collation(
        &node.database(),
        "CREATE TABLE no_key(a); CREATE TABLE null_key(a, b TEXT, c, PRIMARY KEY(a, b)); INSERT INTO null_key VALUES(1, NULL, 1), (NULL, NULL, 2), (1, 'x', 3), (2, NULL, 4), (NULL, 'y', 5);
         CREATE VIRTUAL TABLE notes USING fts5(body); CREATE VIRTUAL TABLE words USING fts5(body);
         CREATE TRIGGER mixed AFTER INSERT ON good BEGIN INSERT INTO words VALUES(new.v); INSERT INTO no_key VALUES(new.v); END;
         CREATE TRIGGER own AFTER DELETE ON good BEGIN DELETE FROM words WHERE body = backwards(old.v); END;",
    );
    node.sections
        .push_str("[replication]\nfire_triggers = [\"nobody\"]\n");
    node.write_configuration();
    let before = files(&node.folder);
    let checked = node.run(&["-check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.said);
    assert_eq!(files(&node.folder), before, "looking makes nothing");
    node.spawn();
    node.wait_log("capturing changes");
    eventually("the start has said all", || {
        node.log().contains("keys that SQLite chooses")
    });
    let log = node.log();
    for (table, reason) in REFUSED {
        let line = checked
            .said
            .lines()
            .find(|line| line.starts_with(&format!("error: table \"{table}\" is not replicated: ")))
            .unwrap_or_else(|| panic!("{table}: {}", checked.said));
        assert!(line.contains(reason), "{line}");
        let sentence = line.strip_prefix("error: ").unwrap();
        assert!(log.contains(&format!("ERROR {sentence}")), "{log}");
    }
    let warnings: Vec<&str> = checked
        .said
        .lines()
        .filter_map(|line| line.strip_prefix("warning: "))
        .collect();
    for text in [
        "the database is not in WAL mode: every change that comes in waits",
        "table \"no_key\" has no primary key",
        "table \"null_key\" has rows with NULL in their primary key (rowid 2, 5, 1 and more): they stay on this node",
        "tables \"good\", \"no_key\" have keys that SQLite chooses",
        "virtual table \"notes\" (fts5) is not replicated, and no trigger fills it",
        "trigger \"mixed\" on table \"good\" writes to replicated tables (no_key) and to others (words)",
        "trigger \"own\" on \"good\" cannot be fired here (no such function: backwards)",
        "replication.fire_triggers names \"nobody\", which is no trigger of this database",
    ] {
        let said = warnings.iter().find(|warning| warning.starts_with(text));
        let said = said.unwrap_or_else(|| panic!("{text}: {}", checked.said));
        assert!(log.contains(&format!("WARN {said}")), "{said}: {log}");
    }
    assert_eq!(checked.said.matches("error: ").count(), REFUSED.len());
    assert_eq!(warnings.len(), 8, "{}", checked.said);
}

#[test]
fn tables_that_are_left_out_are_named_only_where_no_snapshot_can_hold_them() {
    let mut node = Node::bare(1, "nats://127.0.0.1:1");
    node.sections
        .push_str("[replication]\ninclude = [\"good\"]\n");
    app::create(
        &node.database(),
        "CREATE TABLE good(id TEXT PRIMARY KEY); CREATE TABLE no_key(a)",
    );
    let checked = node.run(&["-check"]);
    assert_eq!(
        (checked.code, checked.said.trim()),
        (Some(0), "the configuration is valid")
    );
    app_with_collation(&node.database(), "CREATE TABLE own(id COLLATE mine)");
    let checked = node.run(&["-check"]);
    assert_eq!(
        checked.said.matches("error: ").count(),
        1,
        "{}",
        checked.said
    );
    assert!(checked.said.contains("table \"own\" is not replicated: "));
}

#[test]
fn check_looks_at_a_database_that_an_app_writes_to() {
    let node = Node::new(
        1,
        "nats://127.0.0.1:1",
        "CREATE TABLE t(id TEXT PRIMARY KEY)",
    );
    node.write_configuration();
    let app = node.app();
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES('a')")
        .unwrap();
    let before = files(&node.folder);
    let checked = node.run(&["-check"]);
    assert_eq!(
        (checked.code, checked.said.trim()),
        (Some(0), "the configuration is valid")
    );
    assert_eq!(files(&node.folder), before);
    app.execute_batch("COMMIT").unwrap();
}

/// An own function in a default or a view is the app's business alone.
#[test]
fn own_functions_in_defaults_and_views_are_replicated() {
    let mut cluster = Cluster::prepared(2, "");
    let schema = "PRAGMA journal_mode = WAL;
        CREATE TABLE own(id INTEGER PRIMARY KEY, v DEFAULT (backwards('ab')), w UNIQUE);
        CREATE VIEW own_view AS SELECT backwards(v) AS v FROM own ORDER BY v COLLATE mine";
    for node in &mut cluster.nodes {
        app_with_collation(&node.database(), schema);
        node.start();
    }
    for (writer, other) in [(0, 1), (1, 0)] {
        app_with_collation(
            &cluster[writer].database(),
            "INSERT INTO own(w) VALUES(1); INSERT INTO own(v, w) VALUES('x', 2); UPDATE own SET v = v || 'y' WHERE w = 1; REPLACE INTO own(v, w) VALUES('z', 2); DELETE FROM own WHERE w = 1",
        );
        cluster.converge_to(&cluster[writer].dump());
        assert_eq!(
            cluster[other].integer("SELECT count(*) FROM own WHERE v = 'z'"),
            1
        );
        app_with_collation(&cluster[writer].database(), "DELETE FROM own");
        cluster.converge_to(&cluster[writer].dump());
    }
}

#[test]
fn without_snapshots_a_table_with_an_own_collation_holds_up_no_other() {
    let mut cluster = Cluster::prepared(2, "CREATE TABLE t(id TEXT PRIMARY KEY, v)");
    for node in &mut cluster.nodes {
        app_with_collation(
            &node.database(),
            "CREATE TABLE own(id INTEGER PRIMARY KEY, a COLLATE mine); CREATE INDEX own_a ON own(a)",
        );
        node.sections.push_str("[snapshot]\nenabled = false\n");
        node.start();
    }
    let insert = "INSERT INTO own VALUES(1, 'x'); INSERT INTO t VALUES('a', 1)";
    app_with_collation(&cluster[0].database(), insert);
    eventually("the other table arrives", || {
        cluster[1].integer("SELECT count(*) FROM t") == 1
    });
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM own NOT INDEXED"),
        0
    );
}

#[test]
fn rows_with_null_in_their_key_stay_and_nothing_else_suffers() {
    let mut cluster = Cluster::prepared(
        2,
        "CREATE TABLE t(k TEXT PRIMARY KEY, v UNIQUE); CREATE TABLE c(a, b, v, PRIMARY KEY(a, b));",
    );
    cluster[0].sql("INSERT INTO t VALUES(NULL, 'before')");
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster[0].wait_log("table \"t\" has rows with NULL in their primary key (rowid 1)");
    for (writer, reader) in [(0, 1), (1, 0)] {
        let of = |what: &str| format!("{what}{writer}");
        cluster[writer].sql(&format!(
            "BEGIN; INSERT INTO t VALUES(NULL, '{0}'), ('{1}', '{1}'), (NULL, '{2}'), ('{3}', '{3}'); INSERT INTO c VALUES(1, NULL, '{0}'), (NULL, {writer}, 1), ('{1}', 1, 1); COMMIT;
             UPDATE t SET k = '{2}' WHERE v = '{2}'; UPDATE t SET v = '{0}!' WHERE v = '{0}'; UPDATE t SET k = NULL WHERE k = '{3}'; UPDATE c SET v = 2",
            of("stays"), of("goes"), of("gets a key"), of("loses its key")
        ));
        let with_key = "SELECT k, v FROM t WHERE k IS NOT NULL UNION ALL SELECT a || b, v FROM c WHERE a IS NOT NULL AND b IS NOT NULL ORDER BY 1";
        let text = |node: &Node| super::shown(&app::look(&node.database()).unwrap(), with_key);
        eventually("the rows that have a key are equal", || {
            text(&cluster[writer]) == text(&cluster[reader]) && cluster[writer].pending() == 0
        });
        assert!(text(&cluster[reader]).contains(&of("gets a key")));
        assert!(!text(&cluster[reader]).contains(&of("loses its key")));
        let stayed = |node: &Node| {
            node.integer(&format!(
                "SELECT count(*) FROM t WHERE v IN ('{}!', '{}')",
                of("stays"),
                of("loses its key")
            ))
        };
        assert_eq!((stayed(&cluster[writer]), stayed(&cluster[reader])), (2, 0));
        cluster[writer].wait_log("rows with NULL in their primary key are not replicated");
    }
    let compared = cluster[0].run(&["verify"]);
    assert_eq!(compared.code, Some(0), "{}", compared.said);
    for node in &cluster.nodes {
        assert_eq!(super::shown(&node.app(), "PRAGMA integrity_check"), "'ok'");
    }
    cluster.assert_running();
}
