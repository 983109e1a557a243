//! What is pending of each row: the local changes whose echo has not arrived, which lie on top of the fold.
//!
//! Invariants: read under the write lock, so nobody can add to it meanwhile; exactly what a batch carries or will carry: cells that were forgotten
//! are not in it. Kept between transactions, so that each change-log row is read once.

use std::collections::HashMap;

use rusqlite::Connection;
use smallvec::SmallVec;

use super::former_deletes;
use super::in_flight::{Carrier, InFlight};
use super::reduce::{KeyHash, hash_key, log_key, log_row, read_log_sql};
use crate::capture::CapturedTable;
use crate::change::key::KeyBytes;
use crate::change::operation::{ChangeKind, ColumnMask, Reduced};
use crate::change::value::Value;
use crate::sqlite::error::{Doing, SqliteError};

/// One pending change of a row.
#[derive(Debug, Clone, Copy)]
struct Entry {
    id: i64,
    stamp: u32,
    kind: ChangeKind,
    mask: ColumnMask,
}

/// What is pending of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingRow {
    /// All of it.
    pub all: Reduced,
    /// What no batch carries yet.
    pub unsent: Option<Reduced>,
    /// What carries the last of it that is in flight.
    pub in_flight: Option<Carrier>,
    /// It was inserted here, not only updated.
    pub inserted: bool,
}

/// Where a comparison with the fold finds a pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// In what is compared with.
    Contained,
    /// In a batch that is made of the row as it is now, or was a moment ago.
    Mine,
    /// In a batch that was made before and that nobody has seen yet.
    Unknown,
}

/// What is pending of one row, by [`Share`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shares {
    /// What batches carry, or will, as the row is now.
    pub mine: Option<Reduced>,
    /// What a batch carries as it was.
    pub unknown: Option<Reduced>,
}

/// What is pending of one table.
#[derive(Debug, Default)]
pub struct TablePending {
    /// The log is read up to this id.
    seen: i64,
    /// Entries up to this id are done with.
    done: i64,
    keys: HashMap<KeyHash, SmallVec<[Entry; 1]>>,
    /// How many keys the last sweep left.
    swept: usize,
    /// Deletes under former keys, by these: the id of the last.
    former: HashMap<KeyBytes, i64>,
}

impl TablePending {
    /// Reads what the change log has got since.
    ///
    /// # Errors
    /// SQLite's.
    pub fn catch_up(
        &mut self,
        conn: &Connection,
        table: &CapturedTable,
    ) -> Result<(), SqliteError> {
        // `publish = false`: nothing is captured, so nothing is pending.
        if table.log.is_empty() {
            return Ok(());
        }
        let doing = || format!("read what is pending of table \"{}\"", table.table.name);
        if !table.former_logged.is_empty() {
            let deletes = former_deletes::read(conn, table, self.seen).doing_with(doing)?;
            self.former.extend(deletes);
        }
        let mut stmt = conn
            .prepare_cached(&read_log_sql(table))
            .doing_with(doing)?;
        let mut rows = stmt.query([self.seen, i64::MAX]).doing_with(doing)?;
        while let Some(row) = rows.next().doing_with(doing)? {
            let Some(change) = log_row(row, table).doing_with(doing)? else {
                continue;
            };
            self.seen = change.id;
            if change.kind != ChangeKind::Done {
                let hash = hash_key(table, log_key(row, table).doing_with(doing)?);
                let entry = Entry {
                    id: change.id,
                    stamp: change.stamp,
                    kind: change.kind,
                    mask: change.mask,
                };
                self.keys.entry(hash).or_default().push(entry);
            }
        }
        Ok(())
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether any row is pending whole or as deleted.
    #[must_use]
    pub fn has_rows(&self) -> bool {
        let is_row = |e: &Entry| e.id > self.done && e.kind != ChangeKind::Cells;
        self.keys.values().flatten().any(is_row)
    }

    /// Whether a row goes by a delete that is pending under a key that the table had before. `values`: a row's value in a column here, where it is known.
    #[must_use]
    pub fn is_deleted_under_former_key<'v>(
        &self,
        table: &CapturedTable,
        values: impl Fn(usize) -> Option<Value<'v>>,
    ) -> bool {
        !self.former.is_empty()
            && table.formerly.keys().any(|key| {
                former_deletes::former_key(table, &key, &values)
                    .and_then(|key| self.former.get(&key))
                    .is_some_and(|id| *id > self.done)
            })
    }

    /// What is pending of a row.
    #[must_use]
    pub fn row(
        &self,
        table: &CapturedTable,
        key: &[Value<'_>],
        in_flight: &InFlight,
    ) -> Option<PendingRow> {
        if self.keys.is_empty() {
            return None;
        }
        let name = &table.table.name;
        let mut all: Option<Reduced> = None;
        let mut unsent: Option<Reduced> = None;
        let mut carrier = None;
        let mut inserted = false;
        for e in self.live(table, key)? {
            if !in_flight.forgotten.is_empty() && in_flight.is_forgotten(name, e.id) {
                continue;
            }
            all = add(all, e);
            inserted |= e.kind == ChangeKind::Whole;
            match in_flight.carrier(name, e.id, e.stamp) {
                Some(by) => carrier = carrier.max(Some(by)),
                None => unsent = add(unsent, e),
            }
        }
        all.map(|all| PendingRow {
            all,
            unsent,
            in_flight: carrier,
            inserted,
        })
    }

    /// What is pending of a row, in two parts, where the rest is known to be in what it is compared with.
    #[must_use]
    pub fn shares(
        &self,
        table: &CapturedTable,
        key: &[Value<'_>],
        in_flight: &InFlight,
        of: impl Fn(Option<Carrier>) -> Share,
    ) -> Shares {
        let name = &table.table.name;
        let mut out = Shares::default();
        for e in self.live(table, key).into_iter().flatten() {
            if !in_flight.forgotten.is_empty() && in_flight.is_forgotten(name, e.id) {
                continue;
            }
            match of(in_flight.carrier(name, e.id, e.stamp)) {
                Share::Contained => {}
                Share::Mine => out.mine = add(out.mine, e),
                Share::Unknown => out.unknown = add(out.unknown, e),
            }
        }
        out
    }

    /// Of the rows of which one of these columns is pending as a cell that no later whole row carries: the id of one change each.
    #[must_use]
    pub fn cells_alone(&self, columns: ColumnMask) -> Vec<i64> {
        let alone = |entries: &SmallVec<[Entry; 1]>| {
            let live = entries.iter().rev().filter(|e| e.id > self.done);
            live.take_while(|e| !matches!(e.kind, ChangeKind::Whole | ChangeKind::Rewritten))
                .find(|e| e.kind == ChangeKind::Cells && e.mask.0 & columns.0 != 0)
                .map(|e| e.id)
        };
        self.keys.values().filter_map(alone).collect()
    }

    /// The ids of the pending cell changes of a row, which are to be forgotten with it.
    #[must_use]
    pub fn cell_changes(&self, table: &CapturedTable, key: &[Value<'_>]) -> Vec<i64> {
        self.live(table, key)
            .map(|entries| {
                entries
                    .filter(|e| e.kind == ChangeKind::Cells)
                    .map(|e| e.id)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The ids of the changes of a row that no batch carries yet, oldest first.
    #[must_use]
    pub fn unsent_changes(
        &self,
        table: &CapturedTable,
        key: &[Value<'_>],
        in_flight: &InFlight,
    ) -> Vec<i64> {
        let name = &table.table.name;
        self.live(table, key)
            .map(|entries| {
                entries
                    .filter(|e| in_flight.carrier(name, e.id, e.stamp).is_none())
                    .map(|e| e.id)
                    .collect()
            })
            .unwrap_or_default()
    }

    /// The ids of all pending changes of a row.
    #[cfg(feature = "planted-bugs")]
    pub(crate) fn all_changes(&self, table: &CapturedTable, key: &[Value<'_>]) -> Vec<i64> {
        self.live(table, key)
            .map(|entries| entries.map(|e| e.id).collect())
            .unwrap_or_default()
    }

    fn live(
        &self,
        table: &CapturedTable,
        key: &[Value<'_>],
    ) -> Option<impl Iterator<Item = &Entry>> {
        let hash = hash_key(table, key.iter().copied());
        self.keys
            .get(&hash)
            .map(|entries| entries.iter().filter(|e| e.id > self.done))
    }

    /// The row's cell changes are forgotten.
    pub fn forget_cells(&mut self, table: &CapturedTable, key: &[Value<'_>]) {
        let hash = hash_key(table, key.iter().copied());
        if let Some(entries) = self.keys.get_mut(&hash) {
            entries.retain(|e| e.kind != ChangeKind::Cells);
            if entries.is_empty() {
                self.keys.remove(&hash);
            }
        }
    }

    /// Everything up to this id is done with. The map is swept when it has doubled since the last time, so that a long backlog is not
    /// walked for every echo.
    pub fn done_up_to(&mut self, id: i64) {
        const SMALL: usize = 1024;
        self.done = self.done.max(id);
        if self.done >= self.seen {
            self.keys = HashMap::new();
            self.former = HashMap::new();
            self.seen = self.done;
            self.swept = 0;
        } else if self.keys.len() > SMALL.max(2 * self.swept) {
            let done = self.done;
            self.keys.retain(|_, entries| {
                entries.retain(|e| e.id > done);
                !entries.is_empty()
            });
            self.swept = self.keys.len();
        }
    }
}

fn add(state: Option<Reduced>, e: &Entry) -> Option<Reduced> {
    match state {
        None => Reduced::first(e.kind, e.mask),
        Some(r) => Some(r.then(e.kind, e.mask)),
    }
}
