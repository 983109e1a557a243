//! Keeping to so many rows a second.
//!
//! Invariant: what is done at once is never cut, for transactions stay whole; the next begins when its rows have had their time. So the limit holds on average, and a limit that is
//! changed counts at once.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What was done last.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<(Instant, u64)>,
}

impl Pace {
    /// So many rows were done at `at`.
    pub fn spend(&mut self, rows: u64, at: Instant) {
        self.last = Some((at, rows));
    }

    /// When the next may begin under this limit; `None`: at once.
    #[must_use]
    pub fn next(&self, limit: Option<NonZeroU64>, now: Instant) -> Option<Instant> {
        let ((at, rows), limit) = (self.last?, limit?);
        let seconds = rows / limit;
        let rest = u128::from(rows % limit) * 1_000_000_000 / u128::from(limit.get());
        let time = Duration::new(seconds, u32::try_from(rest).unwrap_or_default());
        // A time beyond what the clock can say is one that never comes.
        let next = at
            .checked_add(time)
            .unwrap_or(now + Duration::from_secs(3600));
        (next > now).then_some(next)
    }
}
