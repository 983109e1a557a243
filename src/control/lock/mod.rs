//! One daemon per database: a file of ours beside it, locked while the daemon lives.
//!
//! Invariants: the kernel holds the lock, so it ends with the process whatever ends that; the file is never
//! unlinked (a process that waits for an unlinked file's lock would share the database with one that locks the new
//! file); what the file says is for people and `-stop`, and is believed only while the lock is held.

mod holder;
mod record;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Gid, Uid, fchown, geteuid};

use super::paths::{PathError, Paths};
pub use holder::{Holder, HolderError, holder, wait_released};
use record::Record;

/// Somebody who only looks holds the lock, shared, for a moment; a daemon holds it for longer than these
/// tries together.
const TRIES: usize = 10;
/// The pause between them.
const PAUSE: Duration = Duration::from_millis(20);

/// Why this process may not serve a database.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A living daemon serves it.
    #[error(
        "another daemon{} already serves {}: stop it with `harmonylite -stop -db {}`",
        process(*.pid), .path.display(), .path.display()
    )]
    Held {
        /// The database.
        path: PathBuf,
        /// The daemon's process id, where its lock file says it.
        pid: Option<u32>,
    },
    /// The path cannot belong to a database.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The lock file may not be made or written.
    #[error(
        "the lock file {} cannot be written: let this user write to it and to its folder, or run as the user that owns the database",
        .path.display()
    )]
    NotWritable {
        /// The lock file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// Something that is no plain file is where the lock file belongs.
    #[error("{} is not a plain file: move it away, the lock file belongs there", .path.display())]
    NotAFile {
        /// The lock file's place.
        path: PathBuf,
    },
    /// The lock could not be asked for.
    #[error("the lock file {} cannot be locked: put the database on a local file system that works", .path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

/// A process as sentences name it, where it is known.
pub(super) fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// The right to serve a database, as long as this value or else the process lives.
#[derive(Debug)]
pub struct InstanceLock {
    file: Flock<File>,
    paths: Paths,
}

impl InstanceLock {
    /// Takes the lock of the database at `db_path`, which need not exist yet. May wait a fifth of a second.
    ///
    /// # Errors
    /// [`LockError::Held`] when a daemon has it, else what is wrong with the path, folder or lock file.
    pub fn acquire(db_path: &Path) -> Result<Self, LockError> {
        let paths = Paths::of(db_path)?;
        let mut file = open(&paths)?;
        for _ in 0..TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(Self::taken(locked, paths)),
                Err((back, Errno::EWOULDBLOCK)) => file = back,
                Err((_, errno)) => {
                    return Err(LockError::Io {
                        path: paths.lock,
                        source: errno.into(),
                    });
                }
            }
            thread::sleep(PAUSE);
        }
        Err(LockError::Held {
            pid: Record::read(&file).map(|record| record.pid),
            path: paths.database,
        })
    }

    /// The database, absolute and without symbolic links.
    pub fn database(&self) -> &Path {
        &self.paths.database
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    fn taken(file: Flock<File>, paths: Paths) -> Self {
        if let Err(error) = Record::of_this_process(&paths.database).write(&file) {
            // A full disk: the lock holds all the same, only its text is missing.
            tracing::warn!(file = %paths.lock.display(), %error, "the lock file does not say who holds it");
        }
        Self { file, paths }
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // Before the lock goes, so that the next holder is never mistaken for this process.
        if let Err(error) = self.file.set_len(0) {
            tracing::debug!(file = %self.paths.lock.display(), %error, "the lock file still names this process");
        }
    }
}

fn open(paths: &Paths) -> Result<File, LockError> {
    let path = || paths.lock.clone();
    let existed = paths.lock.exists();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A link planted in a shared folder must not make us write elsewhere; a pipe must not make us wait.
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&paths.lock)
        .map_err(
            |source| match Errno::from_raw(source.raw_os_error().unwrap_or_default()) {
                Errno::ELOOP | Errno::EISDIR | Errno::ENXIO => LockError::NotAFile { path: path() },
                _ => LockError::NotWritable {
                    path: path(),
                    source,
                },
            },
        )?;
    let metadata = file.metadata().map_err(|source| LockError::Io {
        path: path(),
        source,
    })?;
    if !metadata.is_file() {
        return Err(LockError::NotAFile { path: path() });
    }
    if !existed && geteuid().is_root() {
        give_to_owner(&file, paths);
    }
    Ok(file)
}

/// A command that root runs once must not shut out the daemon's own user afterwards: the lock file belongs to
/// the owner of the database, as SQLite does with its own files.
fn give_to_owner(file: &File, paths: &Paths) {
    let owner = fs::metadata(&paths.database).or_else(|_| fs::metadata(&paths.folder));
    let given = owner.and_then(|owner| {
        let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
        fchown(file, Some(uid), Some(gid)).map_err(io::Error::from)
    });
    if let Err(error) = given {
        tracing::warn!(file = %paths.lock.display(), %error, "the lock file belongs to root; other users cannot take it");
    }
}

#[cfg(test)]
pub(super) mod tests;
