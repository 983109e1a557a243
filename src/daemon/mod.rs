//! The daemon: puts the rooms together, runs them, and takes them apart again in order.
//!
//! ```text
//!  lock ─▶ HTTP ─▶ database (capture from here on) ─▶ publish loop
//!                                                     └▶ broker ─▶ lease ─▶ incarnation ─▶ intake ─▶ consume loop
//! ```
//!
//! Invariants: changes are captured before anything needs the network; a broker that is not there and a database that is locked are waited for, for
//! ever; a clean stop publishes what is pending, within a deadline.

mod answers;
mod asked;
mod braking;
mod cluster;
mod download;
mod ending;
mod histories;
mod logs;
mod measuring;
mod membership;
mod operator;
mod orphans;
mod positions;
mod reload;
mod restoring;
mod session;
mod snapshots;
mod start;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::brakes::Brakes;
use crate::change::position::NodeId;
use crate::cli::exit::ExitCode;
use crate::cluster::{announce, hearing};
use crate::config::Config;
use crate::config::live::Settings;
use crate::consume::intake::{self, QUEUE};
use crate::consume::run::ConsumeLoop;
use crate::control::InstanceLock;
use crate::engine::Engine;
use crate::http::status::Status;
use crate::http::{HttpServers, PositionDesk};
use crate::peers::serve;
use crate::publish::run::PublishLoop;
use crate::registry::announce as registry;
use crate::runtime::{Shutdown, notify, signals};
use crate::snapshot::reconcile::Reconciler;
use crate::telemetry::Logging;
use crate::telemetry::metrics::Metrics;

/// What the daemon is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Replicate until asked to stop.
    Replicate,
    /// Publish what is pending, remove everything of ours, and end.
    Cleanup,
    /// Take a snapshot, and end.
    Snapshot,
}

use positions::EnginePositions;
use reload::Reloader;

pub use crate::engine::Fatal;
pub use cluster::forgetting;
pub use reload::Source;

/// How long a stop may take to publish what is pending. systemd waits 90 s before it kills.
const DRAIN: Duration = Duration::from_secs(10);

/// How long `-cleanup` tries to publish what is pending before it says what it drops.
const CLEANUP_DRAIN: Duration = Duration::from_secs(30);

/// How long `-save-snapshot` without a daemon tries to connect, and to begin from a snapshot where that is needed first.
const SAVE_CONNECT: Duration = Duration::from_secs(300);

/// Runs until the end; the exit code says how it went. `source` is what `config` was read from.
///
/// # Errors
/// [`Fatal`] with the sentence to show.
pub async fn run(
    config: Config,
    purpose: Purpose,
    source: Source,
    log: Logging,
) -> Result<(), Fatal> {
    let shutdown = Shutdown::new();
    let settings = Settings::new(config.clone());
    let pprof = source.overrides.pprof.clone();
    let reloader = Reloader::new(source, settings.clone(), log.clone());
    signals::install(&shutdown)
        .and_then(|_| {
            let reloader = reloader.clone();
            signals::on_hangup(move || reloader.on_signal())
        })
        .map_err(|e| {
            Fatal::new(
                ExitCode::Software,
                format!("could not listen for signals: {e}"),
            )
        })?;
    let lock = InstanceLock::acquire(&config.db_path).map_err(|e| start::lock_fault(&e))?;
    let brakes = start::open_brakes(&config)?;
    let node = NodeId(config.node_id);
    let status = Status::new(node, config.publish, config.replicate);
    let metrics =
        Metrics::new(&config.prometheus, node).map_err(|e| Fatal::new(ExitCode::Config, e))?;
    // Endpoints answer while the rest waits and while it drains.
    let http_end = Shutdown::new();
    let positions = PositionDesk::new(&metrics.queues);
    let mut http = HttpServers::start(
        &config.prometheus,
        &config.health_check,
        &metrics,
        &status,
        &positions,
        &http_end,
    )
    .await
    .map_err(|e| Fatal::new(ExitCode::CannotCreate, e))?;
    if let Some(address) = pprof {
        let at = http.serve_profiles(&address, &http_end).await;
        let at = at.map_err(|e| Fatal::new(ExitCode::CannotCreate, e))?;
        tracing::info!(address = %at, "profiles are served at /debug/pprof/");
        if !at.ip().is_loopback() {
            tracing::warn!(address = %at, "profiles have no login, and are served to other machines too");
        }
    }
    let shared = Shared {
        lock,
        brakes,
        status,
        metrics,
        positions,
        settings,
        reloader,
    };
    let watching = tokio::spawn(logs::watch(
        log,
        shared.status.clone(),
        shared.metrics.clone(),
    ));
    // Through all lives: what one of them waits for before it runs (a locked database) is no standstill.
    let watchdog = tokio::spawn(notify::watchdog({
        let status = shared.status.clone();
        move || status.is_alive()
    }));
    let mut recover = false;
    let ended = loop {
        // Each life has a request to stop of its own, so that it can end to begin anew.
        let life = shutdown.child();
        match serve(purpose, recover, &life, &shared).await {
            Ok(Life::Again { recover: wanted }) if !shutdown.is_requested() => recover = wanted,
            Ok(_) => break Ok(()),
            Err(fatal) => break Err(fatal),
        }
    };
    watching.abort();
    watchdog.abort();
    http_end.request("stopped");
    http.finished().await;
    drop(shared);
    ended
}

/// What all lives of the daemon share.
struct Shared {
    lock: InstanceLock,
    brakes: Arc<Brakes>,
    status: Status,
    metrics: Metrics,
    positions: PositionDesk,
    settings: Settings,
    reloader: Reloader,
}

/// How a life of the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// For good.
    Over,
    /// To begin anew: what the node must settle before it reads the stream has to be settled again.
    Again {
        /// A full recovery from a snapshot was asked for.
        recover: bool,
    },
}

async fn serve(
    purpose: Purpose,
    recover: bool,
    shutdown: &Shutdown,
    shared: &Shared,
) -> Result<Life, Fatal> {
    let status = &shared.status;
    let config = Config::clone(&shared.settings.now());
    let Some(replica) = start::open_database(&config, shutdown, status).await? else {
        return Ok(Life::Over);
    };
    status.set_db_connected(true);
    status.set_capture(config.publish, replica.captured().tables.len() as u64);
    status.set_schema(&replica.captured().schema_hash());
    if purpose == Purpose::Cleanup && start::nothing_pending(&replica)? {
        return ending::remove_everything(replica, &config).map(|text| {
            tracing::info!("{text}");
            Life::Over
        });
    }
    if purpose == Purpose::Cleanup
        && let Some(sentence) = shared.brakes.set().pause()
    {
        return Err(Fatal::new(
            ExitCode::TempFail,
            format!(
                "-cleanup publishes what is pending first, and {sentence}; nothing was removed"
            ),
        ));
    }
    snapshots::sweep(&config);
    let recovery = start::look_at_sequence_map(&config, &replica)?;
    let engine = Engine::new(
        shared.settings.clone(),
        shutdown.clone(),
        status.clone(),
        shared.metrics.clone(),
        replica,
        Arc::clone(&shared.brakes),
    );
    engine.show_brakes();
    status.set_snapshots(engine.config.snapshot.enabled);
    if recovery || recover {
        engine.want_recovery();
    }
    start::look_at_journals(&engine);
    shared
        .positions
        .open(Box::new(EnginePositions::of(&engine)));
    let cleanup = ending::EndRequest::default();
    let leaving = ending::EndRequest::default();
    let control = start::control(&engine, shared, &cleanup, &leaving).await?;
    let publishing = start::thread("publish", {
        let publish = PublishLoop::new(Arc::clone(&engine), tokio::runtime::Handle::current())
            .map_err(|e| Fatal::new(ExitCode::Failed, e))?;
        move || publish.run()
    })?;
    let measuring = measuring::Measuring::begin(&engine)?;
    status.set_started();
    notify::ready("capturing changes; connecting to NATS");
    if purpose == Purpose::Cleanup {
        cleanup.note(None);
        ending::give_up_after(&engine, &cleanup, CLEANUP_DRAIN);
    }

    // Everything that needs the broker, beside the request to stop.
    let session = {
        let connecting = session::begin(&engine);
        tokio::pin!(connecting);
        tokio::select! {
            session = &mut connecting => Some(session),
            () = ending::wanted(&engine, purpose) => None,
            () = tokio::time::sleep(SAVE_CONNECT), if purpose == Purpose::Snapshot => Some(Err(Fatal::new(
                ExitCode::Unavailable,
                format!("Failed to create snapshot: this node was not ready to replicate within {} s: the lines above say what it waits for", SAVE_CONNECT.as_secs()),
            ))),
        }
    };
    let outcome = match session {
        Some(Ok(session)) => run_session(&engine, session, purpose, &cleanup, &leaving).await,
        Some(Err(fatal)) => {
            shutdown.force(fatal.reason.clone());
            Err(fatal)
        }
        None => Ok(()),
    };
    let recover = engine.wants_recovery();
    let again = engine.begins_again() && !cleanup.is_wanted();
    let hurried = shutdown.is_forced() && !cleanup.is_given_up();
    if !again {
        status.set_stopping();
        notify::stopping("stopping");
    }
    shutdown.request("end");
    // The loop has nothing to wait for any more; what is pending stays in the change log.
    shutdown.force("end");
    ending::join(publishing).await;
    status.set_db_connected(false);
    measuring.end().await;
    let outcome = outcome.and(engine.fatal());
    // Paused in the moment between a cleanup's look at the brakes and its end: then what is pending was not published.
    let held = shared.brakes.set().pause().is_some();
    let result = match (outcome, cleanup.is_wanted()) {
        (Ok(()), true) if hurried || held => Err(Fatal::new(
            ExitCode::TempFail,
            "stopped before everything was published: nothing was removed, run -cleanup again",
        )),
        (Ok(()), true) => match Arc::try_unwrap(engine) {
            Ok(engine) => {
                let config = engine.config.clone();
                ending::remove_everything(engine.into_replica(), &config)
            }
            Err(_) => Err(Fatal::new(
                ExitCode::Software,
                "cleanup found the database still in use by this process",
            )),
        },
        (Ok(()), false) if again => Ok("beginning anew".to_owned()),
        (Ok(()), false) if leaving.is_wanted() => cluster::left(&leaving),
        (Ok(()), false) => Ok("stopped".to_owned()),
        (Err(fatal), _) => Err(fatal),
    };
    cleanup.answer(&result);
    leaving.answer(&result);
    if let Err(e) = control.stop().await {
        tracing::debug!("the control socket was not removed: {e}");
    }
    result.map(|text| {
        tracing::info!("{text}");
        if again {
            Life::Again { recover }
        } else {
            Life::Over
        }
    })
}

/// Both loops, until the stop.
async fn run_session(
    engine: &Arc<Engine>,
    session: session::Session,
    purpose: Purpose,
    cleanup: &ending::EndRequest,
    leaving: &ending::EndRequest,
) -> Result<(), Fatal> {
    engine.status.set_nats_connected(true);
    let snapshots =
        snapshots::Snapshots::begin(engine, &session, purpose == Purpose::Replicate).await;
    let (sender, inbox) = mpsc::channel(QUEUE);
    let reading = tokio::spawn(intake::run(
        Arc::clone(engine),
        session.broker.clone(),
        session.from,
        session.publishers.clone(),
        sender,
    ));
    let finished = Shutdown::new();
    let consuming = start::thread("consume", {
        let (consume, finished) = (
            ConsumeLoop::new(Arc::clone(engine), tokio::runtime::Handle::current(), inbox),
            finished.clone(),
        );
        move || consume.run(&|| finished.is_requested())
    })?;
    let counting = start::thread("orphans", {
        let engine = Arc::clone(engine);
        move || orphans::run(&engine)
    })?;
    engine.set_broker(session.broker.clone());
    let answering = tokio::spawn(serve::serve(
        session.broker.clone(),
        NodeId(engine.config.node_id),
        answers::answers(engine),
    ));
    let hearing = tokio::spawn(hearing::run(Arc::clone(engine), session.broker.clone()));
    // Where there are snapshots, what runs for them announces this node too.
    let announcing = snapshots
        .is_none()
        .then(|| tokio::spawn(announce::run(Arc::clone(engine), session.broker.clone())));
    let reconciler = Reconciler::new(
        Arc::clone(engine),
        session.broker.clone(),
        session.snapshots.clone(),
    );
    let reconciling = tokio::spawn(reconciler.run());
    let registering = tokio::spawn(registry::run(Arc::clone(engine), session.broker.clone()));
    notify::status("replicating");
    tracing::info!(position = session.from.sequence.0, "replicating");
    if purpose == Purpose::Cleanup {
        engine.shutdown.request("cleanup");
    }
    let kept = tokio::select! {
        lost = session::keep(engine, &session) => Err(lost),
        () = engine.shutdown.requested() => Ok(()),
        saved = snapshots::save_alone(engine), if purpose == Purpose::Snapshot => {
            engine.shutdown.request("-save-snapshot");
            saved
        }
        () = ending::asleep(engine) => {
            tracing::info!("nothing has changed for sleep_timeout");
            engine.shutdown.request("sleep_timeout");
            Ok(())
        }
    };
    if let Err(fatal) = &kept {
        engine.shutdown.force(fatal.reason.clone());
    } else if !engine.begins_again() {
        engine.status.set_stopping();
        notify::stopping("publishing what is pending");
        ending::drain(
            engine,
            &session,
            if cleanup.is_wanted() {
                CLEANUP_DRAIN
            } else {
                DRAIN
            },
        )
        .await;
    }
    if let Some(snapshots) = snapshots {
        snapshots.end().await;
    }
    if let Some(announcing) = announcing {
        announcing.abort();
        let _ = announcing.await;
    }
    // A removal needs the engine for itself.
    hearing.abort();
    let _ = hearing.await;
    cluster::say_goodbye(engine, &session.broker, cleanup, leaving).await;
    let _ = reconciling.await;
    answering.abort();
    registering.abort();
    let _ = registering.await;
    finished.request("end");
    ending::join(consuming).await;
    ending::join(counting).await;
    reading.abort();
    let _ = reading.await;
    session.end().await;
    // The next session says so itself, once it is there.
    engine.status.set_nats_connected(false);
    engine.metrics.broker_connected.set(0);
    kept
}
