//! What two nodes use when nothing happens.

use std::time::Duration;

use super::Bench;
use super::cluster::Cluster;
use super::error::Done;
use super::node::Node;
use super::process::{cpu_seconds, memory};
use super::report::Report;
use super::row::{Row, Target};

pub(super) const CPU: &str = "idle: CPU of a node";
pub(super) const RSS: &str = "idle: RSS of a node";

/// After the start.
const REST: Duration = Duration::from_secs(2);

/// A clock that counts hundredths of a second needs this many times what is written in, to see half a per cent.
const TIMES: u32 = 2;

/// Both rows; their "rounds" are the nodes.
pub(super) fn run(bench: &Bench, cluster: &Cluster, report: &mut Report) -> Done<()> {
    if !bench.wants(CPU) && !bench.wants(RSS) {
        return Ok(());
    }
    bench.progress.say("idle: nothing is written");
    bench.sleep(REST)?;
    let watched = bench.options.duration * TIMES;
    let detail = format!("over {} s", watched.as_secs());
    let mut cpu = Row::new(CPU, "%", None, Target::AtMost(0.5)).with(detail);
    let mut rss = Row::new(RSS, "MB", None, Target::AtMost(30.0));
    let nodes: Vec<u32> = cluster.nodes.iter().flatten().map(Node::pid).collect();
    let before: Vec<f64> = nodes.iter().map(|pid| cpu_seconds(*pid)).collect();
    bench.sleep(watched)?;
    for (pid, before) in nodes.into_iter().zip(before) {
        let used = cpu_seconds(pid) - before;
        cpu.ours.push(used / watched.as_secs_f64() * 100.0);
        rss.ours.push(memory(pid).now);
    }
    for row in [cpu, rss] {
        if bench.wants(row.name) {
            report.rows.push(row);
        }
    }
    Ok(())
}
