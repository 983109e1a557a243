//! `-stop`: ask, wait for the end, and where asking is of no use, signal.
//!
//! Invariant: stopped means that the daemon that served the database when we began has released its lock; one that a
//! service manager starts in its place is another.

use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{ClientError, request};
use crate::control::lock::{Holder, holder, process};
use crate::control::paths::Paths;
use crate::control::protocol::Request;

/// How long a daemon may take to say that it stops; it says so before it begins.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a lock that is just taken may be without the name of its holder.
const NAMED: Duration = Duration::from_secs(1);
/// How often it is looked at until then.
const LOOK: Duration = Duration::from_millis(20);

/// How a request to stop ended well; its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// There was none to stop.
    NotRunning {
        /// The database.
        database: PathBuf,
    },
    /// The daemon has ended.
    Ended {
        /// The database.
        database: PathBuf,
        /// Its process id, where its lock file said it.
        pid: Option<u32>,
    },
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning { database } => {
                write!(f, "no daemon is running for {}", database.display())
            }
            Self::Ended { database, pid } => {
                let (process, database) = (process(*pid), database.display());
                write!(f, "the daemon{process} of {database} has stopped")
            }
        }
    }
}

/// Asks the daemon of the database at `db_path` to stop, and waits until it has, at most `timeout` altogether.
/// A daemon that does not answer gets SIGTERM. That there is none is no error. `on_progress` hears what is
/// under way.
///
/// # Errors
/// [`ClientError::StillRunning`] when it is still running, [`ClientError::Refused`] when it will not stop, else what is in
/// the way of asking.
pub fn stop(
    db_path: &Path,
    timeout: Duration,
    mut on_progress: impl FnMut(&str),
) -> Result<Stopped, ClientError> {
    let start = Instant::now();
    let left = || timeout.saturating_sub(start.elapsed());
    let Some(mut serving) = holder(db_path)? else {
        return Ok(Stopped::NotRunning {
            database: Paths::of(db_path)?.database,
        });
    };
    let asked = request(db_path, Request::Stop, ANSWER.min(left()), &mut on_progress);
    match asked {
        Ok(answer) => on_progress(&answer.message),
        Err(error @ ClientError::Refused(_)) => return Err(error),
        Err(error) => {
            // Unless it ended meanwhile: then there is nobody to signal.
            if !serving.wait_released(Duration::ZERO, |_| ())? {
                on_progress(&format!("{error}; sending SIGTERM"));
                serving = signal(serving)?;
            }
        }
    }
    let database = serving.database().to_owned();
    let pid = serving.pid();
    let waiting = |waited: Duration| {
        on_progress(&format!(
            "waiting for the daemon to stop, {} s so far",
            waited.as_secs()
        ));
    };
    match serving.wait_released(left(), waiting)? {
        true => Ok(Stopped::Ended { database, pid }),
        false => Err(ClientError::StillRunning {
            database,
            pid,
            waited: timeout,
        }),
    }
}

/// Sends SIGTERM to the holder, once it is named. Returns it as it is named then.
fn signal(mut serving: Holder) -> Result<Holder, ClientError> {
    let start = Instant::now();
    while serving.pid().is_none() && start.elapsed() < NAMED {
        thread::sleep(LOOK);
        match holder(serving.database())? {
            Some(now) => serving = now,
            None => return Ok(serving),
        }
    }
    match serving.terminate() {
        // It ended before it could be signalled.
        Err(_) if serving.wait_released(Duration::ZERO, |_| ())? => Ok(serving),
        signalled => Ok(signalled.map(|()| serving)?),
    }
}
