//! The steps before the loops: the lock, the database, the sequence map, the control socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::asked;
use super::ending::EndRequest;
use super::{Fatal, Shared};
use super::{braking, cluster, operator, snapshots};
use crate::brakes::{Brakes, BrakesError, Part};
use crate::cli::exit::ExitCode;
use crate::codec::sequence_map::{self, SequenceMapError};
use crate::config::Config;
use crate::control::{ControlServer, LockError, Outcome, Refusal, Request};
use crate::engine::Engine;
use crate::http::status::{Component, Status};
use crate::journals::chosen_keys;
use crate::replica::lifecycle::OpenOptions;
use crate::replica::{Replica, ReplicaError};
use crate::runtime::{Backoff, Shutdown};
use crate::sqlite::error::Fault;
use crate::state::StateError;

/// What it means that the lock beside the database is not to be had.
pub fn lock_fault(error: &LockError) -> Fatal {
    let code = match error {
        LockError::Held { .. } => ExitCode::TempFail,
        _ => ExitCode::CannotCreate,
    };
    Fatal::new(code, error)
}

/// What an operator has told this node to hold back, before it was stopped.
pub fn open_brakes(config: &Config) -> Result<Arc<Brakes>, Fatal> {
    let brakes = Brakes::open(&config.db_path).map_err(|e| {
        let code = match e {
            BrakesError::Damaged { .. } => ExitCode::DataError,
            BrakesError::Io { .. } => ExitCode::Io,
        };
        Fatal::new(code, e)
    })?;
    let set = brakes.set();
    for part in Part::ALL {
        let brake = set.of(part);
        for sentence in [brake.pause(part), brake.limit(part)].into_iter().flatten() {
            tracing::warn!("{sentence}");
        }
    }
    Ok(Arc::new(brakes))
}

/// Opens the database and installs capture. Waits for a database that is locked or a disk that is full; `None` if asked to stop meanwhile.
pub async fn open_database(
    config: &Config,
    shutdown: &Shutdown,
    status: &Status,
) -> Result<Option<Replica>, Fatal> {
    /// How long one try waits for the lock.
    const PATIENCE: Duration = Duration::from_secs(1);
    if !config.db_path.exists() {
        tracing::warn!(
            database = %config.db_path.display(),
            "there is no database: an empty one is made, and tables are replicated as soon as they are created in it"
        );
    }
    let options = OpenOptions::of(config);
    // Without snapshots nothing says when it may go, and no new history can begin.
    let keep = config
        .snapshot
        .enabled
        .then_some(config.replication_log.kept_max_bytes);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let (path, options, stop) = (config.db_path.clone(), options.clone(), shutdown.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let mut replica = Replica::open(&path, &options, PATIENCE, &|| stop.is_requested())?;
            if let Some(limit) = keep {
                replica.keep(limit)?;
            }
            replica.checkpoint_beside()?;
            Ok(replica)
        })
        .await
        .map_err(|e| Fatal::new(ExitCode::Software, e))?;
        let error = match opened {
            Ok(mut replica) => {
                status.recovered(Component::Database);
                replica.keep_journals(config.journals.clone());
                let captured = replica.captured();
                tracing::info!(
                    database = %config.db_path.display(), node = config.node_id, tables = captured.tables.len(), position = replica.position().sequence.0,
                    "capturing changes"
                );
                return Ok(Some(replica));
            }
            Err(e) => e,
        };
        if let Some(fatal) = hopeless(&config.db_path, &error) {
            return Err(fatal);
        }
        if shutdown.is_requested() {
            return Ok(None);
        }
        if backoff.tries() == 0 {
            let remedy = remedy(&error).unwrap_or_default();
            tracing::warn!(error = %error, remedy, "waiting for the database");
        }
        status.failed(Component::Database, &error);
        shutdown.sleep(backoff.next_wait()).await;
    }
}

/// Faults that waiting does not mend.
fn hopeless(database: &Path, error: &ReplicaError) -> Option<Fatal> {
    let code = match error {
        ReplicaError::State(StateError::Newer { .. } | StateError::Missing) => {
            return Some(Fatal::new(
                ExitCode::DataError,
                format!("the database {}: {error}", database.display()),
            ));
        }
        ReplicaError::Locked { .. } | ReplicaError::Spool(_) | ReplicaError::Kept { .. } => {
            return None;
        }
        ReplicaError::Sqlite(e) | ReplicaError::State(StateError::Sqlite(e)) => match e.fault() {
            Fault::Busy | Fault::Disk | Fault::Schema => return None,
            Fault::ReadOnly => ExitCode::NoPermission,
            Fault::Corrupt => ExitCode::DataError,
            Fault::Unique | Fault::Other => ExitCode::Failed,
        },
    };
    Some(Fatal::new(
        code,
        format!(
            "the database {}: {error}{}",
            database.display(),
            remedy(error).map_or_else(String::new, |r| format!("; {r}"))
        ),
    ))
}

/// What the operator can do about it, if anything.
fn remedy(error: &ReplicaError) -> Option<&'static str> {
    match error {
        ReplicaError::Sqlite(e) | ReplicaError::State(StateError::Sqlite(e)) => e.remedy(),
        ReplicaError::State(_)
        | ReplicaError::Locked { .. }
        | ReplicaError::Spool(_)
        | ReplicaError::Kept { .. } => None,
    }
}

/// Whether the change logs hold nothing that was not published.
pub fn nothing_pending(replica: &Replica) -> Result<bool, Fatal> {
    Ok(replica
        .pending_changes()
        .map_err(|e| Fatal::new(ExitCode::Failed, e))?
        == 0)
}

/// Reads the sequence map, which decides nothing but whether a full recovery is asked for: its answer.
pub fn look_at_sequence_map(config: &Config, replica: &Replica) -> Result<bool, Fatal> {
    let folded = replica.position().sequence;
    match sequence_map::read(&config.seq_map_path) {
        Ok(None) if folded.0 > 0 => {
            tracing::warn!(
                file = %config.seq_map_path.display(), position = folded.0,
                "the sequence map was removed, which asks for a full recovery from a snapshot{}",
                if config.snapshot.enabled { "" } else { "; snapshots are disabled, so the data are kept, and replication goes on from the position in the database" }
            );
            return Ok(config.snapshot.enabled);
        }
        Ok(Some(map)) if map.database_id != replica.database_id() => {
            tracing::warn!(file = %config.seq_map_path.display(), "the sequence map is another database's: it is written anew from the positions in this database");
        }
        Ok(_) => {}
        Err(e @ SequenceMapError::Newer { .. }) => return Err(Fatal::new(ExitCode::DataError, e)),
        Err(e @ (SequenceMapError::Damaged { .. } | SequenceMapError::Io { .. })) => {
            tracing::warn!("{e}")
        }
    }
    Ok(false)
}

/// What former lives have left for people to look at, and what they are about to walk into.
pub fn look_at_journals(engine: &Engine) {
    let mut replica = engine.replica();
    match replica.dead_letters() {
        Ok(0) => {}
        Ok(entries) => {
            engine.set_dead_letters(entries);
            tracing::warn!(
                entries,
                "there are messages in the dead-letter journal: harmonylite dead-letters list shows them"
            );
        }
        Err(e) => tracing::warn!(error = %e, "the dead-letter journal cannot be read"),
    }
    match replica.concerns() {
        Ok(concerns) => concerns.iter().for_each(|c| tracing::warn!("{c}")),
        Err(e) => tracing::warn!(error = %e, "the database could not be looked through"),
    }
    if let Some(warning) = chosen_keys(replica.captured().tables.iter().map(|t| &t.table)) {
        tracing::warn!("{warning}");
    }
}

/// Listens for what the command line asks of a running daemon.
pub async fn control(
    engine: &Arc<Engine>,
    shared: &Shared,
    cleanup: &EndRequest,
    leaving: &EndRequest,
) -> Result<ControlServer, Fatal> {
    let (shutdown, cleanup) = (engine.shutdown.clone(), cleanup.clone());
    let leaving = leaving.clone();
    let reloader = shared.reloader.clone();
    let node = engine.config.node_id;
    // Weak: the removal at the end needs the engine for itself.
    let held = Arc::downgrade(engine);
    ControlServer::start(&shared.lock, move |request, reply| match request {
        Request::Skip(span) => {
            if let Some(engine) = held.upgrade() {
                tokio::spawn(operator::skip(engine, span, reply));
            }
        }
        Request::Replay(span) => {
            if let Some(engine) = held.upgrade() {
                tokio::spawn(operator::replay(engine, span, reply));
            }
        }
        Request::SnapshotSave => {
            tokio::spawn(snapshots::save(held.clone(), reply));
        }
        Request::SnapshotRestore => snapshots::restore(&held, reply),
        Request::Ping => reply.done(Ok(Outcome {
            message: "running".to_owned(),
            result: Some(serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"), "node_id": node.to_string(), "pid": std::process::id(),
                "nats_url": held.upgrade().and_then(|e| e.nats_url.get().cloned()),
                "schema": held.upgrade().map(|e| super::answers::schema(&e)),
            })),
        })),
        Request::Stop => {
            shutdown.request("-stop");
            reply.done(Ok("stopping".to_owned()));
        }
        Request::Status => cluster::status(held.clone(), reply),
        Request::Streams => cluster::streams(held.clone(), reply),
        Request::PingPeers(arguments) => cluster::ping(held.clone(), arguments, reply),
        Request::Forget(arguments) => cluster::forget(held.clone(), arguments, reply),
        Request::Leave(arguments) => {
            cluster::leave(held.clone(), arguments, leaving.clone(), reply);
        }
        Request::Brake(arguments) => braking::brake(&held, arguments, reply),
        Request::Reload => reloader.answer(reply),
        Request::Cleanup => {
            let paused = held.upgrade().and_then(|e| e.brakes.set().pause());
            if let Some(sentence) = paused {
                return reply.done::<String>(Err(Refusal::new(
                    format!("a cleanup publishes what is pending first, and {sentence}; nothing was removed"),
                    ExitCode::TempFail.number(),
                )));
            }
            reply.progress("publishing what is pending");
            cleanup.note(Some(reply));
            shutdown.request("-cleanup");
        }
        Request::Position(arguments) => {
            let timeout = Duration::from_millis(arguments.timeout_ms);
            asked::position(held.clone(), timeout, reply);
        }
        Request::Wait(arguments) => asked::wait(held.clone(), arguments, reply),
        Request::Verify(arguments) => asked::verify(held.clone(), arguments, reply),
    })
    .await
    .map_err(|e| Fatal::new(ExitCode::CannotCreate, e))
}

/// A named thread.
pub fn thread(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, Fatal> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| Fatal::new(ExitCode::Software, format!("could not start a thread: {e}")))
}
