//! Nodes give a table another primary key one after the other, while all write.

use rusqlite::Connection;

use crate::harness::{Cluster, eventually};

const T: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, n1 INTEGER, n2 INTEGER, n3 INTEGER);
    INSERT INTO t VALUES(1, 'u1', 0, 0, 0), (2, 'u2', 0, 0, 0), (3, 'u3', 0, 0, 0);";

const MIGRATION: &str = "BEGIN IMMEDIATE;
    CREATE TABLE anew(id INTEGER NOT NULL, uuid TEXT NOT NULL PRIMARY KEY, n1 INTEGER, n2 INTEGER, n3 INTEGER);
    INSERT INTO anew SELECT * FROM t; DROP TABLE t; ALTER TABLE anew RENAME TO t;
    COMMIT";

/// A round of writes: a cell of its own in each row, a row that stays, and one that goes.
fn write(app: &Connection, node: u64, serial: u64) {
    let (stays, goes) = (serial * 100 + node * 10, serial * 100 + node * 10 + 1);
    app.execute_batch(&format!(
        "UPDATE t SET n{node} = {serial} WHERE uuid IN ('u1', 'u2', 'u3');
         INSERT INTO t VALUES({stays}, 'r{stays}', 0, 0, 0), ({goes}, 'r{goes}', 0, 0, 0);
         DELETE FROM t WHERE id = {goes}"
    ))
    .unwrap();
}

#[test]
fn nodes_change_a_key_in_turn_while_all_write() {
    let mut cluster = Cluster::new(3, 1, T);
    cluster.converge();
    let mut serial = 0;
    let mut rounds = |cluster: &Cluster, n: u64| {
        for _ in 0..n {
            serial += 1;
            for node in &cluster.nodes {
                write(&node.app(), node.id, serial);
            }
        }
        serial
    };
    rounds(&cluster, 20);
    for late in [1, 0, 2] {
        cluster[late].sql(MIGRATION);
        rounds(&cluster, 20);
        // A row of everybody's, deleted by whoever has the former key for the longest.
        if late == 1 {
            cluster[2].sql("DELETE FROM t WHERE id = 100 + 30");
            eventually(
                "a delete under the former key is applied under the new one",
                || cluster[1].integer("SELECT count(*) FROM t WHERE id = 130") == 0,
            );
        }
        if late == 0 {
            cluster[2].kill();
            rounds(&cluster, 5);
            cluster[2].start();
        }
    }
    let last = rounds(&cluster, 10);
    let rows = cluster.converge();
    cluster.assert_running();
    assert_eq!(
        cluster[0].integer(&format!("SELECT count(*) FROM t WHERE uuid IN ('u1', 'u2', 'u3') AND n1 = {last} AND n2 = {last} AND n3 = {last}")),
        3,
        "a value was lost or set back"
    );
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM t WHERE id % 10 = 1 AND id > 100"),
        0,
        "a deleted row is back"
    );
    // Three from the beginning, and of each round one of each node; one of them was deleted.
    assert_eq!(rows["t"].len() as u64, 3 + 3 * last - 1);
}
