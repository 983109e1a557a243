//! Notes commit points while more is pending than one batch is to hold: a thread and a reading connection of its own, since the loop is busy then.
//!
//! Invariants: it rests while nobody asks for points; it takes a twentieth of a processor at most, however many tables there are; it never reads a database without WAL, whose
//! writers would wait for it.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::capture::Captured;
use crate::changelog::commit_points::{CommitPoint, CommitPoints};
use crate::sqlite::connection;
use crate::sqlite::error::SqliteError;

/// Between two points at least: an app writes a batch of rows in a few of these.
const PAUSE: Duration = Duration::from_millis(1);

/// The pause is so many times what the last point took.
const SHARE: u32 = 20;

/// After a point that could not be had. Whoever scans meets the same trouble, and says so.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// The thread, until this is dropped.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// As the thread was last told.
    wanted: Option<Arc<Captured>>,
}

#[derive(Debug)]
struct Shared {
    points: Arc<CommitPoints>,
    wish: Mutex<Wish>,
    woken: Condvar,
}

/// What the thread is to do.
#[derive(Debug, Default)]
struct Wish {
    captured: Option<Arc<Captured>>,
    stop: bool,
}

impl Sampler {
    /// A thread that notes its points there, for the database at `path`.
    ///
    /// # Errors
    /// SQLite's. Without the thread all that is pending goes at once.
    pub fn new(path: &Path, points: &Arc<CommitPoints>) -> Result<Self, SqliteError> {
        let reader = connection::open_reader(path)?;
        let shared = Arc::new(Shared {
            points: Arc::clone(points),
            wish: Mutex::default(),
            woken: Condvar::new(),
        });
        let thread = std::thread::Builder::new()
            .name("commit-points".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(&reader)
            });
        let thread = thread
            .inspect_err(|e| tracing::debug!(error = %e, "no thread for commit points"))
            .ok();
        Ok(Self {
            shared,
            thread,
            wanted: None,
        })
    }

    /// Points are wanted from now on, of these tables; `None`: they are not.
    pub fn want(&mut self, captured: Option<&Arc<Captured>>) {
        let same = match (&self.wanted, captured) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            self.wanted = captured.cloned();
            self.shared.lock().captured = captured.cloned();
            self.shared.woken.notify_one();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.woken.notify_one();
        // It ends within one look at the database.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, reader: &Connection) {
        let (mut seen, mut pause) = (None, PAUSE);
        while let Some(captured) = self.next(pause) {
            let started = Instant::now();
            match self.look(reader, &captured, &mut seen) {
                Ok(()) => pause = PAUSE.max(started.elapsed() * SHARE),
                Err(e) => {
                    tracing::debug!(error = %e, "no commit point");
                    pause = AFTER_FAILURE;
                }
            }
        }
    }

    /// Pauses, then waits until a point is wanted; `None` at the end.
    fn next(&self, pause: Duration) -> Option<Arc<Captured>> {
        let wish = self.lock();
        let (wish, _) = self
            .woken
            .wait_timeout_while(wish, pause, |w| !w.stop)
            .unwrap_or_else(PoisonError::into_inner);
        let wish = self
            .woken
            .wait_while(wish, |w| !w.stop && w.captured.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        wish.captured.clone().filter(|_| !wish.stop)
    }

    fn look(
        &self,
        reader: &Connection,
        captured: &Arc<Captured>,
        seen: &mut Option<i64>,
    ) -> Result<(), SqliteError> {
        let version = connection::data_version(reader)?;
        if seen.replace(version) == Some(version) || !connection::is_wal(reader)? {
            return Ok(());
        }
        if let Some(point) = CommitPoint::now(reader, captured)? {
            self.points.note(point);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::install;

    #[test]
    fn points_are_noted_while_they_are_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a INTEGER PRIMARY KEY)")
            .unwrap();
        crate::state::ddl::migrate(&app).unwrap();
        let captured = Arc::new(install::refresh(&app, &|_| true, true).unwrap());
        let points = Arc::new(CommitPoints::default());
        let mut sampler = Sampler::new(&path, &points).unwrap();
        sampler.want(Some(&captured));
        let since = Instant::now();
        let mut noted = 0;
        while noted < 3 {
            assert!(since.elapsed() < Duration::from_secs(60), "{noted}");
            app.execute("INSERT INTO t VALUES(NULL)", []).unwrap();
            noted += points.take().len();
        }
        sampler.want(None);
        drop(sampler);
        points.take();
        app.execute("INSERT INTO t VALUES(NULL)", []).unwrap();
        assert!(points.take().is_empty());
    }
}
