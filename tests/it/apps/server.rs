//! An application's server: a process with a port, which ends with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::browser::Browser;
use crate::harness::node::bound;
use crate::harness::wait::eventually_ok;

/// A server that answers on the loopback.
pub struct Server {
    pub port: u16,
    log: PathBuf,
    process: Option<Child>,
}

pub use crate::harness::ports::free as port;

/// The folder that a script under `scripts/` has put an application into.
pub fn fetched(script: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scripts")
        .join(script);
    let found = Command::new(&path)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| {
            panic!("scripts/{script} does not run ({error}): this test needs python3 and pip")
        });
    assert!(
        found.status.success(),
        "scripts/{script} has not found the application, see above"
    );
    PathBuf::from(String::from_utf8(found.stdout).unwrap().trim())
}

/// A Python program whose packages lie in this folder.
pub fn python(packages: &Path) -> Command {
    let mut command = bound("python3");
    command
        .arg("-B")
        .env("PYTHONPATH", packages)
        .env("PYTHONUNBUFFERED", "1");
    command
}

impl Server {
    /// Starts a server in a folder, and waits until it answers.
    pub fn start(port: u16, folder: &Path, mut command: Command) -> Self {
        let log = folder.join("server.log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let process = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut server = Self {
            port,
            log,
            process: Some(process),
        };
        eventually_ok("the application answers", || {
            let ended = server.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the application has ended: {}",
                server.log()
            );
            Browser::new(port)
                .try_request("GET", "/", None, "")
                .map(drop)
                .map_err(|error| format!("{error}: {}", server.log()))
        });
        server
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a service manager does.
    pub fn stop(mut self) {
        let mut process = self.process.take().unwrap();
        kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM).unwrap();
        process.wait().unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- {} (last lines)", self.log.display());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}
