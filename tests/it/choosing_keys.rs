//! Each way of choosing keys that docs/choosing-keys.md shows, on nodes that write at the same time without hearing of one another.

use crate::harness::Cluster;

/// What each node's app does while the nodes are apart, then together; how many conflicts there are in all.
fn apart(schema: &str, writes: impl Fn(u64) -> String) -> (Cluster, i64) {
    const NODES: u64 = 3;
    let mut cluster = Cluster::new(NODES, 1, schema);
    let writes: Vec<String> = (1..=NODES).map(writes).collect();
    cluster.concurrently(&writes);
    cluster.converge();
    let conflicts = cluster
        .nodes
        .iter()
        .map(|n| n.integer("SELECT count(*) FROM __harmonylite__conflicts"))
        .sum();
    (cluster, conflicts)
}

const TEN: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)";

#[test]
fn keys_that_sqlite_chooses_collide() {
    let (cluster, conflicts) = apart("CREATE TABLE notes(id INTEGER PRIMARY KEY, text)", |node| {
        format!("{TEN} INSERT INTO notes(text) SELECT 'of {node}' FROM n")
    });
    // Why the page exists: of thirty notes ten are left, and twenty are in the journals.
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 10);
    assert!(conflicts >= 20, "{conflicts}");
}

#[test]
fn random_blobs() {
    let (cluster, conflicts) = apart(
        "CREATE TABLE notes(id BLOB PRIMARY KEY DEFAULT (randomblob(16)), text) WITHOUT ROWID",
        |node| format!("{TEN} INSERT INTO notes(text) SELECT 'of {node}' FROM n"),
    );
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 30);
    assert_eq!(conflicts, 0);
}

#[test]
fn random_integers() {
    let (cluster, conflicts) = apart(
        // Positive, and never 0: what most programs expect of an id.
        "CREATE TABLE notes(id INTEGER PRIMARY KEY, text);",
        |node| {
            format!(
                "{TEN} INSERT INTO notes(id, text) SELECT abs(random() % 9007199254740991) + 1, 'of {node}' FROM n"
            )
        },
    );
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 30);
    assert_eq!(conflicts, 0);
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM notes WHERE id <= 0 OR id > 9007199254740991"),
        0
    );
}

#[test]
fn time_ordered_ids() {
    let (cluster, conflicts) = apart(
        "CREATE TABLE notes(
           id TEXT PRIMARY KEY DEFAULT (printf('%012x-%s', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), lower(hex(randomblob(10))))),
           text) WITHOUT ROWID",
        |node| {
            format!("{TEN} INSERT INTO notes(text) SELECT 'first of {node}' FROM n; INSERT INTO notes(id, text) SELECT printf('%012x-%s', CAST((julianday('now') - 2440587.5) * 86400000 + 60000 AS INTEGER), lower(hex(randomblob(10)))), 'a minute later'")
        },
    );
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 33);
    assert_eq!(conflicts, 0);
    // They sort by time.
    assert_eq!(
        cluster[0].integer(
            "SELECT count(*) FROM (SELECT text FROM notes ORDER BY id DESC LIMIT 3) WHERE text = 'a minute later'"
        ),
        3
    );
}

#[test]
fn a_node_number_in_the_key() {
    let (cluster, conflicts) = apart(
        "CREATE TABLE notes(node INTEGER, number INTEGER, text, PRIMARY KEY(node, number)) WITHOUT ROWID",
        |node| {
            format!(
                "{TEN} INSERT INTO notes SELECT {node}, (SELECT coalesce(max(number), 0) FROM notes WHERE node = {node}) + i, 'x' FROM n"
            )
        },
    );
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 30);
    assert_eq!(conflicts, 0);
    assert_eq!(
        cluster[2].integer("SELECT count(*) FROM notes WHERE number BETWEEN 1 AND 10"),
        30
    );
}

#[test]
fn a_range_of_numbers_for_each_node() {
    // The table stays as it is; the app asks for the next number of its own range.
    let insert = |node: u64| {
        let (from, to) = (node * 1_000_000_000_000, (node + 1) * 1_000_000_000_000 - 1);
        format!(
            "{TEN} INSERT INTO notes(id, text) SELECT (SELECT coalesce(max(id), {from}) FROM notes WHERE id BETWEEN {from} AND {to}) + i, 'of {node}' FROM n"
        )
    };
    let (mut cluster, conflicts) =
        apart("CREATE TABLE notes(id INTEGER PRIMARY KEY, text)", insert);
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 30);
    assert_eq!(conflicts, 0);
    // Also after the others' rows have come in.
    let again: Vec<String> = (1..=3).map(insert).collect();
    cluster.concurrently(&again);
    cluster.converge();
    assert_eq!(cluster[0].integer("SELECT count(*) FROM notes"), 60);
}

#[test]
fn one_writing_node_a_table() {
    let (cluster, conflicts) = apart(
        "CREATE TABLE of_1(id INTEGER PRIMARY KEY, text); CREATE TABLE of_2(id INTEGER PRIMARY KEY, text); CREATE TABLE of_3(id INTEGER PRIMARY KEY, text)",
        |node| format!("{TEN} INSERT INTO of_{node}(text) SELECT 'x' FROM n"),
    );
    for table in ["of_1", "of_2", "of_3"] {
        assert_eq!(
            cluster[0].integer(&format!("SELECT count(*) FROM {table}")),
            10
        );
    }
    assert_eq!(conflicts, 0);
}
