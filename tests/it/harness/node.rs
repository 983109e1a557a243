//! One node: a folder on a real disk, a configuration, a daemon, and the app's database.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;

use super::tables::{self, Dump};
use super::wait::{eventually, eventually_ok};
use super::{app, nats};

/// A node. Its daemon ends with it.
pub struct Node {
    pub id: u64,
    pub folder: PathBuf,
    _owned: Option<tempfile::TempDir>,
    /// Lines of the configuration before its first section.
    pub root: String,
    /// Sections of the configuration.
    pub sections: String,
    /// The database's name in the folder.
    pub file: &'static str,
    /// More environment variables for the daemon.
    pub environment: Vec<(String, String)>,
    process: Option<Child>,
    log_begins: usize,
}

/// A process that has ended.
pub struct Ended {
    pub code: Option<i32>,
    pub said: String,
}

/// A folder on the disk that the build lies on, not in memory.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("it-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

/// The program under test.
fn program() -> Command {
    bound(env!("CARGO_BIN_EXE_harmonylite"))
}

/// A program that the kernel kills when the thread that starts it ends, so a test that is killed leaves no process behind.
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    if Path::new("/usr/bin/setpriv").exists() {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program.as_ref());
        command
    } else {
        Command::new(program)
    }
}

impl Node {
    /// A node whose broker is at `url`; without a database yet.
    pub fn bare(id: u64, url: &str) -> Self {
        let owned = folder();
        let mut node = Self::in_folder(id, url, owned.path());
        node._owned = Some(owned);
        node
    }

    /// A node in a folder that somebody else removes.
    pub fn in_folder(id: u64, url: &str, folder: &Path) -> Self {
        Self {
            id,
            folder: folder.to_owned(),
            _owned: None,
            root: String::new(),
            sections: format!("[nats]\nurls = [\"{url}\"]\nreconnect_wait_seconds = 1\n"),
            file: "app.db",
            environment: Vec::new(),
            process: None,
            log_begins: 0,
        }
    }

    /// A node whose broker is at `url`, with a database of this schema.
    pub fn new(id: u64, url: &str, schema: &str) -> Self {
        let node = Self::bare(id, url);
        app::create(&node.database(), schema);
        node
    }

    /// The database's path.
    pub fn database(&self) -> PathBuf {
        self.folder.join(self.file)
    }

    /// The sequence map's path.
    pub fn sequence_map(&self) -> PathBuf {
        self.folder.join("seq-map.cbor")
    }

    /// A connection of the app.
    pub fn app(&self) -> Connection {
        app::connect(&self.database())
    }

    /// Runs SQL as the app, in a connection of its own.
    pub fn sql(&self, sql: &str) {
        self.app()
            .execute_batch(sql)
            .unwrap_or_else(|error| panic!("node {}: {sql}: {error}", self.id));
    }

    /// One integer of a query.
    pub fn integer(&self, sql: &str) -> i64 {
        app::integer(&app::look(&self.database()).unwrap(), sql)
    }

    /// SQLite finds nothing wrong with the file.
    pub fn assert_sound(&self) {
        let conn = app::look(&self.database()).unwrap();
        let said = tables::rows(&conn, "PRAGMA integrity_check");
        assert_eq!(
            said,
            [[tables::Cell::Text(b"ok".to_vec())]],
            "node {}",
            self.id
        );
    }

    /// All of the app's tables.
    pub fn dump(&self) -> Dump {
        tables::dump(&app::look(&self.database()).unwrap())
    }

    /// Changes that are not published yet, as the operator's guide counts them.
    pub fn pending(&self) -> i64 {
        self.integer("SELECT COUNT(*) FROM __harmonylite___global_change_log")
    }

    /// Writes the configuration and returns its path.
    pub fn write_configuration(&self) -> PathBuf {
        let path = self.folder.join("config.toml");
        let text = format!(
            "db_path = {:?}\nnode_id = {}\n{}\n{}",
            self.database(),
            self.id,
            self.root,
            self.sections
        );
        // The disk may be full; what is there already is not written again.
        if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return path;
        }
        // In one step: another command of this node may be reading it.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.persist(&path).unwrap();
        path
    }

    /// Starts the daemon and returns once it captures what the app writes.
    pub fn start(&mut self) {
        self.spawn();
        self.wait_log("capturing changes");
    }

    /// Starts the daemon and returns once it publishes and applies.
    pub fn start_replicating(&mut self) {
        self.spawn();
        self.wait_log("replicating position");
    }

    /// Starts the daemon.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        let configuration = self.write_configuration();
        let path = self.folder.join("daemon.log");
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        writeln!(log, "--- start").unwrap();
        self.log_begins = std::fs::metadata(&path).unwrap().len() as usize;
        let process = program()
            .arg("-config")
            .arg(&configuration)
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Runs the program with this node's configuration and these flags, until it ends.
    pub fn run(&self, flags: &[&str]) -> Ended {
        let configuration = self.write_configuration();
        let output = program()
            .arg("-config")
            .arg(&configuration)
            .args(flags)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Ended {
            code: output.status.code(),
            said: format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    /// What the daemon has said since its last start.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.folder.join("daemon.log")).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_begins..).unwrap_or_default()).into_owned()
    }

    /// Waits for a text in the log since the last start.
    pub fn wait_log(&mut self, text: &str) {
        eventually_ok(&format!("node {} says {text:?}", self.id), || {
            let log = self.log();
            if log.contains(text) {
                return Ok(());
            }
            self.assert_running();
            Err(log)
        });
    }

    /// Whether the daemon runs.
    pub fn is_running(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Fails with the log if the daemon has ended.
    pub fn assert_running(&mut self) {
        let ended = self
            .process
            .as_mut()
            .expect("the daemon was started")
            .try_wait()
            .unwrap();
        assert!(
            ended.is_none(),
            "the daemon of node {} ended with {ended:?}:\n{}",
            self.id,
            self.log()
        );
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the daemon runs").id()
    }

    /// The most memory that the daemon ever had resident, KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        process.kill().unwrap();
        let status = process.wait().unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "node {} had ended by itself: {status:?}\n{}",
            self.id,
            self.log()
        );
    }

    /// SIGTERM, until it has ended.
    pub fn terminate(&mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait_end()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Stops the daemon, all of its threads, where it holds no lock of the database, so that the app can go on writing. SIGCONT lets it go on.
    pub fn freeze(&self) {
        let app = self.app();
        app.busy_timeout(Duration::ZERO).unwrap();
        eventually("the daemon stands where it holds no lock", || {
            self.signal(Signal::SIGSTOP);
            // Its threads come to a halt one after the other.
            std::thread::sleep(Duration::from_millis(50));
            let free = app.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
            if !free {
                self.signal(Signal::SIGCONT);
            }
            free
        });
    }

    /// Waits until the daemon has ended by itself.
    pub fn wait_end(&mut self) -> Ended {
        let mut ended: Option<ExitStatus> = None;
        let id = self.id;
        let process = self.process.as_mut().expect("the daemon was started");
        let log = self.folder.join("daemon.log");
        eventually_ok(&format!("the daemon of node {id} ends"), || {
            ended = process.try_wait().unwrap();
            ended
                .map(drop)
                .ok_or_else(|| std::fs::read_to_string(&log).unwrap_or_default())
        });
        self.process = None;
        Ended {
            code: ended.unwrap().code(),
            said: self.log(),
        }
    }

    /// Stops it cleanly.
    pub fn stop(&mut self) {
        let ended = self.terminate();
        assert_eq!(ended.code, Some(0), "node {}:\n{}", self.id, ended.said);
    }

    /// Waits until everything that the app wrote is in the stream.
    pub fn wait_published(&self) {
        eventually(&format!("node {} has published all", self.id), || {
            self.pending() == 0
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- log of node {} (last lines)", self.id);
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// A server of this test's own.
pub fn broker() -> nats::NatsServer {
    nats::NatsServer::start()
}
