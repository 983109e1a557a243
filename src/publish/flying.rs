//! Batches on their way: sent or to be sent, until their echo is folded.
//!
//! Invariants: they go out in the order of their numbers, each after the acknowledgement of the one before; an acknowledgement is a hint, so what it
//! says is forgotten as soon as there is a reason to doubt it, and everything from there on is sent again (readers ignore what follows a gap); nothing
//! leaves but by its echo.

use std::collections::VecDeque;
use std::time::Instant;

use super::outbox::Outbox;
use crate::change::position::{BatchNumber, Sequence};
use crate::codec::batch::Batch;

/// A batch on its way.
#[derive(Debug)]
pub struct Flying {
    /// Its messages.
    pub outbox: Outbox,
    /// Where its commit record stands, as the broker says.
    pub acknowledged: Option<Sequence>,
    /// It was acknowledged before, and counted.
    pub counted: bool,
    /// It was sent before, whatever became of it.
    pub sent: bool,
    /// When the first commit that it may carry was noticed.
    pub since: Instant,
}

impl Flying {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> BatchNumber {
        self.outbox.batch().record.batch
    }
}

/// All batches on their way, oldest first.
#[derive(Debug, Default)]
pub struct FlyingBatches(VecDeque<Flying>);

impl FlyingBatches {
    /// Adds the next batch.
    pub fn push(&mut self, batch: Batch, since: Instant) {
        self.0.push_back(Flying {
            outbox: Outbox::new(batch),
            acknowledged: None,
            counted: false,
            sent: false,
            since,
        });
    }

    /// Whether none is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are on their way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Bytes of them, before compression.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.0.iter().map(|f| f.outbox.batch().raw_bytes).sum()
    }

    /// When the first commit was noticed that one of them carries.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.0.front().map(|f| f.since)
    }

    /// The oldest.
    #[must_use]
    pub fn first(&self) -> Option<BatchNumber> {
        self.0.front().map(Flying::number)
    }

    /// The oldest that is not acknowledged: the one to be sent now.
    pub fn unacknowledged(&mut self) -> Option<&mut Flying> {
        self.0.iter_mut().find(|f| f.acknowledged.is_none())
    }

    /// Gives all of them up; the change log holds what they carry.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Echoes up to `echoed` are folded and everything up to `passed` is read. Returns the batch that was acknowledged and passed by without being there:
    /// the stream has lost it, and with it all that came after, so all are to be sent again.
    pub fn land(&mut self, echoed: BatchNumber, passed: Sequence) -> Option<BatchNumber> {
        while self.0.front().is_some_and(|f| f.number() <= echoed) {
            self.0.pop_front();
        }
        let lost = self
            .0
            .front()
            .filter(|f| f.acknowledged.is_some_and(|a| a <= passed))
            .map(Flying::number)?;
        self.doubt();
        Some(lost)
    }

    /// The broker may have lost what it acknowledged: the connection is another one, so it may have been restarted. What is still there is ignored
    /// when it comes a second time.
    pub fn doubt(&mut self) {
        for flying in &mut self.0 {
            flying.acknowledged = None;
            // What the stream lost of one it may have lost of all: payload is not trusted to be where it was.
            flying.outbox.renew();
        }
    }
}
