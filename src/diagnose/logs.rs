//! The end of the daemon's log, wherever it goes: a file, or the journal.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::system::output;

/// Bytes of a file's end.
const TAIL: u64 = 1 << 20;

/// Lines of the journal.
const LINES: &str = "5000";

/// All parts. `file`: the configuration file; `pid`: the daemon's process.
pub fn all(file: Option<&Path>, pid: Option<u32>) -> Vec<(&'static str, &'static str, String)> {
    let mut parts = Vec::new();
    let named = file.and_then(named_in);
    let written = pid.and_then(standard_error);
    for (name, path) in [("log.txt", named), ("standard-error.txt", written)] {
        if let Some(path) = path {
            parts.push((name, "the end of the daemon's log", tail(&path)));
        }
    }
    let mut journal = Command::new("journalctl");
    journal.args(["--no-pager", "--output", "short-iso", "--lines", LINES]);
    match pid.and_then(unit) {
        Some(unit) => journal.args(["--unit", &unit]),
        None => journal.arg("_COMM=harmonylite"),
    };
    parts.push((
        "journal.txt",
        "the end of what the journal has of it",
        output(&mut journal),
    ));
    parts
}

/// `[logging] file`, where the configuration has it.
fn named_in(configuration: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(configuration).ok()?;
    let table: toml::Table = text.parse().ok()?;
    let path = table.get("logging")?.get("file")?.as_str()?;
    (!path.is_empty()).then(|| PathBuf::from(path))
}

/// The file that a process's standard error goes to.
fn standard_error(pid: u32) -> Option<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
    let found = fs::metadata(&path).ok()?;
    found.is_file().then_some(path)
}

/// The service that a process is of.
fn unit(pid: u32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let last = groups.lines().find_map(|line| line.rsplit('/').next())?;
    last.ends_with(".service").then(|| last.to_owned())
}

fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_else(|e| format!("{e}\n"));
    format!("{}\n\n{text}", path.display())
}
