//! What a snapshot of a large database takes, and a restore from it: against copying the file, each to a folder on the same disk, with the data on the
//! disk at the end of both.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Wanted;
use super::app::App;
use super::broker::NatsServer;
use super::node::{Node, memory_mb};
use super::report::{Report, Row, Target};

/// Bytes of the database, unless `HARMONYLITE_BENCH_SNAPSHOT_MB` says otherwise.
const MEGABYTES: u64 = 1024;

const DEADLINE: Duration = Duration::from_secs(900);

/// The rows.
pub fn run(wanted: &Wanted, report: &mut Report) {
    if !wanted.row("snapshot") && !wanted.row("restore") {
        return;
    }
    let megabytes = std::env::var("HARMONYLITE_BENCH_SNAPSHOT_MB")
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(MEGABYTES);
    let folder = tempfile::tempdir().unwrap();
    let [a, b, store, copies] = ["a", "b", "store", "copies"].map(|n| {
        let path = folder.path().join(n);
        std::fs::create_dir(&path).unwrap();
        path
    });
    println!("making a database of {megabytes} MB");
    let app = App::open(&a.join("app.db"));
    fill(&app, megabytes);
    let broker = NatsServer::start(folder.path());
    let more = format!(
        "[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {:?}\n",
        store
    );
    let leader = Node::start_with(&a, 1, &broker.url(), &more);
    leader.wait_for_log("replicating position", DEADLINE);

    let size = format!("{megabytes} MB");
    let mut taking = Row::new(
        format!("snapshot of {size}: taken, stored, read back"),
        "s",
        "cp of the file, fsynced",
        Target::Times(3.0, None),
    );
    let mut restoring = Row::new(
        format!("restore of {size}: from the start of the process"),
        "s",
        "cp of the snapshot, fsynced",
        Target::Times(3.0, None),
    );
    let mut peak = Row::new(
        format!("memory: peak RSS, restore of {size}"),
        "MB",
        "",
        Target::AtMost(150.0),
    );
    for round in 0..wanted.rounds {
        app.insert(1 + i64::try_from(round).unwrap(), 1, 1);
        let plain = cp(&a.join("app.db"), &copies.join("app.db"));
        let started = Instant::now();
        save(&a);
        taking.round(plain, started.elapsed().as_secs_f64());

        let plain = cp(&store.join("latest.db"), &copies.join("latest.db"));
        let started = Instant::now();
        let mut second = Node::start_with(&b, 2, &broker.url(), &more);
        second.wait_for_log("replicating position", DEADLINE);
        restoring.round(plain, started.elapsed().as_secs_f64());
        peak.value(memory_mb(second.pid()).1);
        second.stop();
        let restored = App::open(&b.join("app.db"));
        assert_eq!(restored.count("bodies"), app.count("bodies"));
        drop(restored);
        std::fs::remove_dir_all(&b).unwrap();
        std::fs::create_dir(&b).unwrap();
    }
    let mut took = Row::new(
        format!("memory: peak RSS, snapshots of {size}"),
        "MB",
        "",
        Target::AtMost(150.0),
    );
    took.value(memory_mb(leader.pid()).1);
    for row in [taking, restoring, took, peak] {
        report.add(row);
    }
}

/// Rows of a kilobyte that do not compress.
fn fill(app: &App, megabytes: u64) {
    app.conn
        .execute_batch("CREATE TABLE bodies(id INTEGER PRIMARY KEY, body TEXT)")
        .unwrap();
    for _ in 0..megabytes.div_ceil(8) {
        app.conn
            .execute_batch(
                "INSERT INTO bodies(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8192) SELECT hex(randomblob(500)) FROM n",
            )
            .unwrap();
    }
    app.conn
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
}

/// Seconds that a copy takes until it is on the disk.
fn cp(from: &Path, to: &Path) -> f64 {
    let started = Instant::now();
    let mut source = std::fs::File::open(from).unwrap();
    let mut target = std::fs::File::create(to).unwrap();
    std::io::copy(&mut source, &mut target).unwrap();
    target.sync_all().unwrap();
    started.elapsed().as_secs_f64()
}

fn save(folder: &Path) {
    let done = Command::new(env!("CARGO_BIN_EXE_harmonylite"))
        .arg("-config")
        .arg(folder.join("config.toml"))
        .arg("-save-snapshot")
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "-save-snapshot: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}
