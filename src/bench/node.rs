//! A daemon of this very program beside a database.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{BenchError, Done};
use super::log_end;
use crate::runtime::{Shutdown, child};

/// How long a daemon may take to end: it publishes what is pending.
const STOP: Duration = Duration::from_secs(60);

/// A running `harmonylite`; killed when dropped.
pub struct Node {
    folder: PathBuf,
    id: u64,
    process: Child,
    stop: Shutdown,
}

/// The program that runs now.
///
/// # Errors
/// The system's.
pub fn program() -> Done<PathBuf> {
    let this = PathBuf::from("/proc/self/exe");
    std::env::current_exe().map_err(|source| BenchError::Start {
        program: this,
        source,
    })
}

impl Node {
    /// Starts a daemon for `folder/app.db`, with more sections in its configuration.
    ///
    /// # Errors
    /// The system's.
    pub fn start(folder: &Path, id: u64, url: &str, more: &str, stop: &Shutdown) -> Done<Self> {
        let config = folder.join("config.toml");
        let database = folder.join("app.db");
        let text =
            format!("db_path = {database:?}\nnode_id = {id}\n[nats]\nurls = [{url:?}]\n{more}");
        std::fs::write(&config, text).map_err(BenchError::file(&config))?;
        let path = folder.join("log");
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(BenchError::file(&path))?;
        let errors = log.try_clone().map_err(BenchError::file(&path))?;
        let program = program()?;
        let process = child::bound(&program)
            .arg("-config")
            .arg(&config)
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|source| BenchError::Start { program, source })?;
        Ok(Self {
            folder: folder.to_owned(),
            id,
            process,
            stop: stop.clone(),
        })
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop, as systemd does, and waits.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn stop(mut self) -> Done<()> {
        if let Ok(pid) = i32::try_from(self.pid()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let started = Instant::now();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(_)) => return Err(self.ended()),
                _ => {}
            }
            if started.elapsed() > STOP {
                return Err(self.late("the end of a daemon", STOP));
            }
            if self.stop.wait_timeout(Duration::from_millis(2)) {
                return Err(BenchError::Stopped);
            }
        }
    }

    /// Waits until it has logged this.
    ///
    /// # Errors
    /// It has not by then, or has ended.
    pub fn wait_for_log(&mut self, text: &str, deadline: Duration) -> Done<()> {
        let started = Instant::now();
        let path = self.folder.join("log");
        while !std::fs::read_to_string(&path)
            .unwrap_or_default()
            .contains(text)
        {
            self.alive()?;
            if started.elapsed() > deadline {
                return Err(self.late(&format!("{text:?} in the log of a daemon"), deadline));
            }
            if self.stop.wait_timeout(Duration::from_millis(5)) {
                return Err(BenchError::Stopped);
            }
        }
        Ok(())
    }

    /// Fails where it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub fn alive(&mut self) -> Done<()> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    fn ended(&self) -> BenchError {
        BenchError::Ended {
            what: format!("the daemon of node {}", self.id),
            log: self.log(),
        }
    }

    fn late(&self, what: &str, after: Duration) -> BenchError {
        BenchError::Late {
            what: what.to_owned(),
            after,
            log: self.log(),
        }
    }

    /// The end of what it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        log_end(&self.folder.join("log"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
