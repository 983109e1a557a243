//! This node's way through the streams, as far as it is shown: where they end, what was folded of payload, whether they are read, since when changes wait.
//!
//! Invariant: it is written by whoever gets to know it and read by whoever shows it; nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::timeline::Timeline;
use crate::change::position::{Sequence, ShardId};
use crate::stream::ReaderHealth;

/// What the intake does with the order stream.
#[derive(Debug, Clone, Default)]
pub enum Reading {
    /// Nothing is to be read: it has not begun, or stands still for a reason that is shown.
    #[default]
    Not,
    /// It looks, since then, whether the stream is still the one that was read.
    Looking(Instant),
    /// It reads.
    With(Arc<ReaderHealth>),
}

/// Shared by all parts of the daemon.
#[derive(Debug, Default)]
pub struct Way {
    /// When messages of the order stream were stored.
    pub timeline: Timeline,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    offsets: BTreeMap<u64, u64>,
    ends: BTreeMap<u64, Sequence>,
    reading: Reading,
    unconfirmed: Option<Instant>,
    settled: Option<Instant>,
}

impl Way {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// By shard from 2 on, the last message of payload that was folded here since the start.
    #[must_use]
    pub fn offsets(&self) -> BTreeMap<u64, u64> {
        self.lock().offsets.clone()
    }

    /// Payload up to this message of a shard is folded.
    pub fn passed(&self, shard: ShardId, at: Sequence) {
        let mut known = self.lock();
        let offset = known.offsets.entry(shard.0).or_default();
        *offset = at.0.max(*offset);
    }

    /// The last message of each shard's stream, as of the last look.
    #[must_use]
    pub fn ends(&self) -> BTreeMap<u64, Sequence> {
        self.lock().ends.clone()
    }

    /// The last message of the order stream, as of the last look; `None`: nobody has looked yet.
    #[must_use]
    pub fn end(&self) -> Option<Sequence> {
        self.lock().ends.get(&ShardId::ORDER.0).copied()
    }

    /// A shard's stream reaches at least this far.
    pub fn reaches(&self, shard: ShardId, last: Sequence) {
        let mut known = self.lock();
        let end = known.ends.entry(shard.0).or_default();
        *end = last.max(*end);
    }

    /// What the intake does.
    #[must_use]
    pub fn reading(&self) -> Reading {
        self.lock().reading.clone()
    }

    /// The intake does something else now.
    pub fn set_reading(&self, reading: Reading) {
        self.lock().reading = reading;
    }

    /// Since when the oldest change may have waited that no echo has confirmed, as the publishing loop knows it.
    #[must_use]
    pub fn unconfirmed_since(&self) -> Option<Instant> {
        self.lock().unconfirmed
    }

    /// When nothing was pending last, as of the last look: whatever is pending was committed later.
    #[must_use]
    pub fn settled(&self) -> Option<Instant> {
        self.lock().settled
    }

    /// Nothing was pending at this moment.
    pub fn set_settled(&self, at: Instant) {
        self.lock().settled = Some(at);
    }

    /// Sets since when the oldest change may have waited; `None`: the loop knows of none.
    pub fn set_unconfirmed_since(&self, since: Option<Instant>) {
        self.lock().unconfirmed = since;
    }
}
