//! The thread that keeps the server running. A thread and no task: the kernel kills the server when the thread that started it
//! ends, and a runtime's threads come and go.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::STOP_DEADLINE;
use super::error::ManagedError;
use super::ports::{MONITOR_PORTS, Ports, free_monitor_port};
use super::process;
use super::settings::Settings;
use crate::config::Secret;

/// How long a server may take until it accepts connections: it reads its store first, and a large one takes a while.
const START_DEADLINE: Duration = Duration::from_secs(120);

/// How often the ports file is looked for while the server starts, which takes about 25 ms.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// First and longest wait before a server that ended is started again.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A server that ran for this long did its work: the next is started without a longer wait.
const LONG_LIVED: Duration = Duration::from_secs(10);

/// Lines of the server's log kept for the error that says why it ended.
const LAST_WORDS: usize = 8;

/// What the supervisor is told.
#[derive(Debug)]
pub(super) enum Command {
    /// End the server in good order, and the thread with it.
    Stop,
    /// End both at once.
    Kill,
    /// The cluster's other servers.
    Routes(Vec<Secret>),
    /// The output of the server with this number has ended, and so has the server.
    OutputEnded(u64),
}

/// What others see of the server.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) client_url: String,
    pub(super) monitor_url: Option<String>,
    pub(super) restarts: u64,
    pub(super) pid: Option<u32>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type LastWords = Arc<Mutex<VecDeque<String>>>;

pub(super) struct Supervisor {
    binary: PathBuf,
    settings: Settings,
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    last_words: LastWords,
    /// Servers started so far.
    started: u64,
}

/// A server that accepts connections.
struct Running {
    child: Child,
    since: Instant,
}

/// How a server's time ended.
enum End {
    /// By itself.
    Alone(String),
    /// Because we were told so.
    Told,
}

impl Supervisor {
    pub(super) fn new(
        binary: PathBuf,
        settings: Settings,
        commands: SyncSender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            binary,
            settings,
            commands,
            shared,
            last_words: LastWords::default(),
            started: 0,
        }
    }

    /// Runs until told to end, or until the very first start fails.
    pub(super) fn run(
        mut self,
        commands: &Receiver<Command>,
        ready: oneshot::Sender<Result<(), ManagedError>>,
    ) {
        let mut running = match self.first_start(commands) {
            Ok(running) => running,
            Err(error) => {
                // Whoever started us may have given up waiting.
                let _ = ready.send(Err(error));
                return;
            }
        };
        // A receiver that is gone has sent Kill.
        let _ = ready.send(Ok(()));
        let mut wait = FIRST_WAIT;
        loop {
            let how = match self.attend(running.child, commands) {
                End::Told => return,
                End::Alone(how) => how,
            };
            let last_words = self.last_words();
            tracing::error!(%how, %last_words, "the managed nats-server ended, starting it again");
            if running.since.elapsed() > LONG_LIVED {
                wait = FIRST_WAIT;
            }
            running = loop {
                if !self.pause(wait, commands) {
                    return;
                }
                wait = (wait * 2).min(LONGEST_WAIT);
                match self.start(commands) {
                    Ok(running) => {
                        self.shared.lock().restarts += 1;
                        break running;
                    }
                    Err(ManagedError::Stopped) => return,
                    Err(error) => tracing::error!("{error}"),
                }
            };
        }
    }

    /// The first start. Another daemon of this machine that starts at the same moment may take the monitoring port from under us.
    fn first_start(&mut self, commands: &Receiver<Command>) -> Result<Running, ManagedError> {
        for _ in 0..MONITOR_PORTS {
            match self.start(commands) {
                Err(ManagedError::Ended { last_words, .. })
                    if last_words.contains("monitor") && last_words.contains("in use") => {}
                other => return other,
            }
        }
        self.start(commands)
    }

    /// Starts the server and waits until it accepts connections.
    fn start(&mut self, commands: &Receiver<Command>) -> Result<Running, ManagedError> {
        // The same as before unless somebody has taken it.
        self.settings.monitor_port = free_monitor_port(self.settings.monitor_port);
        self.write_configuration()?;
        let ports_folder = self.settings.ports_folder();
        self.empty(&ports_folder)?;
        self.last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        let mut child = process::spawn(&self.binary, &self.settings.file())
            .map_err(|source| ManagedError::Start { source })?;
        self.started += 1;
        self.follow_output(&mut child);
        let since = Instant::now();
        loop {
            if let Some(ports) = Ports::read(&ports_folder) {
                self.accepts(&child, &ports);
                return Ok(Running { child, since });
            }
            match commands.recv_timeout(LOOK_EVERY) {
                Ok(Command::OutputEnded(server)) if server == self.started => {
                    return Err(self.ended(wait_for_end(&mut child)));
                }
                Ok(Command::Stop | Command::Kill) | Err(RecvTimeoutError::Disconnected) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(ManagedError::Stopped);
                }
                Ok(Command::Routes(routes)) => {
                    // The next start or refresh uses them.
                    self.settings.set_routes(routes);
                }
                Ok(Command::OutputEnded(_)) | Err(RecvTimeoutError::Timeout) => {}
            }
            if since.elapsed() > START_DEADLINE {
                let _ = child.kill();
                let _ = child.wait();
                return Err(self.ended(format!("did not come up within {START_DEADLINE:?}")));
            }
        }
    }

    fn accepts(&mut self, child: &Child, ports: &Ports) {
        // Clients know this port now: the next server gets the same.
        self.settings.port = ports.client_port().or(self.settings.port);
        let client_url = ports.client_url().unwrap_or_default().to_owned();
        let monitor_url = ports.monitor_url().map(str::to_owned);
        tracing::info!(
            url = %client_url,
            monitor = monitor_url.as_deref().unwrap_or("off"),
            "the managed nats-server is ready"
        );
        let mut state = self.shared.lock();
        state.client_url = client_url;
        state.monitor_url = monitor_url;
        state.pid = Some(child.id());
    }

    /// Stays with a running server until it ends.
    fn attend(&mut self, mut child: Child, commands: &Receiver<Command>) -> End {
        let end = loop {
            match commands.recv() {
                Ok(Command::OutputEnded(server)) if server == self.started => {
                    break End::Alone(wait_for_end(&mut child));
                }
                Ok(Command::OutputEnded(_)) => {}
                Ok(Command::Routes(routes)) => {
                    if self.settings.set_routes(routes) {
                        self.reload(&child);
                    }
                }
                Ok(Command::Stop) => {
                    self.stop(&mut child, commands);
                    break End::Told;
                }
                Ok(Command::Kill) | Err(_) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break End::Told;
                }
            }
        };
        self.shared.lock().pid = None;
        end
    }

    fn reload(&self, child: &Child) {
        match self.write_configuration() {
            Ok(()) => {
                tracing::info!(
                    "the cluster's peers have changed, the managed nats-server reads them again"
                );
                signal(child, Signal::SIGHUP);
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn stop(&self, child: &mut Child, commands: &Receiver<Command>) {
        signal(child, Signal::SIGTERM);
        let end = Instant::now() + STOP_DEADLINE;
        loop {
            match commands.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Command::OutputEnded(server)) if server == self.started => break,
                Ok(Command::Kill) => {
                    let _ = child.kill();
                    break;
                }
                Err(_) => {
                    tracing::warn!(
                        "the managed nats-server did not end within {STOP_DEADLINE:?} and is killed"
                    );
                    let _ = child.kill();
                    break;
                }
                Ok(_) => {}
            }
        }
        let _ = child.wait();
    }

    /// Waits before the next start. Returns false when told to end.
    fn pause(&mut self, wait: Duration, commands: &Receiver<Command>) -> bool {
        let end = Instant::now() + wait;
        loop {
            match commands.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => return true,
                Ok(Command::Stop | Command::Kill) | Err(RecvTimeoutError::Disconnected) => {
                    return false;
                }
                Ok(Command::Routes(routes)) => {
                    self.settings.set_routes(routes);
                }
                Ok(Command::OutputEnded(_)) => {}
            }
        }
    }

    fn follow_output(&self, child: &mut Child) {
        let Some(output) = child.stderr.take() else {
            return;
        };
        let (commands, last_words) = (self.commands.clone(), Arc::clone(&self.last_words));
        let server = self.started;
        std::thread::spawn(move || {
            process::read_log(output, |line| {
                if let Some(message) = process::forward(line) {
                    let mut last_words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
                    if last_words.len() == LAST_WORDS {
                        last_words.pop_front();
                    }
                    last_words.push_back(message);
                }
            });
            // Nobody listens when the supervisor has ended.
            let _ = commands.send(Command::OutputEnded(server));
        });
    }

    fn last_words(&self) -> String {
        let words = self
            .last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if words.is_empty() {
            return "(none)".to_owned();
        }
        words.iter().cloned().collect::<Vec<_>>().join(" | ")
    }

    fn ended(&self, how: String) -> ManagedError {
        ManagedError::Ended {
            how,
            last_words: self.last_words(),
        }
    }

    fn write_configuration(&self) -> Result<(), ManagedError> {
        let path = self.settings.file();
        let write = || {
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?
                .write_all(self.settings.render().as_bytes())
        };
        write().map_err(|source| ManagedError::File {
            path: path.clone(),
            source,
        })
    }

    /// Makes the folder of the ports file, without what a server left that was killed.
    fn empty(&self, folder: &PathBuf) -> Result<(), ManagedError> {
        let make = || {
            if folder.exists() {
                std::fs::remove_dir_all(folder)?;
            }
            std::fs::create_dir_all(folder)
        };
        make().map_err(|source| ManagedError::File {
            path: folder.clone(),
            source,
        })
    }
}

fn wait_for_end(child: &mut Child) -> String {
    match child.wait() {
        Ok(status) => format!("ended ({status})"),
        Err(error) => format!("is lost ({error})"),
    }
}

fn signal(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It has not been waited for, so the id is still its own; an error means that it has just ended.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}
