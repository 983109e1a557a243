//! What differs between tables here and their fold in a database of its own. Of each row that may differ the key is written into a table beside the fold, so that
//! memory does not grow with the difference.

use std::path::Path;

use rusqlite::{Connection, Statement};

use super::Ahead;
use super::grow::{self, Grown};
use super::usual;
use crate::capture::{Captured, CapturedTable, layout};
use crate::change::operation::ChangeKind;
use crate::change::position::Sequence;
use crate::change::table::{Table, TableKey};
use crate::change::value::{OwnedValue, Value};
use crate::changelog::pending::TablePending;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect;
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;
use crate::state::unsure::Unsure;

/// Rows between two questions whether to stop.
const STEP: u64 = 1000;

/// The difference between tables here and their fold.
pub struct Difference {
    /// The database with the fold, and with the keys of the rows that may differ.
    pub(super) fold: Connection,
    /// The position that the fold is of.
    pub(super) at: Sequence,
    /// What it contains beyond that of this node's own.
    pub(super) ahead: Ahead,
    /// SQLite's schema version here.
    pub(super) schema_version: i64,
    pub(super) tables: Vec<Compared>,
    /// The table whose rows are entered next.
    pub(super) table: usize,
    /// Its rows up to here are entered.
    pub(super) done: i64,
    /// What is pending of it.
    pub(super) pending: Option<TablePending>,
}

/// One table, and how its rows are compared.
pub(super) struct Compared {
    pub unsure: Unsure,
    pub here: CapturedTable,
    /// The fold has it under another key, or by rowid: nothing can be compared.
    pub incomparable: bool,
    /// In the database with the fold: where the keys are.
    pub keys: String,
    /// Reads a row of the fold by its key; none where the fold does not have the table.
    select: Option<String>,
    columns: Vec<ComparedColumn>,
}

struct ComparedColumn {
    /// Its place in what [`Compared::select`] reads; none where the fold lacks it.
    there: Option<usize>,
    /// NULL there means that nobody has written it since the table got it.
    grown: bool,
    /// Values that are no news where the fold does not know any.
    usual: Vec<OwnedValue>,
}

impl Difference {
    /// Compares with the fold at a position. `None`: the schema here has changed meanwhile, or `stop` said so.
    ///
    /// # Errors
    /// SQLite's.
    pub fn find(
        database: &Path,
        fold: &Path,
        (at, ahead): (Sequence, Ahead),
        captured: &Captured,
        unsure: &[Unsure],
        grown: &[Grown],
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, SqliteError> {
        let here = connection::open_reader(database)?;
        let fold = connection::open_writer(fold)?;
        here.execute_batch("BEGIN").doing("begin to compare")?;
        if connection::schema_version(&here)? != captured.schema_version {
            return Ok(None);
        }
        grow::fit(&fold, captured, unsure)?;
        let theirs = introspect::read_schema(&fold)?;
        fold.execute_batch("BEGIN").doing("begin to compare")?;
        let mut tables = Vec::new();
        for (n, unsure) in unsure.iter().enumerate() {
            let Some(table) = captured.table(&unsure.table).filter(|t| !t.log.is_empty()) else {
                continue;
            };
            let there = theirs.table(&unsure.table);
            let compared = Compared::of(&here, unsure, table, there, grown, n)?;
            if !compared.incomparable && !compared.list(&here, &fold, there, stop)? {
                return Ok(None);
            }
            tables.push(compared);
        }
        fold.execute_batch("COMMIT").doing("note what differs")?;
        Ok(Some(Self {
            fold,
            at,
            ahead,
            schema_version: captured.schema_version,
            tables,
            table: 0,
            done: 0,
            pending: None,
        }))
    }
}

impl Compared {
    fn of(
        conn: &Connection,
        unsure: &Unsure,
        table: &CapturedTable,
        there: Option<&Table>,
        grown: &[Grown],
        number: usize,
    ) -> Result<Self, SqliteError> {
        let here = &table.table;
        let mut names: Vec<String> = Vec::new();
        let mut columns = Vec::new();
        for column in &here.columns {
            let known = there.filter(|t| t.column(&column.name).is_some());
            let grown = known.is_some() && grown.iter().any(|g| g.is(&here.name, &column.name));
            columns.push(ComparedColumn {
                there: known.map(|_| names.len()),
                grown,
                usual: if there.is_some() && (grown || known.is_none()) {
                    usual::values(conn, here, column)?
                } else {
                    Vec::new()
                },
            });
            if known.is_some() {
                names.push(quote(&column.name));
            }
        }
        // A key alone says that the row is there.
        names.push("1".to_owned());
        Ok(Self {
            unsure: unsure.clone(),
            incomparable: there.is_some_and(|t| !same_key(here, t)),
            keys: quote(&format!("{}differing_{number}", introspect::OWN_PREFIX)),
            select: there.map(|t| {
                format!(
                    "SELECT {} FROM {} WHERE {}",
                    names.join(", "),
                    quote(&t.name),
                    row_sql::key_is(t, 1)
                )
            }),
            columns,
            here: table.clone(),
        })
    }

    /// Writes down the keys of rows that may differ; `false` if it was stopped.
    fn list(
        &self,
        here: &Connection,
        fold: &Connection,
        there: Option<&Table>,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        let table = &self.here.table;
        let doing = || self.doing();
        let names: Vec<String> = (1..=table.key_len()).map(|i| format!("k{i}")).collect();
        let names = names.join(", ");
        fold.execute_batch(&format!(
            "DROP TABLE IF EXISTS {0}; CREATE TABLE {0}(id INTEGER PRIMARY KEY, {names})",
            self.keys
        ))
        .doing_with(doing)?;
        let mut note = fold
            .prepare(&format!(
                "INSERT INTO {}({names}) VALUES({})",
                self.keys,
                vec!["?"; table.key_len()].join(", ")
            ))
            .doing_with(doing)?;
        let mut look = here
            .prepare(&row_sql::select_whole(table))
            .doing_with(doing)?;
        let mut note = |key: &[Value<'_>]| {
            note.execute(rusqlite::params_from_iter(key.iter()))
                .doing_with(doing)
                .map(drop)
        };
        let whole = format!(
            "SELECT {} FROM main.{}",
            row_sql::whole_names(table).join(", "),
            quote(&table.name)
        );
        let all = self.each(here, &whole, stop, |row| {
            let key = row_sql::key_in(table, row);
            let known = self.in_fold(fold, &key)?;
            if known.is_none_or(|known| !self.differing(row, &known).is_empty()) {
                note(&key)?;
            }
            Ok(())
        })?;
        if !all {
            return Ok(false);
        }
        if let Some(there) = there {
            let keys: Vec<String> = there.key_names().iter().map(|k| quote(k)).collect();
            let keys = format!("SELECT {} FROM {}", keys.join(", "), quote(&there.name));
            let all = self.each(fold, &keys, stop, |key| {
                if self.row(&mut look, key)?.is_none() {
                    note(key)?;
                }
                Ok(())
            })?;
            if !all {
                return Ok(false);
            }
        }
        // What is on its way may have been written over, or deleted, without capture.
        let logged = layout::key_columns(table);
        let logged = format!(
            "SELECT DISTINCT {} FROM {} WHERE type <> {}",
            logged.join(", "),
            self.here.log,
            ChangeKind::Done.code()
        );
        self.each(here, &logged, stop, |key| {
            let row = self.row(&mut look, key)?;
            let known = self.in_fold(fold, key)?;
            let noted = match (&row, &known) {
                (None, None) => false,
                (Some(row), Some(known)) => {
                    let row: Vec<Value<'_>> = row.iter().map(OwnedValue::as_value).collect();
                    !self.differing(&row, known).is_empty()
                }
                _ => true,
            };
            if !noted {
                note(key)?;
            }
            Ok(())
        })
    }

    /// Calls `body` with each row of a query whose first values, the key's, are not NULL; `false` if it was stopped.
    fn each(
        &self,
        conn: &Connection,
        sql: &str,
        stop: &dyn Fn() -> bool,
        mut body: impl FnMut(&[Value<'_>]) -> Result<(), SqliteError>,
    ) -> Result<bool, SqliteError> {
        let doing = || self.doing();
        let mut scan = conn.prepare(sql).doing_with(doing)?;
        let count = scan.column_count();
        let is_key = count == self.here.table.key_len();
        let mut rows = scan.query([]).doing_with(doing)?;
        let mut seen: u64 = 0;
        while let Some(row) = rows.next().doing_with(doing)? {
            seen += 1;
            if seen.is_multiple_of(STEP) && stop() {
                return Ok(false);
            }
            let values: Vec<Value<'_>> = (0..count)
                .map(|i| row.get_ref(i).map(from_sql))
                .collect::<Result<_, _>>()
                .doing_with(doing)?;
            let null = if is_key {
                values.iter().any(Value::is_null)
            } else {
                row_sql::key_in(&self.here.table, &values)
                    .iter()
                    .any(Value::is_null)
            };
            // No node could tell which row is meant.
            if !null {
                body(&values)?;
            }
        }
        Ok(true)
    }

    /// A row of the fold.
    pub fn in_fold(
        &self,
        fold: &Connection,
        key: &[Value<'_>],
    ) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
        match &self.select {
            Some(sql) => {
                let mut look = fold.prepare_cached(sql).doing_with(|| self.doing())?;
                self.row(&mut look, key)
            }
            None => Ok(None),
        }
    }

    fn row(
        &self,
        look: &mut Statement<'_>,
        key: &[Value<'_>],
    ) -> Result<Option<Vec<OwnedValue>>, SqliteError> {
        let doing = || self.doing();
        let count = look.column_count();
        let mut rows = look
            .query(rusqlite::params_from_iter(key.iter()))
            .doing_with(doing)?;
        let Some(row) = rows.next().doing_with(doing)? else {
            return Ok(None);
        };
        (0..count)
            .map(|i| row.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect::<Result<_, _>>()
            .doing_with(doing)
            .map(Some)
    }

    /// The value of a column here in a row of the fold.
    pub fn known<'v>(&self, column: usize, fold: &'v [OwnedValue]) -> Option<Value<'v>> {
        let place = self.columns.get(column)?.there?;
        fold.get(place).map(OwnedValue::as_value)
    }

    /// Positions of the columns in which a row here differs from the fold's.
    pub fn differing(&self, here: &[Value<'_>], fold: &[OwnedValue]) -> Vec<usize> {
        let offset = usize::from(matches!(self.here.table.key, TableKey::Rowid(_)));
        let differs = |(c, column): (usize, &ComparedColumn)| {
            let value = here.get(c + offset)?;
            let usual = || column.usual.iter().any(|u| u.as_value().same_bytes(value));
            let same = match column.there.and_then(|i| fold.get(i)) {
                Some(known) => {
                    known.as_value().same_bytes(value)
                        || (column.grown && known.as_value().is_null() && usual())
                }
                None => usual(),
            };
            (!same).then_some(c)
        };
        self.columns
            .iter()
            .enumerate()
            .filter_map(differs)
            .collect()
    }

    pub fn doing(&self) -> String {
        format!("compare table \"{}\" with the stream", self.unsure.table)
    }
}

/// Whether both know their rows by the same key.
fn same_key(a: &Table, b: &Table) -> bool {
    let by_rowid = |t: &Table| matches!(t.key, TableKey::Rowid(_));
    let (names, others) = (a.key_names(), b.key_names());
    by_rowid(a) == by_rowid(b)
        && names.len() == others.len()
        && (by_rowid(a)
            || names
                .iter()
                .zip(&others)
                .all(|(x, y)| x.eq_ignore_ascii_case(y)))
}
