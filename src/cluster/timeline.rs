//! When messages of the order stream were stored: enough of it to tell for how long the first one behind a position has waited.
//!
//! Times are the NATS server's. What time it is there follows from the messages that arrive: none comes before it was stored, so the least delay seen
//! bounds it from below. It serves metrics and nothing else.
//!
//! Invariants: memory is bounded whatever passes by; the newest message is always known; an age is told within `STEP` or, of old messages, within a small
//! share of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::change::position::Sequence;

/// Messages closer to one another than this are not told apart.
const STEP: u64 = 50_000_000;

/// Messages that are remembered; when there are more, old ones go that lie close to others.
const REMEMBERED: usize = 1024;

/// The share of its age by which an old message may be off.
const SHARE: u64 = 32;

/// Messages from before this node began to read that are remembered: one for each node that is far behind.
const FETCHED: usize = 256;

/// For how long a least delay counts, so that a server whose clock was set back is noticed.
const EPOCH: Duration = Duration::from_secs(300);

/// Shared by who reads and who shows.
#[derive(Debug, Default)]
pub struct Timeline(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The first message that was noted; from it on none was left out but by its closeness to another.
    from: Option<Sequence>,
    read: BTreeMap<Sequence, u64>,
    fetched: BTreeMap<Sequence, u64>,
    clock: Option<Clock>,
}

/// The server's time, as far as it is known.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// The most that it was seen to be ahead of `origin`, in this epoch and in the one before.
    now: i128,
    before: i128,
    epoch: Instant,
    origin: Instant,
}

impl Clock {
    fn note(&mut self, stored: u64, now: Instant) {
        let ahead = i128::from(stored) - nanos(now.saturating_duration_since(self.origin));
        if now.saturating_duration_since(self.epoch) >= EPOCH {
            (self.before, self.now, self.epoch) = (self.now, ahead, now);
        }
        self.now = self.now.max(ahead);
    }

    fn time(&self, now: Instant) -> i128 {
        self.now.max(self.before) + nanos(now.saturating_duration_since(self.origin))
    }
}

fn nanos(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

impl Timeline {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message has just been read. `stored`: when the server stored it, in nanoseconds since the Unix epoch.
    pub fn note(&self, sequence: Sequence, stored: u64) {
        let mut known = self.lock();
        known.see(stored, Instant::now());
        known.from.get_or_insert(sequence);
        let mut last = known.read.iter().rev();
        let (newest, older) = (last.next(), last.next());
        if let (Some((newest, _)), Some((_, older))) = (newest, older)
            && stored.saturating_sub(*older) < STEP
        {
            let newest = *newest;
            known.read.remove(&newest);
        }
        known.read.insert(sequence, stored);
        if known.read.len() > REMEMBERED {
            known.thin(stored);
        }
    }

    /// A message that was not read by this node stands in the stream since then.
    pub fn note_fetched(&self, sequence: Sequence, stored: u64) {
        let mut known = self.lock();
        if known.fetched.len() >= FETCHED {
            known.fetched.pop_first();
        }
        known.fetched.insert(sequence, stored);
    }

    /// The server has stored something at this time of its own.
    pub fn note_time(&self, stored: u64) {
        self.lock().see(stored, Instant::now());
    }

    /// For how long the first message behind a position has been in the stream; `None`: not known here.
    #[must_use]
    pub fn waits(&self, position: Sequence) -> Option<Duration> {
        let known = self.lock();
        let next = position.next();
        let stored = match known.from {
            Some(from) if from <= next => known.read.range(next..).next().map(|(_, at)| *at),
            _ => known.fetched.get(&next).copied(),
        }?;
        let time = known.clock?.time(Instant::now());
        let waits = time.saturating_sub(i128::from(stored)).max(0);
        Some(Duration::from_nanos(
            u64::try_from(waits).unwrap_or(u64::MAX),
        ))
    }
}

impl Known {
    /// Of old messages only so many are kept that an age is told within a share of it. `newest`: when the last one was stored.
    fn thin(&mut self, newest: u64) {
        let mut kept = u64::MAX;
        let mut keep = BTreeMap::new();
        for (sequence, stored) in self.read.iter().rev() {
            let apart = newest.saturating_sub(*stored) / SHARE;
            if keep.len() < REMEMBERED / 4 * 3 && kept.saturating_sub(*stored) >= apart {
                kept = *stored;
                keep.insert(*sequence, *stored);
            }
        }
        // Before the first of them nothing is known any more.
        self.from = keep.keys().next().copied();
        self.read = keep;
    }

    fn see(&mut self, stored: u64, now: Instant) {
        let stored_at = i128::from(stored);
        let clock = self.clock.get_or_insert(Clock {
            now: stored_at,
            before: stored_at,
            epoch: now,
            origin: now,
        });
        clock.note(stored, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_first_message_behind_a_position_is_found() {
        let line = Timeline::default();
        assert_eq!(line.waits(Sequence(4)), None);
        // One a second, of which the last has just come.
        for n in 5..=100 {
            line.note(Sequence(n), n * SECOND);
        }
        let waits = |position: u64| line.waits(Sequence(position)).map(|w| w.as_secs());
        assert_eq!(
            (waits(4), waits(60), waits(99)),
            (Some(95), Some(39), Some(0))
        );
        assert_eq!(waits(100), None);
        // From before it began to read, one that was looked up.
        assert_eq!(waits(2), None);
        line.note_fetched(Sequence(3), SECOND);
        assert_eq!((waits(2), waits(3)), (Some(99), None));
    }

    #[test]
    fn a_burst_is_one_and_its_end_is_known() {
        let line = Timeline::default();
        for n in 1..=100_000 {
            line.note(Sequence(n), SECOND + n);
        }
        assert_eq!(line.lock().read.len(), 2);
        assert!(line.waits(Sequence(99_999)).is_some());
    }

    #[test]
    fn memory_is_bounded_and_age_is_told_within_a_share_of_it() {
        let line = Timeline::default();
        for n in 1..=1_000_000 {
            line.note(Sequence(n), n * SECOND / 10);
        }
        assert!(line.lock().read.len() <= REMEMBERED);
        for behind in [10, 1000, 100_000, 900_000] {
            let waits = line
                .waits(Sequence(1_000_000 - behind))
                .unwrap()
                .as_secs_f64();
            let exact = (behind - 1) as f64 / 10.0;
            assert!(
                waits <= exact + 1.0 && waits > exact * 0.93 - 1.0,
                "{behind}: {waits}"
            );
        }
    }

    #[test]
    fn a_late_message_does_not_set_the_clock_back() {
        let line = Timeline::default();
        line.note_time(100 * SECOND);
        line.note(Sequence(1), 40 * SECOND);
        assert_eq!(line.waits(Sequence(0)).unwrap().as_secs(), 60);
    }
}
