//! From the commit on one node to the moment at which a reader on the other sees it, at 200 transactions a second; against the least that the parts
//! can do: a message through JetStream and one SQLite commit.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt as _;

use super::Wanted;
use super::app::App;
use super::cluster::Cluster;
use super::report::{Report, Row, Target};
use super::series::Series;

const RATE: u32 = 200;
const COUNT: i64 = 2000;

/// Median and 99th percentile.
pub fn run(wanted: &Wanted, cluster: &Cluster, report: &mut Report) {
    if !wanted.row("lag") {
        return;
    }
    let bare_is = "a message through JetStream to an ordered consumer, and one SQLite commit";
    let mut p50 = Row::new(
        "lag at 200 transactions/s: p50",
        "ms",
        bare_is,
        Target::Times(4.0, Some(1.0)),
    );
    let mut p99 = Row::new(
        "lag at 200 transactions/s: p99",
        "ms",
        bare_is,
        Target::Times(10.0, None),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..wanted.rounds {
        let bare = runtime.block_on(bare(
            &cluster.broker.url(),
            &cluster.folder_of("plain").join("app.db"),
        ));
        let ours = replicated(cluster);
        p50.round(bare.median(), ours.median());
        p99.round(bare.quantile(0.99), ours.quantile(0.99));
        p99.notes.push(format!(
            "the longest of {COUNT}: {:.1} ms, baseline {:.1} ms",
            ours.max(),
            bare.max()
        ));
    }
    report.add(p50);
    report.add(p99);
}

fn replicated(cluster: &Cluster) -> Series {
    let from = cluster.app_a.highest("probes") + 1;
    let watching = watch(&cluster.folder_of("b").join("app.db"), from);
    let mut insert = cluster
        .app_a
        .conn
        .prepare("INSERT INTO probes VALUES(?1, 0)")
        .unwrap();
    let mut committed = Vec::new();
    paced(|i| {
        insert.execute([from + i]).unwrap();
        committed.push(Instant::now());
    });
    lags(&committed, &watching.join().unwrap())
}

/// The same through the broker alone, written by whoever receives it.
async fn bare(url: &str, database: &Path) -> Series {
    let client = async_nats::connect(url).await.unwrap();
    let context = jetstream::new(client);
    let stream = context
        .create_stream(jetstream::stream::Config {
            name: "bare".into(),
            subjects: vec!["bare".into()],
            ..Default::default()
        })
        .await
        .unwrap();
    let consumer = stream
        .create_consumer(jetstream::consumer::pull::OrderedConfig::default())
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let app = App::open(database);
    let from = app.highest("probes") + 1;
    let watching = watch(database, from);
    // A thread of its own, as an application's would be, woken by the runtime.
    // Holds all that will come, so that sending never waits.
    let (sender, received) = std::sync::mpsc::sync_channel::<i64>(COUNT as usize);
    let writing = std::thread::spawn(move || {
        let mut insert = app
            .conn
            .prepare("INSERT INTO probes VALUES(?1, 0)")
            .unwrap();
        for id in received {
            insert.execute([id]).unwrap();
        }
    });
    let receiving = tokio::spawn(async move {
        for _ in 0..COUNT {
            let message = messages.next().await.unwrap().unwrap();
            let id = i64::from_le_bytes(message.payload.get(..8).unwrap().try_into().unwrap());
            sender.send(id).unwrap();
        }
    });
    let handle = tokio::runtime::Handle::current();
    let publisher = context.clone();
    let sent = tokio::task::spawn_blocking(move || {
        let mut sent = Vec::new();
        paced(|i| {
            // As large as a commit record of one row.
            let mut payload = vec![0; 160];
            payload[..8].copy_from_slice(&(from + i).to_le_bytes());
            sent.push(Instant::now());
            handle.block_on(async {
                publisher
                    .publish("bare", payload.into())
                    .await
                    .unwrap()
                    .await
                    .unwrap()
            });
        });
        sent
    })
    .await
    .unwrap();
    receiving.await.unwrap();
    let seen = tokio::task::spawn_blocking(move || watching.join().unwrap())
        .await
        .unwrap();
    writing.join().unwrap();
    context.delete_stream("bare").await.unwrap();
    lags(&sent, &seen)
}

fn paced(mut each: impl FnMut(i64)) {
    let started = Instant::now();
    for i in 0..COUNT {
        let due = started + Duration::from_secs(1) / RATE * u32::try_from(i).unwrap();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        each(i);
    }
}

/// Notes when each of the rows becomes visible to a reader. It asks about every 100 us: often enough to measure, rarely enough to leave the CPU alone.
fn watch(database: &Path, from: i64) -> std::thread::JoinHandle<Vec<Instant>> {
    let app = App::open(database);
    std::thread::spawn(move || {
        let mut version = app.conn.prepare("PRAGMA data_version").unwrap();
        let (mut seen, mut last) = (Vec::new(), None);
        let started = Instant::now();
        while (seen.len() as i64) < COUNT && started.elapsed() < super::cluster::DEADLINE {
            let now: i64 = version.query_row([], |r| r.get(0)).unwrap();
            if last != Some(now) {
                last = Some(now);
                let (highest, at) = (app.highest("probes"), Instant::now());
                while from + (seen.len() as i64) <= highest {
                    seen.push(at);
                }
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        seen
    })
}

/// In milliseconds.
fn lags(from: &[Instant], to: &[Instant]) -> Series {
    assert_eq!(from.len(), to.len(), "not everything has arrived");
    Series(
        from.iter()
            .zip(to)
            .map(|(from, to)| to.saturating_duration_since(*from).as_secs_f64() * 1e3)
            .collect(),
    )
}
