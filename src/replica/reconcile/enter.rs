//! Enters differences in the change log, a piece at a time, so that the application's writers are not held up.

use std::time::{Duration, Instant};

use super::Ahead;
use super::compare::{Compared, Difference};
use crate::capture::rekey::former_column;
use crate::capture::triggers;
use crate::change::operation::{ChangeKind, ColumnMask, Reduced};
use crate::change::table::TableKey;
use crate::change::value::{OwnedValue, Value};
use crate::changelog::pending::{Share, Shares, TablePending};
use crate::replica::{Replica, ReplicaError};
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;
use crate::state::unsure;

/// How long one transaction may hold the write lock before the next begins.
const HOLD_LOCK: Duration = Duration::from_millis(8);

/// Rows that are read between two looks at the clock.
const PIECE: i64 = 100;

/// How far entering has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// All is entered, and the tables are certain; so many rows in this piece.
    Done(u64),
    /// So many rows were entered, and there is more.
    More(u64),
    /// The position or the schema is another than the comparison's: it is to be made anew.
    Moved,
    /// The lock could not be had in time.
    Locked,
}

/// What is to be logged of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Row(ChangeKind),
    Cells(ColumnMask),
}

impl Replica {
    /// Enters the next piece of a difference.
    ///
    /// # Errors
    /// SQLite's; the piece is then not entered.
    pub fn enter_difference(
        &mut self,
        difference: &mut Difference,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Entered, ReplicaError> {
        let (table, done) = (difference.table, difference.done);
        let entered = self.write(patience, stop, "commit what was found", |replica| {
            if connection::schema_version(&replica.conn)? != difference.schema_version
                || replica.position.sequence != difference.at
            {
                return Ok::<_, ReplicaError>(Entered::Moved);
            }
            replica.enter_piece(difference)
        });
        match entered {
            Ok(Some(entered)) => {
                self.unsure()?;
                Ok(entered)
            }
            Ok(None) => Ok(Entered::Locked),
            Err(e) => {
                (difference.table, difference.done) = (table, done);
                difference.pending = None;
                Err(e)
            }
        }
    }

    fn enter_piece(&mut self, difference: &mut Difference) -> Result<Entered, ReplicaError> {
        let since = Instant::now();
        let mut rows = 0;
        while let Some(compared) = difference.tables.get(difference.table) {
            if compared.incomparable {
                rows += self.enter_whole_table(&compared.unsure)?;
                (difference.table, difference.done) = (difference.table + 1, 0);
                continue;
            }
            // Read once: what the application adds between two pieces is captured, and logging it twice comes to the same.
            if difference.pending.is_none() {
                let mut pending = TablePending::default();
                pending.catch_up(&self.conn, &compared.here)?;
                difference.pending = Some(pending);
            }
            while since.elapsed() < HOLD_LOCK {
                let last = self.enter_rows(
                    compared,
                    &difference.fold,
                    difference.done,
                    (difference.pending.as_ref(), difference.ahead),
                    &mut rows,
                )?;
                match last {
                    Some(last) => difference.done = last,
                    None => {
                        difference.pending = None;
                        break;
                    }
                }
            }
            if difference.pending.is_some() {
                return Ok(Entered::More(rows));
            }
            unsure::clear(&self.conn, &compared.unsure)?;
            (difference.table, difference.done) = (difference.table + 1, 0);
        }
        Ok(Entered::Done(rows))
    }

    /// Enters some of the rows behind `after`; the last that was looked at, or none where there is no more.
    fn enter_rows(
        &self,
        compared: &Compared,
        fold: &rusqlite::Connection,
        after: i64,
        (pending, ahead): (Option<&TablePending>, Ahead),
        entered: &mut u64,
    ) -> Result<Option<i64>, SqliteError> {
        let table = &compared.here.table;
        let doing = || compared.doing();
        let mut keys = fold
            .prepare_cached(&format!(
                "SELECT * FROM {} WHERE id > ?1 ORDER BY id LIMIT {PIECE}",
                compared.keys
            ))
            .doing_with(doing)?;
        let mut look = self
            .conn
            .prepare_cached(&row_sql::select_whole(table))
            .doing_with(doing)?;
        let count = look.column_count();
        let mut found = keys.query([after]).doing_with(doing)?;
        let mut last = None;
        while let Some(row) = found.next().doing_with(doing)? {
            last = Some(row.get(0).doing_with(doing)?);
            let key: Vec<Value<'_>> = (1..=table.key_len())
                .map(|i| row.get_ref(i).map(from_sql))
                .collect::<Result<_, _>>()
                .doing_with(doing)?;
            let mut rows = look
                .query(rusqlite::params_from_iter(key.iter()))
                .doing_with(doing)?;
            let here: Option<Vec<Value<'_>>> = rows
                .next()
                .doing_with(doing)?
                .map(|r| (0..count).map(|i| r.get_ref(i).map(from_sql)).collect())
                .transpose()
                .doing_with(doing)?;
            let known = compared.in_fold(fold, &key)?;
            let pending = pending
                .map(|p| p.shares(&compared.here, &key, &self.in_flight, |by| ahead.share(by)))
                .unwrap_or_default();
            // The key as it stands here: one that differs only in what its index does not see is the row's own.
            let own = here
                .as_ref()
                .map(|here| row_sql::key_in(table, here))
                .unwrap_or(key);
            let known = known.as_deref();
            // A delete that was logged under a former key says so already.
            if here.is_none() && self.is_deleted_under_former_key(compared, known, ahead)? {
                continue;
            }
            if let Some(entry) = entry(compared, here.as_deref(), known, pending) {
                self.log_entry(compared, entry, &own)?;
                *entered += 1;
            }
        }
        Ok(last)
    }

    /// Whether the change log holds a delete under a former key by which this row of the fold goes.
    fn is_deleted_under_former_key(
        &self,
        compared: &Compared,
        fold: Option<&[OwnedValue]>,
        ahead: Ahead,
    ) -> Result<bool, SqliteError> {
        let (Some(condition), Some(fold)) = (compared.here.is_under_former_key(), fold) else {
            return Ok(false);
        };
        let table = &compared.here;
        for key in table.formerly.keys() {
            let values: Option<Vec<Value<'_>>> = key
                .iter()
                .map(|name| {
                    let now = table.formerly.column(name).flatten().unwrap_or(name);
                    let value = compared.known(table.table.column(now)?, fold)?;
                    (!value.is_null()).then_some(value)
                })
                .collect();
            let logged = key.iter().all(|k| {
                table
                    .former_logged
                    .iter()
                    .any(|l| l.eq_ignore_ascii_case(k))
            });
            let (Some(values), true) = (values, logged) else {
                continue;
            };
            let mut same = Vec::new();
            for name in &table.former_logged {
                let at = key.iter().position(|k| k.eq_ignore_ascii_case(name));
                let is = at.map_or_else(|| "NULL".to_owned(), |i| format!("?{}", i + 1));
                same.push(format!("{} IS {is}", former_column(name)));
            }
            let found: Vec<(i64, i64)> = self
                .conn
                .prepare_cached(&format!(
                    "SELECT id, stamp FROM {} WHERE {condition} AND {}",
                    table.log,
                    same.join(" AND ")
                ))
                .and_then(|mut s| {
                    let found = s.query_map(rusqlite::params_from_iter(values), |r| {
                        Ok((r.get(0)?, r.get(1)?))
                    })?;
                    found.collect()
                })
                .doing_with(|| compared.doing())?;
            // One that the fold holds already has not deleted what is there now.
            let is_due = |(id, stamp): &(i64, i64)| {
                let carrier = self
                    .in_flight
                    .carrier(&table.table.name, *id, *stamp as u32);
                ahead.share(carrier) != Share::Contained
            };
            if found.iter().any(is_due) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn log_entry(
        &self,
        compared: &Compared,
        entry: Entry,
        key: &[Value<'_>],
    ) -> Result<(), SqliteError> {
        let table = &compared.here;
        let mut values = key.to_vec();
        let sql = match entry {
            Entry::Row(kind) => triggers::log_change(&table.table, kind, table.generation),
            Entry::Cells(mask) => {
                values.push(Value::Integer(mask.0.cast_signed()));
                triggers::log_cells(&table.table, table.generation)
            }
        };
        self.conn
            .prepare_cached(&sql)
            .and_then(|mut s| s.execute(rusqlite::params_from_iter(values)))
            .doing_with(|| format!("enter rows of table \"{}\"", table.table.name))?;
        Ok(())
    }
}

/// What is to be logged, so that the fold with what is pending on it comes to what is here. What is on its way and not in the fold was read before, and may have been
/// written over without capture since: such a row is sent once more.
fn entry(
    compared: &Compared,
    here: Option<&[Value<'_>]>,
    fold: Option<&[OwnedValue]>,
    pending: Shares,
) -> Option<Entry> {
    let Shares { mine, unknown } = pending;
    let (here, fold) = match (here, fold) {
        (None, None) => return unknown.map(|_| Entry::Row(ChangeKind::Delete)),
        (None, Some(_)) => {
            let carried = matches!(mine, Some(Reduced::Delete | Reduced::Whole));
            return (!carried).then_some(Entry::Row(ChangeKind::Delete));
        }
        (Some(_), None) => {
            return (mine != Some(Reduced::Whole)).then_some(Entry::Row(ChangeKind::Whole));
        }
        (Some(here), Some(fold)) => (here, fold),
    };
    let mut columns = compared.differing(here, fold);
    match (mine, unknown) {
        (Some(Reduced::Whole), _) => return None,
        (Some(Reduced::Delete), _) => return Some(Entry::Row(ChangeKind::Whole)),
        (_, Some(Reduced::Delete | Reduced::Whole)) => {
            return Some(Entry::Row(ChangeKind::Rewritten));
        }
        (mine, unknown) => {
            if let Some(Reduced::Cells(mask)) = unknown {
                columns.extend(mask.columns());
            }
            if let Some(Reduced::Cells(mask)) = mine {
                columns.retain(|c| !mask.has(*c));
            }
        }
    }
    if columns.is_empty() {
        return None;
    }
    let table = &compared.here.table;
    let uniques = table.unique_columns();
    let in_key = |c: &usize| match &table.key {
        TableKey::Columns(key) => key.iter().any(|(k, _)| k == c),
        TableKey::Rowid(_) => false,
    };
    if table.is_wide() || columns.iter().any(|c| uniques.contains(c) || in_key(c)) {
        return Some(Entry::Row(ChangeKind::Rewritten));
    }
    let mask = columns.iter().fold(0, |bits, c| bits | 1 << (*c).min(63));
    Some(Entry::Cells(ColumnMask(mask)))
}
