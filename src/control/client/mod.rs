//! The command line's side of the control socket, for plain threads.
//!
//! Invariants: every wait has a deadline; an answer counts only as a whole line of the protocol.

mod stop;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::lock::{HolderError, holder, process};
use super::paths::{PathError, Paths};
use super::protocol::{Answer as Line, LINE, Refusal, Request};
use super::socket;
pub use stop::{Stopped, stop};

/// The longest result, in bytes: far above any list for people, and no danger to this process.
const RESULT: usize = 256 << 20;

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no daemon.
    #[error("no daemon is running for {}: start harmonylite, then try again", .database.display())]
    NotRunning {
        /// The database.
        database: PathBuf,
    },
    /// A daemon holds the lock, but nobody listens on the socket: it is starting or ending.
    #[error(
        "the daemon{} of {} does not listen on its control socket; it may be starting or stopping: try again in a moment",
        process(*.pid), .database.display()
    )]
    NotListening {
        /// The database.
        database: PathBuf,
        /// The daemon's process id, where its lock file says it.
        pid: Option<u32>,
    },
    /// Nothing came for too long.
    #[error("the daemon of {} said nothing for {waited:?}: its log and health tell what holds it up", .database.display())]
    Timeout {
        /// The database.
        database: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Asked to stop, it still runs.
    #[error(
        "the daemon{} of {} has not stopped within {waited:?}: its log says what it waits for; two SIGTERM make it leave at once, and what is pending then is published after the next start",
        process(*.pid), .database.display()
    )]
    StillRunning {
        /// The database.
        database: PathBuf,
        /// The daemon's process id, where its lock file says it.
        pid: Option<u32>,
        /// How long was waited.
        waited: Duration,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection ended before the answer.
    #[error("the daemon of {} ended before it answered: its log says why", .database.display())]
    Lost {
        /// The database.
        database: PathBuf,
        /// The operating system's error, if there was one.
        #[source]
        source: Option<io::Error>,
    },
    /// Not the answer of a daemon of this version.
    #[error("the daemon of {} gave an answer that is not understood: use the same version as the daemon's", .database.display())]
    NotUnderstood {
        /// The database.
        database: PathBuf,
    },
    /// More than any daemon of ours answers.
    #[error("the daemon of {} answered with more than {} MiB: ask for less at a time", .database.display(), RESULT >> 20)]
    TooLarge {
        /// The database.
        database: PathBuf,
    },
    /// The socket is not to be used by this user, or not at all.
    #[error("the control socket {} cannot be used: run as the user of the daemon, or as root", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The path cannot belong to a database.
    #[error(transparent)]
    Path(#[from] PathError),
    /// It cannot be told whether a daemon runs, or it cannot be signalled.
    #[error(transparent)]
    Holder(#[from] HolderError),
}

/// What a daemon did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What it did, one sentence.
    pub message: String,
    /// What was asked for, where the request asks for anything.
    pub result: Option<serde_json::Value>,
}

/// Asks the daemon of the database at `db_path`. `timeout` bounds the silence before each line of its
/// answer; `on_progress` hears what is under way.
///
/// # Errors
/// [`ClientError::NotRunning`] when there is no daemon, [`ClientError::Refused`] with its reason, else what
/// went wrong between here and there.
pub fn request(
    db_path: &Path,
    request: Request,
    timeout: Duration,
    mut on_progress: impl FnMut(&str),
) -> Result<Answer, ClientError> {
    let paths = Paths::of(db_path)?;
    let mut call = Call {
        stream: connect(&paths, timeout)?,
        received: Vec::new(),
        database: &paths.database,
        timeout,
    };
    call.send(&request.encode())?;
    let mut result = String::new();
    loop {
        let line = call.line()?;
        match Line::decode(&line) {
            Some(Line::Progress(text)) => on_progress(&text),
            Some(Line::Part(text)) if result.len() + text.len() <= RESULT => result.push_str(&text),
            Some(Line::Part(_)) => {
                return Err(ClientError::TooLarge {
                    database: paths.database.clone(),
                });
            }
            Some(Line::Done(Ok(message))) => {
                let result = match result.as_str() {
                    "" => None,
                    text => Some(serde_json::from_str(text).map_err(|_| call.not_understood())?),
                };
                return Ok(Answer { message, result });
            }
            Some(Line::Done(Err(refusal))) => return Err(ClientError::Refused(refusal)),
            None => return Err(call.not_understood()),
        }
    }
}

fn connect(paths: &Paths, timeout: Duration) -> Result<UnixStream, ClientError> {
    socket::connect(&paths.socket, timeout).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => nobody(paths),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout {
            database: paths.database.clone(),
            waited: timeout,
        },
        _ => ClientError::Socket {
            path: paths.socket.clone(),
            source,
        },
    })
}

/// Nobody listens: is there nobody?
fn nobody(paths: &Paths) -> ClientError {
    let database = paths.database.clone();
    match holder(&paths.database) {
        Ok(None) => ClientError::NotRunning { database },
        Ok(Some(holder)) => ClientError::NotListening {
            database,
            pid: holder.pid(),
        },
        Err(error) => error.into(),
    }
}

/// A connection with its request under way.
struct Call<'a> {
    stream: UnixStream,
    /// What came after the last whole line.
    received: Vec<u8>,
    database: &'a Path,
    timeout: Duration,
}

impl Call<'_> {
    fn send(&mut self, line: &[u8]) -> Result<(), ClientError> {
        // The write timeout was set to connect. A server that turns us away may have closed already:
        // its answer is there to be read all the same.
        match self.stream.write_all(line) {
            Ok(()) => self
                .stream
                .shutdown(Shutdown::Write)
                .or_else(|error| match error.kind() {
                    io::ErrorKind::NotConnected => Ok(()),
                    _ => Err(self.failed(error)),
                }),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// The next line, without what follows it.
    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut chunk = [0; 4096];
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let rest = self.received.split_off(end + 1);
                return Ok(std::mem::replace(&mut self.received, rest));
            }
            if self.received.len() >= LINE {
                return Err(self.not_understood());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.failed(io::ErrorKind::TimedOut.into()));
            }
            let read = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(&mut chunk));
            match read {
                Ok(0) => {
                    return Err(ClientError::Lost {
                        database: self.database.to_owned(),
                        source: None,
                    });
                }
                Ok(read) => self.received.extend(chunk.iter().take(read)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, source: io::Error) -> ClientError {
        let database = self.database.to_owned();
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout {
                database,
                waited: self.timeout,
            },
            _ => ClientError::Lost {
                database,
                source: Some(source),
            },
        }
    }

    fn not_understood(&self) -> ClientError {
        ClientError::NotUnderstood {
            database: self.database.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
