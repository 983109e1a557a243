//! Whether the publishing loop may begin something new, and whether payload that it sent a while ago can still be relied on.
//!
//! Invariants: above a stream's soft limit nothing new is begun, so that a share stays free for what frees the rest (batches under way, the leader's own);
//! a commit record never names payload that was sent before this node was silent for so long that the leader may have trimmed it (see
//! [`crate::snapshot::trim`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::planted::planted;

/// Why nothing new may be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// A stream is above its soft limit.
    Stream,
    /// As much is kept of what was published as may be.
    Kept,
}

impl Closed {
    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Stream => {
                "a stream is above its soft limit, nearly full, and changes wait in the database until a snapshot has made room; raise replication_log.max_bytes if this happens often"
            }
            Self::Kept => {
                "this node keeps as much of its published changes as kept_max_bytes allows, and new ones wait in the database until a snapshot covers some; raise replication_log.kept_max_bytes if this happens often"
            }
        }
    }
}

/// Shared by the publishing loop and the one that looks at the streams.
#[derive(Debug, Default)]
pub struct Gate(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Bytes up to the soft limit of the fullest stream; `None`: no limit.
    room: Option<i64>,
    /// Bytes up to the limit of the fullest stream.
    hard: Option<i64>,
    /// Bytes of a batch that finds no room.
    wanted: u64,
    /// A snapshot is being taken here, for which everything must be published.
    exempt: bool,
    /// No more of what is published can be kept until a snapshot covers some of it.
    keeps_all: bool,
    /// The longest that this node may say nothing, where that matters.
    gap: Option<Duration>,
    /// Since when this node has announced itself without a gap, and when it did last.
    present: Option<(Instant, Instant)>,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams were looked at: so many bytes may come until the first is at its soft limit, and until it is full.
    pub fn set_room(&self, room: Option<i64>, hard: Option<i64>) {
        let mut inner = self.lock();
        inner.room = room;
        inner.hard = hard;
    }

    /// So many bytes were sent since.
    pub fn spend(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let mut inner = self.lock();
        inner.room = inner.room.map(|room| room.saturating_sub(bytes));
        inner.hard = inner.hard.map(|room| room.saturating_sub(bytes));
    }

    /// Whether so many bytes of payload find room: a batch that is begun and cannot be finished would stand in the way of trimming.
    #[must_use]
    pub fn has_room_for(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.lock().hard.is_none_or(|room| bytes < room)
    }

    /// A batch of so many bytes of payload finds no room; 0: none waits for any.
    pub fn set_wanted(&self, bytes: u64) {
        self.lock().wanted = bytes;
    }

    /// The bytes that a batch waits for.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.lock().wanted
    }

    /// This node takes a snapshot, which needs what it contains to be in the stream; or it does no more.
    pub fn set_exempt(&self, exempt: bool) {
        self.lock().exempt = exempt;
    }

    /// As much is kept of what was published as may be; or there is room again.
    pub fn set_keeps_all(&self, full: bool) {
        self.lock().keeps_all = full;
    }

    /// Why no new batch may be begun, if so.
    #[must_use]
    pub fn closed(&self) -> Option<Closed> {
        let inner = self.lock();
        if inner.exempt {
            None
        } else if inner.room.is_some_and(|room| room <= 0) {
            Some(Closed::Stream)
        } else {
            inner.keeps_all.then_some(Closed::Kept)
        }
    }

    /// From now on this node announces itself, with pauses of less than `gap`.
    pub fn require_presence(&self, gap: Duration) {
        self.lock().gap = Some(gap);
    }

    /// This node has announced itself: begun at `at`.
    pub fn announced(&self, at: Instant) {
        let mut inner = self.lock();
        let gap = inner.gap.unwrap_or(Duration::MAX);
        let since = match inner.present {
            Some((since, last)) if at.saturating_duration_since(last) < gap => since,
            _ => at,
        };
        inner.present = Some((since, at));
    }

    /// Whether others know of this node, so that payload that it sends now is kept for it.
    #[must_use]
    pub fn is_present(&self, now: Instant) -> bool {
        let inner = self.lock();
        match (inner.gap, inner.present) {
            (None, _) => true,
            (Some(gap), Some((_, last))) => now.saturating_duration_since(last) < gap,
            (Some(_), None) => false,
        }
    }

    /// Whether payload that was stored at `stored` or later is certain to be kept still.
    #[must_use]
    pub fn keeps(&self, stored: Instant, now: Instant) -> bool {
        let inner = self.lock();
        match (inner.gap, inner.present) {
            (None, _) => true,
            _ if planted!(SilenceIgnored) => true,
            (Some(gap), Some((since, last))) => {
                stored >= since && now.saturating_duration_since(last) < gap
            }
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_soft_limit_only_the_exempt_begin() {
        let gate = Gate::default();
        assert!(gate.closed().is_none());
        gate.set_room(Some(10), Some(12));
        assert!(gate.has_room_for(11) && !gate.has_room_for(12));
        gate.spend(4);
        assert!(gate.closed().is_none());
        gate.spend(6);
        assert_eq!(gate.closed(), Some(Closed::Stream));
        gate.set_exempt(true);
        assert!(gate.closed().is_none());
        gate.set_exempt(false);
        gate.set_room(Some(1), None);
        assert!(gate.closed().is_none());
        gate.set_keeps_all(true);
        assert_eq!(gate.closed(), Some(Closed::Kept));
        gate.set_exempt(true);
        assert!(gate.closed().is_none());
    }

    #[test]
    fn payload_from_before_a_silence_does_not_count() {
        let gate = Gate::default();
        let start = Instant::now();
        assert!(gate.keeps(start, start) && gate.is_present(start));
        gate.require_presence(Duration::from_secs(3600));
        assert!(!gate.keeps(start, start) && !gate.is_present(start));
        gate.announced(start);
        assert!(gate.is_present(start) && gate.keeps(start, start));
        // The next announcement comes after a gap.
        let later = start + Duration::from_secs(7200);
        assert!(!gate.is_present(later) && !gate.keeps(start, later));
        gate.announced(later);
        assert!(!gate.keeps(start, later));
        assert!(gate.keeps(later, later));
    }
}
