//! Nodes that fight for a minute over few rows, as fast as their databases take it, are equal afterwards.

use std::time::{Duration, Instant};

use crate::harness::{Cluster, tables};

const SCHEMA: &str = "
    CREATE TABLE t(k INTEGER PRIMARY KEY, a, b, c);
    CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE COLLATE NOCASE, name TEXT, team TEXT);
    CREATE TABLE parents(id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE children(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents ON DELETE CASCADE, note TEXT);
";

const FIGHT: Duration = Duration::from_secs(60);
const KEYS: u64 = 20;
const EMAILS: u64 = 15;

/// Numbers that are the same in each run, a series a node.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn over_keys(r: &mut Numbers, node: u64, n: u64) -> String {
    let (k, other) = (r.below(KEYS), r.below(KEYS));
    match r.below(8) {
        0 => format!("DELETE FROM t WHERE k = {k}"),
        1 => format!("INSERT OR REPLACE INTO t VALUES({k}, 'n{node}', {n}, NULL)"),
        2 => format!("INSERT OR IGNORE INTO t VALUES({k}, 'n{node}', {n}, 'new')"),
        3 => format!("UPDATE t SET a = 'n{node}-{n}' WHERE k = {k}"),
        4 => format!("UPDATE t SET b = b + 1 WHERE k = {k}"),
        5 => format!("INSERT INTO t VALUES({k}, 1, 2, 3) ON CONFLICT DO UPDATE SET c = {n}"),
        6 => format!("UPDATE OR REPLACE t SET k = {other} WHERE k = {k}"),
        _ => format!(
            "BEGIN; UPDATE t SET c = {n} WHERE k = {k}; DELETE FROM t WHERE k = {other}; COMMIT"
        ),
    }
}

fn over_emails(r: &mut Numbers, node: u64, n: u64) -> String {
    let (id, other, email) = (r.below(KEYS), r.below(KEYS), r.below(EMAILS));
    match r.below(7) {
        0 => format!("DELETE FROM u WHERE id = {id}"),
        1 => format!("INSERT OR REPLACE INTO u VALUES({id}, 'e{email}', 'n{node}-{n}', 'x')"),
        2 => format!("INSERT OR IGNORE INTO u(email, name) VALUES('E{email}', 'n{node}-{n}')"),
        3 => format!("UPDATE OR REPLACE u SET email = 'e{email}' WHERE id = {id}"),
        4 => format!("UPDATE OR IGNORE u SET email = 'e{email}' WHERE id = {id}"),
        5 => format!(
            "UPDATE u SET name = 'n{node}-{n}' WHERE id = {id}; UPDATE u SET team = {n} WHERE id = {other}"
        ),
        // The two hand their addresses to one another.
        _ => format!(
            "BEGIN; UPDATE u SET email = NULL WHERE id = {id}; UPDATE OR IGNORE u SET email = 'e{email}' WHERE id = {other}; COMMIT"
        ),
    }
}

fn over_families(r: &mut Numbers, node: u64, n: u64) -> String {
    let (parent, child) = (r.below(5), r.below(KEYS));
    match r.below(4) {
        0 => format!("DELETE FROM parents WHERE id = {parent}"),
        1 => format!("INSERT OR IGNORE INTO parents VALUES({parent}, 'n{node}')"),
        _ => format!(
            "INSERT OR REPLACE INTO children SELECT {child}, id, {n} FROM parents WHERE id = {parent}"
        ),
    }
}

fn fight(shards: u64) {
    let mut cluster = Cluster::new(3, shards, SCHEMA);
    let until = Instant::now() + FIGHT;
    std::thread::scope(|scope| {
        for node in &cluster.nodes {
            scope.spawn(move || {
                let app = node.app();
                app.execute_batch("PRAGMA foreign_keys = ON").unwrap();
                let mut r = Numbers(0x9e37_79b9_7f4a_7c15 ^ node.id);
                let mut n = 0;
                while Instant::now() < until {
                    n += 1;
                    let sql = match r.below(5) {
                        0 | 1 => over_keys(&mut r, node.id, n),
                        2 | 3 => over_emails(&mut r, node.id, n),
                        _ => over_families(&mut r, node.id, n),
                    };
                    app.execute_batch(&sql).unwrap();
                }
                assert!(n > 100, "node {} hardly wrote: {n}", node.id);
            });
        }
    });
    let dump = cluster.converge();
    cluster.assert_running();
    assert!(dump["t"].len() <= KEYS as usize && !dump["t"].is_empty());
    // A fight in which nobody lost was none.
    for table in ["t", "u"] {
        let lost = cluster.nodes.iter().map(|node| {
            node.integer(&format!(
                "SELECT count(*) FROM __harmonylite__conflicts WHERE table_name = '{table}'"
            ))
        });
        assert!(lost.sum::<i64>() > 0, "nobody lost anything of {table}");
    }
    // Orphans there may be, but the same everywhere.
    let orphans = "SELECT \"table\", \"rowid\", parent FROM pragma_foreign_key_check ORDER BY 1, 2";
    let [first, others @ ..] = &cluster.nodes[..] else {
        unreachable!()
    };
    let expected = tables::rows(&first.app(), orphans);
    for node in others {
        assert_eq!(tables::rows(&node.app(), orphans), expected);
        assert_eq!(
            node.integer("SELECT count(*) FROM __harmonylite__dead_letters"),
            0
        );
    }
}

#[test]
fn a_minute_over_20_keys_and_15_addresses_in_one_stream() {
    fight(1);
}

#[test]
fn a_minute_over_20_keys_and_15_addresses_over_four_shards() {
    fight(4);
}
