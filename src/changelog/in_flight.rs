//! Which change-log rows a batch of ours carries already.
//!
//! Invariant: a row counts as sent from the scan that took it until its echo, or, after a start, if the stream already held a batch of ours
//! with its id and stamp. Scan and apply hold this state exclusively, one after the other.

use std::collections::{HashMap, VecDeque};

use crate::change::position::{BatchNumber, Sequence};
use crate::planted::planted;

/// Batches that may be in flight at once. The publisher waits for each acknowledgement before it scans again, so this bounds how many acknowledged batches
/// may wait for the moment at which their echoes are folded together.
pub const WINDOW: usize = 256;

/// The state that scan and apply share.
#[derive(Debug, Default)]
pub struct InFlight {
    /// The batches whose echo has not been folded, oldest first.
    pub batches: VecDeque<BatchNumber>,
    /// By table in lower case: every row up to this id was scanned in this incarnation.
    watermarks: HashMap<String, i64>,
    /// Rows that batches of former incarnations carry, found in the stream ahead of our position: table, id, stamp.
    ahead: HashMap<String, HashMap<i64, u32>>,
    /// Where in the stream the last of those batches stands; behind it `ahead` has no meaning any more.
    ahead_until: Sequence,
    /// Cells whose row was gone at the scan: no batch carries them, so they are not pending; the next write transaction removes them.
    pub forgotten: Vec<(String, i64)>,
}

impl InFlight {
    /// Whether no further batch may be begun.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.batches.len() >= WINDOW
    }

    /// The last batch in flight.
    #[must_use]
    pub fn last(&self) -> Option<BatchNumber> {
        self.batches.back().copied()
    }

    /// A batch was folded, and with it all before it.
    pub fn echoed(&mut self, batch: BatchNumber) {
        while self.batches.front().is_some_and(|b| *b <= batch) {
            self.batches.pop_front();
        }
    }

    /// Whether a batch carries this row.
    #[must_use]
    pub fn is_sent(&self, table: &str, id: i64, stamp: u32) -> bool {
        let table = lower(table);
        self.watermarks
            .get(table.as_ref())
            .is_some_and(|w| id <= *w)
            || self.is_ahead(&table, id, stamp)
    }

    /// Whether a batch of a former incarnation carries this row.
    #[must_use]
    pub fn is_ahead(&self, table: &str, id: i64, stamp: u32) -> bool {
        !self.ahead.is_empty()
            && self
                .ahead
                .get(lower(table).as_ref())
                .and_then(|t| t.get(&id))
                .is_some_and(|s| *s == stamp || planted!(StampsIgnored))
    }

    /// Whether the row was found gone at the scan, so that nothing carries it.
    #[must_use]
    pub fn is_forgotten(&self, table: &str, id: i64) -> bool {
        self.forgotten
            .iter()
            .any(|(t, i)| *i == id && t.eq_ignore_ascii_case(table))
    }

    /// Up to which id the table's rows are scanned.
    #[must_use]
    pub fn watermark(&self, table: &str) -> i64 {
        self.watermarks
            .get(lower(table).as_ref())
            .copied()
            .unwrap_or(0)
    }

    /// All rows of the table up to this id are scanned now.
    pub fn set_watermark(&mut self, table: &str, id: i64) {
        self.watermarks.insert(lower(table).into_owned(), id);
    }

    /// A batch of ours in the stream ahead carries this row.
    pub fn add_ahead(&mut self, table: &str, id: i64, stamp: u32, at: Sequence) {
        self.ahead
            .entry(lower(table).into_owned())
            .or_default()
            .insert(id, stamp);
        self.ahead_until = self.ahead_until.max(at);
    }

    /// Everything up to this position is folded.
    pub fn folded(&mut self, position: Sequence) {
        if !self.ahead.is_empty() && position >= self.ahead_until {
            self.ahead = HashMap::new();
        }
    }

    /// Begins anew, as a new incarnation does.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// A table's change log was made anew, with ids from one.
    pub fn forget_table(&mut self, table: &str) {
        self.watermarks.remove(lower(table).as_ref());
        self.ahead.remove(lower(table).as_ref());
    }
}

/// SQLite's names ignore the case of ASCII letters.
fn lower(table: &str) -> std::borrow::Cow<'_, str> {
    if table.bytes().any(|b| b.is_ascii_uppercase()) {
        table.to_ascii_lowercase().into()
    } else {
        table.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_by_watermark_or_ahead() {
        let mut f = InFlight::default();
        f.set_watermark("T", 5);
        f.add_ahead("t", 9, 77, Sequence(3));
        assert!(f.is_sent("t", 5, 0) && !f.is_sent("t", 6, 0));
        assert!(f.is_sent("T", 9, 77) && !f.is_sent("t", 9, 78));
        f.folded(Sequence(2));
        assert!(f.is_ahead("t", 9, 77));
        f.folded(Sequence(3));
        assert!(!f.is_ahead("t", 9, 77));
    }
}
