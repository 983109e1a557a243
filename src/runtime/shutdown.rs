//! One request to stop, heard by async tasks and plain threads alike.
//!
//! Invariants: the request is never taken back; the first cause is the one that counts; who asks after
//! the request was made hears it at once.
//!
//! ```text
//! running ── request(cause) ──▶ draining ── force() ──▶ forced (stop draining, leave now)
//! ```

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// How far stopping has got; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    Requested,
    Forced,
}

/// The request to stop; clones share it.
#[derive(Debug, Clone)]
pub struct Shutdown(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    stage: watch::Sender<Stage>,
    /// The first cause; the condition variable wakes plain threads when it is set.
    cause: Mutex<Option<Arc<str>>>,
    asked: Condvar,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// Nobody has asked to stop.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            stage: watch::Sender::new(Stage::Running),
            cause: Mutex::new(None),
            asked: Condvar::new(),
        }))
    }

    /// A request of its own that is made when this one is, and can be made alone. Needs the runtime.
    #[must_use]
    pub fn child(&self) -> Self {
        let (parent, child) = (self.clone(), Self::new());
        let weak = Arc::downgrade(&child.0);
        tokio::spawn(async move {
            parent.requested().await;
            let cause = parent.cause().unwrap_or_else(|| Arc::from("stop"));
            if let Some(child) = weak.upgrade() {
                Self(child).request(Arc::clone(&cause));
            }
            parent.forced().await;
            if let Some(child) = weak.upgrade() {
                Self(child).force(cause);
            }
        });
        child
    }

    /// Asks everybody to stop. Returns whether this was the first request, whose cause counts.
    pub fn request(&self, cause: impl Into<Arc<str>>) -> bool {
        let first = {
            let mut held = self.0.cause.lock().unwrap_or_else(PoisonError::into_inner);
            let first = held.is_none();
            if first {
                *held = Some(cause.into());
            }
            first
        };
        self.advance(Stage::Requested);
        self.0.asked.notify_all();
        first
    }

    /// Asks everybody to leave without draining.
    pub fn force(&self, cause: impl Into<Arc<str>>) {
        self.request(cause);
        self.advance(Stage::Forced);
    }

    fn advance(&self, to: Stage) {
        self.0.stage.send_if_modified(|stage| {
            let moves = *stage < to;
            if moves {
                *stage = to;
            }
            moves
        });
    }

    /// Whether stopping has been requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.stage.borrow() >= Stage::Requested
    }

    /// Whether draining should be given up.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        *self.0.stage.borrow() >= Stage::Forced
    }

    /// Why stopping was requested: `SIGTERM`, or what the caller gave.
    #[must_use]
    pub fn cause(&self) -> Option<Arc<str>> {
        self.0
            .cause
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends when stopping is requested.
    pub async fn requested(&self) {
        self.reached(Stage::Requested).await;
    }

    /// Ends when draining should be given up.
    pub async fn forced(&self) {
        self.reached(Stage::Forced).await;
    }

    async fn reached(&self, stage: Stage) {
        let mut receiver = self.0.stage.subscribe();
        // The sender lives in `self`, so the wait ends only with the stage.
        let _ = receiver.wait_for(|now| *now >= stage).await;
    }

    /// Waits for `time`, or until stopping is requested. Returns whether it was; for async code.
    pub async fn sleep(&self, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.requested() => true,
            () = tokio::time::sleep(time) => false,
        }
    }

    /// Waits for `time`, or until stopping is requested. Returns whether it was; for plain threads.
    #[must_use]
    pub fn wait_timeout(&self, time: Duration) -> bool {
        let deadline = Instant::now().checked_add(time);
        let mut cause = self.0.cause.lock().unwrap_or_else(PoisonError::into_inner);
        while cause.is_none() {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => time,
            };
            if left.is_zero() {
                return false;
            }
            cause = match self.0.asked.wait_timeout(cause, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_counts_and_nothing_is_taken_back() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_requested());
        assert_eq!(shutdown.cause(), None);
        assert!(shutdown.request("SIGTERM"));
        assert!(!shutdown.clone().request("stop command"));
        assert_eq!(shutdown.cause().as_deref(), Some("SIGTERM"));
        assert!(shutdown.is_requested() && !shutdown.is_forced());
        shutdown.force("SIGINT");
        assert!(!shutdown.request("again"));
        assert!(shutdown.is_forced());
        assert_eq!(shutdown.cause().as_deref(), Some("SIGTERM"));
    }

    #[test]
    fn a_thread_that_waits_is_woken_and_one_that_need_not_wait_is_told_so() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.wait_timeout(Duration::from_millis(1)));
        let waiter = shutdown.clone();
        let thread = std::thread::spawn(move || waiter.wait_timeout(Duration::MAX));
        shutdown.request("test");
        assert!(thread.join().unwrap());
        assert!(shutdown.wait_timeout(Duration::ZERO));
    }

    #[tokio::test]
    async fn tasks_hear_the_request_before_and_after_it_was_made() {
        let shutdown = Shutdown::new();
        let waiter = shutdown.clone();
        let task = tokio::spawn(async move {
            waiter.requested().await;
            waiter.forced().await;
            waiter.sleep(Duration::MAX).await
        });
        assert!(!shutdown.sleep(Duration::ZERO).await);
        shutdown.request("test");
        shutdown.requested().await;
        assert!(!task.is_finished());
        shutdown.force("test");
        assert!(task.await.unwrap());
    }
}
