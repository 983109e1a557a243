//! Changes of the schema that each node makes at its own time, while applications write and batches of before are on their way.

use crate::harness::{Cluster, eventually, http, node};

const T: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT); INSERT INTO t VALUES(1, 'a', 'b'), (2, 'a', 'b')";

#[test]
fn a_paused_node_goes_on_because_its_schema_changes() {
    const ROUNDS: usize = 5;
    let mut cluster = Cluster::prepared(2, T);
    cluster[1].sections.push_str("[logging]\nverbose = true\n");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster.converge();
    for round in 0..ROUNDS {
        let alter = format!("ALTER TABLE t ADD COLUMN c{round} TEXT");
        cluster[0].sql(&format!(
            "{alter}; UPDATE t SET c{round} = 'new' WHERE id = 1"
        ));
        cluster[1].wait_log(&format!("column \"c{round}\""));
        cluster[1].sql(&alter);
        let count = format!("SELECT count(*) FROM t WHERE c{round} = 'new'");
        eventually("it goes on", || cluster[1].integer(&count) == 1);
    }
    // It looks at everything again every few seconds too, which may come at the same moment; not each time.
    let noticed = cluster[1].log().matches("the schema has changed: ").count();
    assert!(noticed > 0 && noticed <= ROUNDS, "{noticed}");
    cluster.assert_running();
}

#[test]
fn a_column_is_dropped_while_others_still_write_it() {
    let mut cluster = Cluster::new(3, 1, T);
    cluster.converge();
    // The application's migration works although there are triggers that know the column.
    cluster[0].sql("ALTER TABLE t DROP COLUMN b; UPDATE t SET a = 'after' WHERE id = 1; INSERT INTO t VALUES(3, 'without b')");
    cluster[1].sql("UPDATE t SET b = 'still written' WHERE id = 2; INSERT INTO t VALUES(4, 'a', 'b'); UPDATE t SET a = 'x', b = 'y' WHERE id = 2");
    eventually("what others write of the other columns arrives", || {
        cluster[0].integer("SELECT count(*) FROM t WHERE id = 4 OR a = 'x'") == 2
    });
    cluster[1].sql("ALTER TABLE t DROP COLUMN b");
    cluster[2]
        .sql("UPDATE t SET b = 'the last', a = 'z' WHERE id = 4; ALTER TABLE t DROP COLUMN b");
    let rows = cluster.converge();
    assert_eq!(rows["t"].len(), 4);
    // One that was away meanwhile, and starts with the new schema, folds what was written under the old one.
    cluster[2].kill();
    cluster[2].sql("UPDATE t SET a = 'while down' WHERE id = 1");
    cluster[2].start();
    cluster.converge();
    cluster.assert_running();
    assert!(!cluster[0].log().contains("applying is paused"));
}

#[test]
fn columns_and_tables_are_renamed_while_others_use_the_old_names() {
    let mut cluster = Cluster::new(3, 1, T);
    cluster.converge();
    cluster[0].sql("ALTER TABLE t RENAME COLUMN b TO title; UPDATE t SET title = 'new name' WHERE id = 1; ALTER TABLE t RENAME TO posts");
    cluster[1]
        .sql("UPDATE t SET b = 'old name' WHERE id = 2; INSERT INTO t VALUES(3, 'a', 'old name')");
    eventually("what is written under the old names arrives", || {
        cluster[0].integer("SELECT count(*) FROM posts WHERE title = 'old name'") == 2
    });
    let rename = "ALTER TABLE t RENAME COLUMN b TO title; ALTER TABLE t RENAME TO posts";
    cluster[1].sql(&format!(
        "DELETE FROM t WHERE id = 3; UPDATE t SET a = 'last' WHERE id = 1; {rename}; UPDATE posts SET title = 'and on' WHERE id = 2"
    ));
    cluster[2].sql(&format!(
        "INSERT INTO t VALUES(9, 'nine', 'before'); {rename}"
    ));
    let rows = cluster.converge();
    assert_eq!(rows["posts"].len(), 3);
    assert_eq!(
        cluster[2].integer("SELECT count(*) FROM posts WHERE (id = 1 AND title = 'new name' AND a = 'last') OR (id = 2 AND title = 'and on') OR (id = 9 AND title = 'before')"),
        3
    );
    cluster.assert_running();
}

#[test]
fn a_table_is_dropped_with_changes_on_their_way_and_made_anew() {
    let mut cluster = Cluster::new(
        2,
        1,
        &format!("{T}; CREATE TABLE other(id INTEGER PRIMARY KEY, v)"),
    );
    cluster.converge();
    cluster[0].sql("INSERT INTO t VALUES(3, 'pending', 'x'); DROP TABLE t; INSERT INTO other VALUES(1, 'after')");
    cluster[1]
        .sql("UPDATE t SET a = 'still used' WHERE id = 1; INSERT INTO other VALUES(2, 'beside')");
    eventually("other tables go on", || {
        cluster
            .nodes
            .iter()
            .all(|n| n.integer("SELECT count(*) FROM other") == 2)
    });
    cluster[1].sql("DROP TABLE t; CREATE TABLE t(key TEXT PRIMARY KEY, other)");
    cluster[0].sql("CREATE TABLE t(key TEXT PRIMARY KEY, other); INSERT INTO t VALUES('x', 'y')");
    eventually("the new table replicates", || {
        cluster[1].integer("SELECT count(*) FROM t WHERE key = 'x'") == 1
    });
    cluster[1].sql("UPDATE t SET other = 'back'");
    cluster.converge();
    cluster.assert_running();
}

#[test]
fn an_index_is_added_on_one_node_after_the_other_while_all_write() {
    let mut cluster = Cluster::new(3, 1, T);
    cluster.converge();
    let index = "DELETE FROM t WHERE id NOT IN (SELECT min(id) FROM t GROUP BY a); CREATE UNIQUE INDEX t_a ON t(a)";
    cluster[0].sql(index);
    for i in 10..40 {
        for (n, node) in cluster.nodes.iter().enumerate() {
            // Every second value is wanted by two of them; the index refuses it where it is.
            let a = if i % 2 == 0 {
                format!("{i}")
            } else {
                format!("{i}-{n}")
            };
            let _ = node
                .app()
                .execute("INSERT INTO t VALUES(?1, ?2, 'b')", (i * 10 + n as i64, a));
        }
        if i == 20 || i == 30 {
            let late = usize::from(i == 20) + 1;
            cluster[late].sql(&format!("BEGIN IMMEDIATE; {index}; COMMIT"));
        }
    }
    let rows = cluster.converge();
    let values = cluster[0].integer("SELECT count(DISTINCT a) FROM t");
    assert_eq!(rows["t"].len() as i64, values);
    // The 45 that nobody else wanted and the 15 that several did.
    assert!(
        cluster[0].integer("SELECT count(*) FROM t WHERE a LIKE '%-%'") == 45,
        "what collides with nothing stays"
    );
    cluster.assert_running();
}

#[test]
fn two_nodes_change_different_things_at_once() {
    let mut cluster = Cluster::new(2, 1, T);
    let (health, metrics) = http::observed(&mut cluster[0]);
    cluster[0].stop();
    cluster[0].start_replicating();
    cluster.converge();
    cluster[0].sql("ALTER TABLE t ADD COLUMN x; UPDATE t SET x = 1 WHERE id = 1");
    cluster[1].sql("ALTER TABLE t ADD COLUMN y; UPDATE t SET y = 2 WHERE id = 2; CREATE TABLE more(id INTEGER PRIMARY KEY)");
    cluster[0].wait_log("applying is paused");
    cluster[1].wait_log("applying is paused");
    eventually("health and metric say it", || {
        let (_, body) = http::get(health, "/health").unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let schema = &body["schema"];
        schema["paused"] == true
            && schema["lacking"]
                .as_str()
                .is_some_and(|l| l.contains("\"y\"") && l.contains("ALTER TABLE"))
            && schema["previous_hash"] != schema["hash"]
            && http::metric(metrics, "harmonylite_schema_mismatch_paused") == Some(1.0)
    });
    cluster[0].sql("ALTER TABLE t ADD COLUMN y; CREATE TABLE more(id INTEGER PRIMARY KEY); INSERT INTO more VALUES(1)");
    cluster[1].sql("ALTER TABLE t ADD COLUMN x");
    // The order of columns differs; their names count.
    for node in &cluster.nodes {
        eventually("both columns are everywhere", || {
            node.integer("SELECT count(*) FROM t WHERE (id = 1 AND x = 1 AND y IS NULL) OR (id = 2 AND y = 2 AND x IS NULL)") == 2
                && node.integer("SELECT count(*) FROM more") == 1
        });
    }
    eventually("the pause is over", || {
        http::metric(metrics, "harmonylite_schema_mismatch_paused") == Some(0.0)
    });
    cluster.assert_running();
}

#[test]
fn changes_that_matter_nothing_hold_nobody_up() {
    let mut cluster = Cluster::new(2, 1, T);
    cluster.converge();
    let app = cluster[0].app();
    for sql in [
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE INDEX plain ON t(a, b)",
        "CREATE TRIGGER mine AFTER INSERT ON t BEGIN UPDATE t SET b = 'by trigger' WHERE id = NEW.id; END",
        "INSERT INTO t VALUES(3, 'x', 'y')",
        "VACUUM",
        "DROP INDEX plain; DROP VIEW v; ANALYZE; REINDEX",
        // In a transaction that stays open for a while, with writes before and after.
        "BEGIN IMMEDIATE; UPDATE t SET a = 'in' WHERE id = 1; CREATE TABLE side(id INTEGER PRIMARY KEY, v); INSERT INTO side VALUES(1, 'x'); CREATE INDEX later ON t(b); UPDATE t SET a = 'tx' WHERE id = 2",
    ] {
        app.execute_batch(sql).unwrap();
    }
    cluster[1].sql(
        "CREATE TABLE side(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES(7, 'meanwhile', 'z')",
    );
    app.execute_batch("INSERT INTO side VALUES(2, 'y'); COMMIT")
        .unwrap();
    let rows = cluster.converge();
    assert_eq!((rows["t"].len(), rows["side"].len()), (4, 2));
    cluster.assert_running();
    for node in &cluster.nodes {
        assert!(!node.log().contains("applying is paused"), "{}", node.log());
    }
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_of_a_migration_loses_nothing() {
    let mut cluster = Cluster::new(2, 1, T);
    cluster.converge();
    for round in 0..4 {
        let app = cluster[0].app();
        app.execute_batch(&format!(
            "UPDATE t SET a = 'before {round}'; ALTER TABLE t ADD COLUMN c{round} TEXT DEFAULT 'd'; UPDATE t SET c{round} = 'set' WHERE id = 1"
        ))
        .unwrap();
        cluster[0].kill();
        app.execute_batch(&format!(
            "UPDATE t SET c{round} = 'down' WHERE id = 2; INSERT INTO t(id, a, c{round}) VALUES({}, 'down', 'x')",
            round + 10
        ))
        .unwrap();
        cluster[0].start();
        cluster[1].sql(&format!(
            "ALTER TABLE t ADD COLUMN c{round} TEXT DEFAULT 'd'; UPDATE t SET b = 'two {round}' WHERE id = 2"
        ));
        let rename = format!("ALTER TABLE t RENAME COLUMN c{round} TO d{round}");
        // Not before both daemons have seen the column under its first name.
        cluster.converge();
        cluster[0].kill();
        cluster[0].sql(&rename);
        cluster[1].sql(&format!(
            "UPDATE t SET c{round} = 'late' WHERE id = {}; {rename}",
            round + 10
        ));
        cluster[0].start();
    }
    let rows = cluster.converge();
    assert_eq!(rows["t"].len(), 6);
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM t WHERE 'late' IN (d0, d1, d2, d3)"),
        4
    );
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM t WHERE id = 2 AND d3 = 'down' AND b = 'two 3'"),
        1
    );
}

#[test]
fn a_new_kind_of_key_type_or_collation_is_taken_up() {
    let mut cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE k(name TEXT PRIMARY KEY, v); INSERT INTO k VALUES('a', '1'), ('B', '2')",
    );
    cluster.converge();
    let anew = |definition: &str| {
        format!(
            "BEGIN IMMEDIATE; CREATE TABLE n({definition}); INSERT INTO n SELECT * FROM k; DROP TABLE k; ALTER TABLE n RENAME TO k; COMMIT"
        )
    };
    // Another type and collation: the table is made anew on each node.
    let typed = anew("name TEXT COLLATE NOCASE PRIMARY KEY, v INTEGER");
    cluster[0].sql(&typed);
    cluster[1].sql(&typed);
    // Each publishes its rows as it has them now; a change that another makes meanwhile may lose (docs/schema-changes.md).
    for node in &cluster.nodes {
        eventually("capture is certain of the new table", || {
            node.integer("SELECT count(*) FROM sqlite_schema WHERE tbl_name = 'k' AND name = '__harmonylite__k_insert'") == 1
                && node.integer("SELECT count(*) FROM __harmonylite__unsure") == 0
        });
    }
    cluster.converge();
    cluster[0].sql("UPDATE k SET v = 3 WHERE name = 'A'");
    cluster.converge();
    assert_eq!(cluster[1].integer("SELECT v FROM k WHERE name = 'a'"), 3);
    // Another key: a node that still has the old one waits, and says so.
    let keyed = anew("name TEXT, v INTEGER PRIMARY KEY");
    cluster[0].sql(&format!("{keyed}; INSERT INTO k VALUES('c', 9)"));
    cluster[1].wait_log("another primary key");
    cluster[1].sql(&keyed);
    let rows = cluster.converge();
    assert_eq!(rows["k"].len(), 3);
    cluster.assert_running();
}

#[test]
fn a_missing_node_that_starts_with_an_older_schema_waits_alone() {
    let server = node::broker();
    let mut nodes: Vec<_> = (1..=2)
        .map(|id| node::Node::new(id, &server.url(), T))
        .collect();
    for node in &mut nodes {
        node.start_replicating();
    }
    nodes[1].stop();
    nodes[0].sql("CREATE TABLE late(id INTEGER PRIMARY KEY, v); INSERT INTO late VALUES(1, 'x'); ALTER TABLE t ADD COLUMN c; UPDATE t SET c = 'c'");
    nodes[0].wait_published();
    nodes[1].start();
    // In the order of the stream: the rows of the new table were looked for first.
    nodes[1].wait_log("column \"c\" of table \"t\"");
    nodes[1].sql("ALTER TABLE t ADD COLUMN c");
    nodes[1].wait_log("table \"late\", which is not here");
    nodes[1].sql("CREATE TABLE late(id INTEGER PRIMARY KEY, v)");
    eventually("it has all", || nodes[0].dump() == nodes[1].dump());
}
