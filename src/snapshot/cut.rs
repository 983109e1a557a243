//! Where the order stream may be cut: a pure rule over what its messages say about one another. [`super::trim`] has the argument.
//!
//! Invariant: no record above the cut names payload below it.

use std::collections::BTreeMap;

use crate::change::position::{Sequence, ShardId};
use crate::planted::planted;

/// What the order stream's messages say about one another.
#[derive(Debug, Default)]
pub struct Scan {
    bound: u64,
    /// Of records and the first piece of shard 1 that each names, at or below the bound: the cut is not between the two.
    spans: Vec<(u64, u64)>,
    /// The first piece at or below the bound that may still be named.
    open: Option<u64>,
    /// Of records up to the bound: the first piece in each other shard.
    below: Vec<(u64, ShardId, u64)>,
    /// Of all records above the bound together.
    above: BTreeMap<ShardId, u64>,
    /// Shards that any record names.
    shards: u64,
}

impl Scan {
    /// A scan for a cut at `bound` at most.
    #[must_use]
    pub fn new(bound: Sequence) -> Self {
        Self {
            bound: bound.0,
            ..Self::default()
        }
    }

    /// A record at `at` names pieces of `shard`, of which `first` is the first.
    pub fn record(&mut self, at: Sequence, shard: ShardId, first: Sequence) {
        self.shards = self.shards.max(shard.0);
        if shard == ShardId::ORDER {
            if first.0 <= self.bound {
                self.spans.push((first.0, at.0));
            }
        } else if at.0 <= self.bound {
            self.below.push((at.0, shard, first.0));
        } else {
            let least = self.above.entry(shard).or_insert(first.0);
            *least = (*least).min(first.0);
        }
    }

    /// A piece at `at` may still be named by a record that comes.
    pub fn open(&mut self, at: Sequence) {
        if at.0 <= self.bound {
            self.open = Some(self.open.map_or(at.0, |open| open.min(at.0)));
        }
    }

    /// The highest number of a shard that any record names.
    #[must_use]
    pub fn shards(&self) -> u64 {
        self.shards
    }

    /// The highest cut at which no record above it names a piece of shard 1 below it, now or later.
    #[must_use]
    pub fn cut(&mut self) -> Sequence {
        let mut cut = self
            .open
            .map_or(self.bound, |open| self.bound.min(open.saturating_sub(1)));
        // From the last record down: lowering the cut can only bring earlier ones above it.
        self.spans
            .sort_unstable_by_key(|(_, at)| std::cmp::Reverse(*at));
        for (first, at) in &self.spans {
            if *at > cut && *first <= cut && !planted!(CutPartsBatches) {
                cut = first.saturating_sub(1);
            }
        }
        Sequence(cut)
    }

    /// The first piece of another shard that a record above the cut names.
    #[must_use]
    pub fn named_above(&self, cut: Sequence, shard: ShardId) -> Option<Sequence> {
        let below = self
            .below
            .iter()
            .filter(|(at, s, _)| *at > cut.0 && *s == shard)
            .map(|(.., first)| *first);
        below
            .chain(self.above.get(&shard).copied())
            .min()
            .map(Sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bound: u64, records: &[(u64, u64)], open: &[u64]) -> u64 {
        let mut scan = Scan::new(Sequence(bound));
        for (at, first) in records {
            scan.record(Sequence(*at), ShardId::ORDER, Sequence(*first));
        }
        for at in open {
            scan.open(Sequence(*at));
        }
        scan.cut().0
    }

    #[test]
    fn the_cut_parts_no_record_from_its_payload() {
        assert_eq!(cut(10, &[], &[]), 10);
        // Whole batches below the cut.
        assert_eq!(cut(10, &[(5, 3), (10, 9)], &[]), 10);
        // A record above names a piece below.
        assert_eq!(cut(10, &[(12, 8)], &[]), 7);
        // Going below that piece parts another record from its own.
        assert_eq!(cut(10, &[(12, 8), (9, 4)], &[]), 3);
        assert_eq!(cut(10, &[(9, 4), (12, 8), (3, 2)], &[]), 3);
        assert_eq!(cut(10, &[(9, 4), (12, 8), (4, 2)], &[]), 1);
        // Somebody's batch is under way.
        assert_eq!(cut(10, &[], &[6, 11]), 5);
        assert_eq!(cut(10, &[(7, 2)], &[6]), 1);
    }

    #[test]
    fn every_cut_below_every_bound_is_sound() {
        let mut random = 0x9e37_79b9_u64;
        let mut draw = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        for _ in 0..2000 {
            let records: Vec<(u64, u64)> = (0..draw(12))
                .map(|_| {
                    let at = 2 + draw(40);
                    (at, 1 + draw(at - 1))
                })
                .collect();
            let bound = 1 + draw(45);
            let got = cut(bound, &records, &[]);
            let sound = |c: u64| records.iter().all(|(at, first)| *at <= c || *first > c);
            assert!(sound(got), "{bound} {records:?}: {got}");
            let best = (0..=bound).rev().find(|c| sound(*c));
            assert_eq!(Some(got), best, "{bound} {records:?}");
        }
    }

    #[test]
    fn other_shards_keep_what_records_above_the_cut_name() {
        let mut scan = Scan::new(Sequence(10));
        let two = ShardId(2);
        for (at, first) in [(3, 1), (7, 4), (12, 9), (15, 6)] {
            scan.record(Sequence(at), two, Sequence(first));
        }
        assert_eq!(scan.named_above(Sequence(10), two), Some(Sequence(6)));
        assert_eq!(scan.named_above(Sequence(5), two), Some(Sequence(4)));
        assert_eq!(scan.named_above(Sequence(5), ShardId(3)), None);
    }
}
