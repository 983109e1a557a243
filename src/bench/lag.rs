//! From the commit on one node to the moment at which a reader on the other sees it, at a steady rate; against the least that the parts can do: a message through
//! JetStream and one SQLite commit.

use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use super::Bench;
use super::app::App;
use super::cluster::{Cluster, DEADLINE};
use super::error::{BenchError, Done};
use super::report::Report;
use super::row::{Row, Target};
use super::series::Series;
use crate::runtime::Shutdown;
use crate::stream::bare::BareStream;

pub(super) const P50: &str = "lag: p50";
pub(super) const P99: &str = "lag: p99";

/// As large as a commit record of one row.
const MESSAGE: usize = 160;

/// Between two looks of the reader: often enough to measure, rarely enough to leave the CPU alone.
const LOOK: Duration = Duration::from_micros(50);

/// What is written, and how fast.
#[derive(Clone, Copy)]
struct Pace {
    count: i64,
    rate: u32,
}

/// Both rows.
pub(super) fn run(bench: &Bench, cluster: &Cluster, report: &mut Report) -> Done<()> {
    if !bench.wants(P50) && !bench.wants(P99) {
        return Ok(());
    }
    let rate = bench.options.rate;
    let count = (f64::from(rate) * bench.options.duration.as_secs_f64()).max(1.0) as i64;
    let pace = Pace { count, rate };
    let is = "a message through JetStream to an ordered consumer, and one SQLite commit";
    let detail = format!("{rate} transactions/s, commit to visible on the other node");
    let new = |name, target| Row::new(name, "ms", Some(is), target).with(detail.as_str());
    let mut p50 = new(P50, Target::Times(Some(4.0), Some(1.0)));
    let mut p99 = new(P99, Target::Times(Some(10.0), None));
    for round in 0..bench.options.rounds {
        bench.round("lag", round);
        let bare = bare(bench, cluster, pace)?;
        let ours = replicated(bench, cluster, pace)?;
        p50.round(bare.median(), ours.median());
        p99.round(bare.quantile(0.99), ours.quantile(0.99));
        p99.notes.push(format!(
            "the longest of {count}: {:.1} ms, baseline {:.1} ms",
            ours.max(),
            bare.max()
        ));
    }
    for row in [p50, p99] {
        if bench.wants(row.name) {
            report.rows.push(row);
        }
    }
    Ok(())
}

fn replicated(bench: &Bench, cluster: &Cluster, pace: Pace) -> Done<Series> {
    let app = cluster.first()?;
    let from = app.highest("probes")? + 1;
    let reader = cluster.database(2);
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&reader, from, pace, &bench.stop));
        let mut insert = app.conn.prepare("INSERT INTO probes VALUES(?1, 0)")?;
        let committed = paced(bench, pace, |i| {
            insert.execute([from + i])?;
            Ok(Instant::now())
        });
        let seen = watching.join().unwrap_or(Err(BenchError::Thread));
        lags(&committed?, &seen?)
    })
}

/// The same through the broker alone, written by whoever receives it.
fn bare(bench: &Bench, cluster: &Cluster, pace: Pace) -> Done<Series> {
    let database = cluster.database(0);
    let from = cluster.plain.highest("probes")? + 1;
    let stream = BareStream::create(cluster.broker.url())?;
    let received = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&database, from, pace, &bench.stop));
        // Holds all that will come, so that sending never waits.
        let (sender, received) = sync_channel::<i64>(usize::try_from(pace.count).unwrap_or(1));
        // A thread of its own, as an application's would be, woken by the runtime.
        let writing = scope.spawn(|| -> Done<()> {
            let app = App::open(&database, &bench.stop)?;
            let mut insert = app.conn.prepare("INSERT INTO probes VALUES(?1, 0)")?;
            for id in received {
                insert.execute([id])?;
            }
            Ok(())
        });
        let receiving = stream.receive(move |payload| {
            let id = payload.get(..8).and_then(|b| b.try_into().ok());
            sender
                .send(i64::from_le_bytes(id.unwrap_or_default()))
                .is_ok()
        })?;
        let sent = paced(bench, pace, |i| {
            let mut payload = vec![0; MESSAGE];
            let id = (from + i).to_le_bytes();
            if let Some(head) = payload.get_mut(..8) {
                head.copy_from_slice(&id);
            }
            let at = Instant::now();
            stream.publish(payload)?;
            Ok(at)
        });
        let seen = watching.join().unwrap_or(Err(BenchError::Thread));
        // Ends the sender, and with it the writer.
        receiving.end();
        let wrote = writing.join().unwrap_or(Err(BenchError::Thread));
        wrote?;
        lags(&sent?, &seen?)
    });
    stream.remove()?;
    received
}

fn paced(
    bench: &Bench,
    pace: Pace,
    mut each: impl FnMut(i64) -> Done<Instant>,
) -> Done<Vec<Instant>> {
    let started = Instant::now();
    let mut at = Vec::new();
    for i in 0..pace.count {
        let due = started + Duration::from_secs_f64(i as f64 / f64::from(pace.rate.max(1)));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if bench.stop.is_requested() {
            return Err(BenchError::Stopped);
        }
        at.push(each(i)?);
    }
    Ok(at)
}

/// Notes when each of the rows becomes visible to a reader.
fn watch(database: &Path, from: i64, pace: Pace, stop: &Shutdown) -> Done<Vec<Instant>> {
    let app = App::open(database, stop)?;
    let mut version = app.conn.prepare("PRAGMA data_version")?;
    let (mut seen, mut last) = (Vec::new(), None);
    let started = Instant::now();
    while (seen.len() as i64) < pace.count {
        if stop.is_requested() {
            return Err(BenchError::Stopped);
        }
        if started.elapsed() > DEADLINE {
            return Err(BenchError::Late {
                what: format!("{} of {} rows", pace.count - seen.len() as i64, pace.count),
                after: DEADLINE,
                log: String::new(),
            });
        }
        let now: i64 = version.query_row([], |r| r.get(0))?;
        if last != Some(now) {
            last = Some(now);
            let (highest, at) = (app.highest("probes")?, Instant::now());
            while from + (seen.len() as i64) <= highest && (seen.len() as i64) < pace.count {
                seen.push(at);
            }
        }
        std::thread::sleep(LOOK);
    }
    Ok(seen)
}

/// In milliseconds.
fn lags(from: &[Instant], to: &[Instant]) -> Done<Series> {
    let pairs = from.iter().zip(to);
    Ok(Series(
        pairs
            .map(|(from, to)| to.saturating_duration_since(*from).as_secs_f64() * 1e3)
            .collect(),
    ))
}
