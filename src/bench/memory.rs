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

/// The row; its "rounds" are the nodes.
pub(super) fn run(bench: &Bench, cluster: &mut Cluster, report: &mut Report) -> Done<()> {
    if !bench.wants(NAME) {
        return Ok(());
    }
    bench.progress.say(NAME);
    let rows = bench.options.rows;
    let detail = format!("{rows} rows, peak RSS of each node");
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
    for pid in nodes {
        row.ours.push(memory(pid).peak);
    }
    row.notes
        .push(format!("two seconds later: {} MB", after.join(" and ")));
    report.rows.push(row);
    Ok(())
}
