//! Checkpoints of the write-ahead log beside our transactions instead of in them: a checkpoint syncs the log and the database, which takes as long as the disk likes,
//! and whoever commits would wait for it with everything that waits for the commit.
//!
//! Invariants: the log does not grow without bound: where a checkpoint beside busy writers never gets to its end, by which alone the log begins anew, the
//! next transaction does the rest itself; the thread has ended, and its connection is closed, when this is dropped.

use std::os::raw::c_int;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::connection;
use super::error::{Doing, SqliteError};

/// Pages in the log from which it is checkpointed: SQLite's own default.
const FROM: c_int = 1_000;

/// Pages in the log from which a transaction does itself what the thread has left: 64 MiB at SQLite's default page size.
const TOO_MANY: c_int = 16_000;

/// Checkpoints beside a connection, until this is dropped. Drop it before the connection: whoever closes last removes the log.
#[derive(Debug)]
pub struct Checkpoints {
    wake: SyncSender<()>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpoints {
    /// From now on this connection's commits leave checkpoints to a thread.
    ///
    /// # Errors
    /// SQLite's; the connection does its own then, as before.
    pub fn beside(conn: &mut Connection, database: &Path) -> Result<Self, SqliteError> {
        let doing = "leave checkpoints to a thread";
        let own = connection::open_reader(database)?;
        // One at a time: a wish that was not fulfilled yet stands for all.
        let (wake, wanted) = mpsc::sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let behind = Arc::new(AtomicBool::new(false));
        let thread = {
            let (ended, behind) = (Arc::clone(&ended), Arc::clone(&behind));
            std::thread::Builder::new()
                .name("checkpoint".to_owned())
                .spawn(move || run(&own, &wanted, &ended, &behind))
                .map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
                .doing(doing)?
        };
        let wish = wake.clone();
        conn.wal_hook(Some(move |wal: &mut Wal, pages: c_int| {
            if pages >= TOO_MANY && behind.swap(false, Ordering::AcqRel) {
                // A reader or another's checkpoint may stand against it: then again at one of the next transactions.
                let _ = wal.checkpoint();
            } else if pages >= FROM {
                let _ = wish.try_send(());
            }
            Ok(())
        }))
        .doing(doing)?;
        Ok(Self {
            wake,
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _ = self.wake.try_send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(conn: &Connection, wanted: &Receiver<()>, ended: &AtomicBool, behind: &AtomicBool) {
    while wanted.recv().is_ok() && !ended.load(Ordering::Acquire) {
        // Passive: it waits for nobody, and nobody waits for it.
        let pages = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            row.get::<_, c_int>(1)
        });
        // Where it fails, the log is there for the next one; a disk that fails is reported by whoever writes.
        behind.store(pages.is_ok_and(|p| p >= TOO_MANY), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn pages_in_log(conn: &Connection) -> (i64, i64) {
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |r| {
            Ok((r.get(1)?, r.get(2)?))
        })
        .unwrap()
    }

    fn write(conn: &Connection, rows: u32) {
        conn.execute(
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT randomblob(4000) FROM n",
            [rows],
        )
        .unwrap();
    }

    #[test]
    fn the_log_is_checkpointed_by_the_thread_and_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let mut conn = connection::open_writer(&path).unwrap();
        conn.execute_batch("CREATE TABLE t(v)").unwrap();
        let checkpoints = Checkpoints::beside(&mut conn, &path).unwrap();
        write(&conn, 2_000);
        // Nobody commits any more: what was asked for is done all the same.
        let look = Connection::open(&path).unwrap();
        let database = || std::fs::metadata(&path).unwrap().len();
        let until = Instant::now() + Duration::from_secs(30);
        while database() < 8_000_000 {
            assert!(Instant::now() < until, "the thread does nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Many transactions, one upon another, of four times what the log may hold.
        for _ in 0..640 {
            write(&conn, 100);
        }
        let log = std::fs::metadata(folder.path().join("app.db-wal")).unwrap();
        assert!(
            log.len() < 3 * 4_200 * TOO_MANY as u64,
            "{} bytes of log",
            log.len()
        );
        drop(checkpoints);
        assert_eq!(pages_in_log(&look).0, pages_in_log(&look).1);
        drop(look);
        conn.close().unwrap();
        assert!(!folder.path().join("app.db-wal").exists());
    }
}
