//! What is left of a long time of writing: change logs, files and streams after ten times as many changes as other rows have.

use std::path::Path;
use std::time::Duration;

use super::Bench;
use super::app::Amount;
use super::cluster::{Cluster, Shape};
use super::error::Done;
use super::report::Report;
use super::row::{Row, Target};

pub(super) const LEFT: &str = "log growth: rows left in a change log";
pub(super) const FILE: &str = "log growth: files beside and with the database";

/// Looks, evenly over all changes. The first is what the last is held against.
const LOOKS: i64 = 10;

/// Rows that are changed over and over.
const OVER: i64 = 100_000;

/// Rows a transaction.
const SIZE: i64 = 1000;

/// Both rows.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Done<()> {
    if !bench.wants(LEFT) && !bench.wants(FILE) {
        return Ok(());
    }
    bench.progress.say("starting nats-server and two nodes");
    let mut cluster = Cluster::start(bench, &Shape::usual())?;
    report.nats_server = cluster.broker.version();
    let changes = bench.options.rows * 10;
    let over = OVER.min(changes / LOOKS).max(1);
    cluster.first()?.insert(1, over, SIZE)?;
    let folder = cluster.database(1);
    let mut sizes: Vec<f64> = Vec::new();
    let mut streams: Vec<String> = Vec::new();
    for look in 1..=LOOKS {
        bench.progress.say(&format!(
            "log growth: {} of {changes} changes",
            changes / LOOKS * look
        ));
        let amount = Amount::Rows(changes / LOOKS);
        cluster.first()?.update(1, over, amount, SIZE)?;
        let marker = cluster.first()?.highest("probes")? + 1;
        cluster
            .first()?
            .conn
            .execute("INSERT INTO probes VALUES(?1, 0)", [marker])?;
        cluster.wait("probes", &[marker])?;
        cluster.wait_until_published()?;
        sizes.push(megabytes(&folder));
        streams.push(format!("{:.0}", cluster.broker.stored() as f64 / 1e6));
    }
    // The daemon empties a change log that nobody writes to a moment later.
    bench.sleep(Duration::from_secs(1))?;
    let detail = format!("after {changes} changes");
    let mut left = Row::new(LEFT, "rows", None, Target::AtMost(1.0)).with(detail.as_str());
    left.ours.push(most_left(&cluster)? as f64);
    let is = "the same after a tenth of the changes";
    let mut file = Row::new(FILE, "MB", Some(is), Target::Times(Some(1.5), None)).with(detail);
    let first = sizes.first().copied().unwrap_or(f64::NAN);
    file.round(first, sizes.last().copied().unwrap_or(f64::NAN));
    let all: Vec<String> = sizes.iter().map(|s| format!("{s:.0}")).collect();
    file.notes
        .push(format!("MB at each tenth: {}", all.join(", ")));
    file.notes.push(format!(
        "the broker's streams and snapshots, MB at each tenth: {}",
        streams.join(", ")
    ));
    report.equal.extend(cluster.compare()?);
    for row in [left, file] {
        if bench.wants(row.name) {
            report.rows.push(row);
        }
    }
    Ok(())
}

/// The most rows that any change log has on any node.
fn most_left(cluster: &Cluster) -> Done<i64> {
    let mut most = 0;
    for app in &cluster.apps {
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '__harmonylite__*_change_log'";
        let mut stmt = app.conn.prepare(sql)?;
        let names = stmt.query_map([], |r| r.get::<_, String>(0))?;
        for name in names.collect::<rusqlite::Result<Vec<_>>>()? {
            most = most.max(app.integer(&format!("SELECT count(*) FROM \"{name}\""))?);
        }
    }
    Ok(most)
}

/// Of everything beside a database whose name begins as its own does, and of itself.
fn megabytes(database: &Path) -> f64 {
    let folder = database.parent().and_then(|f| std::fs::read_dir(f).ok());
    let files = folder.into_iter().flatten().flatten();
    let bytes: u64 = files
        .filter(|f| f.file_name().to_string_lossy().starts_with("app.db"))
        .filter_map(|f| Some(f.metadata().ok()?.len()))
        .sum();
    bytes as f64 / 1e6
}
