//! The write lock, shared with an app that writes: how long a transaction of ours may hold it, and how long it is left alone after that.
//!
//! SQLite has no queue for the lock. An app that finds it held sleeps and tries again, 1, 2, 5, 10 ms later and so on (its busy handler), and if the lock is held at each of
//! these moments it waits on, though it was free in between. So the lock rests, after each transaction, until an app that came while it was held has tried again:
//!
//! ```text
//!  ours   ████░░░░░░████░░░░░░████      held, left alone
//!  app      ×───1 ms──┤ has it
//! ```
//!
//! Invariants: where no app writes, the lock does not rest; what this node itself has written is no app's writing; a transaction ends at the end of a batch, so one large batch may hold
//! the lock for longer, and it rests for longer then.

use std::time::{Duration, Instant};

/// How long one transaction may hold the write lock before it ends at the next batch: an app that waits notices nothing.
const HOLD: Duration = Duration::from_millis(8);

/// While an app is writing: its first try after it found the lock held, a millisecond later, is to find it free.
const HOLD_SHARED: Duration = Duration::from_micros(800);

/// The same, where nothing but our own batches has come back: their rows only leave the change log, a few hundred batches of them may wait for that, and so does whoever publishes. It
/// ends before the second try.
const HOLD_ECHOES: Duration = Duration::from_millis(2);

/// How long an app that has written counts as writing. An app that waits for our lock does not write meanwhile.
const APP_WRITES: Duration = Duration::from_secs(10);

/// What the busy handler sleeps between its tries, in milliseconds (`sqliteDefaultBusyCallback`).
const DELAYS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

/// Nobody wakes on time: a sleep ends late, and the processor may be another's.
const LATE: Duration = Duration::from_millis(1);

/// Whether an app writes, and when the lock may be taken again.
#[derive(Debug, Default)]
pub struct LockSharing {
    /// When an app was last seen to have written.
    app_wrote: Option<Instant>,
    /// The lock is left alone until then.
    free_until: Option<Instant>,
}

impl LockSharing {
    /// How long the next transaction may hold the lock. `others`: it folds what other nodes have sent.
    pub fn hold(&self, others: bool) -> Duration {
        match self.app_is_writing() {
            false => HOLD,
            true if others => HOLD_SHARED,
            true => HOLD_ECHOES,
        }
    }

    /// A transaction has held the lock for so long. `contended`: an app has written since the one before.
    pub fn held(&mut self, held: Duration, contended: bool) {
        let now = Instant::now();
        if contended {
            self.app_wrote = Some(now);
        }
        self.free_until = self.app_is_writing().then(|| now + rest_after(held));
    }

    /// Nothing can be done with the lock for so long.
    pub fn leave_for(&mut self, time: Duration) {
        self.free_until = Some(Instant::now() + time);
    }

    /// When a transaction that is due then may begin.
    pub fn not_before(&self, due: Instant) -> Instant {
        self.free_until.map_or(due, |free| due.max(free))
    }

    fn app_is_writing(&self) -> bool {
        self.app_wrote.is_some_and(|at| at.elapsed() < APP_WRITES)
    }
}

/// How long the lock rests after a transaction that held it for so long: whoever came meanwhile has then tried again. Its last try within that time was the one before the first that
/// comes later, whenever it came.
fn rest_after(held: Duration) -> Duration {
    let mut tried = Duration::ZERO;
    for delay in DELAYS.map(Duration::from_millis) {
        tried += delay;
        if held <= tried {
            return delay + LATE;
        }
    }
    // From here on it tries at the last of these paces.
    DELAYS.last().copied().map_or(LATE, Duration::from_millis) + LATE
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When an app tries that finds the lock held at `came`, in microseconds.
    fn tries(came: u64) -> impl Iterator<Item = u64> {
        let pauses = DELAYS.into_iter().chain(std::iter::repeat(100));
        pauses.scan(came, |at, pause| {
            *at += pause * 1000;
            Some(*at)
        })
    }

    #[test]
    fn whoever_comes_while_the_lock_is_held_finds_it_free_before_it_is_taken_again() {
        for held in [100, 999, 1001, 2500, 7900, 8100, 40_000, 300_000, 900_000] {
            let rest = rest_after(Duration::from_micros(held));
            let taken = held + u64::try_from(rest.as_micros()).unwrap();
            for came in (0..held).step_by(97) {
                let found = tries(came).find(|at| *at >= held).unwrap();
                assert!(
                    found < taken,
                    "held {held}, came {came}, tried {found}, taken {taken}"
                );
            }
        }
    }

    #[test]
    fn the_lock_rests_only_for_an_app_that_writes() {
        let mut lock = LockSharing::default();
        let due = Instant::now();
        lock.held(HOLD, false);
        assert_eq!((lock.not_before(due), lock.hold(true)), (due, HOLD));
        lock.held(HOLD_SHARED, true);
        assert!(lock.not_before(due) >= due + Duration::from_millis(1));
        assert_eq!(
            (lock.hold(true), lock.hold(false)),
            (HOLD_SHARED, HOLD_ECHOES)
        );
        // It goes on until the app has not written for a while.
        lock.held(HOLD_SHARED, false);
        assert!(lock.not_before(due) > due);
    }
}
