//! Order per publisher, enforced by readers: a batch counts only directly after the one before it.
//!
//! Invariant: the verdict depends on nothing but the stream up to the message, so all nodes take and ignore the same messages, whatever was
//! resent, doubled or late.

use crate::change::position::{BatchNumber, Incarnation, Sequence};
use crate::codec::commit::CommitRecord;
use crate::planted::planted;
use crate::state::publishers::{LastTaken, Publishers};

/// What becomes of a commit record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Take,
    /// It was taken before: a resend.
    Duplicate,
    /// One before it is missing: the publisher will resend from there.
    Gap,
    /// Of a life that has ended, or of a double of it.
    Stale,
}

/// Judges a batch by the last one taken from its publisher.
#[must_use]
pub fn judge(last: Option<&LastTaken>, incarnation: Incarnation, batch: BatchNumber) -> Verdict {
    let (last_incarnation, last_batch) = last
        .map_or((Incarnation::default(), BatchNumber(0)), |l| {
            (l.incarnation, l.batch)
        });
    if planted!(NoOrder) {
        return Verdict::Take;
    }
    match incarnation.counter.cmp(&last_incarnation.counter) {
        std::cmp::Ordering::Less => Verdict::Stale,
        std::cmp::Ordering::Greater if batch == BatchNumber(1) => Verdict::Take,
        std::cmp::Ordering::Greater => Verdict::Gap,
        std::cmp::Ordering::Equal
            if incarnation.nonce != last_incarnation.nonce && !planted!(NonceIgnored) =>
        {
            Verdict::Stale
        }
        std::cmp::Ordering::Equal if batch == last_batch.next() => Verdict::Take,
        std::cmp::Ordering::Equal if batch <= last_batch => Verdict::Duplicate,
        std::cmp::Ordering::Equal => Verdict::Gap,
    }
}

/// Judges a record.
#[must_use]
pub fn judge_record(publishers: &Publishers, record: &CommitRecord) -> Verdict {
    judge(
        publishers.get(&record.node),
        record.incarnation,
        record.batch,
    )
}

/// Whether the record at `at` counts; if it does, it is its publisher's last from now on. For whoever reads on without folding.
pub fn admit(publishers: &mut Publishers, record: &CommitRecord, at: Sequence) -> bool {
    let counts = judge_record(publishers, record) == Verdict::Take;
    if counts {
        publishers.insert(record.node, LastTaken::of(record, at));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::position::Sequence;

    #[test]
    fn batches_follow_one_another() {
        let inc = |counter, nonce| Incarnation { counter, nonce };
        let last = LastTaken {
            incarnation: inc(3, 9),
            batch: BatchNumber(4),
            sequence: Sequence(1),
        };
        let j = |counter, nonce, n| judge(Some(&last), inc(counter, nonce), BatchNumber(n));
        assert_eq!(j(3, 9, 5), Verdict::Take);
        assert_eq!(j(3, 9, 4), Verdict::Duplicate);
        assert_eq!(j(3, 9, 6), Verdict::Gap);
        assert_eq!(j(3, 8, 5), Verdict::Stale);
        assert_eq!(j(2, 9, 5), Verdict::Stale);
        assert_eq!(j(4, 1, 1), Verdict::Take);
        assert_eq!(j(4, 1, 2), Verdict::Gap);
        assert_eq!(judge(None, inc(1, 1), BatchNumber(1)), Verdict::Take);
        assert_eq!(judge(None, inc(1, 1), BatchNumber(2)), Verdict::Gap);
    }
}
