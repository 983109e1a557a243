//! Who holds a node id: a daemon, named so that people find it and that a daemon on the same machine can tell whether it lives.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A running daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The identity of its database.
    pub database: String,
    /// Random per start, in hexadecimal digits.
    pub nonce: String,
    /// Its host's name.
    pub host: String,
    /// The kernel's random id of this boot of its machine.
    pub boot_id: String,
    /// Its process-id namespace: process ids mean something only within one.
    pub pid_namespace: String,
    /// Its process id.
    pub pid: u32,
    /// When its process started, in clock ticks since boot: tells it from a later process with the same id.
    pub process_start: u64,
    /// Its version.
    pub version: String,
}

impl Holder {
    /// This process, running for the database with this identity.
    #[must_use]
    pub fn this_process(database: &str, nonce: u64) -> Self {
        let pid = std::process::id();
        Self {
            database: database.to_owned(),
            nonce: format!("{nonce:016x}"),
            host: nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
                .map(|id| id.trim().to_owned())
                .unwrap_or_default(),
            pid_namespace: std::fs::read_link("/proc/self/ns/pid")
                .map(|link| link.to_string_lossy().into_owned())
                .unwrap_or_default(),
            pid,
            process_start: start_of(pid).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether the other one lives, as far as we can look into its process table; `None` where we cannot: another machine,
    /// another boot (of a machine with the same name, or a clone), another container.
    #[must_use]
    pub fn lives_beside(&self, other: &Self) -> Option<bool> {
        let comparable = !self.boot_id.is_empty()
            && !self.pid_namespace.is_empty()
            && self.boot_id == other.boot_id
            && self.pid_namespace == other.pid_namespace
            && Path::new("/proc/self/stat").exists();
        comparable.then(|| start_of(self.pid) == Some(self.process_start))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} on host {} with database {} (version {})",
            self.pid, self.host, self.database, self.version
        )
    }
}

/// When a living process started; `None` when there is none with this id, or only its remains.
fn start_of(pid: u32) -> Option<u64> {
    parse_start(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start(stat: &str) -> Option<u64> {
    // The second field is the command's name in brackets, and may itself hold brackets and spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    // Of the whole line it is field 22; the state is field 3.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_later_one_with_its_id_is_another() {
        let me = Holder::this_process("db", 1);
        assert_eq!(me.lives_beside(&me), Some(true));
        let before = Holder {
            process_start: me.process_start - 1,
            ..me.clone()
        };
        assert_eq!(before.lives_beside(&me), Some(false));
        let elsewhere = Holder {
            boot_id: "other".to_owned(),
            ..me.clone()
        };
        assert_eq!(elsewhere.lives_beside(&me), None);
    }

    #[test]
    fn a_process_that_has_ended_and_was_not_waited_for_is_dead() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let me = Holder::this_process("db", 1);
        let other = Holder {
            pid: child.id(),
            process_start: start_of(child.id()).unwrap(),
            ..me.clone()
        };
        assert_eq!(other.lives_beside(&me), Some(true));
        child.kill().unwrap();
        // Until we wait for it, it is a zombie.
        while other.lives_beside(&me) == Some(true) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(other.lives_beside(&me), Some(false));
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_no_harm() {
        let fields: Vec<String> = (4..=24).map(|field| field.to_string()).collect();
        let stat = format!("7 (a) b (c)) S {}", fields.join(" "));
        assert_eq!(parse_start(&stat), Some(22));
    }
}
