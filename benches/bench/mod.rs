//! The rows of `make bench` and what they stand on.

mod app;
mod broker;
mod capture;
mod catch_up;
mod cluster;
mod lag;
mod node;
mod report;
mod series;
mod snapshot;
mod throughput;

use report::Report;

/// What was asked for.
pub struct Wanted {
    /// How often each row and its baseline run.
    pub rounds: usize,
    only: Vec<String>,
}

impl Wanted {
    fn from_environment() -> Self {
        let read = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            rounds: read("HARMONYLITE_BENCH_ROUNDS").map_or(3, |v| {
                v.parse().expect("HARMONYLITE_BENCH_ROUNDS is a number")
            }),
            only: read("HARMONYLITE_BENCH_ONLY")
                .map(|v| v.split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }

    /// Whether a row is to run.
    pub fn row(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|o| name.contains(o.as_str()))
    }
}

/// Runs all rows.
pub fn run() {
    let wanted = Wanted::from_environment();
    let mut report = Report::new(wanted.rounds);
    capture::run(&wanted, &mut report);
    snapshot::run(&wanted, &mut report);
    let mut cluster = cluster::Cluster::start();
    report.nats_server = cluster.broker.version();
    throughput::idle(&wanted, &cluster, &mut report);
    lag::run(&wanted, &cluster, &mut report);
    throughput::run(&wanted, &cluster, &mut report);
    throughput::app_wait(&wanted, &cluster, &mut report);
    catch_up::run(&wanted, &mut cluster, &mut report);
    throughput::memory(&wanted, &cluster, &mut report);
    cluster.compare();
    report.print();
    if wanted.only.is_empty() {
        report.write();
    }
}
