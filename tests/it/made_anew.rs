//! Tables that are dropped and made again, or renamed and made anew, while snapshots are taken and other nodes write on.

use nix::sys::signal::Signal;

use crate::harness::{Cluster, eventually};

fn replicating(schema: &str) -> Cluster {
    let mut cluster = Cluster::prepared(2, schema);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster
}

fn save(cluster: &Cluster) {
    let saved = cluster[0].run(&["snapshot", "save"]);
    assert_eq!(saved.code, Some(0), "{}", saved.said);
}

fn certain(cluster: &Cluster) {
    eventually("all tables are certain", || {
        cluster.nodes.iter().all(|n| {
            n.integer("SELECT count(*) FROM __harmonylite__unsure") == 0 && n.pending() == 0
        })
    });
}

#[test]
fn a_table_that_is_dropped_and_made_again_after_a_snapshot_is_the_same_everywhere() {
    let table = "CREATE TABLE doomed(id TEXT PRIMARY KEY, v)";
    let mut cluster = replicating(&format!(
        "{table}; CREATE TABLE other(id INTEGER PRIMARY KEY)"
    ));
    cluster[0].sql("INSERT INTO doomed VALUES('a', 1)");
    cluster[1].sql("INSERT INTO doomed VALUES('b', 2)");
    cluster.converge();
    cluster[0].sql("DROP TABLE doomed");
    cluster[0].wait_log("capture is current with the changed schema");
    // The second is made of the first, and of what comes between.
    save(&cluster);
    cluster[1].sql("INSERT INTO doomed VALUES('c', 3)");
    cluster[1].wait_published();
    save(&cluster);
    cluster[0].wait_log("the snapshot holds tables that are not here");
    // What another node has is in the snapshot for those that have the table.
    cluster[1].stop();
    std::fs::remove_file(cluster[1].folder.join("seq-map.cbor")).unwrap();
    cluster[1].start_replicating();
    assert_eq!(cluster[1].integer("SELECT count(*) FROM doomed"), 3);
    cluster[0].sql(&format!("{table}; INSERT INTO doomed VALUES('new', 1)"));
    eventually("what was there before is gone everywhere", || {
        cluster[1].integer("SELECT count(*) FROM doomed WHERE id <> 'new'") == 0
    });
    certain(&cluster);
    let rows = cluster.converge();
    assert_eq!(rows["doomed"].len(), 1);
    cluster.assert_running();
}

#[test]
fn a_table_that_was_renamed_and_is_made_anew_sets_nothing_back() {
    let mut cluster = replicating(
        "CREATE TABLE t(id TEXT PRIMARY KEY, a, b); INSERT INTO t VALUES('1', 0, 0), ('2', 0, 0), ('3', 0, 0)",
    );
    cluster.converge();
    for node in &mut cluster.nodes {
        node.sql("ALTER TABLE t RENAME TO u");
        node.wait_log("is now called \"u\"");
    }
    cluster[1].freeze();
    cluster[0].sql("UPDATE u SET a = 'kept' WHERE id = '1'; DELETE FROM u WHERE id = '2'");
    cluster[0].wait_published();
    cluster[1].sql("UPDATE u SET b = 'mine' WHERE id = '1'");
    let anew = "CREATE TABLE n(id TEXT PRIMARY KEY, b, a); INSERT INTO n SELECT id, b, a FROM u; DROP TABLE u; ALTER TABLE n RENAME TO u";
    cluster[1].sql(&format!(
        "BEGIN IMMEDIATE; {anew}; UPDATE u SET b = 'unseen' WHERE id = '3'; COMMIT"
    ));
    cluster[1].signal(Signal::SIGCONT);
    cluster[1].wait_log("tables are certain again");
    // The other node follows.
    cluster[0].sql(&format!("BEGIN IMMEDIATE; {anew}; COMMIT"));
    cluster[0].wait_log("tables are certain again");
    certain(&cluster);
    cluster.converge();
    for node in &cluster.nodes {
        assert_eq!(
            node.integer("SELECT count(*) FROM u WHERE (id, a, b) IN (VALUES('1', 'kept', 'mine'), ('3', 0, 'unseen'))"),
            2
        );
        assert_eq!(node.integer("SELECT count(*) FROM u"), 2);
    }
    cluster.assert_running();
}
