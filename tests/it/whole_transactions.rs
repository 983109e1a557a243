//! No reader ever sees part of a transaction.

use crate::harness::wait::Done;
use crate::harness::{Cluster, app};

/// A hundred in four tables.
const ACCOUNTS: i64 = 25;
const TABLES: [&str; 4] = ["a", "b", "c", "d"];
const TRANSFERS: i64 = 1500;

/// Money moves between tables that lie in different shards; the sum never changes.
fn transfers(shards: u64) {
    let mut schema = String::new();
    for table in TABLES {
        schema.push_str(&format!(
            "CREATE TABLE {table}(id INTEGER PRIMARY KEY, money INTEGER);"
        ));
        for id in 0..ACCOUNTS {
            schema.push_str(&format!("INSERT INTO {table} VALUES({id}, 100);"));
        }
    }
    let sum = "SELECT (SELECT sum(money) FROM a) + (SELECT sum(money) FROM b) + (SELECT sum(money) FROM c) + (SELECT sum(money) FROM d)";
    let total = 4 * 100 * ACCOUNTS;
    let cluster = Cluster::new(3, shards, &schema);
    let done = Done::default();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let mut readers = Vec::new();
        for node in &cluster.nodes {
            let done = &done;
            readers.push(scope.spawn(move || {
                let conn = app::look(&node.database()).unwrap();
                let (mut reads, mut changes, mut before) = (0_u64, 0_u64, 0);
                while !done.is_said() {
                    let found = app::integer(&conn, sum);
                    assert_eq!(found, total, "node {} shows half a transaction", node.id);
                    let now = app::integer(&conn, "SELECT sum(money * id) FROM a");
                    changes += u64::from(now != before);
                    before = now;
                    reads += 1;
                }
                (reads, changes)
            }));
        }
        let app = cluster[0].app();
        for n in 0..TRANSFERS {
            let (from, to) = (TABLES[n as usize % 4], TABLES[(n + 1) as usize % 4]);
            let (x, y) = (n * 7 % ACCOUNTS, n * 13 % ACCOUNTS);
            app.execute_batch(&format!(
                "BEGIN; UPDATE {from} SET money = money - 1 WHERE id = {x}; UPDATE {to} SET money = money + 1 WHERE id = {y}; COMMIT"
            ))
            .unwrap();
        }
        cluster.converge();
        done.say();
        for reader in readers {
            let (reads, changes) = reader.join().unwrap();
            assert!(
                reads > 0 && changes > 1,
                "a reader that saw nothing move proves nothing: {reads} reads, {changes} changes"
            );
        }
    });
    assert_eq!(cluster[2].integer(sum), total);
}

#[test]
fn readers_see_whole_transactions_in_one_stream() {
    transfers(1);
}

#[test]
fn readers_see_whole_transactions_over_four_shards() {
    transfers(4);
}
