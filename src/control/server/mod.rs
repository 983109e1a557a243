//! The daemon's control socket: who may ask, how many at once, and for how long.
//!
//! Invariants: only the holder of a database's lock serves its socket; only the daemon's own user and root are
//! heard; at most 16 connections, each with at most one request line in memory, read within a
//! deadline; a request gets exactly one final answer, whatever becomes of its handler; stopping takes at most
//! two seconds.

mod connection;
mod reply;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::lock::InstanceLock;
use super::paths::Paths;
use super::protocol::Request;
use super::socket;
use connection::GRACE;
pub use reply::Reply;

/// A person and a service manager, each a few times over.
const CONNECTIONS: usize = 16;
/// The pause after a failed accept (too many open files), so that it cannot spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// How long stopping waits for connections, which end by themselves after their grace.
const ENDING: Duration = Duration::from_secs(2 * GRACE.as_secs());

/// What to do with a request. Must not block: it runs on the runtime's own threads.
type Handler = Arc<dyn Fn(Request, Reply) + Send + Sync>;

/// Why the daemon cannot be reached over its control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be made.
    #[error(
        "the control socket {} cannot be made: let this user write to its folder, and keep the place free",
        .path.display()
    )]
    Listen {
        /// Its place.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The socket cannot be removed.
    #[error("the control socket {} cannot be removed; the next start replaces it", .path.display())]
    Remove {
        /// Its place.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

/// The control socket of a running daemon. Dropping it ends the service too, and leaves the file for the
/// next start to replace.
#[derive(Debug)]
pub struct ControlServer {
    socket: PathBuf,
    /// Device and inode of our socket, so that no other's is removed.
    identity: (u64, u64),
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl ControlServer {
    /// Serves the control socket of the database whose lock this is, in place of a stale one. `handler` gets
    /// each request and the [`Reply`] to answer it with, then or later, from any thread; it must not block.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn start(
        lock: &InstanceLock,
        handler: impl Fn(Request, Reply) + Send + Sync + 'static,
    ) -> Result<Self, ControlError> {
        let paths = lock.paths();
        let (listener, identity) = listen(paths).map_err(|source| ControlError::Listen {
            path: paths.socket.clone(),
            source,
        })?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self {
            socket: paths.socket.clone(),
            identity,
            stop,
            accepting: tokio::spawn(accept(listener, Arc::new(handler), stopped)),
        })
    }

    /// Removes the socket, gives requests under way a last moment for their answer, and ends. To be called before
    /// the lock is released.
    ///
    /// # Errors
    /// When the socket cannot be removed; the service has ended all the same.
    pub async fn stop(self) -> Result<(), ControlError> {
        let removed = match identity(&self.socket) {
            Ok(found) if found == self.identity => socket::remove(&self.socket),
            // Removed by hand, or another's.
            _ => Ok(()),
        };
        self.stop.send_replace(true);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the control socket ended by a fault");
        }
        removed.map_err(|source| ControlError::Remove {
            path: self.socket,
            source,
        })
    }
}

fn listen(paths: &Paths) -> io::Result<(UnixListener, (u64, u64))> {
    let listener = socket::listen(paths)?;
    let identity = identity(&paths.socket)?;
    Ok((UnixListener::from_std(listener)?, identity))
}

fn identity(socket: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(socket)?;
    Ok((found.dev(), found.ino()))
}

async fn accept(listener: UnixListener, handler: Handler, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = connection::ending(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < CONNECTIONS => {
                    connections.spawn(connection::serve(stream, handler.clone(), stop.clone()));
                }
                Ok((stream, _)) => connection::refuse_busy(stream).await,
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot take a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let ended = timeout(ENDING, async {
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::debug!(left = connections.len(), "control connections cut off");
    }
}

#[cfg(test)]
mod tests;
