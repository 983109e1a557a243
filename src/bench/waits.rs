//! How long an application waits for its commits on a node that applies what others write at full speed.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Bench;
use super::app::{Amount, App, Writers};
use super::cluster::Cluster;
use super::error::{BenchError, Done};
use super::report::Report;
use super::row::{Row, Target};
use super::series::Series;

pub(super) const NAME: &str = "app wait: p99 of a commit on the node that applies";

/// Between two commits of the application that waits.
const PAUSE: Duration = Duration::from_millis(5);

/// The row.
pub(super) fn run(bench: &Bench, cluster: &mut Cluster, report: &mut Report) -> Done<()> {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let is = "the same commits when nothing comes in";
    let target = Target::Times(None, Some(10.0));
    let mut row = Row::new(NAME, "ms", Some(is), target);
    let mut longest = Series::default();
    let (writer, reader) = (cluster.database(1), cluster.database(2));
    for round in 0..bench.options.rounds {
        bench.round(NAME, round);
        let end = Instant::now() + bench.options.duration;
        let quiet = commits(bench, &reader, &|_| Ok(Instant::now() < end))?.quantile(0.99);
        let writers = Writers {
            path: &writer,
            clients: 1,
            size: 100,
            from: cluster.next_id()?,
        };
        let (busy, last) = std::thread::scope(|scope| {
            let writing =
                scope.spawn(|| writers.run(&[Amount::Time(bench.options.duration)], &bench.stop));
            let deadline = Instant::now() + super::cluster::DEADLINE;
            let there = App::open(&writer, &bench.stop)?;
            let busy = commits(bench, &reader, &|here| {
                // Until the writer is ready, and all that it wrote is here.
                let comes =
                    !writing.is_finished() || here.highest("items")? < there.highest("items")?;
                Ok(comes && Instant::now() < deadline)
            });
            let last = writing.join().unwrap_or(Err(BenchError::Thread));
            Ok::<_, BenchError>((busy?, last?.last))
        })?;
        cluster.wait("items", &last)?;
        longest.push(busy.max());
        row.round(quiet, busy.quantile(0.99));
    }
    let longest = longest.max();
    row.notes
        .push(format!("the longest of all: {longest:.1} ms"));
    report.rows.push(row);
    Ok(())
}

/// Commits of one row, some 200 a second, while `more` says so: how long each took in milliseconds.
fn commits(bench: &Bench, path: &Path, more: &dyn Fn(&App) -> Done<bool>) -> Done<Series> {
    let app = App::open(path, &bench.stop)?;
    let mut stmt = app
        .conn
        .prepare("UPDATE probes SET v = v + 1 WHERE id = 1")?;
    let mut waits = Series::default();
    while more(&app)? {
        let started = Instant::now();
        stmt.execute([])?;
        waits.push(started.elapsed().as_secs_f64() * 1e3);
        bench.sleep(PAUSE)?;
    }
    Ok(waits)
}
