//! SIGTERM and SIGINT: the first asks to drain and stop, the second to leave at once. SIGHUP: read the configuration again.
//!
//! Invariant: whoever sends a second signal gets a process that is gone within [`FORCED_GRACE`], whatever the
//! loops do.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::Shutdown;

/// How long a forced stop may take to close the database before the process ends itself.
pub const FORCED_GRACE: Duration = Duration::from_secs(3);

/// The exit code of a forced stop that did not end by itself: 128 + SIGKILL's number, as for a killed process.
const FORCED_EXIT: i32 = 137;

/// Turns signals into requests on `shutdown`, from now until the process ends. Call it within a runtime.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn install(shutdown: &Shutdown) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    Ok(tokio::spawn(async move {
        let mut asked = false;
        loop {
            let name = tokio::select! {
                heard = terminate.recv() => heard.map(|()| "SIGTERM"),
                heard = interrupt.recv() => heard.map(|()| "SIGINT"),
            };
            let Some(name) = name else { return };
            if asked {
                break forced(&shutdown, name).await;
            }
            asked = true;
            tracing::info!(
                signal = name,
                "stopping: publishing what is pending; a second signal stops at once"
            );
            shutdown.request(name);
        }
    }))
}

/// Calls `reload` on each SIGHUP, from now until the process ends, within the runtime.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn on_hangup(reload: impl Fn() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload();
        }
    }))
}

async fn forced(shutdown: &Shutdown, name: &'static str) {
    tracing::warn!(
        signal = name,
        "stopping at once; what is pending is published after the next start"
    );
    shutdown.force(name);
    tokio::time::sleep(FORCED_GRACE).await;
    tracing::error!("the daemon did not stop by itself; ending the process");
    crate::telemetry::logging::flush();
    // Whatever still runs has had its time; SQLite recovers from this as from a power loss.
    #[allow(clippy::disallowed_methods)]
    std::process::exit(FORCED_EXIT);
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_forces() {
        let shutdown = Shutdown::new();
        let task = install(&shutdown).unwrap();
        raise(Signal::SIGTERM).unwrap();
        shutdown.requested().await;
        assert_eq!(shutdown.cause().as_deref(), Some("SIGTERM"));
        assert!(!shutdown.is_forced());
        raise(Signal::SIGINT).unwrap();
        shutdown.forced().await;
        // Before the grace ends the whole test process.
        task.abort();
    }
}
