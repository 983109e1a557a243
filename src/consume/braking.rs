//! What an operator holds back of applying: all of it, or what is above so many rows a second.
//!
//! Invariant: what is held back waits where it is, in the queue and behind that in the stream; a batch is never cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::apply::incoming::{Body, Incoming};
use crate::brakes::{Pace, Part};
use crate::engine::Engine;

/// How often a node that is paused looks whether it may go on.
const LOOK: Duration = Duration::from_millis(50);

/// The brake on applying.
pub struct Braking {
    engine: Arc<Engine>,
    pace: Pace,
    /// A pause is shown.
    shown: bool,
}

impl Braking {
    /// Of this node.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            pace: Pace::default(),
            shown: false,
        }
    }

    /// Whether applying is paused; after a moment, if it is.
    pub fn is_on(&mut self) -> bool {
        let engine = &self.engine;
        let sentence = engine.brakes.set().apply.pause(Part::Apply);
        match sentence.filter(|_| engine.config.replicate) {
            Some(sentence) => {
                // Each time: the end of a halt takes down whatever is shown.
                if !engine.is_halted() {
                    engine.status.set_apply_paused(Some(sentence));
                    engine.metrics.apply_paused.set(Some("operator"));
                }
                self.shown = true;
                std::thread::sleep(LOOK);
                true
            }
            None => {
                if std::mem::take(&mut self.shown) && !engine.is_halted() {
                    engine.status.set_apply_paused(None);
                    engine.metrics.apply_paused.set(None);
                }
                false
            }
        }
    }

    /// So many rows of other nodes were applied just now.
    pub fn spend(&mut self, rows: u64) {
        self.pace.spend(rows, Instant::now());
    }

    /// When other nodes' rows may be applied again; `None`: at once.
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.pace.next(self.engine.brakes.limit(Part::Apply), now)
    }

    /// What a limit allows at once of these: a tenth of a second's rows, and one batch in any case.
    #[must_use]
    pub fn within<'a>(&self, group: &'a [Incoming]) -> &'a [Incoming] {
        let Some(limit) = self.engine.brakes.limit(Part::Apply) else {
            return group;
        };
        let me = self.engine.config.node_id;
        let mut left = (limit.get() / 10).max(1);
        let over = group.iter().position(|m| {
            let rows = match &m.body {
                Body::Batch(b) if b.record.node.0 != me => b.record.row_count,
                _ => 0,
            };
            let over = rows >= left;
            left = left.saturating_sub(rows);
            over
        });
        over.and_then(|at| group.get(..=at)).unwrap_or(group)
    }
}
