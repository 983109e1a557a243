//! Processes killed with SIGKILL and brokers that go away, while the app writes on: every acknowledged write is on every node in the end, once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::wait::Done;
use crate::harness::{Cluster, Node, eventually, tables};

const SCHEMA: &str = "
    CREATE TABLE events(uid TEXT PRIMARY KEY DEFAULT (hex(randomblob(12))), node INTEGER, n INTEGER, filler);
    CREATE TABLE counters(node INTEGER PRIMARY KEY, n INTEGER);
    INSERT INTO counters VALUES(1, 0), (2, 0), (3, 0);
";

/// What the app of one node was told is committed.
#[derive(Default)]
struct Acknowledged {
    events: i64,
}

/// Writes until told to end: each transaction logs an event under a random key and counts it.
fn write_until(node: &Node, done: &Done) -> Acknowledged {
    let app = node.app();
    let mut acknowledged = Acknowledged::default();
    while !done.is_said() {
        let n = acknowledged.events + 1;
        let (id, size) = (node.id, n % 7 * 100);
        app.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             INSERT INTO events(node, n, filler) VALUES({id}, {n}, randomblob({size}));
             UPDATE counters SET n = {n} WHERE node = {id};
             COMMIT"
        ))
        .unwrap();
        acknowledged.events = n;
        std::thread::sleep(Duration::from_millis(1));
    }
    acknowledged
}

/// All nodes hold each acknowledged write, once, and nothing else.
fn check(cluster: &Cluster, acknowledged: &[Acknowledged]) {
    let dump = cluster.converge();
    let total: i64 = acknowledged.iter().map(|a| a.events).sum();
    for (node, a) in cluster.nodes.iter().zip(acknowledged) {
        let id = node.id;
        assert!(a.events > 0, "node {id} wrote nothing");
        for look in &cluster.nodes {
            let query = |what: &str, table: &str| {
                look.integer(&format!("SELECT {what} FROM {table} WHERE node = {id}"))
            };
            assert_eq!(
                query("count(*)", "events"),
                a.events,
                "events of node {id} on node {}",
                look.id
            );
            assert_eq!(query("count(DISTINCT n)", "events"), a.events);
            assert_eq!(query("n", "counters"), a.events);
        }
    }
    assert_eq!(dump["events"].len() as i64, total);
}

fn seed() -> u64 {
    std::env::var("HARMONYLITE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random)
}

/// Kills one or several processes at once, and starts them again after a moment or a while. Returns how many.
fn kill_some(cluster: &mut Cluster, random: &mut StdRng) -> usize {
    let server = random.random_ratio(1, 3);
    let daemons: BTreeSet<usize> = (0..random.random_range(usize::from(!server)..=3))
        .map(|_| random.random_range(0..3))
        .collect();
    for &index in &daemons {
        cluster[index].kill();
    }
    if server {
        cluster.server.kill();
    }
    std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
    let daemons_first = random.random_bool(0.5);
    if server && !daemons_first {
        cluster.server.restart();
    }
    for &index in &daemons {
        cluster[index].spawn();
    }
    if server && daemons_first {
        cluster.server.restart();
    }
    std::thread::sleep(Duration::from_millis(random.random_range(0..900)));
    cluster.assert_running();
    daemons.len() + usize::from(server)
}

fn killed_at_random(shards: u64, time: Duration) {
    let seed = seed();
    eprintln!("HARMONYLITE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(3, shards, SCHEMA);
    let done = Done::default();
    let databases: Vec<Node> = cluster
        .nodes
        .iter()
        .map(|node| Node::in_folder(node.id, "", &node.folder))
        .collect();
    let acknowledged: Vec<Acknowledged> = std::thread::scope(|scope| {
        let _end = done.on_drop();
        let writers: Vec<_> = databases
            .iter()
            .map(|node| scope.spawn(|| write_until(node, &done)))
            .collect();
        let end = Instant::now() + time;
        let mut kills = 0;
        while Instant::now() < end {
            kills += kill_some(&mut cluster, &mut random);
        }
        assert!(kills > 3, "only {kills} kills");
        done.say();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    check(&cluster, &acknowledged);
    cluster.assert_running();
}

#[test]
fn nothing_is_lost_when_everything_is_killed_at_random() {
    killed_at_random(1, Duration::from_secs(10));
}

#[test]
fn nothing_is_lost_when_everything_is_killed_at_random_over_four_shards() {
    killed_at_random(4, Duration::from_secs(6));
}

/// Writes that meet, until told to end.
fn fight_until(node: &Node, seed: u64, done: &Done) {
    let mut random = StdRng::seed_from_u64(seed ^ node.id);
    let app = node.app();
    while !done.is_said() {
        let (a, b, n) = (
            random.random_range(0..6),
            random.random_range(0..6),
            random.random_range(0..1000),
        );
        let sql = match random.random_range(0..9) {
            0 => format!("DELETE FROM t WHERE id = {a}"),
            1 => format!("INSERT OR REPLACE INTO t VALUES({a}, {n}, 'n{}')", node.id),
            2 => format!("INSERT OR REPLACE INTO u VALUES({a}, 'e{b}', {n})"),
            3 => format!("UPDATE OR REPLACE u SET email = 'e{b}' WHERE id = {a}"),
            4 => format!("UPDATE OR IGNORE t SET id = {b} WHERE id = {a}"),
            5 => format!(
                "BEGIN IMMEDIATE; UPDATE t SET a = {n}; DELETE FROM u WHERE id = {a}; INSERT OR IGNORE INTO u VALUES({a}, 'e{b}', {n}); COMMIT"
            ),
            6 => format!(
                "INSERT INTO u VALUES({a}, 'e{b}', {n}) ON CONFLICT DO UPDATE SET name = {n}"
            ),
            7 => format!("UPDATE u SET name = {n} WHERE email = 'e{b}'"),
            _ => format!("UPDATE t SET b = '{n}' WHERE id = {a}"),
        };
        app.execute_batch(&sql).unwrap();
        std::thread::sleep(Duration::from_millis(random.random_range(0..4)));
    }
}

#[test]
fn nodes_that_write_the_same_rows_while_everything_is_killed_end_equal() {
    let seed = seed();
    eprintln!("HARMONYLITE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(
        3,
        2,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name)",
    );
    let done = Done::default();
    let databases: Vec<Node> = cluster
        .nodes
        .iter()
        .map(|node| Node::in_folder(node.id, "", &node.folder))
        .collect();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        for node in &databases {
            scope.spawn(|| fight_until(node, seed, &done));
        }
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            kill_some(&mut cluster, &mut random);
        }
        done.say();
    });
    cluster.converge();
    cluster.assert_running();
}

#[test]
fn nothing_is_lost_when_the_broker_is_away() {
    // A minute and more by hand: HARMONYLITE_OUTAGE_SECONDS=60.
    let seconds = std::env::var("HARMONYLITE_OUTAGE_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(10);
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    let done = Done::default();
    let databases: Vec<Node> = cluster
        .nodes
        .iter()
        .map(|node| Node::in_folder(node.id, "", &node.folder))
        .collect();
    let acknowledged: Vec<Acknowledged> = std::thread::scope(|scope| {
        let _end = done.on_drop();
        let writers: Vec<_> = databases
            .iter()
            .map(|node| scope.spawn(|| write_until(node, &done)))
            .collect();
        eventually("replication runs", || {
            cluster[2].integer("SELECT n FROM counters WHERE node = 1") > 10
        });
        cluster.server.kill();
        // One daemon ends in the outage, another is killed; both start while there is no broker.
        cluster[0].stop();
        cluster[1].kill();
        cluster[0].spawn();
        cluster[1].spawn();
        std::thread::sleep(Duration::from_secs(seconds));
        cluster.assert_running();
        cluster.server.restart();
        let behind = cluster[0].integer("SELECT n FROM counters WHERE node = 1");
        eventually("replication goes on", || {
            cluster[2].integer("SELECT n FROM counters WHERE node = 1") >= behind
        });
        done.say();
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    check(&cluster, &acknowledged);
    cluster.assert_running();
}

#[test]
fn a_publisher_that_is_behind_when_it_starts_skips_nothing() {
    let mut cluster = Cluster::new(2, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    cluster[0].sql("INSERT INTO t VALUES(0, 'start')");
    cluster.converge();
    cluster[0].kill();
    // Both write while one daemon is down; its own old batches stand before what it has not read.
    for id in 1..=300 {
        cluster[0].sql(&format!("INSERT INTO t VALUES({id}, 'one')"));
        cluster[1].sql(&format!("INSERT INTO t VALUES({id} + 1000, 'two')"));
    }
    cluster[1].wait_published();
    cluster[0].start();
    let app = cluster[0].app();
    for id in 301..=400 {
        app.execute_batch(&format!("INSERT INTO t VALUES({id}, 'one')"))
            .unwrap();
    }
    assert_eq!(cluster.converge()["t"].len(), 701);
    // The same once more, killed while it catches up.
    cluster[0].kill();
    for id in 401..=600 {
        cluster[0].sql(&format!("INSERT INTO t VALUES({id}, 'one')"));
        cluster[1].sql(&format!("INSERT INTO t VALUES({id} + 1000, 'two')"));
    }
    for _ in 0..5 {
        cluster[0].start();
        cluster[0].kill();
    }
    cluster[0].start();
    assert_eq!(cluster.converge()["t"].len(), 1101);
}

#[test]
fn a_change_made_with_no_daemon_running_is_published_at_the_next_start() {
    let mut cluster = Cluster::new(2, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    cluster[0].stop();
    cluster[0].sql("INSERT INTO t VALUES(1, 'a'), (2, 'b'); UPDATE t SET v = 'c' WHERE id = 1; DELETE FROM t WHERE id = 2");
    assert_eq!(cluster[0].pending(), 4);
    cluster[0].start();
    let expected = cluster[0].dump();
    cluster.converge_to(&expected);
    assert_eq!(tables::rows(&cluster[1].app(), "SELECT v FROM t").len(), 1);
}
