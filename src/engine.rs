//! What the two loops share: the replica, the echo that one sends the other, and why both may have to stand still.
//!
//! Invariants: the loops never wait for one another while they hold the replica; a halt stops publishing as well as applying, since what would be
//! published onto a broken history could not be folded.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::change::position::{BatchNumber, Sequence};
use crate::cli::exit::ExitCode;
use crate::config::Config;
use crate::http::status::Status;
use crate::replica::Replica;
use crate::runtime::Shutdown;
use crate::stream::Broker;
use crate::telemetry::metrics::Metrics;

/// Shared by the loops and the daemon.
pub struct Engine {
    /// The configuration.
    pub config: Config,
    /// Asks everybody to stop.
    pub shutdown: Shutdown,
    /// For health.
    pub status: Status,
    /// For Prometheus.
    pub metrics: Metrics,
    replica: Mutex<Replica>,
    echo: Mutex<Echo>,
    echoed: Condvar,
    broker: watch::Sender<Option<Broker>>,
    halted: Mutex<Option<String>>,
    fatal: OnceLock<Fatal>,
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
        Self { code, reason: reason.to_string() }
    }
}

/// What the consuming loop has seen.
#[derive(Debug, Default, Clone, Copy)]
struct Echo {
    batch: BatchNumber,
    passed: Sequence,
}

/// How waiting for an echo ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EchoWait {
    /// The batch was folded.
    Came,
    /// Everything up to the message that was acknowledged was passed, and the batch was not among it: it is lost.
    Vanished,
    /// Not yet.
    NotYet,
}

impl Engine {
    /// Puts the parts together.
    #[must_use]
    pub fn new(config: Config, shutdown: Shutdown, status: Status, metrics: Metrics, replica: Replica) -> Arc<Self> {
        Arc::new(Self {
            config,
            shutdown,
            status,
            metrics,
            replica: Mutex::new(replica),
            echo: Mutex::default(),
            echoed: Condvar::new(),
            broker: watch::Sender::new(None),
            halted: Mutex::default(),
            fatal: OnceLock::new(),
        })
    }

    /// The replica, for one scan or one application.
    pub fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut echo = self.echo.lock().unwrap_or_else(PoisonError::into_inner);
        echo.passed = echo.passed.max(passed);
        if let Some(last) = batches.iter().max() {
            echo.batch = echo.batch.max(*last);
        }
        self.echoed.notify_all();
    }

    /// Waits for a batch's echo. `acknowledged`: where the broker says that it stands.
    #[must_use]
    pub fn wait_echo(&self, batch: BatchNumber, acknowledged: Option<Sequence>, timeout: Duration) -> EchoWait {
        let deadline = Instant::now() + timeout;
        let mut echo = self.echo.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if echo.batch >= batch {
                return EchoWait::Came;
            }
            if acknowledged.is_some_and(|a| echo.passed >= a) {
                return EchoWait::Vanished;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return EchoWait::NotYet;
            }
            echo = self.echoed.wait_timeout(echo, left).unwrap_or_else(PoisonError::into_inner).0;
        }
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
            self.metrics.apply_paused.set(reason.as_ref().map(|_| "history"));
            *halted = reason;
        }
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
        self.replica.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether publishing and applying stand still.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
