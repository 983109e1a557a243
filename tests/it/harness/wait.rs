//! Waiting for conditions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Far beyond what any step takes on a busy machine; nothing waits longer than its condition.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_ok(what, || {
        if condition() {
            Ok(())
        } else {
            Err(String::new())
        }
    });
}

/// Waits until `attempt` succeeds; its last answer is shown when it never does.
pub fn eventually_ok<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        let began = Instant::now();
        match attempt() {
            Ok(value) => return value,
            Err(last) => assert!(
                started.elapsed() < DEADLINE,
                "not within {} s: {what} {last}",
                DEADLINE.as_secs()
            ),
        }
        // Looking must not take the time that the daemons need to get there.
        std::thread::sleep(
            (began.elapsed() * 4).clamp(Duration::from_millis(5), Duration::from_secs(1)),
        );
    }
}

/// Tells helper threads to end, also when the test fails: a scope waits for its threads.
#[derive(Default)]
pub struct Done(AtomicBool);

/// Says so when it is dropped.
pub struct SayDone<'a>(&'a Done);

impl Done {
    pub fn is_said(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn say(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn on_drop(&self) -> SayDone<'_> {
        SayDone(self)
    }
}

impl Drop for SayDone<'_> {
    fn drop(&mut self) {
        self.0.say();
    }
}
