//! Changes that SQL cannot see: a trigger finds the old and the new value equal. They stay on their node until the cell is written again; `verify` finds them.

use super::shown;
use crate::harness::{Cluster, app, eventually};

/// Runs an update on node 1 that node 2 does not hear of.
fn unseen(schema: &str, update: &str, mends: &str) {
    let schema = format!("{schema}; CREATE TABLE marker(k TEXT PRIMARY KEY)");
    let mut cluster = Cluster::prepared(2, &schema);
    // A node that restores takes what nobody saw for the snapshot's: both have begun before anything is written.
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let before = cluster[1].dump();
    cluster[0].sql(&format!("{update}; INSERT INTO marker VALUES('after')"));
    eventually("what is written after it arrives", || {
        cluster[1].integer("SELECT count(*) FROM marker") == 1
    });
    assert_eq!(cluster[1].dump()["t"], before["t"]);
    assert_ne!(cluster[0].dump()["t"], before["t"]);
    let compared = cluster[0].run(&["verify"]);
    assert_eq!(compared.code, Some(1), "{}", compared.said);
    // Any other value between the two is seen.
    cluster[0].sql(&format!("{mends}; {update}"));
    cluster.converge_to(&cluster[0].dump());
    let compared = cluster[0].run(&["verify"]);
    assert_eq!(compared.code, Some(0), "{}", compared.said);
    cluster.assert_running();
    assert_eq!(
        shown(
            &app::look(&cluster[1].database()).unwrap(),
            "PRAGMA integrity_check"
        ),
        "'ok'"
    );
}

#[test]
fn negative_zero_alone() {
    unseen(
        "CREATE TABLE t(k TEXT PRIMARY KEY, a, r REAL); INSERT INTO t VALUES('a', 0.0, 0.0)",
        "UPDATE t SET a = -0.0, r = -0.0",
        "UPDATE t SET a = 1, r = 1",
    );
}

#[test]
fn least_integer_alone() {
    unseen(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, n NUMERIC); INSERT INTO t VALUES(1, -9223372036854775808, -9223372036854775808)",
        "UPDATE t SET a = -9223372036854775808.0, n = -9223372036854775808.0 WHERE id = 1",
        "UPDATE t SET a = 1, n = 1",
    );
}
