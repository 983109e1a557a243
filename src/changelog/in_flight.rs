//! Which change-log rows a batch of ours carries already.
//!
//! Invariant: a row counts as sent from the scan that took it until its echo, or, after a start, if the stream already held a batch of ours
//! with its id and stamp. Scan and apply hold this state exclusively, one after the other.

use std::collections::{HashMap, VecDeque};

use smallvec::SmallVec;

use crate::change::position::{BatchNumber, Sequence};
use crate::planted::planted;

/// Batches that may be in flight at once. The publisher waits for each acknowledgement before it scans again, so this bounds how many acknowledged batches
/// may wait for the moment at which their echoes are folded together.
pub const WINDOW: usize = 256;

/// What brings back a change of ours that is on its way. In the order of the stream: what a former life sent stands there before what this one
/// sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// A batch of a former incarnation, which stands there in the stream.
    Former(Sequence),
    /// A batch of this incarnation.
    Batch(BatchNumber),
}

/// With which stamps a change-log id was sent, and where that stands. There are several where a copy of the database wrote under the same node id.
type Sent = SmallVec<[(u32, Sequence); 1]>;

/// The state that scan and apply share.
#[derive(Debug, Default)]
pub struct InFlight {
    /// The batches whose echo has not been folded, oldest first.
    pub batches: VecDeque<BatchNumber>,
    /// By table in lower case: every row up to this id was scanned in this incarnation.
    watermarks: HashMap<String, i64>,
    /// By table in lower case: which batch in flight carries the rows up to which id, oldest first.
    carried: HashMap<String, VecDeque<(i64, BatchNumber)>>,
    /// Rows that batches of former incarnations carry, found in the stream ahead of our position: table and id.
    ahead: HashMap<String, HashMap<i64, Sent>>,
    /// Where in the stream the last of those batches stands; behind it `ahead` has no meaning any more.
    ahead_until: Sequence,
    /// How often all of it has begun anew.
    renewed: u64,
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

    /// What carries the last of all that is on its way.
    #[must_use]
    pub fn last_carrier(&self) -> Option<Carrier> {
        let former = (!self.ahead.is_empty()).then_some(Carrier::Former(self.ahead_until));
        self.last().map(Carrier::Batch).or(former)
    }

    /// A batch was folded, and with it all before it.
    pub fn echoed(&mut self, batch: BatchNumber) {
        while self.batches.front().is_some_and(|b| *b <= batch) {
            self.batches.pop_front();
        }
        self.carried.retain(|_, carried| {
            while carried.front().is_some_and(|(_, b)| *b <= batch) {
                carried.pop_front();
            }
            !carried.is_empty()
        });
    }

    /// What carries this row, if it is sent.
    #[must_use]
    pub fn carrier(&self, table: &str, id: i64, stamp: u32) -> Option<Carrier> {
        let table = lower(table);
        if let Some(at) = self.ahead_at(&table, id, stamp) {
            return Some(Carrier::Former(at));
        }
        if self.watermarks.get(table.as_ref()).is_none_or(|w| id > *w) {
            return None;
        }
        let carried = self.carried.get(table.as_ref());
        let batch = carried.and_then(|c| c.get(c.partition_point(|(to, _)| *to < id)));
        // What was scanned and is still here is carried by one of those; the last of all is the safe answer.
        Some(Carrier::Batch(
            batch.map(|(_, b)| *b).or(self.last()).unwrap_or_default(),
        ))
    }

    /// Whether a batch of a former incarnation carries this row.
    #[must_use]
    pub fn is_ahead(&self, table: &str, id: i64, stamp: u32) -> bool {
        self.ahead_at(table, id, stamp).is_some()
    }

    fn ahead_at(&self, table: &str, id: i64, stamp: u32) -> Option<Sequence> {
        if self.ahead.is_empty() {
            return None;
        }
        self.ahead
            .get(lower(table).as_ref())?
            .get(&id)?
            .iter()
            .rev()
            .find(|(s, _)| *s == stamp || planted!(StampsIgnored))
            .map(|(_, at)| *at)
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

    /// All rows of the table up to this id are scanned now; those that are new are carried by this batch, if there is one.
    pub fn set_watermark(&mut self, table: &str, id: i64, batch: Option<BatchNumber>) {
        let table = lower(table).into_owned();
        if let Some(batch) = batch {
            self.carried
                .entry(table.clone())
                .or_default()
                .push_back((id, batch));
        }
        self.watermarks.insert(table, id);
    }

    /// A batch of ours in the stream ahead carries this row.
    pub fn add_ahead(&mut self, table: &str, id: i64, stamp: u32, at: Sequence) {
        self.ahead
            .entry(lower(table).into_owned())
            .or_default()
            .entry(id)
            .or_default()
            .push((stamp, at));
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
        *self = Self {
            renewed: self.renewed + 1,
            ..Self::default()
        };
    }

    /// Rises each time when it begins anew.
    #[must_use]
    pub fn renewed(&self) -> u64 {
        self.renewed
    }

    /// A table was renamed, and its change log with it: what it holds is on its way under the former name.
    pub fn rename_table(&mut self, from: &str, to: &str) {
        let (from, to) = (lower(from), lower(to).into_owned());
        if let Some(id) = self.watermarks.remove(from.as_ref()) {
            self.watermarks.insert(to.clone(), id);
        }
        if let Some(carried) = self.carried.remove(from.as_ref()) {
            self.carried.insert(to.clone(), carried);
        }
        if let Some(ahead) = self.ahead.remove(from.as_ref()) {
            self.ahead.insert(to.clone(), ahead);
        }
        for (table, _) in &mut self.forgotten {
            if table.eq_ignore_ascii_case(&from) {
                table.clone_from(&to);
            }
        }
    }

    /// A table's change log was made anew, with ids from one.
    pub fn forget_table(&mut self, table: &str) {
        self.watermarks.remove(lower(table).as_ref());
        self.carried.remove(lower(table).as_ref());
        self.ahead.remove(lower(table).as_ref());
        // The same ids are other changes from now on, which are still to be sent.
        self.forgotten
            .retain(|(t, _)| !t.eq_ignore_ascii_case(table));
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
        f.set_watermark("T", 5, None);
        f.add_ahead("t", 9, 77, Sequence(3));
        assert!(f.carrier("t", 5, 0).is_some() && f.carrier("t", 6, 0).is_none());
        assert_eq!(f.carrier("T", 9, 77), Some(Carrier::Former(Sequence(3))));
        // A copy of the database that ran under the same id has used the same id for a change of its own.
        f.add_ahead("t", 9, 78, Sequence(4));
        assert_eq!(f.carrier("T", 9, 77), Some(Carrier::Former(Sequence(3))));
        assert_eq!(f.carrier("T", 9, 78), Some(Carrier::Former(Sequence(4))));
        assert_eq!(f.carrier("T", 9, 79), None);
        f.folded(Sequence(3));
        assert!(f.is_ahead("t", 9, 77));
        f.folded(Sequence(4));
        assert!(!f.is_ahead("t", 9, 77));
    }

    #[test]
    fn what_is_forgotten_goes_with_its_log() {
        let mut f = InFlight {
            forgotten: vec![("T".to_owned(), 5), ("u".to_owned(), 7)],
            ..InFlight::default()
        };
        f.rename_table("t", "P");
        assert!(f.is_forgotten("p", 5) && !f.is_forgotten("t", 5));
        f.forget_table("p");
        assert_eq!(f.forgotten, [("u".to_owned(), 7)]);
    }

    #[test]
    fn each_row_has_the_batch_that_carries_it() {
        let mut f = InFlight::default();
        for (to, batch) in [(3, 1), (5, 2), (9, 4)] {
            f.batches.push_back(BatchNumber(batch));
            f.set_watermark("t", to, Some(BatchNumber(batch)));
        }
        let of = |f: &InFlight, id| f.carrier("t", id, 0);
        let batch = |n| Some(Carrier::Batch(BatchNumber(n)));
        assert_eq!(
            [of(&f, 1), of(&f, 3), of(&f, 4)],
            [batch(1), batch(1), batch(2)]
        );
        assert_eq!([of(&f, 9), of(&f, 10)], [batch(4), None]);
        f.echoed(BatchNumber(2));
        assert_eq!(of(&f, 6), batch(4));
    }
}
