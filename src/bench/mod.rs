//! `harmonylite bench`: what capture costs the application, how fast and how late rows arrive, what a node needs. docs/benchmarks.md explains each row.
//!
//! ```text
//!   bench ──starts──▶ nats-server, two daemons (this program) ──▶ rows, each in turn with its baseline ──▶ table, JSON, chart
//!   bench --live ──▶ the user's own daemon and table, over its control socket
//! ```
//!
//! Invariants: each row runs alternately with its baseline in the same run, so that its ratio holds on any machine and beside other work; what is started here lives in a
//! folder of its own, is ended by its process id, and dies with this process; before figures are given the nodes' tables are compared, value by value; a live
//! run writes to its own table only, and removes the rows that it wrote and no others.
//!
//! This room plays the application, so it uses SQLite as any program would.

pub mod app;
pub mod bars;
mod broker;
mod capture;
mod catch_up;
mod cluster;
mod end_to_end;
pub mod error;
pub mod growth;
mod idle;
mod lag;
pub mod live;
mod log_growth;
pub mod machine;
mod memory;
mod node;
mod process;
mod progress;
pub mod report;
pub mod row;
pub mod series;
mod snapshot;
mod svg;
mod waits;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::BenchError;
use error::Done;
use progress::Progress;
use report::Report;

use crate::runtime::Shutdown;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How often each row and its baseline run.
    pub rounds: usize,
    /// Parts of rows' names; none: all of them.
    pub only: Vec<String>,
    /// The expensive rows too.
    pub all: bool,
    /// Concurrent writers of the application.
    pub clients: usize,
    /// Transactions a second of the rows on lag.
    pub rate: u32,
    /// How long the application writes in each measurement.
    pub duration: Duration,
    /// Rows of the catch-up and of the one large transaction; a tenth of the changes that the log has to get over.
    pub rows: i64,
    /// Megabytes of the database that snapshots are taken of.
    pub database_mb: u64,
    /// Where everything is put; the system's folder for temporary files if none is given.
    pub folder: Option<PathBuf>,
    /// The broker's program; the PATH's if none is given.
    pub nats_server: Option<PathBuf>,
}

/// The names of all rows.
pub const ROWS: [&str; 16] = [
    capture::INSERT,
    capture::INSERT_MANY,
    capture::UPDATE_MANY,
    idle::CPU,
    idle::RSS,
    lag::P50,
    lag::P99,
    end_to_end::ONE,
    end_to_end::HUNDRED,
    waits::NAME,
    catch_up::NAME,
    memory::NAME,
    snapshot::TAKE,
    snapshot::RESTORE,
    log_growth::LEFT,
    log_growth::FILE,
];

/// Rows that only `--all` or their name brings: minutes and gigabytes.
const EXPENSIVE: [&str; 4] = [
    snapshot::TAKE,
    snapshot::RESTORE,
    log_growth::LEFT,
    log_growth::FILE,
];

/// A run.
pub struct Bench {
    options: Options,
    stop: Shutdown,
    progress: Progress,
}

impl Bench {
    /// A run that ends early when `stop` is requested.
    ///
    /// # Errors
    /// [`BenchError::NoRow`].
    pub fn new(options: Options, stop: Shutdown) -> Done<Self> {
        known(&options.only, &ROWS)?;
        Ok(Self::unchecked(options, stop))
    }

    /// The same, where the names in `only` are others.
    fn unchecked(options: Options, stop: Shutdown) -> Self {
        Self {
            options,
            stop,
            progress: Progress::new(),
        }
    }

    /// Measures.
    ///
    /// # Errors
    /// What kept it from it; what was started has ended by then.
    pub fn run(&self) -> Done<Report> {
        let mut report = Report::new(&self.options);
        let done = self.rows(&mut report);
        self.progress.done();
        done?;
        report.end();
        Ok(report)
    }

    fn rows(&self, report: &mut Report) -> Done<()> {
        capture::run(self, report)?;
        snapshot::run(self, report)?;
        let in_cluster = ROWS.iter().any(|row| {
            let alone = row.starts_with("capture") || EXPENSIVE.contains(row);
            !alone && self.wants(row)
        });
        if in_cluster {
            self.progress.say("starting nats-server and two nodes");
            let mut cluster = cluster::Cluster::start(self, &cluster::Shape::usual())?;
            report.nats_server = cluster.broker.version();
            idle::run(self, &cluster, report)?;
            lag::run(self, &cluster, report)?;
            end_to_end::run(self, &mut cluster, report)?;
            waits::run(self, &mut cluster, report)?;
            catch_up::run(self, &mut cluster, report)?;
            memory::run(self, &mut cluster, report)?;
            self.progress.say("comparing the nodes");
            report.equal.extend(cluster.compare()?);
        }
        log_growth::run(self, report)
    }

    /// Whether a row is to run.
    fn wants(&self, row: &str) -> bool {
        let named = |words: &[String]| words.iter().any(|word| row.contains(word.as_str()));
        match self.options.only.as_slice() {
            [] => self.options.all || !EXPENSIVE.contains(&row),
            words => named(words),
        }
    }

    /// A folder of its own, removed at the end.
    fn folder(&self) -> Done<tempfile::TempDir> {
        let inside = self.options.folder.clone();
        let inside = inside.unwrap_or_else(std::env::temp_dir);
        tempfile::Builder::new()
            .prefix("harmonylite-bench-")
            .tempdir_in(&inside)
            .map_err(BenchError::file(&inside))
    }

    /// Says that a round of a row begins.
    fn round(&self, row: &str, round: usize) {
        let of = self.options.rounds;
        self.progress
            .say(&format!("{row}: round {} of {of}", round + 1));
    }

    /// Waits; fails where the benchmark is stopped meanwhile.
    fn sleep(&self, time: Duration) -> Done<()> {
        match self.stop.wait_timeout(time) {
            true => Err(BenchError::Stopped),
            false => Ok(()),
        }
    }
}

/// That each word stands in one of the names.
fn known(words: &[String], names: &[&str]) -> Done<()> {
    for word in words {
        if !names.iter().any(|name| name.contains(word.as_str())) {
            return Err(BenchError::NoRow {
                word: word.clone(),
                known: names.join("; "),
            });
        }
    }
    Ok(())
}

/// The last lines of a log.
fn log_end(path: &Path) -> String {
    const LINES: usize = 20;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}
