//! Committed states of the database at which a batch may end.
//!
//! A *commit point* is the newest change-log id of each captured table, all read in one read transaction: what is logged up to there is what the app's transactions up to some
//! moment have logged, whole ones. Whoever publishes notes such points while changes are pending, so that a long change log can be sent in several batches
//! ([`super::cut`] decides where).
//!
//! Invariants: a point means something only beside the `Captured` that it was read with (another schema may have made a log anew, with ids from one); points are in the order in
//! which they were committed; there is a bound to how many are kept, and those that are kept lie about equally far apart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::capture::Captured;
use crate::sqlite::connection::{rollback, schema_version};
use crate::sqlite::error::{Doing, SqliteError};

/// Points that are kept at most, and fewer where there are many tables: as many as have this many ids, two megabytes of them.
const MOST: usize = 1024;
const MOST_IDS: usize = 256 * 1024;

/// Rows between two points at first, where a batch is to have so many: closer ones would make it hardly smaller.
pub(super) fn near(goal: i64) -> i64 {
    (goal / 8).max(1)
}

/// How many points are kept of a database with so many tables.
pub(super) fn most(tables: usize) -> usize {
    (MOST_IDS / tables.max(1)).clamp(16, MOST)
}

/// When something was noticed, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Noticed {
    /// To measure by.
    pub at: Instant,
    /// Microseconds since the Unix epoch.
    pub micros: u64,
}

impl Noticed {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: Instant::now(),
            micros: since.map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    /// What was noticed first may have been no commit of the app's: nothing was pending yet at `settled`.
    #[must_use]
    pub fn not_before(self, settled: Option<Instant>) -> Self {
        let late = settled.map_or(Duration::ZERO, |s| s.saturating_duration_since(self.at));
        let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        Self {
            at: self.at + late,
            micros: self.micros.saturating_add(micros),
        }
    }
}

/// A committed state of the database.
#[derive(Debug, Clone)]
pub struct CommitPoint {
    captured: Arc<Captured>,
    /// The newest id of each captured table's log, in the order of these; 0 where there is none.
    ids: Box<[i64]>,
    /// The sum of the ids: the rows between two points are the difference of these.
    rows: i64,
    /// Before it was read: what is not in it was committed after this.
    pub noticed: Noticed,
}

impl CommitPoint {
    /// The committed state of this moment; `None` where the schema is another one. `reader` must be outside of a transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub fn now(reader: &Connection, captured: &Arc<Captured>) -> Result<Option<Self>, SqliteError> {
        let begun = reader
            .execute_batch("BEGIN")
            .doing("begin to read the change logs");
        let point = begun.and_then(|()| Self::in_snapshot(reader, captured));
        rollback(reader);
        point
    }

    /// As [`CommitPoint::now`], of the snapshot that `reader` has open.
    pub(super) fn in_snapshot(
        reader: &Connection,
        captured: &Arc<Captured>,
    ) -> Result<Option<Self>, SqliteError> {
        let noticed = Noticed::now();
        if schema_version(reader)? != captured.schema_version {
            return Ok(None);
        }
        let mut ids = Vec::with_capacity(captured.tables.len());
        for table in &captured.tables {
            let id: Option<i64> = if table.log.is_empty() {
                None
            } else {
                reader
                    .prepare_cached(&format!("SELECT max(id) FROM {}", table.log))
                    .and_then(|mut s| s.query_row([], |r| r.get(0)))
                    .doing_with(|| {
                        format!("look into the change log of table \"{}\"", table.table.name)
                    })?
            };
            ids.push(id.unwrap_or(0));
        }
        Ok(Some(Self::new(captured, ids, noticed)))
    }

    pub(super) fn new(captured: &Arc<Captured>, ids: Vec<i64>, noticed: Noticed) -> Self {
        Self {
            captured: Arc::clone(captured),
            rows: ids.iter().fold(0, |sum, id| sum.saturating_add(*id)),
            ids: ids.into(),
            noticed,
        }
    }

    /// The newest id of each table's log, in the order of the captured tables.
    #[must_use]
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// The newest id of the log of the table at this place.
    pub(super) fn id(&self, table: usize) -> i64 {
        self.ids.get(table).copied().unwrap_or(0)
    }

    /// The newest id of a table's log.
    #[must_use]
    pub fn id_of(&self, table: &str) -> i64 {
        let mut tables = self.captured.tables.iter();
        let place = tables.position(|t| t.table.name.eq_ignore_ascii_case(table));
        place.map_or(0, |place| self.id(place))
    }

    /// Whether it was read with this.
    pub(super) fn is_of(&self, captured: &Arc<Captured>) -> bool {
        Arc::ptr_eq(&self.captured, captured)
    }

    /// How many rows were logged after `before`, up to this.
    pub(super) fn rows_since(&self, before: &Self) -> i64 {
        self.rows.saturating_sub(before.rows)
    }

    /// Whether it is `other` or was committed after it, and is of the same schema.
    pub(super) fn has(&self, other: &Self) -> bool {
        self.is_of(&other.captured) && self.ids.iter().zip(&*other.ids).all(|(a, b)| a >= b)
    }
}

/// Points that were noted and not yet looked at, for whoever notes them and whoever scans.
#[derive(Debug, Default)]
pub struct CommitPoints(Mutex<Noted>);

#[derive(Debug, Default)]
struct Noted {
    points: VecDeque<CommitPoint>,
    /// Rows between two points at first, and now.
    near: i64,
    apart: i64,
}

impl CommitPoints {
    /// Notes a point, unless it is too close to the one before. When there are too many, some of those that are kept go, evenly.
    pub fn note(&self, point: CommitPoint) {
        let mut noted = self.lock();
        if noted.points.back().is_some_and(|last| !point.has(last)) {
            noted.points.clear();
        }
        let apart = noted.apart.max(noted.near).max(1);
        let far = |last: &CommitPoint, next: &CommitPoint| next.rows_since(last) >= apart;
        if noted.points.back().is_some_and(|last| !far(last, &point)) {
            return;
        }
        if noted.points.len() >= most(point.ids.len()) {
            let apart = apart.saturating_mul(2);
            noted.apart = apart;
            let mut last: Option<i64> = None;
            noted.points.retain(|p| {
                let stays = last.is_none_or(|last| p.rows.saturating_sub(last) >= apart);
                if stays {
                    last = Some(p.rows);
                }
                stays
            });
        }
        noted.points.push_back(point);
    }

    /// What was noted since this was last asked, oldest first.
    pub fn take(&self) -> VecDeque<CommitPoint> {
        let mut noted = self.lock();
        noted.apart = 0;
        std::mem::take(&mut noted.points)
    }

    /// How many rows a batch is to have.
    pub(super) fn set_goal(&self, rows: i64) {
        self.lock().near = near(rows);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured() -> Arc<Captured> {
        Arc::new(Captured::default())
    }

    fn point(of: &Arc<Captured>, a: i64, b: i64) -> CommitPoint {
        CommitPoint::new(of, vec![a, b], Noticed::now())
    }

    #[test]
    fn the_points_that_are_kept_lie_about_equally_far_apart() {
        let (of, points) = (captured(), CommitPoints::default());
        const LAST: i64 = 1_000_000;
        for row in 0..LAST / 10 {
            points.note(point(&of, row * 7, row * 3));
        }
        let kept = points.take();
        assert!(
            kept.len() <= MOST && kept.len() > MOST / 4,
            "{}",
            kept.len()
        );
        let ends = kept.iter().skip(1).zip(&kept);
        let widest = ends.map(|(b, a)| b.rows_since(a)).max().unwrap();
        assert!(widest <= 4 * LAST / kept.len() as i64, "{widest}");
        assert!(points.take().is_empty());
    }

    #[test]
    fn points_of_another_schema_are_forgotten() {
        let (before, now, points) = (captured(), captured(), CommitPoints::default());
        points.note(point(&before, 1000, 1000));
        points.note(point(&before, 2000, 1000));
        points.note(point(&now, 1, 1000));
        let kept = points.take();
        assert_eq!(kept.len(), 1);
        assert!(kept.iter().all(|p| p.is_of(&now)));
    }
}
