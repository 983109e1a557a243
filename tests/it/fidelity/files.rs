//! Forms of the database file: each node of one cluster has another, and every node's writes reach all.

use std::path::Path;

use rusqlite::Connection;

use crate::harness::tables::Dump;
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node, app, eventually, node};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID";

/// What is done before the first table is made, and what must be found after all.
const FORMS: &[(&str, &str, &str, &str)] = &[
    (
        "page_size_512",
        "PRAGMA page_size = 512; PRAGMA journal_mode = WAL",
        "PRAGMA page_size",
        "512",
    ),
    (
        "page_size_1024",
        "PRAGMA page_size = 1024; PRAGMA journal_mode = WAL",
        "PRAGMA page_size",
        "1024",
    ),
    (
        "page_size_8192",
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL",
        "PRAGMA page_size",
        "8192",
    ),
    (
        "page_size_32768",
        "PRAGMA page_size = 32768; PRAGMA journal_mode = WAL",
        "PRAGMA page_size",
        "32768",
    ),
    (
        "page_size_65536",
        "PRAGMA page_size = 65536; PRAGMA journal_mode = WAL",
        "PRAGMA page_size",
        "65536",
    ),
    (
        "auto_vacuum_full",
        "PRAGMA auto_vacuum = FULL; PRAGMA journal_mode = WAL",
        "PRAGMA auto_vacuum",
        "1",
    ),
    (
        "auto_vacuum_incremental",
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL",
        "PRAGMA auto_vacuum",
        "2",
    ),
    (
        "journal_mode_delete",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA journal_mode",
        "'delete'",
    ),
    (
        "journal_mode_truncate",
        "PRAGMA journal_mode = TRUNCATE",
        "PRAGMA journal_mode",
        "'delete'",
    ),
    (
        "journal_mode_persist",
        "PRAGMA journal_mode = PERSIST",
        "PRAGMA journal_mode",
        "'delete'",
    ),
    (
        "schema_format_1",
        "PRAGMA legacy_file_format = ON; PRAGMA journal_mode = WAL",
        "PRAGMA journal_mode",
        "'wal'",
    ),
];

/// The app of a form, with the journal mode of its connection.
fn connect(path: &Path, made: &str) -> Connection {
    let conn = app::connect(path);
    if let Some(mode) = made.split("journal_mode = ").nth(1) {
        conn.execute_batch(&format!("PRAGMA journal_mode = {mode}"))
            .unwrap();
    }
    conn
}

fn forms() -> Cluster {
    let mut cluster = Cluster::prepared(FORMS.len() as u64, "");
    for (node, (_, made, _, _)) in cluster.nodes.iter().zip(FORMS) {
        std::fs::remove_file(node.database()).unwrap();
        let conn = Connection::open(node.database()).unwrap();
        conn.execute_batch(&format!("{made}; {SCHEMA}; INSERT INTO t VALUES(1, 'one', 1); PRAGMA user_version = 5; PRAGMA application_id = 6")).unwrap();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster
}

#[test]
fn forms_of_the_file() {
    let cluster = forms();
    let mut expected = Dump::new();
    for (node, (name, made, _, _)) in cluster.nodes.iter().zip(FORMS) {
        let id = node.id;
        let sql = format!(
            "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) INSERT INTO t SELECT {id} * 1000 + i, '{name}' || i, zeroblob(i * 100) FROM n; COMMIT;
             REPLACE INTO t VALUES({id} * 1000, '{name}7', '{name}'); DELETE FROM t WHERE id = {id} * 1000 + 8; INSERT INTO w VALUES('{name}', {id})"
        );
        connect(&node.database(), made)
            .execute_batch(&sql)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        expected = eventually_ok(&format!("what {name} has written is everywhere"), || {
            let expected = node.dump();
            match cluster
                .nodes
                .iter()
                .position(|other| other.dump() != expected)
            {
                None => Ok(expected),
                Some(other) => Err(format!("{} has other rows", FORMS[other].0)),
            }
        });
    }
    assert_eq!(cluster.converge(), expected);
    for (node, (name, _, query, found)) in cluster.nodes.iter().zip(FORMS) {
        let conn = node.app();
        assert_eq!(&super::shown(&conn, query), found, "{name}");
        assert_eq!(
            super::shown(&conn, "PRAGMA integrity_check"),
            "'ok'",
            "{name}"
        );
        assert_eq!(node.integer("PRAGMA user_version"), 5, "{name}");
        assert_eq!(node.integer("PRAGMA application_id"), 6, "{name}");
        let costs = node.log().contains("the database is not in WAL mode");
        assert_eq!(
            costs,
            name.starts_with("journal_mode"),
            "{name}: {}",
            node.log()
        );
    }
}

#[test]
fn nodes_of_every_page_size_join_by_snapshot() {
    let mut cluster = Cluster::prepared(4, "");
    for (node, size) in cluster.nodes.iter().zip([512, 65536, 4096, 1024]) {
        std::fs::remove_file(node.database()).unwrap();
        let conn = Connection::open(node.database()).unwrap();
        conn.execute_batch(&format!("PRAGMA page_size = {size}; PRAGMA journal_mode = WAL; CREATE TABLE made(x); DROP TABLE made")).unwrap();
    }
    cluster[0].sql(&format!(
        "{SCHEMA}; INSERT INTO t VALUES(1, 'one', zeroblob(100000)); INSERT INTO w VALUES('a', 1)"
    ));
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let expected = cluster[0].dump();
    assert_eq!(expected["t"].len(), 1);
    cluster.converge_to(&expected);
    cluster[1].sql("INSERT INTO t VALUES(2, 'two', 2)");
    let expected = cluster[1].dump();
    cluster.converge_to(&expected);
    for (node, size) in cluster.nodes.iter().zip([512, 65536, 4096, 1024]) {
        assert_eq!(node.integer("PRAGMA page_size"), size);
    }
}

#[test]
fn vacuum_by_the_app_while_the_daemon_runs() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    for (writer, size) in [(0, 8192), (1, 1024)] {
        let app = cluster[writer].app();
        app.execute_batch(&format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT {writer} * 1000 + i, {writer} || 'u' || i, zeroblob(500) FROM n; DELETE FROM t WHERE id % 2; VACUUM; INSERT INTO w VALUES({writer}, 'after'); REPLACE INTO t VALUES({writer} + 5001, {writer} || 'u2', 'replaced')")).unwrap();
        cluster.converge_to(&cluster[writer].dump());
        // Another page size can only be set outside of WAL mode, where nobody else has the database open.
        cluster[writer].stop();
        app.execute_batch(&format!("PRAGMA journal_mode = DELETE; PRAGMA page_size = {size}; PRAGMA auto_vacuum = FULL; VACUUM; PRAGMA journal_mode = WAL; INSERT INTO w VALUES({writer} || 'resized', 1)")).unwrap();
        cluster[writer].start();
        cluster.converge_to(&cluster[writer].dump());
        assert_eq!(cluster[writer].integer("PRAGMA page_size"), size);
        app.execute_batch("DELETE FROM t; PRAGMA incremental_vacuum")
            .unwrap();
        cluster.converge_to(&cluster[writer].dump());
    }
    cluster.assert_running();
}

#[test]
fn page_size_changed_by_the_app_while_the_daemon_runs() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sql("PRAGMA journal_mode = DELETE");
        node.start();
    }
    for (writer, size) in [(0, 16384), (1, 512)] {
        cluster[writer].sql(&format!("INSERT INTO t VALUES({writer}, {writer} || 'u', zeroblob(5000)); PRAGMA page_size = {size}; VACUUM; INSERT INTO w VALUES({writer}, 1)"));
        cluster.converge_to(&cluster[writer].dump());
        assert_eq!(cluster[writer].integer("PRAGMA page_size"), size);
    }
    cluster.assert_running();
}

#[test]
fn an_app_that_locks_the_database_for_itself() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[1].start();
    let app = cluster[0].app();
    app.execute_batch("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES(1, 'one', 1)")
        .unwrap();
    cluster[0].spawn();
    cluster[0].wait_log("locking_mode = EXCLUSIVE");
    drop(app);
    cluster[0].wait_log("capturing changes");
    let app = cluster[0].app();
    app.execute_batch("INSERT INTO t VALUES(2, 'two', 2)")
        .unwrap();
    eventually("what is written then arrives", || {
        cluster[1].integer("SELECT count(*) FROM t WHERE id = 2") == 1
    });
    cluster.assert_running();
}

/// UTF-16 nodes among themselves, and a UTF-8 node beside them.
#[test]
fn text_encodings() {
    let encodings = ["UTF-8", "UTF-16le", "UTF-16be", "UTF-16le"];
    let mut cluster = Cluster::prepared(4, "");
    for (node, encoding) in cluster.nodes.iter().zip(encodings) {
        make_encoded(node, encoding, SCHEMA);
    }
    for node in &mut cluster.nodes {
        node.start();
        node.wait_log("that SQLite chooses");
        let warned = node.log().contains("the database is encoded in UTF-16");
        assert_eq!(warned, node.id > 1, "{}", node.log());
    }
    for writer in 0..4 {
        cluster[writer].sql(&format!("INSERT INTO t VALUES({writer}, 'é日本語 🦀 {writer}', 'a' || char(0) || 'b'), ({writer} + 10, 'É{writer}', x'00ff'); INSERT INTO w VALUES('ключ 🦀 {writer}', ''); UPDATE t SET u = upper(u) || '!' WHERE id = {writer}; REPLACE INTO t VALUES({writer} + 20, 'É{writer}', 'ß')"));
        cluster.converge_to(&cluster[writer].dump());
    }
    for (node, encoding) in cluster.nodes.iter().zip(encodings) {
        let found = super::shown(&node.app(), "PRAGMA encoding");
        assert_eq!(found, format!("'{encoding}'"));
        assert_eq!(super::shown(&node.app(), "PRAGMA integrity_check"), "'ok'");
    }
    let compared = cluster[0].run(&["verify"]);
    assert_eq!(compared.code, Some(0), "{}", compared.said);
}

/// An empty database is filled from a snapshot of its own encoding only, and says so.
#[test]
fn an_empty_database_of_another_encoding() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'é', 'é')");
    cluster[0].start_replicating();
    make_encoded(
        &cluster[1],
        "UTF-16le",
        "CREATE TABLE made(x); DROP TABLE made",
    );
    cluster[1].spawn();
    cluster[1].wait_log("this database is empty and encoded in UTF-16le, the snapshot in UTF-8: stop the daemon, make the database anew with PRAGMA encoding = 'UTF-8' and start again");
    cluster[1].stop();
    make_encoded(&cluster[1], "UTF-8", "");
    cluster[1].start();
    cluster.converge_to(&cluster[0].dump());
}

fn make_encoded(node: &Node, encoding: &str, schema: &str) {
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{ending}", node.database().display()));
    }
    let conn = Connection::open(node.database()).unwrap();
    let made = format!("PRAGMA encoding = '{encoding}'; PRAGMA journal_mode = WAL; {schema}");
    conn.execute_batch(&made).unwrap();
}

#[test]
fn an_empty_database_and_none() {
    let server = node::broker();
    let url = server.url();
    let mut nodes = vec![
        Node::new(1, &url, SCHEMA),
        Node::new(2, &url, ""),
        Node::bare(3, &url),
    ];
    nodes[0].sql("INSERT INTO t VALUES(1, 'one', 1)");
    for node in &mut nodes {
        node.start_replicating();
    }
    let cluster = Cluster { nodes, server };
    cluster.converge_to(&cluster[0].dump());
    cluster[2].sql("INSERT INTO w VALUES('from the node that had none', 1)");
    cluster.converge_to(&cluster[2].dump());
}
