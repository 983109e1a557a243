//! What each loop is at, and since when.
//!
//! Invariant: a step that takes unusually long is told of once while it lasts, with its name, and once when it is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Status;

/// From when a step is unusually long. A transaction is bounded in milliseconds and an acknowledgement in five seconds.
pub const SLOW: Duration = Duration::from_secs(10);

/// A step under way, or the pause since the last one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Under {
    step: Option<&'static str>,
    since: Instant,
    slow: Duration,
    told: bool,
}

/// What a loop is at, for health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The step; `None`: it waits for something to do.
    pub step: Option<&'static str>,
    /// Since when.
    pub since: Duration,
}

/// A step of a loop, until it is dropped.
#[derive(Debug)]
pub struct Step {
    status: Status,
    of: &'static str,
    before: Option<Under>,
}

/// A step that takes unusually long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStep {
    /// Whose it is.
    pub of: &'static str,
    /// Its name.
    pub step: &'static str,
    /// How long it has taken so far.
    pub so_far: Duration,
}

impl Status {
    /// The loop `of` begins a step, which usually takes less than [`SLOW`]. One within another comes back to it.
    #[must_use]
    pub fn step(&self, of: &'static str, step: &'static str) -> Step {
        self.long_step(of, step, SLOW)
    }

    /// The same, for a step that may take as long as `slow`.
    #[must_use]
    pub fn long_step(&self, of: &'static str, step: &'static str, slow: Duration) -> Step {
        let under = Under {
            step: Some(step),
            since: Instant::now(),
            slow,
            told: false,
        };
        let before = self.lock().steps.insert(of, under);
        Step {
            status: self.clone(),
            of,
            before: before.filter(|before| before.step.is_some()),
        }
    }

    /// Steps that have become unusually long since the last look, unless there is long work that loops rightly wait for.
    #[must_use]
    pub fn slow_steps(&self) -> Vec<SlowStep> {
        let mut now = self.lock();
        if now.long_works > 0 {
            return Vec::new();
        }
        let mut slow = Vec::new();
        for (of, under) in &mut now.steps {
            let so_far = under.since.elapsed();
            if let Some(step) = under.step
                && so_far >= under.slow
                && !under.told
            {
                under.told = true;
                slow.push(SlowStep { of, step, so_far });
            }
        }
        slow
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let since = Instant::now();
        let idle = Under {
            step: None,
            since,
            slow: SLOW,
            told: false,
        };
        // The outer one has not stood still meanwhile.
        let after = self.before.map_or(idle, |before| Under { since, ..before });
        let ended = self.status.lock().steps.insert(self.of, after);
        if let Some(Under {
            step: Some(step),
            since,
            told: true,
            ..
        }) = ended
        {
            let duration = since.elapsed().as_secs_f64();
            tracing::info!(
                r#loop = self.of,
                step,
                duration,
                "the step that took unusually long is done"
            );
        }
    }
}

/// What each loop is at.
pub(super) fn at(steps: &BTreeMap<&'static str, Under>) -> BTreeMap<&'static str, At> {
    let at = |under: &Under| At {
        step: under.step,
        since: under.since.elapsed(),
    };
    steps.iter().map(|(of, under)| (*of, at(under))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::position::NodeId;

    #[test]
    fn a_slow_step_is_told_once_and_the_outer_one_comes_back() {
        let status = Status::new(NodeId(1), true, true);
        let outer = status.step("publish", "send");
        assert!(status.slow_steps().is_empty());
        let inner = status.long_step("publish", "wait", Duration::ZERO);
        let slow = status.slow_steps();
        assert_eq!((slow[0].of, slow[0].step), ("publish", "wait"));
        assert!(status.slow_steps().is_empty());
        drop(inner);
        assert_eq!(status.view().at["publish"].step, Some("send"));
        drop(outer);
        assert_eq!(status.view().at["publish"].step, None);
    }

    #[test]
    fn what_waits_for_long_work_is_not_slow() {
        let status = Status::new(NodeId(1), true, true);
        let _step = status.long_step("consume", "apply", Duration::ZERO);
        let work = status.long_work();
        assert!(status.slow_steps().is_empty());
        drop(work);
        assert_eq!(status.slow_steps().len(), 1);
    }
}
