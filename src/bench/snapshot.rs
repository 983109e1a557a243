//! What a snapshot of a large database takes, and a restore from it: against copying the file, each to a folder on the same disk, with the data on the
//! disk at the end of both.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Bench;
use super::app::App;
use super::broker::NatsServer;
use super::cluster::sub_folder;
use super::error::{BenchError, Done};
use super::node::{Node, program};
use super::process::memory;
use super::report::Report;
use super::row::{Row, Target};
use crate::runtime::child;

pub(super) const TAKE: &str = "snapshot";
pub(super) const RESTORE: &str = "restore";

const DEADLINE: Duration = Duration::from_secs(900);

/// Between two measurements: a virtual machine gives memory that was freed back to its host within seconds, and has to have it again before it can write to it.
/// Without a pause, whoever comes after a large file was removed would find its memory at hand, and be three times as fast.
const PAUSE: Duration = Duration::from_secs(5);

/// Both rows.
pub(super) fn run(bench: &Bench, report: &mut Report) -> Done<()> {
    if !bench.wants(TAKE) && !bench.wants(RESTORE) {
        return Ok(());
    }
    let megabytes = bench.options.database_mb;
    let folder = bench.folder()?;
    let sub = |name: &str| sub_folder(folder.path(), name);
    let (a, b, store, copies) = (sub("a")?, sub("b")?, sub("store")?, sub("copies")?);
    bench
        .progress
        .say(&format!("making a database of {megabytes} MB"));
    let app = App::open(&a.join("app.db"), &bench.stop)?;
    fill(&app, bench, megabytes)?;
    let broker = NatsServer::start(
        bench.options.nats_server.as_deref(),
        folder.path(),
        &bench.stop,
    )?;
    report.nats_server = broker.version();
    let more = format!("[snapshot]\nstore = \"file\"\n[snapshot.file]\npath = {store:?}\n");
    let mut leader = Node::start(&a, 1, broker.url(), &more, &bench.stop)?;
    leader.wait_for_log("replicating position", DEADLINE)?;

    let three = Target::Times(Some(3.0), None);
    let mut taking = Row::new(TAKE, "s", Some("cp of the file, fsynced"), three)
        .with(format!("{megabytes} MB: taken, stored, read back"));
    let mut restoring = Row::new(RESTORE, "s", Some("cp of the snapshot, fsynced"), three)
        .with(format!("{megabytes} MB: from the start of the process"));
    let mut peak = 0f64;
    for round in 0..bench.options.rounds {
        bench.round("snapshot and restore", round);
        let id = app.highest("items")? + 1;
        app.insert(id, 1, 1)?;
        bench.sleep(PAUSE)?;
        let plain = cp(&a.join("app.db"), &copies.join("app.db"))?;
        bench.sleep(PAUSE)?;
        let started = Instant::now();
        save(&a)?;
        taking.round(plain, started.elapsed().as_secs_f64());

        bench.sleep(PAUSE)?;
        let plain = cp(&store.join("latest.db"), &copies.join("latest.db"))?;
        bench.sleep(PAUSE)?;
        let started = Instant::now();
        let mut second = Node::start(&b, 2, broker.url(), &more, &bench.stop)?;
        second.wait_for_log("replicating position", DEADLINE)?;
        restoring.round(plain, started.elapsed().as_secs_f64());
        peak = peak.max(memory(second.pid()).peak);
        second.stop()?;
        let restored = App::open(&b.join("app.db"), &bench.stop)?;
        let count = "SELECT count(*) FROM bodies";
        let (first, other) = (app.integer(count)?, restored.integer(count)?);
        if first != other {
            return Err(BenchError::Differs {
                table: "bodies".to_owned(),
                first: first.to_string(),
                other: other.to_string(),
            });
        }
        drop(restored);
        for copy in ["app.db", "latest.db"] {
            let copy = copies.join(copy);
            std::fs::remove_file(&copy).map_err(BenchError::file(&copy))?;
        }
        std::fs::remove_dir_all(&b).map_err(BenchError::file(&b))?;
        std::fs::create_dir(&b).map_err(BenchError::file(&b))?;
    }
    taking.notes.push(format!(
        "peak RSS of the daemon: {:.0} MB",
        memory(leader.pid()).peak
    ));
    restoring
        .notes
        .push(format!("peak RSS of the daemon: {peak:.0} MB"));
    for row in [taking, restoring] {
        if bench.wants(row.name) {
            report.rows.push(row);
        }
    }
    Ok(())
}

/// Rows of a kilobyte that do not compress.
pub(super) fn fill(app: &App, bench: &Bench, megabytes: u64) -> Done<()> {
    app.conn.execute_batch(
        "CREATE TABLE bodies(id INTEGER PRIMARY KEY, n INTEGER DEFAULT 0, body TEXT)",
    )?;
    for _ in 0..megabytes.div_ceil(8) {
        bench.sleep(Duration::ZERO)?;
        app.conn.execute_batch(
            "INSERT INTO bodies(body) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8192) SELECT hex(randomblob(500)) FROM n",
        )?;
    }
    Ok(app.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?)
}

/// Seconds that a copy to a new file takes until it is on the disk. Never of a database that this process has open with anything of ours: only the benchmark's own are copied.
fn cp(from: &Path, to: &Path) -> Done<f64> {
    let started = Instant::now();
    let done = child::bound("cp")
        .args([from, to])
        .output()
        .and_then(|_| std::fs::File::open(to)?.sync_all());
    done.map_err(BenchError::file(to))?;
    Ok(started.elapsed().as_secs_f64())
}

fn save(folder: &Path) -> Done<()> {
    let program = program()?;
    let done = child::bound(&program)
        .arg("-config")
        .arg(folder.join("config.toml"))
        .arg("-save-snapshot")
        .output()
        .map_err(|source| BenchError::Start { program, source })?;
    match done.status.success() {
        true => Ok(()),
        false => Err(BenchError::Command {
            what: "-save-snapshot",
            said: String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        }),
    }
}
