//! A real nats-server per test: its own store and port, killed when the test ends, however it ends.

use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use harmonylite::config::{NatsConfig, ReplicationLogConfig, Secret};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ports;

/// The nats-server to use: `$HARMONYLITE_NATS_SERVER`, the PATH's, or the one that `scripts/get-nats-server` fetches once.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/get-nats-server");
        let output = Command::new(&script)
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("{} does not run: {error}", script.display()));
        assert!(
            output.status.success(),
            "no nats-server on this machine, see above"
        );
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    })
}

/// A nats-server with JetStream on a loopback port.
pub struct NatsServer {
    folder: tempfile::TempDir,
    port: u16,
    extra: String,
    process: Option<Child>,
}

impl NatsServer {
    /// Starts one.
    pub fn start() -> Self {
        Self::with("")
    }

    /// Starts one with these lines added to its configuration. `FOLDER` in them stands for the server's own folder.
    pub fn with(extra: &str) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), extra)
    }

    /// Starts one in a folder that already holds files which its configuration names.
    pub fn in_folder(folder: tempfile::TempDir, extra: &str) -> Self {
        let extra = extra.replace("FOLDER", &folder.path().display().to_string());
        let mut server = Self {
            folder,
            port: 0,
            extra,
            process: None,
        };
        server.restart();
        server
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port, the same after each restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again with other lines added to its configuration.
    #[allow(dead_code)]
    pub fn reconfigure(&mut self, extra: &str) {
        extra.clone_into(&mut self.extra);
        self.restart();
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it in its tracks: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        kill(Pid::from_raw(process.id() as i32), signal).unwrap();
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and store; waits until it accepts connections.
    pub fn restart(&mut self) {
        self.kill();
        let folder = self.folder.path();
        let files = folder.join("ports");
        let _ = std::fs::remove_dir_all(&files);
        std::fs::create_dir(&files).unwrap();
        if self.port == 0 {
            self.port = ports::free();
        }
        let port = self.port;
        let configuration = folder.join("nats-server.conf");
        std::fs::write(
            &configuration,
            format!(
                "host: 127.0.0.1\nport: {port}\nports_file_dir: {files:?}\nstore_dir: {store:?}\njetstream: enabled\n{extra}\n",
                store = folder.join("store"),
                extra = self.extra,
            ),
        )
        .unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let process = Command::new(binary())
            .arg("-c")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let started = Instant::now();
        loop {
            if client_port(&files) == Some(port) && TcpStream::connect(("127.0.0.1", port)).is_ok()
            {
                return;
            }
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none() && started.elapsed() < Duration::from_secs(30),
                "nats-server did not start:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it has logged since its last start.
    pub fn log(&self) -> String {
        let mut text = String::new();
        std::fs::File::open(self.folder.path().join("log"))
            .and_then(|mut file| file.read_to_string(&mut text))
            .unwrap();
        text
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The client port in the ports file that the server writes once it listens.
fn client_port(folder: &Path) -> Option<u16> {
    let file = std::fs::read_dir(folder).ok()?.flatten().next()?.path();
    let ports: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let url = ports["nats"][0].as_str()?;
    url.rsplit(':').next()?.parse().ok()
}

/// `[nats]` with the defaults, for an external server.
pub fn nats_config(url: &str) -> NatsConfig {
    NatsConfig {
        urls: vec![url.to_owned()],
        subject_prefix: "harmonylite-change-log".to_owned(),
        stream_prefix: "harmonylite-changes".to_owned(),
        server_config: None,
        server_path: Some(binary().to_path_buf()),
        seed_file: None,
        creds_file: None,
        user_name: String::new(),
        user_password: Secret::default(),
        ca_file: None,
        cert_file: None,
        key_file: None,
        bind_address: ":-1".to_owned(),
        connect_retries: 5,
        reconnect_wait: Duration::from_secs(2),
        cluster_addr: None,
        cluster_peers: Vec::new(),
        leaf_servers: Vec::new(),
    }
}

/// `[replication_log]` with the defaults and this many shards.
pub fn log_config(shards: u64) -> ReplicationLogConfig {
    ReplicationLogConfig {
        shards,
        max_entries: 1024,
        max_bytes: 1 << 30,
        max_age: Duration::ZERO,
        silent_after: Duration::from_secs(3600),
        kept_max_bytes: 256 << 20,
        replicas: 1,
        compress: true,
        compress_min_bytes: 1024,
        update_existing: false,
    }
}
