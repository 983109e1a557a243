//! `harmonylite bench --live`: the user's own cluster, while it does whatever it does.
//!
//! ```text
//!   writers ──rows──▶ harmonylite_bench (this node) ──▶ daemon ──▶ stream ──▶ every node
//!   meanwhile: ping-peers (the way through the stream to each node), position and wait (this node's own writes: back here, and everywhere)
//! ```
//!
//! Invariants: only the table `harmonylite_bench` is written to, and only where every node that is expected has it, since a node without it would pause; each run has a
//! random name, writes rows of that name and removes exactly those, also when it is stopped; so several can run at once, on one node or on several.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::error::{BenchError, Done};
use super::machine::now;
use super::progress::Progress;
use super::series::{Series, number};
use crate::cluster::ping;
use crate::cluster::view::{ClusterView, NodeState};
use crate::control::cluster::PingArguments;
use crate::control::{PositionArguments, Request, WaitArguments, client};
use crate::registry::cluster::Listed;
use crate::runtime::Shutdown;

/// The table.
pub const TABLE: &str = "harmonylite_bench";

/// What makes it.
pub const CREATE: &str = "CREATE TABLE harmonylite_bench(run TEXT NOT NULL, n INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY(run, n))";

/// What a row carries beside its name and number: as much as small rows of applications do.
const BODY: usize = 64;

/// Rows removed at once, so that the application's writers wait for no long transaction.
const REMOVE: i64 = 500;

/// How long the application's own transactions may keep ours waiting.
const BUSY: Duration = Duration::from_secs(30);

/// How long a node may take to have what was written.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two markers of the measurement of ways.
const MARKERS: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Concurrent writers.
    pub clients: usize,
    /// Transactions a second, of all together.
    pub rate: u32,
    /// How long they write.
    pub duration: Duration,
}

/// What was found.
pub struct Found {
    json: Value,
    text: String,
}

impl Found {
    /// As JSON.
    #[must_use]
    pub const fn json(&self) -> &Value {
        &self.json
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Measures the cluster of the daemon of this database; `registry` is what its nodes say of their schemas.
///
/// # Errors
/// [`BenchError::NoTable`] where the table is not on every node; what kept it from measuring. What it wrote is removed by then, unless that failed too.
pub fn run(database: &Path, live: Live, registry: &[Listed], stop: &Shutdown) -> Done<Found> {
    ready(database, registry)?;
    let run = format!("{:016x}", rand::rng().random::<u64>());
    let progress = Progress::new();
    progress.say(&format!("writing to {TABLE}, run {run}"));
    let measured = measure(database, live, &run, stop);
    progress.say("removing the rows of this run");
    let removed = remove(database, &run);
    progress.done();
    let (measured, removed) = (measured?, removed?);
    // Other nodes have had these rows; they are to be rid of them when this says that all is done.
    everywhere(database)?;
    Ok(found(live, &run, &measured, removed))
}

/// Every node that is expected has the table as it must be.
fn ready(database: &Path, registry: &[Listed]) -> Done<()> {
    let answer = client::request(database, Request::Status, PATIENCE, |_| {})?;
    let view: Option<ClusterView> = serde_json::from_value(answer.result.unwrap_or_default()).ok();
    let nodes = view.map(|v| v.nodes).unwrap_or_default();
    let expected: Vec<u64> = nodes
        .iter()
        .filter(|n| !n.state.is_gone())
        .map(|n| n.node_id)
        .collect();
    let lacking: Vec<String> = expected
        .iter()
        .filter(|id| {
            !registry
                .iter()
                .any(|l| l.entry.node_id == **id && has_table(l))
        })
        .map(u64::to_string)
        .collect();
    if !lacking.is_empty() || expected.is_empty() {
        return Err(BenchError::NoTable {
            nodes: lacking.join(", "),
            create: CREATE,
        });
    }
    let away: Vec<String> = nodes
        .iter()
        .filter(|n| !n.state.is_gone() && n.state != NodeState::Running)
        .map(|n| n.node_id.to_string())
        .collect();
    if !away.is_empty() {
        return Err(BenchError::NotAllRun {
            nodes: away.join(", "),
        });
    }
    Ok(())
}

fn has_table(listed: &Listed) -> bool {
    let of = |name: &&crate::registry::entry::TableEntry| name.name == TABLE;
    let table = listed.entry.tables.iter().find(of);
    table.is_some_and(|t| t.columns == ["run", "n", "body"] && t.key == ["run", "n"])
}

/// As the user's application opens it; never made.
fn open(database: &Path) -> Done<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(database, flags)?;
    conn.busy_timeout(BUSY)?;
    Ok(conn)
}

struct Measured {
    commits: Series,
    took: Duration,
    back: Series,
    everywhere: Series,
    ways: Ways,
}

fn measure(database: &Path, live: Live, run: &str, stop: &Shutdown) -> Done<Measured> {
    let writers_done = std::sync::atomic::AtomicUsize::new(0);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..live.clients)
            .map(|client| {
                let writers_done = &writers_done;
                scope.spawn(move || {
                    let wrote = write(database, live, run, client, stop);
                    writers_done.fetch_add(1, relaxed);
                    wrote
                })
            })
            .collect();
        let pinging = scope.spawn(|| ways(database, live.duration, stop));
        let (mut back, mut everyone) = (Series::default(), Series::default());
        let mut probed = Ok(());
        while writers_done.load(relaxed) < live.clients && probed.is_ok() && !stop.is_requested() {
            probed = probe(database, &mut back, &mut everyone);
        }
        let mut commits = Series::default();
        let mut took = Duration::ZERO;
        for writer in writers {
            let (mut of_one, long) = writer.join().unwrap_or(Err(BenchError::Thread))?;
            commits.0.append(&mut of_one.0);
            took = took.max(long);
        }
        probed?;
        let ways = pinging.join().unwrap_or(Err(BenchError::Thread))?;
        if stop.is_requested() {
            return Err(BenchError::Stopped);
        }
        Ok(Measured {
            commits,
            took,
            back,
            everywhere: everyone,
            ways,
        })
    })
}

/// One writer: how long each of its commits took, in milliseconds, and all together.
fn write(
    database: &Path,
    live: Live,
    run: &str,
    client: usize,
    stop: &Shutdown,
) -> Done<(Series, Duration)> {
    let conn = open(database)?;
    let mut insert = conn.prepare(&format!("INSERT INTO {TABLE} VALUES(?1, ?2, ?3)"))?;
    let body = "x".repeat(BODY);
    let pace = Duration::from_secs_f64(live.clients as f64 / f64::from(live.rate.max(1)));
    let mut commits = Series::default();
    let started = Instant::now();
    let mut due = pace.mul_f64(client as f64 / live.clients.max(1) as f64);
    let mut n = i64::try_from(client).unwrap_or_default();
    let stride = i64::try_from(live.clients).unwrap_or(1);
    while due < live.duration {
        if stop.wait_timeout(due.saturating_sub(started.elapsed())) {
            break;
        }
        let at = Instant::now();
        insert.execute((run, n, body.as_str()))?;
        commits.push(at.elapsed().as_secs_f64() * 1e3);
        n += stride;
        due += pace;
    }
    Ok((commits, started.elapsed()))
}

/// How long it takes from now until what was committed is back from the stream, and until every node has it.
fn probe(database: &Path, back: &mut Series, everyone: &mut Series) -> Done<()> {
    let timeout_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    let started = Instant::now();
    let position = Request::Position(PositionArguments { timeout_ms });
    client::request(database, position, PATIENCE * 2, |_| {})?;
    back.push(started.elapsed().as_secs_f64() * 1e3);
    let started = Instant::now();
    everywhere(database)?;
    everyone.push(started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn everywhere(database: &Path) -> Done<()> {
    let timeout_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    let wait = Request::Wait(WaitArguments {
        position: None,
        timeout_ms,
    });
    client::request(database, wait, PATIENCE * 2, |_| {})?;
    Ok(())
}

/// The way through the stream to each node.
#[derive(Default)]
struct Ways {
    /// The node that measured.
    node: u64,
    /// To each: milliseconds of the markers that it has folded in time, and how many it has not.
    nodes: BTreeMap<u64, (Series, u64)>,
}

/// One marker after the other, as long as the writers write.
fn ways(database: &Path, duration: Duration, stop: &Shutdown) -> Done<Ways> {
    let arguments = PingArguments {
        count: 1,
        interval_ms: 1,
        timeout_ms: 5_000,
    };
    let mut ways = Ways::default();
    let started = Instant::now();
    loop {
        let ping = Request::PingPeers(arguments);
        let answer = client::request(database, ping, PATIENCE, |_| {})?;
        let said = serde_json::from_value::<ping::Report>(answer.result.unwrap_or_default());
        let said = said.map_err(|e| BenchError::Command {
            what: "ping-peers",
            said: e.to_string(),
        })?;
        ways.node = said.node;
        for way in said.nodes {
            let (times, late) = ways.nodes.entry(way.node).or_default();
            times.0.extend(way.max_ms);
            *late += way.timeouts;
        }
        if started.elapsed() >= duration || stop.wait_timeout(MARKERS) {
            return Ok(ways);
        }
    }
}

/// Removes the rows of this run, and no others.
fn remove(database: &Path, run: &str) -> Done<i64> {
    let conn = open(database)?;
    let mut delete = conn.prepare(&format!(
        "DELETE FROM {TABLE} WHERE rowid IN (SELECT rowid FROM {TABLE} WHERE run = ?1 LIMIT {REMOVE})"
    ))?;
    let mut removed = 0;
    loop {
        let rows = i64::try_from(delete.execute([run])?).unwrap_or_default();
        removed += rows;
        if rows < REMOVE {
            return Ok(removed);
        }
    }
}

fn found(live: Live, run: &str, measured: &Measured, removed: i64) -> Found {
    let figures = |s: &Series| {
        json!({
            "count": s.0.len(), "p50": s.median(), "p99": s.quantile(0.99), "max": s.max(),
        })
    };
    let rate = measured.commits.0.len() as f64 / measured.took.as_secs_f64();
    let ways: Vec<Value> = measured
        .ways
        .nodes
        .iter()
        .map(|(node, (times, late))| json!({"node": node, "ms": figures(times), "late": late}))
        .collect();
    let json = json!({
        "at": now(),
        "run": run,
        "node": measured.ways.node,
        "clients": live.clients,
        "rate_wanted": live.rate,
        "rate": rate,
        "rows": measured.commits.0.len(),
        "removed": removed,
        "commit_ms": figures(&measured.commits),
        "back_ms": figures(&measured.back),
        "everywhere_ms": figures(&measured.everywhere),
        "ways": ways,
    });
    let mut text = format!(
        "run {run} from node {}: {} transactions in {:.1} s, {} a second (wanted: {}), {} writers\n\n",
        measured.ways.node,
        measured.commits.0.len(),
        measured.took.as_secs_f64(),
        number(rate),
        live.rate,
        live.clients
    );
    let mut line = |what: &str, s: &Series| {
        text.push_str(&format!(
            "{what:<52}{:>9}{:>9}{:>9}\n",
            number(s.median()),
            number(s.quantile(0.99)),
            number(s.max())
        ));
    };
    line("a commit of the app, ms", &measured.commits);
    line("until it is back from the stream, ms", &measured.back);
    line("until it is on every node, ms", &measured.everywhere);
    for (node, (times, _)) in &measured.ways.nodes {
        line(
            &format!("a message through the stream to node {node}, ms"),
            times,
        );
    }
    let head = format!("{:<52}{:>9}{:>9}{:>9}\n", "", "p50", "p99", "max");
    let text = text.replacen("\n\n", &format!("\n\n{head}"), 1);
    Found {
        text: format!("{text}\n{removed} rows were written, and removed again\n"),
        json,
    }
}
