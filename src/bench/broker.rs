//! A nats-server of the benchmark's own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::error::{BenchError, Done};
use super::log_end;
use crate::runtime::{Shutdown, child};
use crate::stream::managed;

/// How long it may take until it listens.
const START: Duration = Duration::from_secs(30);

/// A nats-server with JetStream on a free loopback port; killed when dropped.
pub struct NatsServer {
    program: PathBuf,
    process: Child,
    url: String,
    store: PathBuf,
}

impl NatsServer {
    /// Starts one whose store is in this folder: the program at `program`, or the PATH's.
    ///
    /// # Errors
    /// There is none; it does not start; the benchmark was stopped.
    pub fn start(program: Option<&Path>, folder: &Path, stop: &Shutdown) -> Done<Self> {
        let program = match program {
            Some(path) => path.to_owned(),
            None => managed::on_path().ok_or(BenchError::NoServer)?,
        };
        let (ports, store) = (folder.join("ports"), folder.join("jetstream"));
        std::fs::create_dir_all(&ports).map_err(BenchError::file(&ports))?;
        let log = folder.join("nats-server.log");
        let output = std::fs::File::create(&log).map_err(BenchError::file(&log))?;
        let errors = output.try_clone().map_err(BenchError::file(&log))?;
        let process = child::bound(&program)
            .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"])
            .arg(&store)
            .arg("--ports_file_dir")
            .arg(&ports)
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|source| BenchError::Start {
                program: program.clone(),
                source,
            })?;
        let mut server = Self {
            program,
            process,
            url: String::new(),
            store,
        };
        let started = Instant::now();
        loop {
            if let Some(url) = managed::client_url(&ports) {
                server.url = url;
                return Ok(server);
            }
            if !matches!(server.process.try_wait(), Ok(None)) {
                return Err(BenchError::Ended {
                    what: "nats-server".to_owned(),
                    log: log_end(&log),
                });
            }
            if started.elapsed() > START {
                return Err(BenchError::Late {
                    what: "the start of nats-server".to_owned(),
                    after: START,
                    log: log_end(&log),
                });
            }
            if stop.wait_timeout(Duration::from_millis(5)) {
                return Err(BenchError::Stopped);
            }
        }
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it says of itself.
    #[must_use]
    pub fn version(&self) -> String {
        let output = Command::new(&self.program).arg("-v").output();
        output.map_or_else(
            |_| String::new(),
            |o| String::from_utf8_lossy(&o.stdout).trim().to_owned(),
        )
    }

    /// Bytes of its streams on the disk.
    #[must_use]
    pub fn stored(&self) -> u64 {
        bytes_below(&self.store)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => bytes_below(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}
