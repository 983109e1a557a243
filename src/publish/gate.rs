//! Whether the publishing loop may begin something new, and whether payload that it sent a while ago can still be relied on.
//!
//! Invariants: above a stream's soft limit nothing new is begun, so that a share stays free for what frees the rest (batches under way, the leader's own);
//! a batch is begun only where each stream has room for its share;
//! a commit record never names payload that was sent before this node was silent for so long that the leader may have trimmed it (see
//! [`crate::snapshot::trim`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::change::position::ShardId;
use crate::planted::planted;

/// Bytes of the order stream beside a batch's payload: its commit record, which names each piece, and what stays at the end of the log whatever is trimmed.
pub const MARGIN: u64 = 64 << 10;

/// What one stream may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Its shard.
    pub shard: ShardId,
    /// Bytes up to its soft limit; negative above it.
    pub soft: i64,
    /// Bytes up to its limit.
    pub hard: i64,
    /// Bytes that it may hold.
    pub limit: u64,
}

/// Why a batch cannot be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Its share of a stream finds room when a snapshot has made some.
    #[error(
        "the stream of shard {shard} has no room for the {bytes} bytes of a batch until a snapshot has made some"
    )]
    Yet {
        /// The shard.
        shard: ShardId,
        /// The bytes.
        bytes: u64,
    },
    /// Its share is more than the stream may ever hold.
    #[error(
        "a batch takes {bytes} bytes of the stream of shard {shard}, which may hold {limit}: it waits until replication_log.max_bytes is raised on all nodes, with update_existing = true"
    )]
    Ever {
        /// The shard.
        shard: ShardId,
        /// The bytes.
        bytes: u64,
        /// What the stream may hold.
        limit: u64,
    },
}

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
    /// The streams that have a limit.
    rooms: Vec<Room>,
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

    /// The streams were looked at. Those without a limit are left out.
    pub fn set_rooms(&self, rooms: Vec<Room>) {
        self.lock().rooms = rooms;
    }

    /// So many bytes were sent since, by shard.
    pub fn spend(&self, shares: &BTreeMap<ShardId, u64>) {
        for room in &mut self.lock().rooms {
            let bytes = shares.get(&room.shard).copied().unwrap_or(0);
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            room.soft = room.soft.saturating_sub(bytes);
            room.hard = room.hard.saturating_sub(bytes);
        }
    }

    /// Whether a batch finds room that has so many bytes by shard: one that is begun and cannot be finished would stand in the way of trimming. Whoever makes room learns of
    /// one that needs some, but not of one that can never have it.
    ///
    /// # Errors
    /// Why it does not.
    pub fn ask(&self, shares: &BTreeMap<ShardId, u64>) -> Result<(), NoRoom> {
        let mut inner = self.lock();
        let share = |room: &Room| shares.get(&room.shard).copied().unwrap_or(0);
        let fits = |room: &Room| {
            let bytes = i64::try_from(share(room)).unwrap_or(i64::MAX);
            bytes == 0 || bytes < room.hard
        };
        let too_large = inner
            .rooms
            .iter()
            .find(|r| share(r) > r.limit.saturating_sub(MARGIN));
        let lacking = inner
            .rooms
            .iter()
            .filter(|r| !fits(r))
            .max_by_key(|r| share(r));
        let refused = match (too_large, lacking) {
            (Some(room), _) => Err(NoRoom::Ever {
                shard: room.shard,
                bytes: share(room),
                limit: room.limit,
            }),
            (None, Some(room)) => Err(NoRoom::Yet {
                shard: room.shard,
                bytes: share(room),
            }),
            (None, None) => Ok(()),
        };
        inner.wanted = match refused {
            Err(NoRoom::Yet { bytes, .. }) => bytes,
            Err(NoRoom::Ever { .. }) | Ok(()) => 0,
        };
        refused
    }

    /// The bytes of one stream that a batch waits for; 0: none waits.
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
        } else if inner.rooms.iter().any(|room| room.soft <= 0) {
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

    fn room(shard: u64, soft: i64, hard: i64) -> Room {
        Room {
            shard: ShardId(shard),
            soft,
            hard,
            limit: 1 << 20,
        }
    }

    #[test]
    fn each_share_needs_room_in_its_own_stream() {
        let gate = Gate::default();
        let shares = |one, two| [(ShardId(1), one), (ShardId(2), two)].into();
        assert_eq!(gate.ask(&shares(u64::MAX, 1)), Ok(()));
        gate.set_rooms(vec![room(1, 0, 500_000), room(2, 0, 800_000)]);
        // More together than either has.
        assert_eq!(gate.ask(&shares(499_999, 799_999)), Ok(()));
        let no_room = |shard, bytes| {
            let shard = ShardId(shard);
            Err(NoRoom::Yet { shard, bytes })
        };
        assert_eq!(gate.ask(&shares(500_000, 1)), no_room(1, 500_000));
        assert_eq!(gate.wanted(), 500_000);
        assert_eq!(gate.ask(&shares(500_000, 900_000)), no_room(2, 900_000));
        assert_eq!(gate.wanted(), 900_000);
        // What no snapshot can make room for asks for none.
        let most = (1 << 20) - MARGIN;
        assert_eq!(gate.ask(&shares(1, most)), no_room(2, most));
        let never = gate.ask(&shares(1, most + 1));
        assert!(matches!(never, Err(NoRoom::Ever { .. })));
        assert!(never.is_err_and(|e| e.to_string().contains("replication_log.max_bytes")));
        assert_eq!(gate.wanted(), 0);
        // Nothing goes to the stream that is full.
        gate.set_rooms(vec![room(1, 0, 500_000), room(2, -9, -1)]);
        assert_eq!(gate.ask(&[(ShardId(1), 10)].into()), Ok(()));
    }

    #[test]
    fn above_the_soft_limit_only_the_exempt_begin() {
        let gate = Gate::default();
        assert!(gate.closed().is_none());
        gate.set_rooms(vec![room(1, 10, 12)]);
        gate.spend(&[(ShardId(1), 4), (ShardId(2), 9)].into());
        assert!(gate.closed().is_none());
        gate.spend(&[(ShardId(1), 6)].into());
        assert_eq!(gate.closed(), Some(Closed::Stream));
        gate.set_exempt(true);
        assert!(gate.closed().is_none());
        gate.set_exempt(false);
        gate.set_rooms(vec![room(1, 1, 3), room(2, 1, 3)]);
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
