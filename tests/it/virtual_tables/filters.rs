//! Tables that the configuration leaves out, and takes in again.

use crate::harness::{Cluster, eventually, tables::Cell};
use crate::snapshots::done;

const SCHEMA: &str = "
    CREATE TABLE a(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE b(id INTEGER PRIMARY KEY, v TEXT, w TEXT);
    CREATE VIRTUAL TABLE b_words USING fts5(v);
    CREATE TRIGGER b_ai AFTER INSERT ON b BEGIN INSERT INTO b_words(rowid, v) VALUES(new.id, new.v); END;
    CREATE TRIGGER b_au AFTER UPDATE ON b BEGIN UPDATE b_words SET v = new.v WHERE rowid = old.id; END;
    CREATE TRIGGER b_ad AFTER DELETE ON b BEGIN DELETE FROM b_words WHERE rowid = old.id; END;
    INSERT INTO b VALUES(1, 'common', 'x'), (2, 'common', 'x'), (3, 'common', 'x');
";

fn restart(cluster: &mut Cluster, node: usize, replication: &str) {
    let node = &mut cluster[node];
    node.stop();
    node.sections = format!(
        "{}[replication]\n{replication}\n",
        node.sections.split("[replication]").next().unwrap()
    );
    node.start_replicating();
}

#[test]
fn a_table_that_one_node_takes_in_becomes_what_the_others_have() {
    let mut cluster = Cluster::prepared(3, SCHEMA);
    cluster[1]
        .sections
        .push_str("[replication]\nexclude = [\"B\"]\n");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("UPDATE b SET v = 'newer' WHERE id = 1; DELETE FROM b WHERE id = 2; INSERT INTO b VALUES(4, 'fourth', 'x'); INSERT INTO a VALUES(1, 'a')");
    cluster[1].sql("UPDATE b SET v = 'stale', w = 'stale' WHERE id = 1; INSERT INTO b VALUES(5, 'mine', 'x'); INSERT INTO a VALUES(2, 'a')");
    eventually("what both replicate is equal", || {
        cluster
            .nodes
            .iter()
            .all(|n| n.integer("SELECT count(*) FROM a") == 2)
    });
    assert_eq!(cluster[1].integer("SELECT count(*) FROM b"), 4);
    assert_eq!(cluster[2].integer("SELECT count(*) FROM b"), 3);
    restart(&mut cluster, 1, "exclude = []");
    let dump = cluster.converge();
    // Nothing was deleted that only the others have, and what only this node has is published. A row that it still has cannot be told from such a one.
    assert_eq!(dump["b"].len(), 5);
    let text = |t: &str| Cell::Text(t.as_bytes().to_vec());
    assert_eq!(dump["b"][0], [Cell::Integer(1), text("newer"), text("x")]);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM __harmonylite__conflicts WHERE losing_value = 'stale' AND reason = 'insert-collision'"),
        2
    );
    for node in &cluster.nodes {
        assert_eq!(
            node.integer("SELECT count(*) FROM b_words('newer OR mine OR fourth OR common')"),
            5
        );
        assert_eq!(node.integer("SELECT count(*) FROM b_words('stale')"), 0);
    }
    cluster[1].sql("DELETE FROM b WHERE id = 5");
    cluster[0].sql("INSERT INTO b VALUES(6, 'sixth', 'x')");
    assert_eq!(cluster.converge()["b"].len(), 5);
    cluster.assert_running();
}

#[test]
fn a_table_that_cannot_be_taken_in_yet_leaves_no_gap_of_another_open() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[1]
        .sections
        .push_str("[replication]\nexclude = [\"b\"]\n");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[1].sql("ALTER TABLE b DROP COLUMN w");
    cluster[1].stop();
    cluster[1].sql("DROP TRIGGER __harmonylite__a_insert; INSERT INTO a VALUES(9, 'unseen')");
    let node = &mut cluster[1];
    node.sections = node.sections.replace("[\"b\"]", "[]");
    node.start_replicating();
    eventually("what was written without capture is published", || {
        cluster[0].integer("SELECT count(*) FROM a WHERE id = 9") == 1
    });
    cluster[1].sql("ALTER TABLE b ADD COLUMN w TEXT; INSERT INTO b VALUES(5, 'mine', 'x')");
    assert_eq!(cluster.converge()["b"].len(), 4);
    cluster.assert_running();
}

#[test]
fn a_table_may_be_left_out_for_a_while() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO b VALUES(4, 'fourth', 'x')");
    cluster.converge();
    restart(&mut cluster, 1, "include = [\"a\"]");
    cluster[0].sql(
        "INSERT INTO b VALUES(7, 'seventh', 'x'); DELETE FROM b WHERE id = 4; UPDATE b SET w = 'y'",
    );
    cluster[1].sql("INSERT INTO b VALUES(8, 'eighth', 'x'); INSERT INTO a VALUES(1, 'a')");
    eventually("the other table goes on", || {
        cluster[0].integer("SELECT count(*) FROM a") == 1
    });
    assert_eq!(cluster[1].integer("SELECT count(*) FROM b WHERE id = 7"), 0);
    done(&cluster[0].run(&["snapshot", "save"]));
    restart(&mut cluster, 1, "");
    let dump = cluster.converge();
    assert_eq!(dump["b"].len(), 6);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM b WHERE w = 'y' AND id IN (1, 2, 3, 7)"),
        4
    );
    // And a second time, with nothing to do.
    restart(&mut cluster, 1, "exclude = [\"b\"]");
    restart(&mut cluster, 1, "");
    assert_eq!(cluster.converge(), dump);
    cluster.assert_running();
}
