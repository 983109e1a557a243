//! Large values and large transactions: whole, and in bounded memory.

use crate::harness::wait::Done;
use crate::harness::{Cluster, app};

/// KiB that a daemon may ever have resident.
const MEMORY: u64 = 200 * 1024;

#[test]
fn values_of_five_megabytes_replicate() {
    let mut cluster = Cluster::new(
        2,
        2,
        "CREATE TABLE big(id INTEGER PRIMARY KEY, v, w); CREATE TABLE key_too(key TEXT PRIMARY KEY, v)",
    );
    // One that does not compress, one that compresses to nothing, and one that is not UTF-8.
    cluster[0].sql(
        "BEGIN;
         INSERT INTO big VALUES(1, randomblob(5242880), zeroblob(5242880));
         INSERT INTO big VALUES(2, CAST(randomblob(5242880) AS TEXT), 'small');
         INSERT INTO key_too VALUES(hex(randomblob(600000)), 'a key above the broker''s largest message');
         COMMIT",
    );
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    cluster[1].sql("UPDATE big SET w = randomblob(5242880) WHERE id = 2; UPDATE big SET w = 1 WHERE id = 1; UPDATE key_too SET v = 'found'");
    let expected = cluster[1].dump();
    cluster.converge_to(&expected);
    // Through a restart of the node that reads.
    cluster[1].kill();
    cluster[0].sql("UPDATE big SET v = randomblob(5242880) WHERE id = 1");
    cluster[1].start();
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    for node in &cluster.nodes {
        assert!(
            node.peak_memory() < MEMORY,
            "node {} had {} KiB resident",
            node.id,
            node.peak_memory()
        );
    }
}

#[test]
fn a_transaction_of_300_000_rows_appears_at_once_and_in_bounded_memory() {
    const ROWS: i64 = 300_000;
    let cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE big(id INTEGER PRIMARY KEY, v INTEGER, words TEXT, noise BLOB); CREATE TABLE small(id INTEGER PRIMARY KEY, v)",
    );
    let done = Done::default();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let watcher = scope.spawn(|| {
            let conn = app::look(&cluster[1].database()).unwrap();
            let mut seen = vec![];
            while !done.is_said() {
                let found: (i64, i64) = conn
                    .query_row("SELECT count(*), total(v) FROM big", [], |row| {
                        Ok((row.get(0)?, row.get::<_, f64>(1)? as i64))
                    })
                    .unwrap();
                if seen.last() != Some(&found) {
                    seen.push(found);
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            seen
        });
        let app = cluster[0].app();
        app.execute_batch(&format!(
            "INSERT INTO big WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             SELECT i, 0, 'row number ' || i || ' of many', randomblob(60) FROM n"
        ))
        .unwrap();
        // Life goes on beside it.
        app.execute_batch("INSERT INTO small VALUES(1, 'after')")
            .unwrap();
        cluster[1].sql("INSERT INTO small VALUES(2, 'beside')");
        let expected = cluster.converge();
        assert_eq!(
            (expected["big"].len() as i64, expected["small"].len()),
            (ROWS, 2)
        );
        drop(expected);
        app.execute_batch("UPDATE big SET v = 1").unwrap();
        cluster.converge();
        app.execute_batch("DELETE FROM big").unwrap();
        cluster.converge();
        done.say();
        let seen = watcher.join().unwrap();
        assert_eq!(seen, [(0, 0), (ROWS, 0), (ROWS, ROWS), (0, 0)]);
    });
    for node in &cluster.nodes {
        let peak = node.peak_memory();
        assert!(peak < MEMORY, "node {} had {peak} KiB resident", node.id);
        eprintln!("node {}: {peak} KiB at most", node.id);
    }
}

#[test]
fn a_large_transaction_whose_publisher_and_broker_die_half_way_appears_at_once() {
    const ROWS: i64 = 60_000;
    let mut cluster = Cluster::new(
        2,
        3,
        "CREATE TABLE a(id INTEGER PRIMARY KEY, noise BLOB); CREATE TABLE b(id INTEGER PRIMARY KEY, noise BLOB)",
    );
    let done = Done::default();
    let replica = cluster[1].database();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let watcher = scope.spawn(|| {
            let conn = app::look(&replica).unwrap();
            let mut seen = vec![];
            while !done.is_said() {
                let found = app::integer(
                    &conn,
                    "SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b)",
                );
                if seen.last() != Some(&found) {
                    seen.push(found);
                }
            }
            seen
        });
        for (round, kill_server) in [(1, false), (2, true), (3, false)] {
            cluster[0].sql(&format!(
                "BEGIN;
                 WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO a SELECT {round} * 1000000 + i, randomblob(100) FROM n;
                 INSERT INTO b SELECT id, noise FROM a WHERE id > {round} * 1000000;
                 COMMIT"
            ));
            // At growing distances from the commit: in the scan, between the pieces, before the commit record, behind it.
            for delay in [20, 60, 120, 200] {
                std::thread::sleep(std::time::Duration::from_millis(delay));
                cluster[0].kill();
                if kill_server {
                    cluster.server.kill();
                    cluster.server.restart();
                }
                cluster[0].spawn();
            }
            cluster.converge();
        }
        done.say();
        assert_eq!(watcher.join().unwrap(), [0, 2 * ROWS, 4 * ROWS, 6 * ROWS]);
    });
    for node in &cluster.nodes {
        assert!(
            node.peak_memory() < MEMORY,
            "node {} had {} KiB resident",
            node.id,
            node.peak_memory()
        );
    }
}
