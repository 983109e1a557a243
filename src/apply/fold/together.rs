//! What a transaction brings back by itself: the rule that nothing of ours in flight vanishes before anybody's eyes.

use std::collections::HashMap;

use crate::change::key::KeyBytes;
use crate::change::position::{BatchNumber, Sequence};
use crate::change::value::OwnedValue;
use crate::changelog::in_flight::Carrier;

/// What a transaction is to bring back by itself: what vanishes in it is there again before anybody can look.
#[derive(Debug, Default)]
pub struct Together {
    /// The last of our batches that is in it.
    pub batch: Option<BatchNumber>,
    /// It folds up to here.
    pub through: Sequence,
    /// It was waited for in vain: let it flicker.
    pub given_up: bool,
    /// The first message that has counted on it, and the last echo that must be in it therefore.
    pub relied: Option<(Sequence, Carrier)>,
    /// Rows that are away until their echo, with cells that no batch carries yet: by table in lower case and key.
    pub parked: HashMap<(String, KeyBytes), Parked>,
}

/// A row that another displaced while it is on its way, as it was here.
#[derive(Debug)]
pub struct Parked {
    pub(super) row: Vec<OwnedValue>,
    /// What was journaled of it, should it not come back in this transaction.
    pub(super) journaled: std::ops::Range<i64>,
}

impl Together {
    /// Whether what this carries may vanish at message `at`.
    pub(super) fn has(&mut self, carrier: Carrier, at: Sequence) -> bool {
        if self.given_up {
            return true;
        }
        let here = match carrier {
            Carrier::Former(stands) => stands <= self.through,
            Carrier::Batch(batch) => self.batch.is_some_and(|last| batch <= last),
        };
        if here {
            let (since, last) = self.relied.unwrap_or((at, carrier));
            self.relied = Some((since, last.max(carrier)));
        }
        here
    }
}
