//! Waits between tries that grow, so that a broker which comes back is not met by everybody at once.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Doubling waits with a cap, each drawn between half of its step and the whole of it.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    cap: Duration,
    tries: u32,
    random: SmallRng,
}

impl Backoff {
    /// The first wait is at most `initial`, none is longer than `cap`.
    #[must_use]
    pub fn new(initial: Duration, cap: Duration) -> Self {
        Self::with_seed(initial, cap, rand::random())
    }

    /// As [`Backoff::new`], with the waits that `seed` decides: for simulations that replay.
    #[must_use]
    pub fn with_seed(initial: Duration, cap: Duration, seed: u64) -> Self {
        Self {
            initial,
            cap,
            tries: 0,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// The next wait, longer than the one before until the cap.
    pub fn next_wait(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.tries);
        self.tries = self.tries.saturating_add(1);
        let step = self.initial.saturating_mul(factor).min(self.cap);
        // Half fixed, half drawn: spread enough to part the nodes, and never a wait of nothing.
        step.mul_f64(self.random.random_range(0.5..=1.0))
    }

    /// How many waits were drawn since the last success.
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// It worked: the next wait is the first again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn waits_double_within_their_band_up_to_the_cap_and_for_ever() {
        let mut backoff = Backoff::new(INITIAL, CAP);
        for step in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = backoff.next_wait();
            let step = Duration::from_millis(step);
            assert!(wait >= step / 2 && wait <= step, "{wait:?} for {step:?}");
        }
        for _ in 0..10_000 {
            let wait = backoff.next_wait();
            assert!(wait >= CAP / 2 && wait <= CAP);
        }
        assert_eq!(backoff.tries(), 10_008);
        backoff.reset();
        assert!(backoff.next_wait() <= INITIAL);
    }

    #[test]
    fn a_seed_replays_and_another_differs() {
        let waits = |seed| {
            let mut backoff = Backoff::with_seed(INITIAL, CAP, seed);
            [(); 8].map(|()| backoff.next_wait())
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
