//! Rows a second from the application's commit on one node until the other node has them all, the writers at full speed.

use std::time::Instant;

use super::Bench;
use super::app::{Amount, Writers};
use super::cluster::Cluster;
use super::error::Done;
use super::node::Node;
use super::process::cpu_seconds;
use super::report::Report;
use super::row::{Row, Target};
use super::series::Series;

pub(super) const ONE: &str = "end to end: 1 row a transaction";
pub(super) const HUNDRED: &str = "end to end: 100 rows a transaction";

/// Both rows.
pub(super) fn run(bench: &Bench, cluster: &mut Cluster, report: &mut Report) -> Done<()> {
    for (name, size, least) in [(ONE, 1, 0.25), (HUNDRED, 100, 0.15)] {
        if !bench.wants(name) {
            continue;
        }
        let is = "plain SQLite, the same transactions";
        let mut row = Row::new(name, "rows/s", Some(is), Target::Share(least));
        if bench.options.clients > 1 {
            row = row.with(format!("{} writers", bench.options.clients));
        }
        let mut writing = Series::default();
        let daemons: Vec<u32> = cluster.nodes.iter().flatten().map(Node::pid).collect();
        let mut cpu: Vec<Series> = daemons.iter().map(|_| Series::default()).collect();
        let mut of_broker = Series::default();
        for round in 0..bench.options.rounds {
            bench.round(name, round);
            let (on_node, on_plain) = (cluster.database(1), cluster.database(0));
            let from = cluster.next_id()?;
            let mut writers = Writers {
                path: &on_node,
                clients: bench.options.clients,
                size,
                from,
            };
            let before: Vec<f64> = daemons.iter().map(|pid| cpu_seconds(*pid)).collect();
            let broker = cpu_seconds(cluster.broker.pid());
            let started = Instant::now();
            let written = writers.run(&[Amount::Time(bench.options.duration)], &bench.stop)?;
            cluster.wait("items", &written.last)?;
            let took = started.elapsed();
            let rows = written.all.rows as f64;
            writing.push(written.all.took.as_secs_f64() / took.as_secs_f64() * 100.0);
            for ((series, pid), before) in cpu.iter_mut().zip(&daemons).zip(before) {
                series.push((cpu_seconds(*pid) - before) / rows * 1e6);
            }
            of_broker.push((cpu_seconds(cluster.broker.pid()) - broker) / rows * 1e6);
            let same: Vec<Amount> = written.each.iter().map(|n| Amount::Rows(*n)).collect();
            writers.path = &on_plain;
            let plain = writers.run(&same, &bench.stop)?;
            row.round(plain.all.rate(), rows / took.as_secs_f64());
        }
        let each: Vec<String> = cpu.iter().map(|s| format!("{:.1}", s.median())).collect();
        row.notes.push(format!(
            "the application wrote for {:.0}% of the time; CPU a row: nodes {} us, broker {:.1} us",
            writing.median(),
            each.join(" and "),
            of_broker.median()
        ));
        report.rows.push(row);
    }
    Ok(())
}
