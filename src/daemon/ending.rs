//! Stopping in good order: publishing what is pending, and removing all traces if that is wanted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::session::Session;
use super::{Fatal, Purpose};
use crate::cli::exit::ExitCode;
use crate::config::Config;
use crate::control::{Refusal, Reply};
use crate::engine::Engine;
use crate::replica::Replica;

/// An end that somebody has asked for: that everything of ours is removed, or that the node leaves; and who wants to know how it went.
#[derive(Clone, Default)]
pub struct EndRequest(Arc<Mutex<Wanted>>);

#[derive(Default)]
struct Wanted {
    wanted: bool,
    given_up: bool,
    /// Why it did not come to what was wanted.
    failed: Option<String>,
    replies: Vec<Reply>,
}

impl EndRequest {
    /// It is wanted.
    pub fn note(&self, reply: Option<Reply>) {
        let mut held = self.lock();
        held.wanted = true;
        held.replies.extend(reply);
    }

    /// Whether it is wanted.
    pub fn is_wanted(&self) -> bool {
        self.lock().wanted
    }

    /// Whether publishing was given up for lack of time, so that what is left is dropped and named.
    pub fn is_given_up(&self) -> bool {
        self.lock().given_up
    }

    /// Why it does not come to what was wanted; `None`: it has come to that.
    pub fn set_failure(&self, why: Option<String>) {
        self.lock().failed = why;
    }

    /// Why it did not come to what was wanted, if it did not.
    pub fn failure(&self) -> Option<String> {
        self.lock().failed.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wanted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who asked how it went.
    pub fn answer(&self, result: &Result<String, Fatal>) {
        let replies = std::mem::take(&mut self.lock().replies);
        for reply in replies {
            reply.done(
                result
                    .clone()
                    .map_err(|f| Refusal::new(f.reason.clone(), f.code.number())),
            );
        }
    }
}

/// Ends when connecting is not worth waiting for any more: at a stop, or for a cleanup when it is given up.
pub async fn wanted(engine: &Arc<Engine>, purpose: Purpose) {
    match purpose {
        Purpose::Replicate | Purpose::Snapshot => engine.shutdown.requested().await,
        Purpose::Cleanup => engine.shutdown.forced().await,
    }
}

/// A cleanup without a broker does not wait for ever.
pub fn give_up_after(engine: &Arc<Engine>, cleanup: &EndRequest, time: Duration) {
    // Not the engine: the removal at the end needs it for itself.
    let (shutdown, cleanup) = (engine.shutdown.clone(), cleanup.clone());
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        cleanup.lock().given_up = true;
        shutdown.force("the time for publishing what is pending is up");
    });
}

/// Ends when nothing was changed, here or elsewhere, for `sleep_timeout`; never where that is off.
pub async fn asleep(engine: &Arc<Engine>) {
    /// How often it is looked, so that a change of the setting is seen.
    const LOOK: Duration = Duration::from_secs(1);
    let batches = || engine.metrics.batches_published.get() + engine.metrics.batches_applied.get();
    let (mut seen, mut since) = (batches(), Instant::now());
    loop {
        let timeout = engine.settings.now().sleep_timeout;
        let is_on = !timeout.is_zero();
        let pause = if is_on { LOOK.min(timeout / 4) } else { LOOK };
        tokio::time::sleep(pause).await;
        let now = batches();
        if now != seen || !is_on {
            (seen, since) = (now, Instant::now());
        }
        let idle = is_on && since.elapsed() >= timeout;
        if idle
            && engine.brakes.set().pause().is_none()
            && tokio::task::block_in_place(|| {
                engine.replica().pending_changes().is_ok_and(|n| n == 0)
            })
        {
            return;
        }
    }
}

/// Publishes what is pending, until nothing is, or the time is up, or nobody wants to wait any more.
pub async fn drain(engine: &Arc<Engine>, session: &Session, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until && !engine.shutdown.is_forced() {
        // The publishing loop ends when nothing is left to scan; its last batch is done with when its echo has come.
        let left = tokio::task::block_in_place(|| {
            let replica = engine.replica();
            replica.batch_in_flight().is_some() || replica.pending_changes().unwrap_or(0) > 0
        });
        if !left {
            return;
        }
        if !session.broker.is_connected() || engine.is_halted() {
            break;
        }
        if let Some(sentence) = engine.brakes.set().pause() {
            tracing::warn!("what is pending is published when that is resumed: {sentence}");
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
            () = engine.shutdown.forced() => return,
        }
    }
    tracing::warn!(
        "not everything pending could be published before the stop; it is published after the next start"
    );
}

/// Waits for a thread without blocking the others.
pub async fn join(thread: std::thread::JoinHandle<()>) {
    if tokio::task::spawn_blocking(move || thread.join())
        .await
        .is_ok_and(|r| r.is_err())
    {
        tracing::error!("a loop ended by a fault in this program");
    }
}

/// Removes everything of ours from the database, and says exactly what was not published.
pub fn remove_everything(mut replica: Replica, config: &Config) -> Result<String, Fatal> {
    /// How long an app may hold the database's lock meanwhile.
    const PATIENCE: Duration = Duration::from_secs(30);
    let fault = |e: crate::sqlite::error::SqliteError| Fatal::new(ExitCode::Failed, e);
    let dropped = replica.pending_by_table().map_err(fault)?;
    if !replica.unsure().map_err(fault)?.is_empty() {
        tracing::warn!(
            "rows that may have been written without capture were not looked for yet: that is done when the daemon is started on this database again"
        );
    }
    if let Err(error) = replica.leave_state() {
        tracing::warn!(%error, "this node's state cannot be kept beside the database: what is written from now on is not found when the daemon is started again");
    }
    let Some(objects) = replica
        .remove_everything(PATIENCE, &|| false)
        .map_err(fault)?
    else {
        return Err(Fatal::new(
            ExitCode::TempFail,
            format!(
                "the database {} is locked by another process: nothing was removed, try again",
                config.db_path.display()
            ),
        ));
    };
    // Nothing of it could be told from what the app writes from now on.
    if let Err(error) = crate::replica::kept::remove_all(&config.db_path) {
        tracing::warn!(%error, "what was kept of published changes could not be removed");
    }
    if let Err(error) = crate::brakes::remove(&config.db_path) {
        tracing::warn!(%error, "what this node was told to hold back could not be removed");
    }
    for (table, changes) in &dropped {
        tracing::error!(
            table,
            changes,
            "changes that could not be published are dropped with the change log; the rows stay as they are"
        );
    }
    let text = format!(
        "removed {objects} tables, triggers and views of harmonylite from {}",
        config.db_path.display()
    );
    if dropped.is_empty() {
        Ok(text)
    } else {
        let list: Vec<String> = dropped.iter().map(|(t, n)| format!("{t}: {n}")).collect();
        Ok(format!(
            "{text}; changes that no other node has were dropped ({})",
            list.join(", ")
        ))
    }
}
