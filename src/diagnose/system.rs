//! The machine and the daemon's process.
//!
//! Invariants: no environment variable's value is told; a program that is asked has its deadline.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::ASK;
use crate::config::Config;

/// Entries of a folder that are listed.
const ENTRIES: usize = 2_000;

/// Bytes that are read of a file of the system.
const BYTES: u64 = 256 << 10;

/// What a program says, or why it says nothing; it is ended after a while.
pub fn output(command: &mut Command) -> String {
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(e) => return format!("{}: {e}", command.get_program().to_string_lossy()),
    };
    let Some(said) = child.stdout.take() else {
        return String::new();
    };
    let reading = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read until then is what there is.
        let _ = said.take(16 << 20).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let until = Instant::now() + ASK;
    while !reading.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ended = reading.is_finished();
    let _ = child.kill();
    if !ended {
        // Neither it nor what it has begun need end for that: a disk that does not answer holds them.
        let name = command.get_program().to_string_lossy().into_owned();
        return format!("{name}: no answer within {} s", ASK.as_secs());
    }
    let _ = child.wait();
    reading.join().unwrap_or_default()
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    match fs::File::open(path).and_then(|f| f.take(BYTES).read_to_end(&mut bytes)) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => format!("{e}\n"),
    }
}

/// System, memory, disks, and the names of the variables that this program knows.
pub fn about(config: Option<&Config>) -> String {
    let mut out = String::new();
    for path in [
        "/etc/os-release",
        "/proc/version",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/pressure/io",
        "/proc/self/limits",
        "/proc/self/mountinfo",
    ] {
        // Writing to memory cannot fail.
        let _ = writeln!(out, "== {path}\n{}", read(path));
    }
    let _ = writeln!(
        out,
        "== df\n{}",
        output(Command::new("df").args(["-k", "-T", "-l"]))
    );
    if let Some(config) = config {
        let folder = config.folder();
        let inodes = output(Command::new("df").arg("-i").arg(folder));
        let _ = writeln!(out, "== df -i {}\n{inodes}", folder.display());
    }
    let _ = writeln!(
        out,
        "== variables of this process\n{}",
        names(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))
    );
    out
}

/// Names of variables, of those that the program looks at.
fn names(all: impl Iterator<Item = String>) -> String {
    let ours = [
        "HARMONYLITE_",
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
        "WATCHDOG_",
        "INVOCATION_ID",
        "SSH_AUTH_SOCK",
        "AWS_",
        "NO_COLOR",
    ];
    let mut found: Vec<String> = all
        .filter(|name| ours.iter().any(|o| name.starts_with(o)))
        .collect();
    found.sort();
    match found.is_empty() {
        true => "none that it looks at\n".to_owned(),
        false => found.join("\n") + "\n",
    }
}

/// The daemon's process.
pub fn process(pid: Option<u32>) -> String {
    let Some(pid) = pid else {
        return "no daemon runs, or it does not say which process it is\n".to_owned();
    };
    let mut out = String::new();
    for name in [
        "status",
        "limits",
        "stat",
        "io",
        "smaps_rollup",
        "cgroup",
        "sched",
    ] {
        let path = format!("/proc/{pid}/{name}");
        let _ = writeln!(out, "== {path}\n{}", read(&path));
    }
    let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variables = variables.split(|b| *b == 0).map(|v| {
        let name = v.split(|b| *b == b'=').next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    });
    let _ = writeln!(out, "== names of its variables\n{}", names(variables));
    let open = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let _ = writeln!(out, "== open files");
    for entry in open.take(ENTRIES) {
        let to = fs::read_link(entry.path()).unwrap_or_default();
        let _ = writeln!(
            out,
            "{:>6}  {}",
            entry.file_name().to_string_lossy(),
            to.display()
        );
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let _ = writeln!(out, "\n== threads");
    for entry in threads.take(ENTRIES) {
        let name = read(&format!("{}/comm", entry.path().display()));
        let _ = writeln!(
            out,
            "{:>8}  {}",
            entry.file_name().to_string_lossy(),
            name.trim()
        );
    }
    out
}

/// The files in the folder of the database, and the folders of the managed server.
pub fn files(config: &Config) -> String {
    let mut out = String::new();
    list(config.folder(), 0, &mut out);
    let _ = writeln!(out, "\nsequence map: {}", config.seq_map_path.display());
    out
}

fn list(folder: &Path, depth: usize, out: &mut String) {
    const DEEPEST: usize = 3;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) => {
            let _ = writeln!(out, "{}: {e}", folder.display());
            return;
        }
    };
    let mut entries: Vec<_> = entries.flatten().take(ENTRIES).collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let Ok(found) = entry.metadata() else {
            continue;
        };
        let _ = writeln!(
            out,
            "{:>7o} {:>6}:{:<6} {:>12} {:>11}  {}",
            found.mode() & 0o177_777,
            found.uid(),
            found.gid(),
            found.len(),
            found.mtime(),
            entry.path().display()
        );
        // Of other folders only that they are there.
        let ours = depth > 0 || entry.file_name() == "nats";
        if found.is_dir() && ours && depth < DEEPEST {
            list(&entry.path(), depth + 1, out);
        }
    }
}
