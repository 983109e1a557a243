//! Databases and brokers at their limits: wide tables, many tables, odd paths, other encodings, small messages, full streams.

use std::os::unix::fs::symlink;

use crate::harness::{Cluster, Node, app, eventually, nats, node, tables};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

#[test]
fn tables_wider_than_a_mask_replicate() {
    let schema: String = [63, 64, 100, 1500]
        .map(|width: usize| {
            let columns: Vec<String> = (1..width).map(|n| format!("c{n}")).collect();
            format!(
                "CREATE TABLE w{width}(id INTEGER PRIMARY KEY, {});",
                columns.join(", ")
            )
        })
        .concat();
    let cluster = Cluster::new(2, 1, &schema);
    let app = cluster[0].app();
    for width in [63, 64, 100, 1500] {
        let last = width - 1;
        app.execute_batch(&format!("INSERT INTO w{width}(id, c1, c{last}) VALUES(1, 'a', 'z'), (2, 'b', 'y'); UPDATE w{width} SET c{last} = 'changed' WHERE id = 1; UPDATE w{width} SET c62 = 'too' WHERE id = 2")).unwrap();
    }
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    for width in [63, 64, 100, 1500] {
        let last = width - 1;
        cluster[1].sql(&format!(
            "UPDATE w{width} SET c{last} = 'back' WHERE id = 2; DELETE FROM w{width} WHERE id = 1"
        ));
    }
    let expected = cluster[1].dump();
    cluster.converge_to(&expected);
}

#[test]
fn a_thousand_tables_replicate() {
    let schema: String = (0..1000)
        .map(|n| format!("CREATE TABLE t{n}(id INTEGER PRIMARY KEY, v);"))
        .collect();
    let cluster = Cluster::new(2, 1, &format!("BEGIN; {schema} COMMIT"));
    let all: String = (0..1000)
        .map(|n| format!("INSERT INTO t{n} VALUES({n}, 'x');"))
        .collect();
    cluster[0].sql(&format!("BEGIN; {all} COMMIT"));
    cluster[1].sql("INSERT INTO t999 VALUES(1, 'y')");
    let dump = cluster.converge();
    assert_eq!(dump.values().map(Vec::len).sum::<usize>(), 1001);
}

#[test]
fn a_database_in_utf_16_replicates_with_one_in_utf_8() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    std::fs::remove_file(cluster[1].database()).unwrap();
    app::create(
        &cluster[1].database(),
        &format!("PRAGMA encoding = 'UTF-16le'; {SCHEMA}"),
    );
    assert_eq!(
        cluster[1]
            .app()
            .query_row("PRAGMA encoding", [], |row| row.get::<_, String>(0))
            .unwrap(),
        "UTF-16le"
    );
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster[0].sql("INSERT INTO t VALUES(1, 'größer 日本語 🦀'), (2, x'00ff')");
    cluster[1].sql("INSERT INTO t VALUES(3, 'zurück 🐘'), (4, 1.5)");
    assert_eq!(cluster.converge()["t"].len(), 4);
}

#[test]
fn an_app_with_recursive_triggers_replicates_its_replacements() {
    let cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, v)",
    );
    let app = cluster[0].app();
    // REPLACE fires delete triggers then.
    app.execute_batch("PRAGMA recursive_triggers = ON").unwrap();
    for n in 0..60 {
        app.execute_batch(&format!("INSERT OR REPLACE INTO u VALUES({}, 'e{}', {n}); UPDATE OR REPLACE u SET email = 'e{}' WHERE id = {}", n % 7, n % 5, n % 3, n % 4)).unwrap();
    }
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
}

#[test]
fn paths_may_hold_anything() {
    let server = node::broker();
    let outer = node::folder();
    let folder = outer.path().join("it's a \"folder\" ?mode=ro&x=%41 #1 ünï");
    std::fs::create_dir(&folder).unwrap();
    let mut odd = Node::in_folder(1, &server.url(), &folder);
    app::create(&odd.database(), SCHEMA);
    odd.start_replicating();
    let mut plain = Node::new(2, &server.url(), SCHEMA);
    plain.start_replicating();
    odd.sql("INSERT INTO t VALUES(1, 'odd')");
    plain.sql("INSERT INTO t VALUES(2, 'plain')");
    eventually("both are equal", || {
        odd.dump()["t"].len() == 2 && odd.dump() == plain.dump()
    });
    // The same database under another name is the same database.
    let linked = outer.path().join("linked.db");
    symlink(odd.database(), &linked).unwrap();
    let refused = odd.run(&["-db", linked.to_str().unwrap(), "-node-id", "7"]);
    assert_eq!(refused.code, Some(75), "{}", refused.said);
    assert_eq!(odd.run(&["-stop"]).code, Some(0));
    assert_eq!(odd.wait_end().code, Some(0));
}

#[test]
fn a_broker_with_small_messages_carries_large_rows() {
    let server = nats::NatsServer::with("max_payload: 32768");
    let url = server.url();
    let mut cluster = Cluster {
        nodes: (1..=2).map(|id| Node::new(id, &url, SCHEMA)).collect(),
        server,
    };
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster[0].sql("INSERT INTO t VALUES(1, randomblob(2000000)), (2, randomblob(30000)), (3, randomblob(32700)), (4, 'small')");
    cluster[1].sql("BEGIN; INSERT INTO t WITH RECURSIVE n(i) AS (VALUES(10) UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i, randomblob(50) FROM n; COMMIT");
    assert_eq!(cluster.converge()["t"].len(), 4995);
}

#[test]
fn a_full_stream_pushes_back_and_loses_nothing() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections
            .push_str("[replication_log]\nmax_bytes = 4194304\n");
        node.start();
    }
    // One batch, of more than twice what a stream may hold.
    cluster[0].sql("INSERT INTO t WITH RECURSIVE n(i) AS (VALUES(0) UNION ALL SELECT i + 1 FROM n WHERE i < 29) SELECT i, randomblob(300000) FROM n");
    cluster[0].wait_log("until replication_log.max_bytes is raised");
    assert!(
        cluster[0].pending() > 0,
        "the change log holds what the stream does not take"
    );
    cluster.assert_running();
    // More room, given by the operator.
    for node in &mut cluster.nodes {
        node.kill();
        node.sections = node
            .sections
            .replace("4194304", "104857600\nupdate_existing = true");
        node.start();
    }
    assert_eq!(cluster.converge()["t"].len(), 30);
}

#[test]
fn a_table_that_the_app_rebuilds_is_captured_again() {
    let mut cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(1, 'x'), (2, 'y')",
    );
    cluster[0].sql("INSERT INTO t VALUES(3, 'z')");
    cluster.converge();
    // As migration tools do it: a new table, filled, in the place of the old one.
    let rebuild = "BEGIN; CREATE TABLE new_t(id INTEGER PRIMARY KEY, v, w DEFAULT 'w'); INSERT INTO new_t(id, v) SELECT id, v FROM t; DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT";
    for node in &mut cluster.nodes {
        node.sql(rebuild);
        node.wait_log("capture is current");
    }
    cluster[0].sql("INSERT INTO t VALUES(4, 'new', 'n'); UPDATE t SET w = 'changed' WHERE id = 1; DELETE FROM t WHERE id = 2");
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    cluster[1].sql("UPDATE t SET v = 'back' WHERE id = 4");
    let expected = cluster[1].dump();
    cluster.converge_to(&expected);
    let ours = tables::rows(
        &cluster[0].app(),
        "SELECT name FROM sqlite_schema WHERE name GLOB '*new_t*'",
    );
    assert!(
        ours.is_empty(),
        "nothing of the passing table stays: {ours:?}"
    );
}
