//! Three nodes, all directions: what is written on each arrives on the others, equal to the bit.

use rusqlite::Connection;

use crate::harness::{Cluster, Node, tables};

const SCHEMA: &str = "
    CREATE TABLE accounts(id INTEGER PRIMARY KEY, owner TEXT NOT NULL, balance INTEGER);
    CREATE TABLE orders(region TEXT, number INTEGER, note TEXT, PRIMARY KEY(region, number)) WITHOUT ROWID;
    CREATE TABLE lines(region TEXT, number INTEGER, line INTEGER, article, PRIMARY KEY(number, region, line));
    CREATE TABLE tags(name TEXT PRIMARY KEY COLLATE NOCASE, used INTEGER);
    CREATE TABLE blobs(key BLOB PRIMARY KEY, value BLOB);
    CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    CREATE TABLE plain(a, b);
";

/// What the app of node `n` does. Rows of different nodes do not meet, so the order in which nodes write does not matter for the result.
fn work(n: i64) -> Vec<String> {
    let base = n * 1000;
    let mut steps = vec![
        format!("INSERT INTO accounts VALUES({base}, 'first', 1), ({base} + 1, 'second', 2), ({base} + 2, 'third', NULL)"),
        format!("UPDATE accounts SET balance = 77, owner = 'changed' WHERE id = {base} + 1"),
        format!("DELETE FROM accounts WHERE id = {base} + 2"),
        // One transaction over several tables, with a row that comes and goes in it.
        format!(
            "BEGIN;
             INSERT INTO orders VALUES('north-{n}', 1, 'a'), ('north-{n}', 2, 'b'), ('south-{n}', 1, 'c');
             INSERT INTO lines SELECT region, number, 1, number * 1.5 FROM orders WHERE region GLOB '*-{n}';
             INSERT INTO accounts VALUES({base} + 5, 'brief', 0);
             DELETE FROM accounts WHERE id = {base} + 5;
             UPDATE orders SET note = 'twice' WHERE region = 'north-{n}';
             UPDATE orders SET note = 'thrice' WHERE region = 'north-{n}' AND number = 2;
             COMMIT"
        ),
        // Given up: nothing of it may arrive.
        format!("BEGIN; INSERT INTO accounts VALUES({base} + 9, 'never', 0); ROLLBACK"),
        // Keys that change, also through the rowid.
        format!("UPDATE accounts SET id = {base} + 100 WHERE id = {base}"),
        format!("UPDATE accounts SET rowid = {base} + 101 WHERE id = {base} + 1"),
        format!("UPDATE orders SET region = 'west-{n}', number = 7 WHERE region = 'south-{n}'"),
        format!("UPDATE lines SET line = line + 10 WHERE region GLOB '*-{n}'"),
        // Keys that compare without case: the row is found, and its new spelling arrives.
        format!("INSERT INTO tags VALUES('Rust{n}', 1), ('sql{n}', 1)"),
        format!("UPDATE tags SET used = used + 1 WHERE name = 'RUST{n}'"),
        format!("UPDATE tags SET name = 'SQL{n}' WHERE name = 'sql{n}'"),
        // REPLACE in all its forms; each removes a row that collides on the UNIQUE index.
        format!("INSERT INTO users VALUES({base}, 'a{n}', 'x'), ({base} + 1, 'b{n}', 'y'), ({base} + 2, 'c{n}', 'z')"),
        format!("INSERT OR REPLACE INTO users VALUES({base} + 10, 'a{n}', 'in place of the first')"),
        format!("UPDATE OR REPLACE users SET email = 'b{n}' WHERE id = {base} + 2"),
        format!("INSERT INTO users VALUES({base} + 10, 'd{n}', 'w') ON CONFLICT(id) DO UPDATE SET name = 'upserted'"),
        format!("INSERT OR IGNORE INTO users VALUES({base} + 11, 'a{n}', 'ignored')"),
        format!("REPLACE INTO accounts VALUES({base} + 100, 'replaced', 5)"),
        format!("INSERT INTO blobs VALUES(x'00{n:02x}', zeroblob(10)), (x'{n:02x}', x''), (x'ff{n:02x}00', NULL)"),
        format!("UPDATE blobs SET value = x'0001' WHERE key = x'{n:02x}'"),
    ];
    if n == 1 {
        // Without a key rows are found by their rowid, which two nodes that insert at once would both give.
        steps.push("INSERT INTO plain VALUES(1, 'x'), (1, 'x'), (2, NULL)".to_owned());
        steps.push("UPDATE plain SET b = 'y' WHERE rowid = 2".to_owned());
        steps.push("DELETE FROM plain WHERE a = 2".to_owned());
    }
    steps
}

fn expected(nodes: i64) -> tables::Dump {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(SCHEMA).unwrap();
    for n in 1..=nodes {
        for step in work(n) {
            conn.execute_batch(&step).unwrap();
        }
    }
    tables::dump(&conn)
}

fn all_directions(shards: u64) {
    let mut cluster = Cluster::new(3, shards, SCHEMA);
    std::thread::scope(|scope| {
        for (node, n) in cluster.nodes.iter().zip(1..) {
            scope.spawn(move || {
                let app = node.app();
                for step in work(n) {
                    app.execute_batch(&step)
                        .unwrap_or_else(|error| panic!("{step}: {error}"));
                }
            });
        }
    });
    let expected = expected(3);
    assert_eq!(expected["accounts"].len(), 6);
    assert_eq!(expected["users"].len(), 6);
    cluster.converge_to(&expected);
    // Rows are changed where they were not born.
    cluster[1].sql("UPDATE accounts SET balance = 5 WHERE id = 1100; DELETE FROM orders WHERE region = 'north-3'");
    cluster[2].sql("UPDATE users SET name = 'from three' WHERE id = 2010; DELETE FROM plain");
    cluster[0].sql(
        "UPDATE tags SET name = 'other' WHERE name = 'rust2'; DELETE FROM lines WHERE number = 7",
    );
    let reference = Connection::open_in_memory().unwrap();
    reference.execute_batch(SCHEMA).unwrap();
    for step in (1..=3).flat_map(work) {
        reference.execute_batch(&step).unwrap();
    }
    reference
        .execute_batch(
            "UPDATE accounts SET balance = 5 WHERE id = 1100; DELETE FROM orders WHERE region = 'north-3';
             UPDATE users SET name = 'from three' WHERE id = 2010; DELETE FROM plain;
             UPDATE tags SET name = 'other' WHERE name = 'rust2'; DELETE FROM lines WHERE number = 7",
        )
        .unwrap();
    cluster.converge_to(&tables::dump(&reference));
    cluster.assert_running();
}

#[test]
fn all_directions_in_one_stream() {
    all_directions(1);
}

#[test]
fn all_directions_over_four_shards() {
    all_directions(4);
}

#[test]
fn nodes_may_differ_in_their_number_of_shards_and_change_it() {
    let mut cluster = Cluster::prepared(
        3,
        "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE c(id INTEGER PRIMARY KEY, v)",
    );
    let own = |node: &Node, shards: u64| {
        node.sections
            .split("[replication_log]")
            .next()
            .unwrap()
            .to_owned()
            + &format!("[replication_log]\nshards = {shards}\n")
    };
    for (index, shards) in [1, 3, 4].into_iter().enumerate() {
        let node = &mut cluster[index];
        node.sections = own(node, shards);
        node.start();
    }
    let write = |cluster: &Cluster, round: i64| {
        for node in &cluster.nodes {
            let id = node.id as i64 * 100 + round;
            node.sql(&format!("BEGIN; INSERT INTO a VALUES({id}, 1); INSERT INTO b VALUES({id}, 2); INSERT INTO c VALUES({id}, 3); COMMIT"));
        }
    };
    write(&cluster, 1);
    assert_eq!(cluster.converge()["a"].len(), 3);
    for (index, shards) in [4, 1, 2].into_iter().enumerate() {
        let node = &mut cluster[index];
        node.stop();
        node.sections = own(node, shards);
        node.start();
    }
    write(&cluster, 2);
    let dump = cluster.converge();
    assert_eq!(
        (dump["a"].len(), dump["b"].len(), dump["c"].len()),
        (6, 6, 6)
    );
}

#[test]
fn a_commit_that_stands_alone_is_noticed() {
    // With file events, and with a polling interval.
    for polling in [0, 50] {
        let mut cluster = Cluster::prepared(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
        for node in &mut cluster.nodes {
            node.root = format!("polling_interval = {polling}");
            node.start_replicating();
        }
        for id in 0..20 {
            cluster[0].sql(&format!("INSERT INTO t VALUES({id}, {id})"));
            // Nothing else is written until it has arrived.
            crate::harness::eventually("the row arrives", || {
                cluster[1].integer("SELECT count(*) FROM t") == id + 1
            });
        }
        cluster.converge();
    }
}

#[test]
fn a_database_with_a_rollback_journal_replicates() {
    let mut cluster = Cluster::prepared(2, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for node in &mut cluster.nodes {
        node.sql("PRAGMA journal_mode = DELETE");
        node.start();
    }
    for id in 0..20 {
        let node = &cluster[id % 2];
        node.sql(&format!("INSERT INTO t VALUES({id}, 'x')"));
    }
    assert_eq!(cluster.converge()["t"].len(), 20);
    for node in &cluster.nodes {
        let mode: String = node
            .app()
            .query_row("PRAGMA journal_mode", [], |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "delete");
    }
}
