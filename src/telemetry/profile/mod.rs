//! Where processor time goes: stacks of this process, sampled on SIGPROF while somebody asks for a profile, and at no other time.
//!
//! Invariants: one profile at a time; a stack is walked by unwind tables that were read beforehand, without locks, without allocation and without touching memory
//! that is not there, since it is done inside a signal handler; what is shown are names of functions, never values.

mod flame;
mod protobuf;
mod stacks;

use std::sync::{Mutex, TryLockError};
use std::time::Duration;

pub use stacks::{Frame, Stack, Stacks};

/// Samples a second of processor time. A prime beside 100, so that it keeps step with nothing.
const FREQUENCY: i32 = 99;

/// How often it is looked whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// One is being taken.
    #[error("a profile is being taken: try again when it is done")]
    Busy,
    /// The sampler does not work.
    #[error("processor time cannot be sampled: {0}")]
    Sampler(#[from] pprof::Error),
}

/// Samples for this long, or until `stop` says so. Blocks.
///
/// # Errors
/// When another one is under way, and the sampler's.
pub fn take(time: Duration, stop: &dyn Fn() -> bool) -> Result<Stacks, ProfileError> {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = match TURN.try_lock() {
        Ok(turn) => turn,
        Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(ProfileError::Busy),
    };
    prepare()?;
    let sampling = pprof::ProfilerGuardBuilder::default()
        .frequency(FREQUENCY)
        .build()?;
    let until = std::time::Instant::now() + time;
    while !stop() {
        let rest = until.saturating_duration_since(std::time::Instant::now());
        if rest.is_zero() {
            break;
        }
        std::thread::sleep(rest.min(LOOK));
    }
    let report = sampling.report().build()?;
    Ok(Stacks::of(&report, FREQUENCY))
}

/// The first signal reads the unwind tables, which allocates: it is to come here, where nothing is held, and not in the middle of somebody's allocation.
fn prepare() -> Result<(), ProfileError> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*done {
        // The timer's own first signal comes after a second of processor time.
        let _sampling = pprof::ProfilerGuardBuilder::default()
            .frequency(1)
            .build()?;
        // Whether it arrives decides nothing but who prepares.
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGPROF);
        *done = true;
    }
    Ok(())
}
