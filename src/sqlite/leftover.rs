//! A write-ahead log, or a rollback journal, that was left beside a database file which was copied into the place of another: SQLite would silently replay it
//! over the new one. It is found before SQLite opens the file, and moved aside.
//!
//! Invariants:
//! - nothing is moved that may belong to the database (`wal_file`, `journal_file`), and nothing at all while another process has the database open: its shared lock
//!   stands against the exclusive one that is held here from the look to the end of the move, under which nobody can open it either;
//! - called only where this process has not opened the database: closing a file drops the POSIX locks that SQLite holds on it for this process. (The lock
//!   here is one of the open file, and ends with it.)

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::journal_file;
use super::wal_file::{self, FirstPage};
use crate::runtime::moment;

/// Where SQLite's locks on a database file begin (pending, reserved, and 510 bytes of shared ones), and how many bytes they take.
const LOCKS: (i64, i64) = (0x4000_0000, 512);

/// The byte of the `-shm` file that every connection in WAL mode holds a lock on.
const OPEN_IN_WAL_MODE: i64 = 128;

/// Why the database must not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LeftoverError {
    /// The log is another's and cannot be moved.
    #[error(
        "{} was left by another database and would be replayed over {}, and it cannot be moved away: {source}; remove it",
        log.display(), database.display()
    )]
    Stuck {
        /// The log.
        log: PathBuf,
        /// The database.
        database: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A process writes to the database that was here before.
    #[error(
        "{} was replaced while a process has the database open that was there before, whose log is still beside it: stop the application, then start again",
        .0.display()
    )]
    InUse(PathBuf),
}

/// A log or a journal that cannot be of the database beside it. Nobody can open the database while this is held.
#[derive(Debug)]
pub struct Leftover {
    database: PathBuf,
    /// What is foreign, and why.
    found: Vec<(PathBuf, &'static str)>,
    _locked: File,
}

impl Leftover {
    /// Looks for one beside a database that this process has not opened. What cannot be read is for SQLite to complain about.
    #[must_use]
    pub fn find(database: &Path) -> Option<Self> {
        // SQLite follows links, and keeps the log beside the file itself.
        let database = database.canonicalize().ok()?;
        let open = |suffix| {
            let path = beside(&database, suffix);
            Some((File::open(&path).ok()?, path))
        };
        let (log, journal) = (open("-wal"), open("-journal"));
        if log.is_none() && journal.is_none() {
            return None;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&database)
            .ok()?;
        if !lock(&file, LOCKS).ok()? {
            return None;
        }
        let first = FirstPage::read(&file).ok()??;
        let log = log.and_then(|(log, path)| {
            let why = wal_file::foreign(&first, std::io::BufReader::new(log)).ok()??;
            Some((path, why))
        });
        let journal = journal.and_then(|(journal, path)| {
            let why = journal_file::foreign(&first, journal).ok()??;
            Some((path, why))
        });
        let found: Vec<_> = log.into_iter().chain(journal).collect();
        (!found.is_empty()).then_some(Self {
            database,
            found,
            _locked: file,
        })
    }

    /// Moves it aside, and says so in a sentence.
    ///
    /// # Errors
    /// [`LeftoverError`]: the database must not be opened.
    pub fn move_aside(self) -> Result<String, LeftoverError> {
        if File::open(beside(&self.database, "-shm")).is_ok_and(|shm| is_locked(&shm)) {
            return Err(LeftoverError::InUse(self.database));
        }
        let mut moved = Vec::new();
        for (log, _) in &self.found {
            let aside = beside(log, &format!(".before-{}", moment::compact()));
            if let Err(source) = std::fs::rename(log, &aside) {
                return Err(LeftoverError::Stuck {
                    log: log.clone(),
                    database: self.database,
                    source,
                });
            }
            moved.push(aside.display().to_string());
        }
        Ok(format!(
            "{self}: it was moved to {}; remove that when nothing of it is missed",
            moved.join(" and ")
        ))
    }
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named: Vec<String> = self
            .found
            .iter()
            .map(|(log, why)| format!("{} ({why})", log.display()))
            .collect();
        write!(
            f,
            "{} was left by another database, which was where {} is now, and SQLite would replay it over this one",
            named.join(" and "),
            self.database.display(),
        )
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn range((start, length): (i64, i64)) -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// Locks it until it is closed; `false` where another process holds a lock on it.
fn lock(file: &File, bytes: (i64, i64)) -> nix::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(bytes))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether a process has the database of this `-shm` file open.
fn is_locked(shm: &File) -> bool {
    let mut held = range((OPEN_IN_WAL_MODE, 1));
    fcntl(shm, FcntlArg::F_OFD_GETLK(&mut held)).is_ok() && i32::from(held.l_type) != libc::F_UNLCK
}
