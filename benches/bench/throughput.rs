//! Rows a second from the app's commit on one node to the other node's database, and what the processes use.

use std::time::{Duration, Instant};

use super::Wanted;
use super::cluster::Cluster;
use super::node::{Node, cpu_seconds, memory_mb};
use super::report::{Report, Row, Target};
use super::series::Series;

/// The writer at full speed until the replica has all.
pub fn run(wanted: &Wanted, cluster: &Cluster, report: &mut Report) {
    for (size, rows, least) in [
        (1, 100_000, 0.25),
        (100, 500_000, 0.15),
        (1000, 500_000, 0.0),
    ] {
        let name = format!("end to end: {size} rows a transaction");
        if !wanted.row(&name) {
            continue;
        }
        let target = if least > 0.0 {
            Target::Share(least)
        } else {
            Target::None
        };
        let mut row = Row::new(
            name,
            "rows/s",
            "plain SQLite, the same transactions",
            target,
        );
        let (mut writing, mut cpu) = (Series::default(), [const { Series(Vec::new()) }; 3]);
        let daemons = [
            cluster.a.pid(),
            cluster.b.as_ref().unwrap().pid(),
            cluster.broker.pid(),
        ];
        for _ in 0..wanted.rounds {
            let from = cluster.next_id();
            let plain = cluster.plain.insert(from, rows, size);
            let before = daemons.map(cpu_seconds);
            let started = Instant::now();
            writing.push(cluster.app_a.insert(from, rows, size).as_secs_f64());
            cluster.wait("items", from + rows - 1);
            let took = started.elapsed();
            for ((series, pid), before) in cpu.iter_mut().zip(daemons).zip(before) {
                series.push((cpu_seconds(pid) - before) / rows as f64 * 1e6);
            }
            row.round(
                rows as f64 / plain.as_secs_f64(),
                rows as f64 / took.as_secs_f64(),
            );
        }
        row.notes.push(format!("the app alone took {:.2} s of it; CPU a row: node A {:.1} us, node B {:.1} us, broker {:.1} us", writing.median(), cpu[0].median(), cpu[1].median(), cpu[2].median()));
        report.add(row);
    }
}

/// What two nodes use when nothing happens.
pub fn idle(wanted: &Wanted, cluster: &Cluster, report: &mut Report) {
    const WATCHED: Duration = Duration::from_secs(10);
    if !wanted.row("idle") {
        return;
    }
    std::thread::sleep(Duration::from_secs(2));
    let nodes = [&cluster.a, cluster.b.as_ref().unwrap()].map(Node::pid);
    let mut cpu = Row::new("idle: CPU of a node", "%", "", Target::AtMost(0.5));
    let mut memory = Row::new("idle: RSS of a node", "MB", "", Target::AtMost(30.0));
    let before = nodes.map(cpu_seconds);
    std::thread::sleep(WATCHED);
    for (pid, before) in nodes.into_iter().zip(before) {
        cpu.value((cpu_seconds(pid) - before) / WATCHED.as_secs_f64() * 100.0);
        memory.value(memory_mb(pid).0);
    }
    report.add(cpu);
    report.add(memory);
}

/// How long an app on the receiving node waits for its own commits while others' rows come in at full speed.
pub fn app_wait(wanted: &Wanted, cluster: &Cluster, report: &mut Report) {
    const ROWS: i64 = 300_000;
    if !wanted.row("app wait") {
        return;
    }
    let mut row = Row::new(
        "app wait: p99 of a commit on the node that applies",
        "ms",
        "the same commits when nothing comes in",
        Target::Times(f64::INFINITY, Some(10.0)),
    );
    let mut longest = Series::default();
    let path = cluster.folder_of("b").join("app.db");
    for _ in 0..wanted.rounds {
        let from = cluster.next_id();
        let idle = commits(&path, Instant::now() + Duration::from_secs(2)).quantile(0.99);
        let busy = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                let mut waits = Series::default();
                while cluster_has_not(&path, from + ROWS - 1) {
                    waits
                        .0
                        .append(&mut commits(&path, Instant::now() + Duration::from_millis(500)).0);
                }
                waits
            });
            cluster.app_a.insert(from, ROWS, 100);
            writing.join().unwrap()
        });
        longest.push(busy.max());
        row.round(idle, busy.quantile(0.99));
    }
    row.notes
        .push(format!("the longest of all: {:.1} ms", longest.max()));
    report.add(row);
}

fn cluster_has_not(path: &std::path::Path, id: i64) -> bool {
    super::app::App::open(path).highest("items") < id
}

/// Commits of one row, 200 a second, until `end`: how long each took in milliseconds.
fn commits(path: &std::path::Path, end: Instant) -> Series {
    let app = super::app::App::open(path);
    let mut stmt = app
        .conn
        .prepare("UPDATE probes SET v = v + 1 WHERE id = 1")
        .unwrap();
    let mut waits = Series::default();
    while Instant::now() < end {
        let started = Instant::now();
        stmt.execute([]).unwrap();
        waits.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(5));
    }
    waits
}

/// One large transaction, and what the nodes have used at most since their start.
pub fn memory(wanted: &Wanted, cluster: &Cluster, report: &mut Report) {
    const ROWS: i64 = 1_000_000;
    if !wanted.row("memory") {
        return;
    }
    let mut large = Row::new(
        "memory: peak RSS, one transaction of 1 M rows",
        "MB",
        "",
        Target::AtMost(200.0),
    );
    let mut after = Row::new("memory: RSS after load", "MB", "", Target::None);
    let from = cluster.next_id();
    cluster.app_a.insert(from, ROWS, ROWS);
    cluster.wait("items", from + ROWS - 1);
    std::thread::sleep(Duration::from_secs(2));
    for pid in [&cluster.a, cluster.b.as_ref().unwrap()].map(Node::pid) {
        let (now, peak) = memory_mb(pid);
        large.value(peak);
        after.value(now);
    }
    report.add(large);
    report.add(after);
}
