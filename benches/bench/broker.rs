//! A nats-server of the benchmark's own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A nats-server with JetStream on a free loopback port; killed when dropped.
pub struct NatsServer {
    program: PathBuf,
    process: Child,
    port: u16,
}

impl NatsServer {
    /// Starts one whose store is in this folder.
    pub fn start(folder: &std::path::Path) -> Self {
        let program = program();
        let ports = folder.join("ports");
        std::fs::create_dir_all(&ports).unwrap();
        let log = std::fs::File::create(folder.join("nats-server.log")).unwrap();
        let process = Command::new(&program)
            .args(["-js", "-a", "127.0.0.1", "-p", "-1", "-sd"])
            .arg(folder.join("jetstream"))
            .arg("--ports_file_dir")
            .arg(&ports)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{} does not start: {e}", program.display()));
        let mut server = Self {
            program,
            process,
            port: 0,
        };
        let started = Instant::now();
        while server.port == 0 {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "nats-server did not start, see {}",
                folder.display()
            );
            std::thread::sleep(Duration::from_millis(5));
            server.port = std::fs::read_dir(&ports)
                .unwrap()
                .flatten()
                .next()
                .and_then(|f| port(&std::fs::read_to_string(f.path()).ok()?))
                .unwrap_or(0);
        }
        server
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it says of itself.
    pub fn version(&self) -> String {
        let output = Command::new(&self.program).arg("-v").output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `$HARMONYLITE_NATS_SERVER`, the one that `scripts/get-nats-server` fetched, or the PATH's.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("HARMONYLITE_NATS_SERVER").filter(|v| !v.is_empty()) {
        return named.into();
    }
    let fetched = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/nats-server");
    if fetched.exists() {
        fetched
    } else {
        "nats-server".into()
    }
}

fn port(ports_file: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(ports_file).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}
