//! How many rows a batch is to have, by how long the way to the broker is: each batch is sent after the acknowledgement of the one before, so the longer that takes, the more rows a batch must hold
//! for as many of them a second.
//!
//! Invariant: a slow moment of the broker or of this machine changes nothing, only a way that is always long.

use std::collections::VecDeque;
use std::time::Duration;

use crate::changelog::cut;

/// How long the last batches took from the first message to the acknowledgement.
#[derive(Debug, Default)]
pub struct RoundTrips(VecDeque<Duration>);

impl RoundTrips {
    /// A single slow one says little.
    const LOOKED_AT: usize = 8;

    /// A way that costs little beside what [`cut::GOAL_ROWS`] rows cost otherwise.
    const SHORT: Duration = Duration::from_millis(5);

    /// Batches grow to so many times that many rows: 100,000 rows a second over a way of a third of a second.
    const MOST: u64 = 64;

    /// A batch was acknowledged after so long.
    pub fn note(&mut self, took: Duration) {
        if self.0.len() >= Self::LOOKED_AT {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// How many rows a batch is to have.
    #[must_use]
    pub fn goal(&self) -> u64 {
        let shortest = self.0.iter().min().copied().unwrap_or_default();
        let times = shortest.as_micros() / Self::SHORT.as_micros();
        cut::GOAL_ROWS
            * u64::try_from(times)
                .unwrap_or(Self::MOST)
                .clamp(1, Self::MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_only_with_a_way_that_is_always_long() {
        let mut way = RoundTrips::default();
        let mut goal_after = |ms: &[u64]| {
            ms.iter()
                .for_each(|ms| way.note(Duration::from_millis(*ms)));
            way.goal()
        };
        assert_eq!(goal_after(&[]), cut::GOAL_ROWS);
        assert_eq!(goal_after(&[80, 90, 3, 80, 4000]), cut::GOAL_ROWS);
        assert_eq!(goal_after(&[60; 8]), 12 * cut::GOAL_ROWS);
        assert_eq!(goal_after(&[60_000; 8]), 64 * cut::GOAL_ROWS);
        assert_eq!(goal_after(&[1]), cut::GOAL_ROWS);
    }
}
