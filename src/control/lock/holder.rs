//! Who holds the lock of a database, seen from outside.
//!
//! Invariants: looking changes nothing and waits for nobody; a holder that ended and was followed by another
//! counts as ended; a process gets a signal only when it is proven to be the holder.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::record::{Record, start_ticks};
use crate::control::paths::{PathError, Paths};

/// How often a wait looks again: a person hardly notices, the machine not at all.
const LOOK: Duration = Duration::from_millis(50);
/// How often a wait says that it is still waiting.
const SAY: Duration = Duration::from_secs(1);

/// Why it cannot be told who holds a lock, or the holder cannot be asked to stop.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The path cannot belong to a database.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The lock file cannot be looked at.
    #[error("the lock file {} cannot be read: run as the user of the daemon, or as root", .path.display())]
    Unreadable {
        /// The lock file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// A daemon holds the lock, but which process that is cannot be proven.
    #[error(
        "a daemon serves {}, but its process cannot be told for certain from here: stop it where it runs (its service, its container, or `kill -TERM` of its process)",
        .database.display()
    )]
    Unproven {
        /// The database.
        database: PathBuf,
    },
    /// The process may not be signalled.
    #[error("process {pid} serves {} and may not be stopped by this user: run as its user, or as root", .database.display())]
    NotAllowed {
        /// The database.
        database: PathBuf,
        /// The daemon's process id.
        pid: u32,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

/// The process that serves a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    database: PathBuf,
    lock: PathBuf,
    record: Option<Record>,
}

impl Holder {
    /// The database, absolute and without symbolic links.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// One that names another's process, as a forged lock file would.
    #[cfg(test)]
    pub(super) fn forged(database: &Path, named: &Self) -> Self {
        Self {
            record: named.record.clone(),
            database: database.to_owned(),
            lock: Paths::of(database).unwrap().lock,
        }
    }

    /// Its process id, where the lock file says it: in its first moments it may not.
    pub fn pid(&self) -> Option<u32> {
        self.record.as_ref().map(|record| record.pid)
    }

    /// Whether the process named here is alive, is the one that wrote the line, and has the lock file open.
    /// The last keeps a forged line from aiming root's signal at a stranger.
    fn is_proven(&self) -> bool {
        let Some(record) = &self.record else {
            return false;
        };
        let alive = record.start_ticks.is_some() && record.start_ticks == start_ticks(record.pid);
        alive && has_open(record.pid, &self.lock)
    }

    /// Asks the process to stop (SIGTERM). Between proof and signal lies a moment too short for its id to be
    /// given to another process, since ids are given in turn.
    ///
    /// # Errors
    /// When it is not certain which process holds the lock, or the signal is not allowed.
    pub fn terminate(&self) -> Result<(), HolderError> {
        let database = || self.database.clone();
        let unproven = || HolderError::Unproven {
            database: database(),
        };
        let pid = self
            .pid()
            .filter(|_| self.is_proven())
            .ok_or_else(unproven)?;
        let id = i32::try_from(pid).map_err(|_| unproven())?;
        match kill(Pid::from_raw(id), Signal::SIGTERM) {
            // It ended by itself meanwhile.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(HolderError::NotAllowed {
                database: database(),
                pid,
                source: errno.into(),
            }),
        }
    }

    /// Waits until this holder has released the lock, whoever takes it next. Returns whether it has, within
    /// `timeout`. `progress` hears about once a second how long the wait has been.
    ///
    /// # Errors
    /// When the lock file cannot be looked at.
    pub fn wait_released(
        &self,
        timeout: Duration,
        mut progress: impl FnMut(Duration),
    ) -> Result<bool, HolderError> {
        let start = Instant::now();
        let mut said = Duration::ZERO;
        loop {
            match holder(&self.database)? {
                None => return Ok(true),
                Some(now) if self.record.is_some() && now.record.is_some() && now != *self => {
                    return Ok(true);
                }
                Some(_) => {}
            }
            let waited = start.elapsed();
            if waited >= said + SAY {
                said = waited;
                progress(waited);
            }
            if waited >= timeout {
                return Ok(false);
            }
            thread::sleep(LOOK.min(timeout.saturating_sub(waited)));
        }
    }
}

/// The daemon that serves the database at `db_path`, if any. Waits for nobody.
///
/// # Errors
/// When the path cannot belong to a database, or the lock file cannot be looked at.
pub fn holder(db_path: &Path) -> Result<Option<Holder>, HolderError> {
    let paths = Paths::of(db_path)?;
    let unreadable = |source| HolderError::Unreadable {
        path: paths.lock.clone(),
        source,
    };
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&paths.lock);
    let file: File = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Some(Holder {
            record: Record::read(&file),
            database: paths.database,
            lock: paths.lock,
        })),
        Err((_, errno)) => Err(unreadable(errno.into())),
    }
}

/// Waits until the daemon that serves the database at `db_path` now, if any, has ended. Returns whether it
/// has, within `timeout`. `progress` hears about once a second how long the wait has been.
///
/// # Errors
/// When the path cannot belong to a database, or the lock file cannot be looked at.
pub fn wait_released(
    db_path: &Path,
    timeout: Duration,
    progress: impl FnMut(Duration),
) -> Result<bool, HolderError> {
    match holder(db_path)? {
        Some(holder) => holder.wait_released(timeout, progress),
        None => Ok(true),
    }
}

/// Whether a process has a file open. Looks the descriptors up and opens none.
fn has_open(pid: u32, file: &Path) -> bool {
    let (Ok(file), Ok(open)) = (fs::metadata(file), fs::read_dir(format!("/proc/{pid}/fd"))) else {
        return false;
    };
    open.flatten()
        .filter_map(|descriptor| fs::metadata(descriptor.path()).ok())
        .any(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()))
}
