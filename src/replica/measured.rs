//! What waits in the database, as it is measured every second: changes that are pending, and messages in the dead-letter journal.
//!
//! Invariants: where nothing was committed since the last look, nothing is counted; a look reads at most `EXACT` rows of change logs, however much is
//! pending; up to that many the number is exact, and whether anything is pending at all always is.

use rusqlite::params;

use super::Replica;
use crate::capture::CapturedTable;
use crate::change::operation::ChangeKind;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};

/// So many pending changes are counted one by one, in about a millisecond: the loops wait for it. What stands behind them is told by ids, which leave out
/// few numbers; a change that was forgotten in their midst counts as pending then.
const EXACT: u64 = 10_000;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Captured changes that have not come back as an echo.
    pub pending: u64,
    /// Entries of the dead-letter journal.
    pub dead_letters: u64,
}

/// What was found last, and in which state of the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastLook {
    state: State,
    found: Measured,
}

/// Commits of others, changes of this connection, and the schema.
type State = (i64, u64, i64);

impl Replica {
    /// Looks again, if anything was committed meanwhile.
    ///
    /// # Errors
    /// SQLite's.
    pub fn measure(&mut self) -> Result<Measured, SqliteError> {
        // Before it is counted: a commit meanwhile is counted again next time.
        let state = (
            connection::data_version(&self.conn)?,
            self.conn.total_changes(),
            connection::schema_version(&self.conn)?,
        );
        if let Some(last) = self.measured.filter(|last| last.state == state) {
            return Ok(last.found);
        }
        let mut pending: u64 = 0;
        let mut left = EXACT;
        for table in self.captured.tables.iter().filter(|t| !t.log.is_empty()) {
            let (counted, behind) = self.count(table, left.max(1))?;
            left = left.saturating_sub(counted);
            pending = pending.saturating_add(counted).saturating_add(behind);
        }
        let found = Measured {
            pending,
            dead_letters: self.dead_letters()?,
        };
        self.measured = Some(LastLook { state, found });
        Ok(found)
    }

    /// How many changes of a table are pending, up to so many, and how many may stand behind them.
    fn count(&self, table: &CapturedTable, most: u64) -> Result<(u64, u64), SqliteError> {
        let counting = "count the pending changes";
        let (done, log) = (ChangeKind::Done.code(), &table.log);
        let (counted, last): (i64, Option<i64>) = self
            .conn
            .prepare_cached(&format!("SELECT count(*), max(id) FROM (SELECT id FROM {log} WHERE type <> {done} ORDER BY id LIMIT ?1)"))
            .and_then(|mut s| s.query_row(params![most.cast_signed()], |r| Ok((r.get(0)?, r.get(1)?))))
            .doing(counting)?;
        let counted = counted.cast_unsigned();
        let Some(last) = last.filter(|_| counted >= most) else {
            return Ok((counted, 0));
        };
        let end: Option<i64> = self
            .conn
            .prepare_cached(&format!("SELECT max(id) FROM {log}"))
            .and_then(|mut s| s.query_row([], |r| r.get(0)))
            .doing(counting)?;
        let behind = end.unwrap_or(last).saturating_sub(last);
        Ok((counted, u64::try_from(behind).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::change::position::NodeId;
    use crate::replica::lifecycle::OpenOptions;

    const MANY: u64 = 30 * EXACT;

    fn rows(many: u64) -> String {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many}) INSERT INTO t SELECT NULL FROM n"
        )
    }

    /// The replica, its app, and how many thousand steps SQLite has gone for the replica.
    fn replica(folder: &std::path::Path) -> (Replica, rusqlite::Connection, Arc<AtomicU64>) {
        let path = folder.join("d.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE u(id INTEGER PRIMARY KEY)")
            .unwrap();
        let options = OpenOptions {
            node_id: NodeId(1),
            publish: true,
            include: Vec::new(),
            exclude: Vec::new(),
            fire_triggers: None,
        };
        let mut replica =
            Replica::open(&path, &options, Duration::from_secs(60), &|| false).unwrap();
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            false
        };
        replica.conn.progress_handler(1000, Some(count)).unwrap();
        (replica, app, steps)
    }

    #[test]
    fn a_backlog_of_any_length_is_measured_by_a_few_of_its_rows() {
        let folder = tempfile::tempdir().unwrap();
        let (mut replica, app, steps) = replica(folder.path());
        app.execute_batch(&rows(MANY)).unwrap();
        app.execute_batch("INSERT INTO u VALUES(1), (2)").unwrap();
        let found = replica.measure().unwrap();
        let gone = steps.swap(0, Ordering::Relaxed);
        assert_eq!(found.pending, MANY + 2, "no id is left out");
        assert_eq!(replica.pending_changes().unwrap(), found.pending);
        let whole = steps.load(Ordering::Relaxed);
        assert!(gone < whole / 2, "{gone} against {whole} thousand steps");
    }

    #[test]
    fn nothing_is_counted_again_until_something_was_committed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut replica, app, steps) = replica(folder.path());
        app.execute_batch(&rows(EXACT - 1)).unwrap();
        assert_eq!(replica.measure().unwrap().pending, EXACT - 1);
        assert!(steps.swap(0, Ordering::Relaxed) > 0);
        assert_eq!(replica.measure().unwrap().pending, EXACT - 1);
        assert_eq!(steps.load(Ordering::Relaxed), 0);
        // By the app, and by this connection.
        app.execute_batch("INSERT INTO u VALUES(1)").unwrap();
        assert_eq!(replica.measure().unwrap().pending, EXACT);
        let log = replica.captured.tables[0].log.clone();
        replica
            .conn
            .execute_batch(&format!("DELETE FROM {log} WHERE id % 2 = 0"))
            .unwrap();
        assert_eq!(replica.measure().unwrap().pending, EXACT / 2 + 1);
        assert_eq!(
            replica.measure().unwrap().pending,
            replica.pending_changes().unwrap()
        );
    }
}
