//! The machine: room on the disk, ports, the service manager.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::problem::{Check, Problem};
use super::process::{self, Listener};
use super::report::Notes;
use crate::config::{Config, ListenAddress, SnapshotStore};

/// Less than this is as good as full: the log of the database alone may take it in a moment.
const FULL: u64 = 64 << 20;

/// What a batch that is put aside, and what is kept of published ones, may take beside a copy of the database.
const BESIDE: u64 = 256 << 20;

/// Fewer open files than this are soon used up: connections of SQLite, NATS and HTTP, and the store.
const OPEN_FILES: u64 = 1024;

/// Room on the file systems. `size`: of the database with its log, in bytes.
pub fn disk(config: &Config, size: u64, notes: &Notes) {
    let managed = config.nats.urls.is_empty();
    let log = &config.replication_log;
    let mut needs = BESIDE;
    let mut why = vec!["batches put aside"];
    if config.snapshot.enabled {
        needs = needs.saturating_add(size);
        why.push("a copy of the database for a snapshot");
    }
    if managed {
        let streams = log.max_bytes.saturating_mul(log.shards);
        let used = folder_size(&config.folder().join("nats"), 0);
        needs = needs.saturating_add(streams.saturating_sub(used));
        why.push("what the streams of the managed NATS server may grow by");
    }
    room(config.folder(), needs, &why.join(", "), notes);
    let folder = &config.snapshot.file_path;
    if config.snapshot.enabled && config.snapshot.store == SnapshotStore::File && folder.exists() {
        // The newest, and two before it stay.
        room(folder, size.saturating_mul(2), "the next snapshots", notes);
    }
}

fn room(folder: &Path, needs: u64, why: &str, notes: &Notes) {
    let name = folder.display().to_string();
    match statvfs(folder) {
        Ok(found) => {
            let free = found
                .blocks_available()
                .saturating_mul(found.fragment_size());
            let files_left = found.files() == 0 || found.files_available() > 0;
            judge_room(&name, free, files_left, needs, why, notes);
        }
        Err(_) => notes.note(
            Check::Disk,
            format!("{name}: its file system does not tell"),
        ),
    }
}

fn judge_room(name: &str, free: u64, files_left: bool, needs: u64, why: &str, notes: &Notes) {
    let (free_text, needs_text) = (bytes(free), bytes(needs));
    if free < FULL || !files_left {
        let what = match files_left {
            true => format!("{free_text} are free"),
            false => "no file can be made (df -i)".to_owned(),
        };
        notes.problem(
            Problem::DiskFull,
            format!("{name}: {what}"),
            "make room on this file system; changes wait in the database meanwhile, and replication goes on by itself",
        );
    } else if free < needs {
        notes.problem(
            Problem::DiskLow,
            format!("{name}: {free_text} are free, and up to {needs_text} may be needed ({why})"),
            "make room, or lower replication_log.max_bytes where the managed server's streams are the largest part",
        );
    } else {
        notes.ok(
            Check::Disk,
            format!("{name}: {free_text} free, up to {needs_text} may be needed"),
        );
    }
}

/// Bytes in a folder, as far as this user sees them.
fn folder_size(folder: &Path, depth: usize) -> u64 {
    const DEEPEST: usize = 8;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| match found.is_dir() {
            true if depth < DEEPEST => folder_size(&path, depth + 1),
            true => 0,
            false => found.len(),
        })
        .fold(0, u64::saturating_add)
}

/// Bytes for people.
pub(super) fn bytes(n: u64) -> String {
    match n {
        0..10_240 => format!("{n} B"),
        10_240..10_485_760 => format!("{} KiB", n >> 10),
        10_485_760..10_737_418_240 => format!("{} MiB", n >> 20),
        _ => format!("{} GiB", n >> 30),
    }
}

/// The ports that are asked for. `daemon`: its process, where one runs.
pub fn ports(config: &Config, daemon: Option<u32>, notes: &Notes) {
    let mut wanted = Vec::new();
    if config.prometheus.enable {
        wanted.push(("prometheus.bind", config.prometheus.bind.as_str()));
    }
    if config.health_check.enable {
        wanted.push(("health_check.bind", config.health_check.bind.as_str()));
    }
    // With a daemon it is the managed server's, a process of its own.
    if config.nats.urls.is_empty() && daemon.is_none() {
        wanted.push(("nats.bind_address", config.nats.bind_address.as_str()));
        wanted.extend(
            config
                .nats
                .cluster_addr
                .as_deref()
                .map(|a| ("-cluster-addr", a)),
        );
    }
    let mut fine = Vec::new();
    for (key, bind) in wanted {
        let Ok(ListenAddress {
            host,
            port: Some(port),
        }) = ListenAddress::parse(bind)
        else {
            continue;
        };
        match (process::listener(&host, port), daemon) {
            (Listener::Nobody, None) => fine.push(format!("{port} free")),
            (Listener::Process(pid), Some(daemon)) if pid == daemon => fine.push(format!("{port} in use by the daemon")),
            (Listener::Unknown, Some(_)) => fine.push(format!("{port} in use, by whom this user may not see")),
            (Listener::Nobody, Some(pid)) => notes.problem(
                Problem::PortSilent,
                format!("the daemon (process {pid}) does not listen on {bind}, which {key} says"),
                "restart it, if the configuration was changed since it began; its log says what else is in the way",
            ),
            (taken, _) => {
                let by = match taken {
                    Listener::Process(pid) => format!("process {pid} ({})", process::name(pid)),
                    _ => "a process that this user may not see".to_owned(),
                };
                notes.problem(
                    Problem::PortTaken,
                    format!("port {port}, which {key} says, is in use by {by}"),
                    format!("stop that process, or give {key} another port"),
                );
            }
        }
    }
    if !notes.has(Check::Ports) {
        match fine.is_empty() {
            true => notes.ok(Check::Ports, "none are asked for"),
            false => notes.ok(Check::Ports, fine.join(", ")),
        }
    }
}

/// The service manager, and the limits of the daemon's process.
pub fn service(daemon: Option<u32>, notes: &Notes) {
    let Some(pid) = daemon else {
        return notes.note(
            Check::Service,
            "no daemon is known whose limits could be looked at",
        );
    };
    let limit = process::open_file_limit(pid);
    if let Some(limit) = limit.filter(|l| *l < OPEN_FILES) {
        notes.problem(
            Problem::OpenFiles,
            format!("process {pid} may have {limit} files open"),
            "LimitNOFILE=65536 in its unit, or ulimit -n 65536 before it is started",
        );
    }
    // Set by systemd for each of its services.
    let managed = process::has_variable(pid, "INVOCATION_ID");
    let notifies = process::has_variable(pid, "NOTIFY_SOCKET");
    let watched = process::has_variable(pid, "WATCHDOG_USEC");
    if notifies == Some(true) && watched == Some(false) {
        notes.problem(
            Problem::NoWatchdog,
            "systemd does not watch the daemon: one that hangs is not started again",
            "WatchdogSec=120s in its unit, as in systemd/harmonylite.service",
        );
    }
    if !notes.has(Check::Service) {
        let how = match (managed, watched) {
            (Some(true), Some(true)) => "under systemd, with its watchdog",
            (Some(true), _) => "started by systemd",
            (Some(false), _) => "not started by systemd",
            (None, _) => "its environment is not for this user to see",
        };
        let files = limit.map_or_else(|| "unknown".to_owned(), |l| l.to_string());
        notes.ok(Check::Service, format!("{how}; open files at most {files}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_may_be_needed() {
        let judged = |free, files_left, needs| {
            let notes = Notes::default();
            judge_room("/data", free, files_left, needs, "a copy", &notes);
            notes
                .all()
                .first()
                .and_then(|f| f.problem)
                .map(Problem::name)
        };
        assert_eq!(judged(1 << 40, true, 1 << 30), None);
        assert_eq!(judged(1 << 29, true, 1 << 30), Some("disk-low"));
        assert_eq!(judged(FULL - 1, true, 0), Some("disk-full"));
        assert_eq!(judged(1 << 40, false, 0), Some("disk-full"));
    }
}
