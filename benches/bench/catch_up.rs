//! How fast a node that was away is back: from the start of its process until it has all, against upserting the same rows by hand.

use std::time::Instant;

use super::Wanted;
use super::cluster::Cluster;
use super::report::{Report, Row, Target};

const ROWS: i64 = 300_000;
const SIZE: i64 = 1000;

/// The row.
pub fn run(wanted: &Wanted, cluster: &mut Cluster, report: &mut Report) {
    if !wanted.row("catch-up") {
        return;
    }
    let mut row = Row::new(
        "catch-up: 300,000 rows after an absence",
        "rows/s",
        "plain upsert of the same rows, 1,000 a transaction",
        Target::Share(0.5),
    );
    for _ in 0..wanted.rounds {
        let from = cluster.next_id();
        if let Some(mut b) = cluster.b.take() {
            b.stop();
        }
        cluster.app_a.insert(from, ROWS, SIZE);
        wait_until_published(cluster);
        let plain = cluster.plain.upsert(from, ROWS, SIZE);
        let started = Instant::now();
        cluster.start_b();
        cluster.wait("items", from + 1);
        let first = started.elapsed();
        cluster.wait("items", from + ROWS - 1);
        let took = started.elapsed();
        row.notes.push(format!(
            "first rows after {:.0} ms, all after {:.0} ms",
            first.as_secs_f64() * 1e3,
            took.as_secs_f64() * 1e3
        ));
        row.round(
            ROWS as f64 / plain.as_secs_f64(),
            ROWS as f64 / took.as_secs_f64(),
        );
    }
    report.add(row);
}

/// Until everything has come back to the first node as its own echo.
fn wait_until_published(cluster: &Cluster) {
    let started = Instant::now();
    loop {
        let pending: i64 = cluster
            .app_a
            .conn
            .query_row(
                "SELECT count(*) FROM __harmonylite___global_change_log",
                [],
                |r| r.get(0),
            )
            .unwrap();
        if pending == 0 {
            return;
        }
        assert!(
            started.elapsed() < super::cluster::DEADLINE,
            "{pending} changes are still pending:\n{}",
            cluster.a.log()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
