//! A daemon beside a database, and what its process uses.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running `harmonylite`; killed when dropped.
pub struct Node {
    folder: PathBuf,
    process: Child,
}

impl Node {
    /// Starts a daemon for `folder/app.db`.
    pub fn start(folder: &Path, id: u64, nats_url: &str) -> Self {
        Self::start_with(folder, id, nats_url, "")
    }

    /// As [`start`](Self::start), with more sections in the configuration.
    pub fn start_with(folder: &Path, id: u64, nats_url: &str, more: &str) -> Self {
        let config = folder.join("config.toml");
        let text = format!(
            "db_path = {:?}\nnode_id = {id}\n[nats]\nurls = [{nats_url:?}]\n{more}",
            folder.join("app.db")
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .unwrap();
        let program = env!("CARGO_BIN_EXE_harmonylite");
        let process = Command::new(program)
            .arg("-config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{program} does not start: {e}"));
        Self {
            folder: folder.to_owned(),
            process,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop, as systemd does, and waits.
    pub fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let ended = self.process.wait().unwrap();
        assert!(
            ended.success(),
            "harmonylite ended with {ended}:\n{}",
            self.log()
        );
    }

    /// Waits until it has logged this.
    pub fn wait_for_log(&self, text: &str, deadline: Duration) {
        let started = Instant::now();
        let said = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        while !said().contains(text) {
            assert!(started.elapsed() < deadline, "no {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The end of what it has logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(20)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU seconds that a process has used.
pub fn cpu_seconds(pid: u32) -> f64 {
    /// Linux has counted in hundredths of a second for as long as it has had /proc.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th field behind it.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    [11, 12]
        .iter()
        .filter_map(|&i| fields.get(i)?.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS
}

/// Resident memory of a process in MB: now, and at its highest.
pub fn memory_mb(pid: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let read = |name: &str| {
        let line = status
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap_or_default();
        line.split_whitespace()
            .nth(1)
            .and_then(|kb| kb.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
            / 1024.0
    };
    (read("VmRSS:"), read("VmHWM:"))
}
