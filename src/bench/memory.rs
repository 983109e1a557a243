//! What one large transaction takes on the node that writes it and on the one that applies it.

use std::time::Duration;

use super::Bench;
use super::cluster::Cluster;
use super::error::Done;
use super::node::Node;
use super::process::{forget_peak, memory};
use super::report::Report;
use super::row::{Row, Target};

pub(super) const NAME: &str = "memory: one large transaction";

/// The row: the node that takes most, since the target is each node's.
pub(super) fn run(bench: &Bench, cluster: &mut Cluster, report: &mut Report) -> Done<()> {
    if !bench.wants(NAME) {
        return Ok(());
    }
    bench.progress.say(NAME);
    let rows = bench.options.rows;
    let detail = format!("{rows} rows, peak RSS of the node that takes more");
    let mut row = Row::new(NAME, "MB", None, Target::AtMost(200.0)).with(detail);
    let nodes: Vec<u32> = cluster.nodes.iter().flatten().map(Node::pid).collect();
    for pid in &nodes {
        forget_peak(*pid);
    }
    let from = cluster.next_id()?;
    cluster.first()?.insert(from, rows, rows)?;
    cluster.wait("items", &[from + rows - 1])?;
    cluster.wait_until_published()?;
    bench.sleep(Duration::from_secs(2))?;
    let after: Vec<String> = nodes
        .iter()
        .map(|pid| format!("{:.0}", memory(*pid).now))
        .collect();
    let peaks: Vec<f64> = nodes.iter().map(|pid| memory(*pid).peak).collect();
    let each: Vec<String> = peaks.iter().map(|peak| format!("{peak:.0}")).collect();
    row.notes.push(format!(
        "writer and replica: {} MB; two seconds later {} MB",
        each.join(" and "),
        after.join(" and ")
    ));
    if let Some(most) = peaks.into_iter().reduce(f64::max) {
        row.ours.push(most);
    }
    report.rows.push(row);
    Ok(())
}
