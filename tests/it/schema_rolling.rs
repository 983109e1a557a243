//! Three nodes are upgraded one after the other, in every order, while the old and the new version of the application write.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::harness::wait::{Done, eventually_ok};
use crate::harness::{Cluster, Node, eventually};

const OLD: &str = "
    CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT NOT NULL, stock INTEGER);
    CREATE TABLE own(node INTEGER PRIMARY KEY, n INTEGER, m INTEGER);
    INSERT INTO own VALUES(1, 0, 0), (2, 0, 0), (3, 0, 0);";

/// What the new version of the application does first.
const MIGRATION: &str = "BEGIN IMMEDIATE;
    ALTER TABLE items ADD COLUMN price INTEGER NOT NULL DEFAULT 7;
    ALTER TABLE items ADD COLUMN note TEXT;
    ALTER TABLE own ADD COLUMN c INTEGER;
    CREATE TABLE tags(id INTEGER PRIMARY KEY, item INTEGER, tag TEXT);
    CREATE UNIQUE INDEX items_name ON items(name);
    COMMIT";

/// Rows that an application has written, and the last values of what only it writes.
#[derive(Default)]
struct Written {
    rows: u64,
    tags: u64,
    n: u64,
    m: u64,
    c: u64,
}

/// The application of one node: the old version, and from a moment on the new one.
fn application(
    node: &Node,
    upgrade: &AtomicUsize,
    caught_up: &AtomicUsize,
    turn: usize,
    done: &Done,
) -> (Written, Duration) {
    let app = node.app();
    let (me, next) = (node.id, node.id % 3 + 1);
    let mut w = Written::default();
    let mut altered: Option<Instant> = None;
    let mut until = Duration::ZERO;
    let mut serial = 0;
    while !done.is_said() {
        if altered.is_none() && upgrade.load(Ordering::SeqCst) >= turn {
            app.execute_batch(MIGRATION).unwrap();
            altered = Some(Instant::now());
        }
        serial += 1;
        let id = serial * 10 + me;
        let run = |sql: String| {
            app.execute_batch(&sql)
                .unwrap_or_else(|error| panic!("node {me}: {sql}: {error}"));
        };
        if altered.is_some() {
            run(format!(
                "INSERT INTO items(id, name, stock, price, note) VALUES({id}, 'item {id}', 1, {serial}, 'new')"
            ));
            run(format!("INSERT INTO tags VALUES({id}, {id}, 'tag')"));
            run(format!("UPDATE own SET c = {serial} WHERE node = {me}"));
            w.tags += 1;
            w.c = serial;
        } else {
            run(format!(
                "INSERT INTO items(id, name, stock) VALUES({id}, 'item {id}', 1)"
            ));
        }
        // Cells of one row that two nodes share.
        run(format!(
            "UPDATE own SET n = {serial} WHERE node = {me}; UPDATE own SET m = {serial} WHERE node = {next}; UPDATE items SET stock = {serial} WHERE id = {id}"
        ));
        w.rows += 1;
        (w.n, w.m) = (serial, serial);
        if let Some(altered) = altered
            && until.is_zero()
            && follows(&app, me)
        {
            until = altered.elapsed();
            caught_up.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(4));
    }
    (w, until)
}

/// Whether something of the new version of another node is here.
fn follows(app: &Connection, me: u64) -> bool {
    app.query_row(
        "SELECT EXISTS(SELECT 1 FROM own WHERE node <> ?1 AND c IS NOT NULL)",
        [me as i64],
        |r| r.get(0),
    )
    .unwrap()
}

fn upgrade_in_order(order: [usize; 3]) -> Vec<Duration> {
    let mut cluster = Cluster::new(3, 1, OLD);
    for node in &cluster.nodes {
        node.sql(&format!(
            "INSERT INTO items VALUES({}, 'first of {}', 0)",
            node.id, node.id
        ));
    }
    cluster.converge();
    let (upgrade, caught_up) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = Done::default();
    let written: Vec<(Written, Duration)> = std::thread::scope(|scope| {
        let say_done = done.on_drop();
        let apps: Vec<_> = cluster
            .nodes
            .iter()
            .enumerate()
            .map(|(n, node)| {
                let turn = order.iter().position(|o| *o == n).unwrap() + 1;
                let (upgrade, caught_up, done) = (&upgrade, &caught_up, &done);
                scope.spawn(move || application(node, upgrade, caught_up, turn, done))
            })
            .collect();
        for (turn, which) in order.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(300));
            upgrade.store(turn + 1, Ordering::SeqCst);
            // The others are in trouble with it from now on, until it is their turn.
            eventually_ok("it has migrated", || {
                let there = cluster.nodes[*which]
                    .integer("SELECT count(*) FROM pragma_table_info('items')");
                if there == 5 {
                    Ok(())
                } else {
                    Err(there.to_string())
                }
            });
        }
        eventually("all have caught up", || {
            caught_up.load(Ordering::SeqCst) == 3
        });
        // And all go on with the new version for a while.
        std::thread::sleep(Duration::from_millis(200));
        drop(say_done);
        apps.into_iter().map(|app| app.join().unwrap()).collect()
    });
    let rows = cluster.converge();
    let all: u64 = written.iter().map(|(w, _)| w.rows).sum();
    let tags: u64 = written.iter().map(|(w, _)| w.tags).sum();
    assert_eq!(
        rows["items"].len() as u64,
        all + 3,
        "{order:?}: rows were lost"
    );
    assert_eq!(rows["tags"].len() as u64, tags, "{order:?}: rows were lost");
    for (i, (w, _)) in written.iter().enumerate() {
        let me = i + 1;
        let before = (i + 2) % 3;
        let last = written[before].0.m;
        let found = cluster[0].integer(&format!(
            "SELECT count(*) FROM own WHERE node = {me} AND n = {} AND c = {} AND m = {last}",
            w.n, w.c
        ));
        assert_eq!(
            found, 1,
            "{order:?}: a value of node {me} was set back: {:?}",
            rows["own"]
        );
    }
    let stale =
        cluster[0].integer("SELECT count(*) FROM items WHERE id > 10 AND stock <> (id / 10)");
    assert_eq!(stale, 0, "{order:?}: values were set back");
    let kept =
        cluster[0].integer("SELECT count(*) FROM items WHERE note = 'new' AND price <> id / 10");
    assert_eq!(
        kept, 0,
        "{order:?}: values of the new columns were set back"
    );
    cluster.assert_running();
    // The first of them waits for nobody.
    order[1..].iter().map(|n| written[*n].1).collect()
}

#[test]
fn three_nodes_are_upgraded_in_every_order_under_load() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let pauses: Vec<Duration> = orders.into_iter().flat_map(upgrade_in_order).collect();
    eprintln!("from its ALTER TABLE until a node has caught up with the new version: {pauses:?}");
    // Each needs a tenth of a second; a machine that does other things holds up some. Half of them tell what the program does, and not what else runs here.
    let mut sorted = pauses.clone();
    sorted.sort_unstable();
    let median = sorted[sorted.len() / 2];
    assert!(median < Duration::from_secs(1), "{pauses:?}");
}
