//! Where a scan ends that does not take all that is pending.
//!
//! An app that writes faster than its publisher would make batches of a hundred thousand rows and more, and the other nodes fold each in one transaction, for which their apps wait.
//! So a scan ends at the first commit point behind a goal of some hundred rows *that no key spans*: no key that was changed up to the point, and is not sent yet, is changed again
//! behind it. Where there is no such point (an app that changes one row in each of its transactions), it takes all that is pending.
//!
//! Why that is exact. A batch must be the difference of two committed states, and a scan reads the values of rows as they are now, not as they were at the point. A row that
//! was changed up to the point and not behind it has the value that it had there, since whatever an app's transaction does to a row it logs in the same transaction: cascades, rows
//! that REPLACE displaces, and compensating writes of ours are in the log like all else, at their own ids. What our own connection does without a log entry is to fold what others have sent, and
//! that is judged here as at every scan: it leaves what is pending of a row in place; a row logged whole that is gone is a delete; cells without their row are forgotten.
//! What is logged behind the point stays pending, as what is committed after a scan does: two batches in flight are nothing else.
//! Keys compare as their index does. They are known by 64 bits of a hash, and two keys that share one count as one: then there are fewer points to choose from, and no wrong ones.
//! A delete that was logged under a key that the table had before names a row that cannot be compared: where one is pending, nothing is cut.
//!
//! ```text
//!  watermark        P1      P2           P3    now
//!      │ a b │ c │ a d │ e e │ f g │ d h │      d spans P2 to P3, a spans what lies before P2:
//!      └─────┴───┴─────┴─────┴─────┴─────┘      P1 is no end. With a goal of four rows, now is one.
//! ```
//!
//! Invariants: each row of a change log is read once for this, however long the log is and however many batches are made of it; memory is bounded in points and in keys, beyond
//! which all is taken at once.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use rusqlite::Connection;

use super::commit_points::{CommitPoint, CommitPoints, Noticed, most, near};
use super::in_flight::InFlight;
use super::reduce::{hash_key, key_values};
use crate::capture::{Captured, CapturedTable, layout};
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};

/// Rows of a batch, if it can end there: another node folds them in about a millisecond.
pub const GOAL_ROWS: u64 = 500;

/// Bytes of a batch, if it can end there, by what rows took lately.
const GOAL_BYTES: u64 = 512 * 1024;

/// Keys that are compared at most: 36 MB.
const MOST_KEYS: u64 = 1_000_000;

/// Small maps are not worth a sweep.
const SMALL: usize = 1024;

/// What lies between two points. Numbers rise, with gaps where some were joined.
#[derive(Debug)]
struct Segment {
    end: CommitPoint,
    number: u64,
    /// The last segment in which a key of this one is changed next; those between are known from there.
    reach: u64,
}

/// What is known of the change logs behind the watermarks, kept between scans.
#[derive(Debug, Default)]
pub struct Cutter {
    noted: Arc<CommitPoints>,
    goal: Option<u64>,
    /// Bytes of a row, as of the last batch.
    row_bytes: u64,
    /// The in-flight state that all this belongs to, by how often it has begun anew.
    renewed: Option<u64>,
    /// What was noted before is of no use.
    since: Option<Instant>,
    /// Where the last scan ended.
    start: Option<CommitPoint>,
    segments: VecDeque<Segment>,
    /// The last number given.
    last: u64,
    /// Everything up to this segment is scanned.
    scanned: u64,
    /// Rows between the ends of two segments at least.
    apart: i64,
    /// The segment of each key's last change.
    keys: HashMap<u64, u64>,
    /// How many keys the last sweep left.
    swept: usize,
    /// The last segment with a delete under a former key.
    former: u64,
}

/// Where a scan ends.
pub(super) struct End {
    pub point: CommitPoint,
    /// It is not all that is pending.
    pub more: bool,
}

impl Cutter {
    /// Where points are noted for it.
    #[must_use]
    pub fn points(&self) -> &Arc<CommitPoints> {
        &self.noted
    }

    /// How many rows a batch is to have from now on, where it can be cut.
    pub fn set_goal(&mut self, rows: u64) {
        if self.goal.replace(rows) != Some(rows) {
            self.noted.set_goal(self.goal());
        }
    }

    fn goal(&self) -> i64 {
        let rows = self.goal.unwrap_or(GOAL_ROWS);
        let fit = GOAL_BYTES.checked_div(self.row_bytes).unwrap_or(rows);
        i64::try_from(rows.min(fit)).unwrap_or(i64::MAX).max(1)
    }

    /// A scan has ended here, with a batch of so many rows and bytes.
    pub(super) fn scanned(&mut self, end: End, rows: u64, bytes: u64) {
        self.row_bytes = bytes.checked_div(rows).unwrap_or(self.row_bytes);
        if !end.more {
            self.clear();
            self.start = Some(end.point);
            return;
        }
        while let Some(first) = self.segments.front()
            && end.point.has(&first.end)
        {
            self.scanned = first.number;
            self.segments.pop_front();
        }
        self.start = Some(end.point);
        if self.keys.len() > SMALL.max(2 * self.swept) {
            let scanned = self.scanned;
            self.keys.retain(|_, segment| *segment > scanned);
            self.swept = self.keys.len();
        }
    }

    /// Nothing is known of what is pending.
    fn clear(&mut self) {
        self.start = None;
        self.segments.clear();
        // A long backlog may have made it large.
        self.keys = HashMap::new();
        self.swept = 0;
        self.scanned = self.last;
        self.apart = 0;
    }

    /// Where the scan is to end that sees `newest` as the last commit. `noted`: what was noted before it began.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn cut(
        &mut self,
        reader: &Connection,
        captured: &Arc<Captured>,
        in_flight: &InFlight,
        noted: VecDeque<CommitPoint>,
        newest: CommitPoint,
    ) -> Result<End, SqliteError> {
        if self.renewed != Some(in_flight.renewed())
            || self.start.as_ref().is_some_and(|s| !newest.has(s))
        {
            // Rows may have come to stand among those that were there when points were noted.
            self.clear();
            self.renewed = Some(in_flight.renewed());
            self.since = Some(Instant::now());
        }
        let since = self.since;
        let start = match &self.start {
            Some(start) => start.clone(),
            None => {
                let names = captured.tables.iter().map(|t| &t.table.name);
                let ids = names.map(|name| in_flight.watermark(name)).collect();
                let start = CommitPoint::new(captured, ids, Noticed::now());
                self.start.insert(start).clone()
            }
        };
        let goal = self.goal();
        if newest.rows_since(&start) <= goal {
            return Ok(self.all(newest));
        }
        let usable = noted
            .into_iter()
            .filter(|p| newest.has(p) && since.is_none_or(|since| p.noticed.at > since))
            .collect();
        let read = self.read_on(reader, captured, &start, usable, &newest);
        // Broken off half way, it would be taken for read.
        let read = read.inspect_err(|_| self.clear())?;
        if !read || self.former > self.scanned {
            return Ok(self.all(newest));
        }
        let mut reach = 0;
        for segment in &self.segments {
            reach = reach.max(segment.reach);
            let spanned = reach > segment.number && !planted!(CutAnywhere);
            if !spanned && segment.end.rows_since(&start) >= goal {
                let point = segment.end.clone();
                let more = newest.rows_since(&point) > 0;
                return Ok(End { point, more });
            }
        }
        Ok(self.all(newest))
    }

    /// All that is pending is taken: what is known of it is in the way of what the scan needs.
    fn all(&mut self, newest: CommitPoint) -> End {
        self.clear();
        End {
            point: newest,
            more: false,
        }
    }

    /// Reads the logs from where they were read to up to `newest`; `false` if there is no point to choose, as within a single large transaction, or there are too many keys.
    fn read_on(
        &mut self,
        reader: &Connection,
        captured: &Arc<Captured>,
        start: &CommitPoint,
        noted: Vec<CommitPoint>,
        newest: &CommitPoint,
    ) -> Result<bool, SqliteError> {
        if noted.is_empty() && self.segments.len() < 2 {
            return Ok(false);
        }
        let read_to = match self.segments.back() {
            Some(last) => last.end.clone(),
            None => start.clone(),
        };
        for point in noted {
            self.add(start, point);
        }
        self.add(start, newest.clone());
        let first = self.segments.partition_point(|s| read_to.has(&s.end));
        for (place, table) in captured.tables.iter().enumerate() {
            let ids = read_to.id(place)..newest.id(place);
            if !ids.is_empty() && !self.read_table(reader, place, table, ids, first)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Adds the segment that ends at this point, or lets the last one end there.
    fn add(&mut self, start: &CommitPoint, point: CommitPoint) {
        self.apart = self.apart.max(near(self.goal()));
        let before = |i: usize| self.segments.get(i).map_or(start, |s| &s.end);
        let count = self.segments.len();
        let last = count.checked_sub(1).map_or(start, before);
        if !point.has(last) || point.rows_since(last) == 0 {
            return;
        }
        let short = count > 0 && {
            let before_last = count.checked_sub(2).map_or(start, before);
            last.rows_since(before_last) < self.apart
        };
        if let Some(last) = self.segments.back_mut().filter(|_| short) {
            last.end = point;
            return;
        }
        if count >= most(point.ids().len()) {
            self.join(start);
        }
        self.last += 1;
        self.segments.push_back(Segment {
            end: point,
            number: self.last,
            reach: self.last,
        });
    }

    /// Joins segments that are close to one another, until half of them are left or so.
    fn join(&mut self, start: &CommitPoint) {
        self.apart = self.apart.saturating_mul(2);
        let mut joined: VecDeque<Segment> = VecDeque::with_capacity(self.segments.len());
        for segment in self.segments.drain(..) {
            let count = joined.len();
            let before = |back: usize| {
                let at = count.checked_sub(back);
                at.and_then(|at| joined.get(at)).map_or(start, |s| &s.end)
            };
            if count > 0 && before(1).rows_since(before(2)) < self.apart {
                // Its number is the later one: a key that was last changed in the one before counts as of this one.
                let reach = joined.pop_back().map_or(0, |s| s.reach);
                joined.push_back(Segment {
                    reach: reach.max(segment.reach),
                    ..segment
                });
            } else {
                joined.push_back(segment);
            }
        }
        self.segments = joined;
    }

    /// Reads a table's log from behind the first id up to the last. The rows fall to the segments from `first` on. `false` if there are too many keys.
    fn read_table(
        &mut self,
        reader: &Connection,
        place: usize,
        table: &CapturedTable,
        ids: Range<i64>,
        first: usize,
    ) -> Result<bool, SqliteError> {
        let doing = || format!("read the change log of table \"{}\"", table.table.name);
        let former = table.is_under_former_key();
        let mut stmt = reader
            .prepare_cached(&format!(
                "SELECT id, {}, {} FROM {} WHERE id > ?1 AND id <= ?2 ORDER BY id",
                former.as_deref().unwrap_or("0"),
                layout::key_columns(&table.table).join(", "),
                table.log
            ))
            .doing_with(doing)?;
        let mut rows = stmt.query([ids.start, ids.end]).doing_with(doing)?;
        let mut at = first;
        // Keys of several tables are in one map.
        let salt = (place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        while let Some(row) = rows.next().doing_with(doing)? {
            let id: i64 = row.get(0).doing_with(doing)?;
            while self.segments.get(at).is_some_and(|s| s.end.id(place) < id) {
                at += 1;
            }
            let Some(number) = self.segments.get(at).map(|s| s.number) else {
                break;
            };
            if row.get::<_, bool>(1).doing_with(doing)? {
                self.former = number;
            }
            let key = key_values(row, table, 2).doing_with(doing)?;
            let key = hash_key(table, key) as u64 ^ salt;
            let before = self.keys.insert(key, number);
            if self.keys.len() as u64 > MOST_KEYS {
                return Ok(false);
            }
            let before = before.filter(|b| *b > self.scanned && *b < number);
            if let Some(before) = before {
                let at = self.segments.partition_point(|s| s.number < before);
                if let Some(segment) = self.segments.get_mut(at) {
                    segment.reach = segment.reach.max(number);
                }
            }
        }
        Ok(true)
    }
}
