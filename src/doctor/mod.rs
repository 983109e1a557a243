//! `harmonylite doctor`: looks at everything that an operator would, with a daemon beside it or without.
//!
//! ```text
//!   daemon ─▶ files ─▶ database ─▶ integrity          (a thread: SQLite, the file system)
//!      └────▶ NATS ─▶ streams ─▶ nodes ─▶ store       (what needs the network)
//! ```
//!
//! Invariants: nothing is created, changed or locked but a reader's snapshot, and a probe object in the snapshot store, which is removed again; a check that
//! fails or takes too long keeps no other from its turn; the whole run has its bound; what warns or fails says what to do.

mod broker;
mod cluster;
mod daemon;
mod database;
mod files;
mod integrity;
mod machine;
mod problem;
mod process;
mod report;
mod snapshots;
mod streams;
pub mod tables;

use std::future::Future;
use std::time::{Duration, Instant};

pub use problem::{Check, Problem};
pub use report::{Finding, Level, Notes, ORDER, Report};

use crate::config::{Config, ConfigErrors, Loaded};
use crate::engine::{self, Fatal};

/// How it is to be looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// All of the database is read, its indexes too.
    pub deep: bool,
    /// An object is written to the snapshot store, read and removed.
    pub probe: bool,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// What every check has.
#[derive(Debug, Clone)]
struct Look {
    config: Config,
    options: Options,
    notes: Notes,
    deadline: Instant,
}

impl Look {
    fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A number of things.
fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// A configuration that does not load: nothing else can be looked at.
#[must_use]
pub fn of_faults(errors: &ConfigErrors) -> Report {
    let notes = Notes::default();
    for sentence in errors.to_string().lines() {
        notes.problem(
            Problem::ConfigFault,
            sentence,
            "correct it as the sentence says; harmonylite -check shows what is left; nothing else was looked at",
        );
    }
    Report::new(None, None, notes.all())
}

/// Looks.
///
/// # Errors
/// The operating system's, where no thread can be had.
pub fn run(loaded: Loaded, options: Options) -> Result<Report, Fatal> {
    let Loaded { config, notices } = loaded;
    let look = Look {
        config,
        options,
        notes: Notes::default(),
        deadline: Instant::now() + options.timeout,
    };
    for notice in &notices {
        look.notes.problem(
            Problem::ConfigNotice,
            notice,
            "correct what it names, or leave it where it is meant so (docs/configuration.md)",
        );
    }
    if notices.is_empty() {
        look.notes
            .ok(Check::Configuration, "no faults, nothing to remark");
    }
    let runtime = engine::runtime(2)?;
    runtime.block_on(everything(&look));
    // A thread that waits for a file system which does not answer ends with the process.
    runtime.shutdown_background();
    let node = Some(look.config.node_id);
    let database = Some(look.config.db_path.display().to_string());
    Ok(Report::new(node, database, look.notes.all()))
}

async fn everything(look: &Look) {
    let daemon = {
        let look = look.clone();
        within(look.deadline, blocking(move || daemon::look(&look))).await
    };
    let daemon = daemon.unwrap_or_else(|| {
        look.notes.unfinished(Check::Daemon);
        daemon::Daemon::default()
    });
    let local = {
        let (look, daemon) = (look.clone(), daemon.clone());
        blocking(move || {
            let known = here(&look, &daemon);
            if known.untouchable {
                return (known, None);
            }
            let reading = look.clone();
            // The longest of all: what others wait for is known already.
            let integrity = std::thread::Builder::new().spawn(move || integrity::look(&reading));
            (known, integrity.ok())
        })
    };
    let health = {
        let (look, running) = (look.clone(), daemon.may_run);
        blocking(move || daemon::health(&look, running))
    };
    let (local, broker, view) = tokio::join!(
        within(look.deadline, local),
        within(look.deadline, broker::look(look, &daemon)),
        within(look.deadline, health),
    );
    let (known, integrity) = match local {
        Some((known, integrity)) => (known, integrity),
        None => {
            look.notes.unfinished(Check::Database);
            (database::Known::default(), None)
        }
    };
    let view = view.flatten();
    let unfinished = |of: Check| {
        if !look.notes.has(of) {
            look.notes.unfinished(of);
        }
    };
    match &broker {
        None => unfinished(Check::Server),
        Some(None) => without_broker(look),
        Some(Some(broker)) => {
            let position = known.state.as_ref().map(|s| s.position);
            let streams = streams::look(look, broker, position, known.cluster.is_some());
            if within(look.deadline, streams).await.is_none() {
                unfinished(Check::Streams);
            }
            let nodes = cluster::look(look, broker, &known, daemon.may_run, view);
            if within(look.deadline, nodes).await.is_none() {
                unfinished(Check::Nodes);
            }
        }
    }
    // The stores that are not NATS's need no broker.
    let broker = broker.flatten();
    if within(look.deadline, snapshots::look(look, broker, &known))
        .await
        .is_none()
    {
        unfinished(Check::Store);
    }
    if let Some(integrity) = integrity {
        let joined = blocking(move || integrity.join());
        if within(look.deadline, joined).await.is_none() {
            unfinished(Check::Integrity);
        }
    }
}

/// What needs nothing but this machine. One after the other: looking at files must not meet the connection to the database.
fn here(look: &Look, daemon: &daemon::Daemon) -> database::Known {
    let (config, notes) = (&look.config, &look.notes);
    machine::service(daemon.pid, notes);
    if daemon.may_run && daemon.pid.is_none() {
        notes.note(
            Check::Ports,
            "not compared: the daemon's process is not known",
        );
    } else {
        machine::ports(config, daemon.pid, notes);
    }
    machine::disk(config, database::size(config), notes);
    daemon::processes(config, daemon, notes);
    if files::look(config, daemon, notes) {
        notes.note(
            Check::Database,
            "not looked at: SQLite would read another's log into it",
        );
        return database::Known {
            untouchable: true,
            ..database::Known::default()
        };
    }
    let known = database::look(look, daemon.may_run);
    if known.looked {
        let position = known.state.as_ref().map(|s| s.position.sequence.0);
        files::sequence_map(config, position, notes);
    }
    known
}

fn without_broker(look: &Look) {
    for check in [
        Check::JetStream,
        Check::Streams,
        Check::Position,
        Check::Nodes,
    ] {
        look.notes
            .note(check, "not looked at: there is no connection to NATS");
    }
}

/// A future that ends in time.
async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(deadline.into(), work).await.ok()
}

/// Work that blocks; a panic in it ends the run as it would anywhere.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only where the runtime ends, and then nobody waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
