//! The running daemon, and other processes at the same database.
//!
//! Invariant: it is asked over its control socket, and nothing is asked that changes anything.

use std::fs;
use std::time::Duration;

use super::Look;
use super::problem::{Check, Problem};
use super::process;
use super::report::Notes;
use crate::cluster::view::ClusterView;
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::{Request, lock};

/// How long the daemon may take to answer, and to look at the cluster.
const PING: Duration = Duration::from_secs(3);
const STATUS: Duration = Duration::from_secs(10);

/// What a program that replicates this database is called.
const REPLICATORS: [&str; 2] = ["harmonylite", "marmot"];

/// What such a program is started with when it only looks.
const LOOKS: [&str; 9] = [
    "doctor",
    "diagnose",
    "schema",
    "conflicts",
    "dead-letters",
    "snapshot",
    "check",
    "schema-status",
    "schema-status-cluster",
];

/// What is known of the daemon.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    /// One runs, or it cannot be told that none does.
    pub may_run: bool,
    /// Its process, where it is known.
    pub pid: Option<u32>,
    /// Where the NATS server is that it runs.
    pub nats_url: Option<String>,
}

/// Looks.
pub fn look(look: &Look) -> Daemon {
    let (config, notes) = (&look.config, &look.notes);
    let holder = match lock::holder(&config.db_path) {
        Ok(Some(holder)) => holder,
        Ok(None) => {
            notes.problem(
                Problem::DaemonDown,
                format!(
                    "no daemon is running for {}: changes wait in the database",
                    config.db_path.display()
                ),
                "start it (systemctl start harmonylite, or harmonylite -config FILE)",
            );
            return Daemon::default();
        }
        Err(e) => {
            notes.problem(
                Problem::DaemonSilent,
                e.to_string(),
                "run harmonylite doctor as the user of the daemon, or as root",
            );
            return Daemon {
                may_run: true,
                ..Daemon::default()
            };
        }
    };
    let mut daemon = Daemon {
        may_run: true,
        pid: holder.pid(),
        nats_url: None,
    };
    let patience = PING.min(look.remaining());
    match client::request(&config.db_path, Request::Ping, patience, |_| {}) {
        Ok(answer) => {
            let said = answer.result.unwrap_or_default();
            let text = |key: &str| said.get(key).and_then(|v| v.as_str()).map(str::to_owned);
            let version = text("version").unwrap_or_default();
            daemon.nats_url = text("nats_url");
            let process = daemon
                .pid
                .map_or_else(|| "it".to_owned(), |pid| format!("process {pid}"));
            compare_version(&process, &version, notes);
        }
        Err(e) => {
            let remedy = match &e {
                ClientError::Socket { .. } => {
                    "run harmonylite doctor as the user of the daemon, or as root"
                }
                ClientError::NotListening { .. } => {
                    "look again in a moment; if it stays, the daemon's log says what it waits for"
                }
                _ => "look at its log; harmonylite -stop asks it to end",
            };
            notes.problem(Problem::DaemonSilent, e.to_string(), remedy);
        }
    }
    daemon
}

fn compare_version(process: &str, version: &str, notes: &Notes) {
    let ours = env!("CARGO_PKG_VERSION");
    if version == ours {
        notes.ok(Check::Daemon, format!("{process} runs version {version}"));
    } else {
        notes.problem(
            Problem::DaemonVersion,
            format!("{process} runs version {version}, and this program is {ours}"),
            "restart the daemon after an upgrade, or use the program that it was started from",
        );
    }
}

/// What the daemon says of itself and of the cluster; `None`: none runs, or it says nothing.
pub fn health(look: &Look, running: bool) -> Option<ClusterView> {
    if !running {
        return None;
    }
    let notes = &look.notes;
    let patience = STATUS.min(look.remaining());
    let answer = client::request(&look.config.db_path, Request::Status, patience, |_| {});
    let view: ClusterView = match answer
        .ok()
        .and_then(|a| serde_json::from_value(a.result?).ok())
    {
        Some(view) => view,
        None => {
            notes.note(
                Check::Health,
                "not known: the daemon does not say how it is",
            );
            return None;
        }
    };
    let own = view.nodes.iter().find(|n| view.seen_by == Some(n.node_id));
    for sentence in own.iter().flat_map(|n| &n.reasons) {
        notes.problem(
            Problem::Unhealthy,
            sentence,
            "the sentence says what is in the way; docs/monitoring.md explains health, docs/cluster.md what an operator can hold back",
        );
    }
    for sentence in own.iter().flat_map(|n| &n.warnings) {
        notes.problem(
            Problem::HealthWarning,
            sentence,
            "docs/monitoring.md tells what each warning asks for",
        );
    }
    if let Some(own) = own
        && !notes.has(Check::Health)
    {
        notes.ok(
            Check::Health,
            format!("{}, {} changes pending", own.state.word(), own.pending),
        );
    }
    Some(view)
}

/// Who has the database open.
pub fn processes(config: &Config, daemon: &Daemon, notes: &Notes) {
    let Ok(file) = fs::metadata(&config.db_path) else {
        return;
    };
    let (open, all_seen) = process::with_open(&file);
    let me = std::process::id();
    let open: Vec<(u32, String)> = open
        .into_iter()
        .filter(|pid| *pid != me)
        .map(|pid| (pid, process::name(pid)))
        .collect();
    for (pid, name) in &open {
        let replicates = REPLICATORS.iter().any(|r| name.starts_with(r));
        // Of a daemon whose process is not known it cannot be told whether it is this one.
        let other = match daemon.pid {
            Some(ours) => ours != *pid,
            None => !daemon.may_run,
        };
        if replicates && other && !process::has_argument(*pid, &LOOKS) {
            notes.problem(
                Problem::SecondDaemon,
                format!("process {pid} ({name}) has the database open too, and is not its daemon"),
                "stop it: only one program may replicate a database (two paths to one file, such as hard links, are two databases to them)",
            );
        }
    }
    if !notes.has(Check::Processes) {
        let names: Vec<String> = open
            .iter()
            .take(8)
            .map(|(pid, name)| format!("{name} ({pid})"))
            .collect();
        let mut text = match names.is_empty() {
            true => "nobody has the database open".to_owned(),
            false => format!("the database is open in {}", names.join(", ")),
        };
        if !all_seen {
            text.push_str(", as far as this user may see");
        }
        notes.ok(Check::Processes, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_of_another_version_is_told() {
        let judged = |version: &str| {
            let notes = Notes::default();
            compare_version("it", version, &notes);
            notes
                .all()
                .first()
                .and_then(|f| f.problem)
                .map(Problem::name)
        };
        assert_eq!(judged(env!("CARGO_PKG_VERSION")), None);
        assert_eq!(judged("0.0.1"), Some("daemon-version"));
    }
}
