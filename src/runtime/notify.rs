//! What systemd is told (`Type=notify`): ready, stopping, a status line, and that we are alive.
//!
//! Invariant: the watchdog is fed only while the loops make progress; a daemon that hangs is restarted. Without
//! systemd (`NOTIFY_SOCKET` unset) all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The daemon serves: databases are open and capture is in place.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The daemon drains and will end by itself.
pub fn stopping(status: &str) {
    send(&[
        NotifyState::Stopping,
        NotifyState::Status(&one_line(status)),
    ]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&one_line(status))]);
}

/// Feeds the watchdog at half of its interval while `alive` says so, for ever; returns at once where
/// the service manager runs no watchdog. Spawn it, and abort it at the end.
pub async fn watchdog(alive: impl Fn() -> bool + Send + 'static) {
    let Some(interval) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Half, so that one late turn is no reason to be killed.
    let pause = (interval / 2).max(Duration::from_millis(1));
    let mut was_alive = true;
    loop {
        let is_alive = alive();
        if is_alive {
            send(&[NotifyState::Watchdog]);
        } else if was_alive {
            tracing::error!(
                "no progress: the watchdog is no longer fed, and systemd will restart the daemon"
            );
        }
        was_alive = is_alive;
        tokio::time::sleep(pause).await;
    }
}

fn send(states: &[NotifyState<'_>]) {
    // The service manager may be restarting itself; the next notification says the same.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}

/// The protocol separates assignments by line breaks, so a status must hold none.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// The environment of a process is fixed at its start, so the sender runs as a process of its own: this test
    /// binary again, with this one test.
    #[test]
    fn sends_for_the_test_below() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        ready("serving\n2 tables");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let asked = Arc::new(AtomicU32::new(0));
            let counter = Arc::clone(&asked);
            let task = tokio::spawn(watchdog(move || counter.fetch_add(1, Ordering::SeqCst) < 2));
            while asked.load(Ordering::SeqCst) < 5 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            task.abort();
        });
        status("draining");
        stopping("bye");
    }

    #[test]
    fn systemd_hears_ready_watchdog_status_and_stopping() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "runtime::notify::tests::sends_for_the_test_below",
            ])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "4000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let heard: Vec<String> = (0..5)
            .map(|_| {
                let mut buffer = [0; 512];
                let n = socket.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..n].to_vec()).unwrap()
            })
            .collect();
        assert_eq!(
            heard,
            [
                "READY=1\nSTATUS=serving 2 tables\n",
                "WATCHDOG=1\n",
                "WATCHDOG=1\n",
                "STATUS=draining\n",
                "STOPPING=1\nSTATUS=bye\n",
            ]
        );
    }
}
