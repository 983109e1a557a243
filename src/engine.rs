//! What the two loops share: the replica, the echo that one sends the other, and why both may have to stand still.
//!
//! Invariants: the loops never wait for one another while they hold the replica; a halt stops publishing as well as applying, since what would be
//! published onto a broken history could not be folded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::brakes::{Brakes, Part};
use crate::change::position::{BatchNumber, Sequence};
use crate::changelog::in_flight::WINDOW;
use crate::cli::exit::ExitCode;
use crate::cluster::hearing::Hearing;
use crate::cluster::ping::Passed;
use crate::cluster::way::Way;
use crate::config::Config;
use crate::config::live::Settings;
use crate::http::status::Status;
use crate::publish::gate::Gate;
use crate::replica::Replica;
use crate::runtime::Shutdown;
use crate::snapshot::desk::Desk;
use crate::stream::Broker;
use crate::telemetry::metrics::Metrics;
use crate::verify::Comparisons;
use crate::wait::token::StreamIdentity;

/// Shared by the loops and the daemon.
pub struct Engine {
    /// The configuration of the start.
    pub config: Config,
    /// The configuration as it is now: keys that can change at run time are read here.
    pub settings: Settings,
    /// Asks everybody to stop.
    pub shutdown: Shutdown,
    /// For health.
    pub status: Status,
    /// For Prometheus.
    pub metrics: Metrics,
    /// What may be published.
    pub gate: Gate,
    /// What an operator has told this node to hold back.
    pub brakes: Arc<Brakes>,
    /// Whether this node and the others hear one another.
    pub hearing: Hearing,
    /// Markers that were folded lately.
    pub markers: Passed,
    /// Where snapshots are asked for.
    pub desk: Desk,
    /// Where the managed server listens, once it runs.
    pub nats_url: OnceLock<String>,
    replica: Mutex<Replica>,
    unsure: Arc<AtomicU64>,
    echo: Mutex<Echo>,
    echoed: Condvar,
    echoes_awaited: AtomicUsize,
    broker: watch::Sender<Option<Broker>>,
    halted: Mutex<Option<String>>,
    prompts: AtomicU64,
    fatal: OnceLock<Fatal>,
    recovery: AtomicBool,
    again: AtomicBool,
    folded: watch::Sender<Sequence>,
    stream: Mutex<Option<StreamIdentity>>,
    /// What is known of the streams and of this node's way through them.
    pub way: Way,
    /// Comparisons that this node takes part in.
    pub comparisons: Comparisons,
}

/// Why the daemon does not go on.
#[derive(Debug, Clone)]
pub struct Fatal {
    /// The code to exit with.
    pub code: ExitCode,
    /// One sentence for the operator.
    pub reason: String,
}

impl Fatal {
    /// A reason with its code.
    pub fn new(code: ExitCode, reason: impl std::fmt::Display) -> Self {
        Self {
            code,
            reason: reason.to_string(),
        }
    }
}

/// What drives everything that waits.
///
/// # Errors
/// The operating system's.
pub fn runtime(workers: usize) -> Result<tokio::runtime::Runtime, Fatal> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .map_err(|e| {
            Fatal::new(
                ExitCode::Software,
                format!("could not start the runtime: {e}"),
            )
        })
}

/// Somebody waits for echoes, until this is dropped.
#[derive(Debug)]
pub struct EchoesAwaited<'e>(&'e AtomicUsize);

impl Drop for EchoesAwaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the consuming loop has seen.
#[derive(Debug, Default)]
struct Echo {
    batch: BatchNumber,
    passed: Sequence,
    sent: VecDeque<(BatchNumber, Instant)>,
    last_sent: BatchNumber,
}

impl Engine {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        settings: Settings,
        shutdown: Shutdown,
        status: Status,
        metrics: Metrics,
        replica: Replica,
        brakes: Arc<Brakes>,
    ) -> Arc<Self> {
        let folded = watch::Sender::new(replica.position().sequence);
        let unsure = replica.unsure_count();
        Arc::new(Self {
            unsure,
            config: Config::clone(&settings.now()),
            settings,
            shutdown,
            status,
            metrics,
            gate: Gate::default(),
            brakes,
            hearing: Hearing::default(),
            markers: Passed::default(),
            desk: Desk::default(),
            nats_url: OnceLock::new(),
            replica: Mutex::new(replica),
            echo: Mutex::default(),
            echoed: Condvar::new(),
            echoes_awaited: AtomicUsize::new(0),
            broker: watch::Sender::new(None),
            halted: Mutex::default(),
            prompts: AtomicU64::new(0),
            fatal: OnceLock::new(),
            recovery: AtomicBool::new(false),
            again: AtomicBool::new(false),
            folded,
            stream: Mutex::default(),
            way: Way::default(),
            comparisons: Comparisons::default(),
        })
    }

    /// The replica, for one scan or one application.
    pub fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tables have rows that may have been written without capture, as of the last look.
    #[must_use]
    pub fn unsure_tables(&self) -> u64 {
        self.unsure.load(Ordering::Acquire)
    }

    /// The broker, once this node may publish and apply.
    #[must_use]
    pub fn broker(&self) -> Option<Broker> {
        self.broker.borrow().clone()
    }

    /// From now on this node may publish and apply.
    pub fn set_broker(&self, broker: Broker) {
        self.broker.send_replace(Some(broker));
    }

    /// Batches came back, and everything up to `passed` is done with.
    pub fn echo(&self, batches: &[BatchNumber], passed: Sequence) {
        if self.config.replicate {
            self.folded
                .send_if_modified(|at| std::mem::replace(at, passed.max(*at)) < passed);
        }
        let mut echo = self.lock_echo();
        echo.passed = echo.passed.max(passed);
        if let Some(last) = batches.iter().max() {
            echo.batch = echo.batch.max(*last);
        }
        self.echoed.notify_all();
    }

    /// Somebody waits for what this node has published to come back: as long as this lives, its echoes are folded as soon as they come.
    pub fn await_echoes(&self) -> EchoesAwaited<'_> {
        self.echoes_awaited.fetch_add(1, Ordering::AcqRel);
        EchoesAwaited(&self.echoes_awaited)
    }

    /// Whether somebody does.
    #[must_use]
    pub fn echoes_are_awaited(&self) -> bool {
        self.echoes_awaited.load(Ordering::Acquire) > 0
    }

    /// Waits for a batch's echo to be folded, at most for `timeout`; whether it was.
    #[must_use]
    pub fn wait_echo(&self, batch: BatchNumber, timeout: Duration) -> bool {
        let _awaited = self.await_echoes();
        let echo = self.lock_echo();
        let (echo, _) = self
            .echoed
            .wait_timeout_while(echo, timeout, |e| e.batch < batch)
            .unwrap_or_else(PoisonError::into_inner);
        echo.batch >= batch
    }

    /// The last batch whose echo was folded, and the last message that is done with: of one moment.
    #[must_use]
    pub fn landed(&self) -> (BatchNumber, Sequence) {
        let echo = self.lock_echo();
        (echo.batch, echo.passed)
    }

    /// How far the order stream is folded, as of the last transaction.
    #[must_use]
    pub fn folded(&self) -> watch::Receiver<Sequence> {
        self.folded.subscribe()
    }

    /// Which stream the positions are of, once it was asked for.
    #[must_use]
    pub fn stream_identity(&self) -> Option<StreamIdentity> {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream that the positions are of.
    pub fn set_stream_identity(&self, identity: StreamIdentity) {
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// A batch goes out for the first time.
    pub fn sending(&self, batch: BatchNumber) {
        let mut echo = self.lock_echo();
        echo.last_sent = echo.last_sent.max(batch);
        // As many as may be in flight; those beyond were resent for long, and tell nothing.
        if echo.sent.len() >= WINDOW {
            echo.sent.pop_front();
        }
        echo.sent.push_back((batch, Instant::now()));
    }

    /// Whether a batch of ours that was sent has not been folded yet.
    #[must_use]
    pub fn awaits_echo(&self) -> bool {
        let echo = self.lock_echo();
        echo.last_sent > echo.batch
    }

    /// A batch of ours has come back from the stream.
    pub fn arrived(&self, batch: BatchNumber) {
        let mut echo = self.lock_echo();
        while let Some((sent, at)) = echo
            .sent
            .front()
            .copied()
            .filter(|(sent, _)| *sent <= batch)
        {
            if sent == batch {
                self.metrics
                    .publish_to_echo
                    .observe(at.elapsed().as_secs_f64());
            }
            echo.sent.pop_front();
        }
    }

    fn lock_echo(&self) -> MutexGuard<'_, Echo> {
        self.echo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishing and applying stand still for this reason, or go on.
    pub fn halt(&self, reason: Option<String>) {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        if *halted != reason {
            match &reason {
                Some(r) => tracing::error!("replication stands still: {r}"),
                None => tracing::info!("replication goes on"),
            }
            self.status.set_apply_paused(reason.clone());
            self.metrics
                .apply_paused
                .set(reason.as_ref().map(|_| "history"));
            *halted = reason;
        }
    }

    /// How many entries the dead-letter journal has.
    pub fn set_dead_letters(&self, entries: u64) {
        self.status.set_dead_letters(entries);
        self.metrics
            .dead_letters
            .set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    /// Whoever is paused is to look again at once.
    pub fn prompt(&self) {
        self.prompts.fetch_add(1, Ordering::Release);
    }

    /// Rises with each [`Engine::prompt`].
    #[must_use]
    pub fn prompts(&self) -> u64 {
        self.prompts.load(Ordering::Acquire)
    }

    /// The daemon cannot go on: it stops at once, and ends with this sentence.
    pub fn fail(&self, code: ExitCode, reason: String) {
        self.shutdown.force(reason.clone());
        let _ = self.fatal.set(Fatal { code, reason });
    }

    /// Why the daemon cannot go on, if a loop has said so.
    ///
    /// # Errors
    /// The reason.
    pub fn fatal(&self) -> Result<(), Fatal> {
        self.fatal.get().map_or(Ok(()), |f| Err(f.clone()))
    }

    /// The replica, when nobody else has it any more.
    #[must_use]
    pub fn into_replica(self) -> Replica {
        self.replica
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// This life of the daemon ends, and the next settles where the node stands.
    pub fn begin_again(&self, why: &str) {
        tracing::warn!("{why}: beginning anew");
        self.again.store(true, Ordering::Release);
        self.shutdown.force(why.to_owned());
    }

    /// Whether the daemon is to begin anew.
    #[must_use]
    pub fn begins_again(&self) -> bool {
        self.again.load(Ordering::Acquire)
    }

    /// Whether the operator has asked for a full recovery from a snapshot.
    #[must_use]
    pub fn wants_recovery(&self) -> bool {
        self.recovery.load(Ordering::Acquire)
    }

    /// The sequence map is gone, which asks for a full recovery.
    pub fn want_recovery(&self) {
        self.recovery.store(true, Ordering::Release);
    }

    /// The recovery that was asked for is done, or was found to be impossible.
    pub fn recovered(&self) {
        self.recovery.store(false, Ordering::Release);
    }

    /// A restore has set this node's position.
    pub fn stands_at(&self, position: Sequence) {
        let mut echo = self.lock_echo();
        echo.passed = position;
    }

    /// The brakes were set: health and metrics show it.
    pub fn show_brakes(&self) {
        let set = self.brakes.set();
        for part in Part::ALL {
            let brake = set.of(part);
            let limit = brake.rows_per_second.map_or(0, std::num::NonZeroU64::get);
            let metrics = &self.metrics;
            metrics
                .operator_paused
                .set(part.word(), u64::from(brake.paused_since.is_some()));
            metrics.operator_limit.set(part.word(), limit);
        }
        self.status.set_brakes(set);
    }

    /// Whether publishing and applying stand still.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
}
