//! Whether a snapshot is due: a pure rule.
//!
//! Invariant: never by a count of messages; the cost of snapshots is a constant share of that of writing.

use std::time::Duration;

use crate::change::position::Sequence;

/// The log may grow to this before the database's size counts: a small database is not copied all the time.
const FLOOR: u64 = 64 << 20;

/// A migration changes a schema step by step: not each step is worth a snapshot.
const MIGRATION: Duration = Duration::from_secs(10);

/// What decides whether a snapshot is due.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// What the newest snapshot covers, and how long ago it was taken; `None`: there is none.
    pub newest: Option<(Sequence, Duration)>,
    /// The last batch that counted here.
    pub folded: Sequence,
    /// Bytes in the log beyond the newest snapshot.
    pub log: u64,
    /// Bytes of the database.
    pub database: u64,
    /// A stream is above its soft limit, and what snapshots there are do not help.
    pub full: bool,
    /// What the newest snapshot stands at keeps room in the streams ([`super::tail`]).
    pub heavy_tail: bool,
    /// The schema here is another than the newest snapshot has: who has changed it too cannot begin from that.
    pub schema_changed: bool,
    /// A node keeps so much of what it has published that it wants one.
    pub kept: bool,
}

/// Why a snapshot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is none.
    First,
    /// The interval is over.
    Interval,
    /// The log has outgrown the database.
    Growth,
    /// A stream is nearly full.
    Full,
    /// The schema was changed.
    Schema,
    /// A node keeps much.
    Kept,
}

impl Reason {
    /// In words that follow "because".
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::First => "there is none",
            Self::Interval => "the interval is over",
            Self::Growth => "the log has outgrown the database",
            Self::Full => "a stream is above its soft limit",
            Self::Schema => "the schema was changed",
            Self::Kept => "a node keeps half of what it may keep of its published changes",
        }
    }
}

/// Whether a snapshot is due. `interval` zero: never by time alone.
#[must_use]
pub fn due(now: &Situation, interval: Duration) -> Option<Reason> {
    let Some((covers, age)) = now.newest else {
        return Some(Reason::First);
    };
    if now.schema_changed && age >= MIGRATION {
        return Some(Reason::Schema);
    }
    // Nothing has come since: another would be the same, but that it can stand behind a marker and free what this one keeps.
    if now.folded <= covers {
        return (now.full && now.heavy_tail).then_some(Reason::Full);
    }
    if now.full {
        Some(Reason::Full)
    } else if now.kept {
        Some(Reason::Kept)
    } else if now.log > now.database.max(FLOOR) {
        Some(Reason::Growth)
    } else if !interval.is_zero() && age >= interval {
        Some(Reason::Interval)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_by_time_growth_or_need_and_only_if_it_would_differ() {
        let hour = Duration::from_secs(3600);
        let calm = Situation {
            newest: Some((Sequence(10), hour)),
            folded: Sequence(11),
            log: FLOOR,
            database: 100,
            full: false,
            heavy_tail: false,
            schema_changed: false,
            kept: false,
        };
        let none = Situation {
            newest: None,
            folded: Sequence(0),
            ..calm
        };
        assert_eq!(due(&none, Duration::ZERO), Some(Reason::First));
        assert_eq!(due(&calm, Duration::ZERO), None);
        assert_eq!(due(&calm, hour * 2), None);
        assert_eq!(due(&calm, hour), Some(Reason::Interval));
        let grown = Situation {
            log: FLOOR + 1,
            ..calm
        };
        assert_eq!(due(&grown, Duration::ZERO), Some(Reason::Growth));
        let large = Situation {
            database: FLOOR * 2,
            ..grown
        };
        assert_eq!(due(&large, Duration::ZERO), None);
        let full = Situation { full: true, ..calm };
        assert_eq!(due(&full, Duration::ZERO), Some(Reason::Full));
        let kept = Situation { kept: true, ..calm };
        assert_eq!(due(&kept, Duration::ZERO), Some(Reason::Kept));
        for situation in [calm, grown, full, kept] {
            let same = Situation {
                folded: Sequence(10),
                ..situation
            };
            assert_eq!(due(&same, hour), None);
            let keeping = Situation {
                heavy_tail: true,
                ..same
            };
            let expected = keeping.full.then_some(Reason::Full);
            assert_eq!(due(&keeping, hour), expected);
            let altered = Situation {
                schema_changed: true,
                ..same
            };
            assert_eq!(due(&altered, Duration::ZERO), Some(Reason::Schema));
        }
    }
}
