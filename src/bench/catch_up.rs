//! How fast a node that was away is back: from the start of its process until it has all, against upserting the same rows by hand.

use std::time::Instant;

use super::Bench;
use super::app::{Amount, UPSERT};
use super::cluster::Cluster;
use super::error::Done;
use super::report::Report;
use super::row::{Row, Target};

pub(super) const NAME: &str = "catch-up after an absence";

/// Rows a transaction.
pub(super) const SIZE: i64 = 1000;

/// The row.
pub(super) fn run(bench: &Bench, cluster: &mut Cluster, report: &mut Report) -> Done<()> {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let rows = bench.options.rows;
    let is = "plain upsert of the same rows, 1,000 a transaction";
    let mut row = Row::new(NAME, "rows/s", Some(is), Target::Share(0.5));
    row = row.with(format!("{rows} rows, from the start of the process"));
    for round in 0..bench.options.rounds {
        bench.round(NAME, round);
        let from = cluster.next_id()?;
        let [first, all] = once(cluster, from, rows)?;
        let plain = cluster
            .plain
            .put(UPSERT, from, 1, Amount::Rows(rows), SIZE)?;
        row.notes.push(format!(
            "first rows after {:.0} ms, all after {:.0} ms",
            first * 1e3,
            all * 1e3
        ));
        row.round(plain.rate(), rows as f64 / all);
    }
    report.rows.push(row);
    Ok(())
}

/// Seconds from the start of the last node until it has the first of so many rows, and until it has all.
pub(super) fn once(cluster: &mut Cluster, from: i64, rows: i64) -> Done<[f64; 2]> {
    cluster.stop_last()?;
    cluster.first()?.insert(from, rows, SIZE)?;
    cluster.wait_until_published()?;
    let started = Instant::now();
    cluster.start_last()?;
    cluster.wait("items", &[from])?;
    let first = started.elapsed();
    cluster.wait("items", &[from + rows - 1])?;
    Ok([first.as_secs_f64(), started.elapsed().as_secs_f64()])
}
