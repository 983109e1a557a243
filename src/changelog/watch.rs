//! Notices that the application has committed.
//!
//! A commit is seen by `PRAGMA data_version`; the question is when to ask. inotify on the `-wal` file tells that something is being written,
//! but its event comes before the commit is visible (the wal-index is updated after the write), so after an event the version is asked at
//! once and again at growing steps; behind all that stands a slow poll, for what no event tells (another file system, a missed event).
//!
//! Invariants: the database's files are never opened here, only watched by name; a wait ends at its deadline at the latest.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchDescriptor, WatchMask};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use rusqlite::Connection;

use crate::sqlite::connection::data_version;
use crate::sqlite::error::SqliteError;

/// The slow poll behind the events.
const POLL: Duration = Duration::from_millis(100);

/// First and longest pause after an event that showed no new version. Measured: the commit is visible within 100 µs of its event in most cases; what
/// takes longer (a large transaction that spills) makes further events.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(3);

/// Longest pause between two looks while event follows event and nothing is committed.
const BUSY_PAUSE: Duration = Duration::from_micros(640);

/// Watches one database.
pub struct Watch {
    inotify: Option<Inotify>,
    watched: Vec<(PathBuf, Option<WatchDescriptor>)>,
    interval: Option<Duration>,
    seen: Option<i64>,
}

impl Watch {
    /// Watches the database at `path`; with `interval` it polls at that pace and asks for no file events.
    #[must_use]
    pub fn new(path: &Path, interval: Option<Duration>) -> Self {
        let inotify = match interval {
            Some(_) => None,
            None => Inotify::init().inspect_err(|e| tracing::warn!(error = %e, "no file events: the database is polled every {} ms", POLL.as_millis())).ok(),
        };
        let wal = {
            let mut name: OsString = path.as_os_str().to_owned();
            name.push("-wal");
            PathBuf::from(name)
        };
        let mut watch = Self {
            inotify,
            watched: vec![(wal, None), (path.to_owned(), None)],
            interval,
            seen: None,
        };
        watch.add_watches();
        watch
    }

    /// Files that did not exist may do so now; a watch of a file that was replaced has to be made anew.
    fn add_watches(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        for (path, descriptor) in &mut self.watched {
            if descriptor.is_none() {
                *descriptor = inotify
                    .watches()
                    .add(
                        &*path,
                        WatchMask::MODIFY | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF,
                    )
                    .ok();
            }
        }
    }

    /// Waits until another connection has committed since the last call that returned true, or until `deadline` or `stop`. The first call returns at once.
    ///
    /// # Errors
    /// SQLite's.
    pub fn wait(
        &mut self,
        reader: &Connection,
        deadline: Instant,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        loop {
            if self.changed(reader)? {
                return Ok(true);
            }
            let now = Instant::now();
            if stop() || now >= deadline {
                return Ok(false);
            }
            let left = deadline - now;
            match self.interval {
                Some(interval) => {
                    std::thread::sleep(interval.min(left).min(Duration::from_millis(500)))
                }
                None => {
                    if self.event(left.min(POLL)) && self.commit_follows(reader, deadline, stop)? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// After an event: looks for the commit at growing pauses. They end early at the next event, for the first may have belonged to a commit that
    /// was seen already, and the next commit is not to wait for the end of its pauses.
    fn commit_follows(
        &mut self,
        reader: &Connection,
        deadline: Instant,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        let (mut pause, mut busy) = (FIRST_PAUSE, FIRST_PAUSE);
        while pause <= LONGEST_PAUSE {
            if self.changed(reader)? {
                return Ok(true);
            }
            if stop() || Instant::now() >= deadline {
                break;
            }
            if self.event(pause) {
                std::thread::sleep(busy);
                busy = (busy * 2).min(BUSY_PAUSE);
                pause = FIRST_PAUSE;
            } else {
                pause *= 2;
            }
        }
        Ok(false)
    }

    /// Whether another connection has committed since the last time this was asked.
    ///
    /// # Errors
    /// SQLite's.
    pub fn changed(&mut self, reader: &Connection) -> Result<bool, SqliteError> {
        let version = data_version(reader)?;
        let changed = self.seen != Some(version);
        self.seen = Some(version);
        Ok(changed)
    }

    /// Waits for a file event.
    fn event(&mut self, timeout: Duration) -> bool {
        self.add_watches();
        let Some(inotify) = &mut self.inotify else {
            std::thread::sleep(timeout);
            return false;
        };
        // In nanoseconds: pauses are shorter than the millisecond that `poll` knows.
        let ready = ppoll(
            &mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)],
            Some(TimeSpec::from_duration(timeout)),
            None,
        )
        .is_ok_and(|n| n > 0);
        if !ready {
            return false;
        }
        let mut buffer = [0; 4096];
        let gone: Vec<WatchDescriptor> = match inotify.read_events(&mut buffer) {
            Ok(events) => {
                let gone = inotify::EventMask::DELETE_SELF
                    | inotify::EventMask::MOVE_SELF
                    | inotify::EventMask::IGNORED;
                events
                    .filter(|e| e.mask.intersects(gone))
                    .map(|e| e.wd)
                    .collect()
            }
            Err(_) => Vec::new(),
        };
        for (_, descriptor) in &mut self.watched {
            if descriptor.as_ref().is_some_and(|d| gone.contains(d)) {
                *descriptor = None;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_every_commit_of_another_connection() {
        for interval in [None, Some(Duration::from_millis(5))] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.db");
            let app = Connection::open(&path).unwrap();
            app.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t(a)")
                .unwrap();
            let reader = crate::sqlite::connection::open_reader(&path).unwrap();
            let mut watch = Watch::new(&path, interval);
            let wait = |w: &mut Watch, ms| {
                w.wait(&reader, Instant::now() + Duration::from_millis(ms), &|| {
                    false
                })
                .unwrap()
            };
            assert!(wait(&mut watch, 10));
            assert!(!wait(&mut watch, 10), "nothing has changed");
            for i in 0..50 {
                app.execute("INSERT INTO t VALUES(?1)", [i]).unwrap();
                assert!(wait(&mut watch, 5000));
            }
            let writer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                app.execute("INSERT INTO t VALUES(1)", []).unwrap();
            });
            assert!(wait(&mut watch, 5000));
            writer.join().unwrap();
        }
    }
}
