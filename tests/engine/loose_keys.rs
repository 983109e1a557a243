//! Random histories on tables whose keys compare otherwise than their columns do, with UNIQUE indexes beside them. `SEED=n` runs one, `SEEDS=n` as many.

use bytes::Bytes;
use rusqlite::Connection;

use crate::support::engine::{Node, read};

/// `n`, `r`, `c`: keys that are looser than their columns; `b`: one that is stricter; `f`: numbers of two classes.
const SCHEMA: &str = "
    CREATE TABLE n(k TEXT, u UNIQUE, v, PRIMARY KEY(k COLLATE NOCASE));
    CREATE TABLE b(k TEXT COLLATE NOCASE, u UNIQUE, v, PRIMARY KEY(k COLLATE BINARY));
    CREATE TABLE r(k TEXT, u UNIQUE, v, PRIMARY KEY(k COLLATE RTRIM)) WITHOUT ROWID;
    CREATE TABLE c(j TEXT COLLATE RTRIM, k TEXT, u UNIQUE, v, PRIMARY KEY(k COLLATE NOCASE, j COLLATE BINARY));
    CREATE TABLE f(k, u UNIQUE, v, PRIMARY KEY(k));";

const TABLES: [&str; 5] = ["n", "b", "r", "c", "f"];

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<'a>(&mut self, values: &[&'a str]) -> &'a str {
        values[self.below(values.len())]
    }

    fn key(&mut self, table: &str) -> &'static str {
        match table {
            "r" => self.of(&["'a'", "'a '", "'a  '", "'b'", "'b '"]),
            "f" => self.of(&["1", "1.0", "'1'", "2", "2.0"]),
            _ => self.of(&["'a'", "'A'", "'b'", "'B'", "'c'"]),
        }
    }

    /// One statement of an application.
    fn statement(&mut self, serial: u32) -> String {
        let table = self.of(&TABLES);
        let (k, other, u) = (
            self.key(table),
            self.key(table),
            self.of(&["1", "2", "3", "NULL"]),
        );
        let (columns, mut values) = match table {
            "c" => {
                let j = self.of(&["'x'", "'x '"]);
                ("j, k, u, v", format!("{j}, {k}"))
            }
            _ => ("k, u, v", k.to_owned()),
        };
        values.push_str(&format!(", {u}, {serial}"));
        match self.below(9) {
            0..=2 => format!("INSERT OR REPLACE INTO {table}({columns}) VALUES({values})"),
            3 => format!("INSERT OR IGNORE INTO {table}({columns}) VALUES({values})"),
            4 => format!(
                "INSERT INTO {table}({columns}) VALUES({values}) ON CONFLICT(u) DO UPDATE SET v = -excluded.v"
            ),
            5 => format!("UPDATE OR REPLACE {table} SET u = {u}, v = {serial} WHERE k = {k}"),
            6 => format!("UPDATE OR REPLACE {table} SET k = {other} WHERE k = {k}"),
            7 => format!("UPDATE {table} SET v = {serial} WHERE k = {k}"),
            _ => format!("DELETE FROM {table} WHERE k = {k}"),
        }
    }
}

/// All rows, with the very bytes of their keys.
fn rows(read: impl Fn(&str) -> String) -> Vec<String> {
    TABLES
        .iter()
        .map(|table| {
            let key = if *table == "c" { "quote(j) || quote(k)" } else { "quote(k)" };
            let sql = format!(
                "SELECT {key} || ':' || quote(u) || ':' || quote(v) AS row FROM {table} ORDER BY row"
            );
            format!("{table}: {}", read(&sql))
        })
        .collect()
}

/// So many of the nodes write. What one application alone has written is what every node has at the end.
fn run(seed: u64, writers: usize) {
    let mut rng = Rng(seed);
    let mut nodes = [Node::new(1, SCHEMA), Node::new(2, SCHEMA)];
    let alone = Connection::open_in_memory().unwrap();
    alone.execute_batch(SCHEMA).unwrap();
    let mut stream: Vec<Bytes> = Vec::new();
    for serial in 0..60 {
        let who = rng.below(writers);
        let sql = rng.statement(serial);
        nodes[who].try_write(&sql);
        // A violated constraint is the application's business, here as there.
        let _ = alone.execute_batch(&sql);
        if rng.below(3) == 0 {
            stream.extend(nodes[who].try_scan());
        }
        let reader = rng.below(2);
        if rng.below(3) == 0 {
            nodes[reader].follow(&stream);
        }
    }
    for _ in 0..20 {
        for node in &mut nodes {
            stream.extend(node.try_scan());
            node.follow(&stream);
        }
    }
    let [first, second] = &nodes;
    assert_eq!((first.pending(), second.pending()), (0, 0), "seed {seed}");
    let here = rows(|sql| first.read(sql));
    assert_eq!(here, rows(|sql| second.read(sql)), "seed {seed}");
    if writers == 1 {
        assert_eq!(here, rows(|sql| read(&alone, sql)), "seed {seed}");
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SEEDS").unwrap_or(30),
    }
}

#[test]
fn what_one_application_writes_is_what_all_nodes_have() {
    seeds().for_each(|seed| run(seed, 1));
}

#[test]
fn nodes_that_write_under_loose_keys_end_equal() {
    seeds().for_each(|seed| run(seed, 2));
}
