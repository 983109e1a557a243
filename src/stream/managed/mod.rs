//! The managed server: a `nats-server` process that runs as long as we do, for whoever has no NATS of his own.
//!
//! ```text
//!   ManagedServer ──commands──▶ supervisor thread ──▶ nats-server ──stderr──▶ our log
//!        ▲                         │   restarts with backoff        │
//!        └── client URL, restarts ─┘◀── ports file, end of output ──┘
//! ```
//!
//! Invariants: never two servers over one store of ours (the process dies with us, and the next is started only after the last
//! has been waited for); after a restart clients find it at the same port; its configuration file is written by us alone and is
//! readable by us alone, since routes may carry logins.

mod error;
mod monitor;
mod peers;
mod ports;
mod process;
mod settings;
mod supervisor;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::change::position::NodeId;
use crate::config::NatsConfig;

pub use error::ManagedError;
pub use monitor::{Sync, get, monitor_of, sync_of};
use supervisor::{Command, Shared, Supervisor};

/// The nats-server program that a managed server would run.
///
/// # Errors
/// [`ManagedError::NoBinary`].
pub fn find_binary(config: &NatsConfig) -> Result<std::path::PathBuf, ManagedError> {
    process::find(config.server_path.as_deref())
}

/// The PATH's nats-server.
#[must_use]
pub fn on_path() -> Option<std::path::PathBuf> {
    process::on_path()
}

/// Where clients connect to a nats-server that writes its ports into `folder` (its `ports_file_dir`); `None` while it does not listen.
#[must_use]
pub fn client_url(folder: &Path) -> Option<String> {
    Some(ports::Ports::read(folder)?.client_url()?.to_owned())
}

/// How long a server may take to end by itself: it writes its state out, which after heavy load takes a moment.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Commands that may wait: the supervisor takes them at once, and only a few kinds exist.
const COMMANDS: usize = 16;

/// A running managed server. Dropping it kills the process; [`stop`](Self::stop) ends it in good order.
#[derive(Debug)]
pub struct ManagedServer {
    shared: Arc<Shared>,
    commands: std::sync::mpsc::SyncSender<Command>,
    thread: Option<std::thread::JoinHandle<()>>,
    refresh: Option<tokio::task::JoinHandle<()>>,
}

impl ManagedServer {
    /// Starts the server of this node, with its files in `<folder>/nats/harmonylite-node-<id>/` (`folder` is the
    /// database's), and waits until it accepts connections. Where `-cluster-peers` has `dns://` names it first waits until they
    /// have as many addresses as they should; dropping the future ends that.
    ///
    /// # Errors
    /// [`ManagedError`]: there is no nats-server, its configuration is faulty, or it ended at once, with its last words.
    pub async fn start(
        config: &NatsConfig,
        folder: &Path,
        node: NodeId,
    ) -> Result<Self, ManagedError> {
        let binary = process::find(config.server_path.as_deref())?;
        let routes = peers::resolve(&config.cluster_peers).await;
        let settings = settings::Settings::new(config, folder, node, routes)?;
        let (commands, receiver) = std::sync::mpsc::sync_channel(COMMANDS);
        let (ready_sender, ready) = tokio::sync::oneshot::channel();
        let shared = Arc::new(Shared::default());
        let supervisor = Supervisor::new(binary, settings, commands.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || supervisor.run(&receiver, ready_sender))
            .map_err(|source| ManagedError::Start { source })?;
        let refresh = peers::refresh(config.cluster_peers.clone(), commands.clone());
        let server = Self {
            shared,
            commands,
            thread: Some(thread),
            refresh,
        };
        // The thread answers in any case, and its end is an answer too.
        ready.await.map_err(|_| ManagedError::Stopped)??;
        Ok(server)
    }

    /// Where clients of this machine connect.
    #[must_use]
    pub fn client_url(&self) -> String {
        self.shared.lock().client_url.clone()
    }

    /// Where the server's monitoring is; `None` when its included configuration has switched it off.
    #[must_use]
    pub fn monitor_url(&self) -> Option<String> {
        self.shared.lock().monitor_url.clone()
    }

    /// How often the server ended and was started again.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.lock().restarts
    }

    /// The server's process id; `None` while it is being started again.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.shared.lock().pid
    }

    /// Ends the server: asks it to, and kills it after ten seconds. Returns when the process has gone.
    pub async fn stop(mut self) {
        if let Some(thread) = self.thread.take() {
            let commands = self.commands.clone();
            let end = move || {
                // An error means that the thread has ended already.
                let _ = commands.send(Command::Stop);
                thread.join()
            };
            let _ = tokio::task::spawn_blocking(end).await;
        }
    }
}

impl Drop for ManagedServer {
    fn drop(&mut self) {
        if let Some(refresh) = self.refresh.take() {
            refresh.abort();
        }
        if let Some(thread) = self.thread.take() {
            let _ = self.commands.send(Command::Kill);
            // Takes as long as the kernel needs to end a process: a later start over the same store must not meet it.
            let _ = thread.join();
        }
    }
}
