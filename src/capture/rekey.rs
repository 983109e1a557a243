//! A table that was made anew with another key, all columns of the former and of the new one being columns before and after: its change log goes over to the new key.
//!
//! Rows that are here are found by the former key's columns. Of a row that is gone nobody knows the new key any more: its delete stays in the log under the former key, in columns of its
//! own (`was_…`), and is sent as a delete under that key, which nodes with the new one look up (see [`crate::apply::plan`]).
//!
//! Invariant: ids and stamps stay what they were, so that what is in flight stays in flight, and its echo takes it out of the log.

use rusqlite::Connection;

use super::layout;
use super::triggers::{STAMP, log_columns};
use crate::change::operation::{ChangeKind, ColumnMask};
use crate::change::table::{Table, TableKey};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;

/// What the names of a change log's columns for a former key begin with.
const WAS: &str = "was_";

/// Whether each row's new key is told by its former one: all columns of both keys are in the table, and were.
pub(super) fn is_clear(table: &Table, columns_before: &[String], key_before: &[String]) -> bool {
    let was_here = |name: &str| columns_before.iter().any(|c| c.eq_ignore_ascii_case(name));
    matches!(table.key, TableKey::Columns(_))
        && !key_before.is_empty()
        && key_before
            .iter()
            .all(|k| was_here(k) && table.column(k).is_some())
        && table.key_names().into_iter().all(was_here)
}

/// The columns of former keys that a table's change log has, by their names at that time.
///
/// # Errors
/// SQLite's.
pub fn former_columns(conn: &Connection, table: &str) -> Result<Vec<String>, SqliteError> {
    former_columns_of(conn, &layout::change_log(table), "main")
}

fn former_columns_of(
    conn: &Connection,
    log: &str,
    schema: &str,
) -> Result<Vec<String>, SqliteError> {
    let all: Vec<String> = conn
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1, ?2) ORDER BY cid")
        .and_then(|mut s| s.query_map([log, schema], |r| r.get(0))?.collect())
        .doing("read the columns of a change log")?;
    let names = all.iter().filter_map(|c| c.strip_prefix(WAS));
    Ok(names.map(str::to_owned).collect())
}

/// The change log's column for a column of a former key, quoted.
#[must_use]
pub fn former_column(name: &str) -> String {
    quote(&format!("{WAS}{name}"))
}

/// A change log on its way to another key.
#[derive(Debug, Clone)]
pub(super) struct Rekeyed {
    table: Table,
    columns_before: Vec<String>,
    key_before: Vec<String>,
    generation_before: i64,
    generation: i64,
}

impl Rekeyed {
    /// The log of a table whose key is clear ([`is_clear`]).
    pub fn new(
        table: &Table,
        (columns_before, key_before): (Vec<String>, Vec<String>),
        (generation_before, generation): (i64, i64),
    ) -> Self {
        Self {
            table: table.clone(),
            columns_before,
            key_before,
            generation_before,
            generation,
        }
    }

    /// Where the log lies meanwhile.
    fn aside(&self) -> String {
        format!("__harmonylite__rekeyed_{}", self.table.name)
    }

    /// Puts the log of before aside, which may be dropped then.
    ///
    /// # Errors
    /// SQLite's.
    pub fn set_aside(&self, conn: &Connection) -> Result<(), SqliteError> {
        let aside = quote(&self.aside());
        let log = quote(&layout::change_log(&self.table.name));
        conn.execute_batch(&format!(
            "DROP TABLE IF EXISTS temp.{aside}; CREATE TABLE temp.{aside} AS SELECT * FROM main.{log}"
        ))
        .doing_with(|| format!("put the change log of table \"{}\" aside", self.table.name))
    }

    /// Fills the new log from what was put aside.
    ///
    /// # Errors
    /// SQLite's.
    pub fn go_over(&self, conn: &Connection) -> Result<(), SqliteError> {
        let former = former_columns_of(conn, &self.aside(), "temp")?;
        conn.execute_batch(&self.sql(&former)).doing_with(|| {
            format!(
                "bring the change log of table \"{}\" under its new key",
                self.table.name
            )
        })
    }

    /// The statements that fill the new log. `former`: columns of keys before the last one.
    fn sql(&self, former: &[String]) -> String {
        let aside = format!("temp.{}", quote(&self.aside()));
        let log = quote(&layout::change_log(&self.table.name));
        let in_former_key =
            |name: &str| self.key_before.iter().any(|k| k.eq_ignore_ascii_case(name));
        let older: Vec<&String> = former.iter().filter(|f| !in_former_key(f)).collect();
        let mut out = String::new();
        for name in older.iter().copied().chain(&self.key_before) {
            out.push_str(&format!(
                "ALTER TABLE {log} ADD COLUMN {};",
                former_column(name)
            ));
        }
        let (delete, cells, done) = (
            ChangeKind::Delete.code(),
            ChangeKind::Cells.code(),
            ChangeKind::Done.code(),
        );
        let keys: Vec<String> = self
            .table
            .key_names()
            .iter()
            .map(|k| format!("t.{}", quote(k)))
            .collect();
        let gone = format!("{} IS NULL", keys.first().map_or("NULL", String::as_str));
        // What the log says of the former key: of a row that is gone, and of a delete.
        let kind = format!(
            "CASE WHEN l.type IN ({delete}, {done}) THEN l.type WHEN {gone} THEN CASE l.type WHEN {cells} THEN {done} ELSE {delete} END
               WHEN l.type = {cells} AND NOT ({}) THEN {} ELSE l.type END",
            self.stays_cells(),
            ChangeKind::Rewritten.code(),
        );
        let mut values = vec!["l.id".to_owned()];
        values.extend(keys.iter().cloned());
        values.push(kind.clone());
        values.push(format!(
            "CASE WHEN l.type = {cells} THEN {} ELSE 0 END",
            self.mask()
        ));
        values.extend([self.generation.to_string(), "l.stamp".to_owned()]);
        let mut into = format!(
            "{log}(id, {}, type, mask, generation, stamp",
            layout::key_columns(&self.table).join(", ")
        );
        for name in &older {
            into.push_str(&format!(", {}", former_column(name)));
            values.push(format!("l.{}", former_column(name)));
        }
        for name in &self.key_before {
            into.push_str(&format!(", {}", former_column(name)));
            let before = match former.iter().any(|f| f.eq_ignore_ascii_case(name)) {
                true => format!(", l.{}", former_column(name)),
                false => String::new(),
            };
            values.push(format!(
                "CASE WHEN ({kind}) = {delete} THEN coalesce(l.{}{before}, NULL) END",
                quote(&layout::key_column(name))
            ));
        }
        let same: Vec<String> = self
            .key_before
            .iter()
            .map(|k| format!("t.{} = l.{}", quote(k), quote(&layout::key_column(k))))
            .chain(keys.iter().map(|k| format!("{k} IS NOT NULL")))
            .collect();
        let (same, on) = (same.join(" AND "), quote(&self.table.name));
        out.push_str(&format!(
            "INSERT INTO {into}) SELECT {} FROM {aside} AS l LEFT JOIN main.{on} AS t ON l.type NOT IN ({delete}, {done}) AND {same} GROUP BY l.id;",
            values.join(", "),
        ));
        // What is on its way as cells moves the row or travels whole from now on, and what is on its way whole lacks columns that are new.
        let mut again = format!("(l.type = {cells} AND NOT ({}))", self.stays_cells());
        if self.has_new_columns() {
            again.push_str(&format!(" OR l.type NOT IN ({delete}, {done}, {cells})"));
        }
        let names: Vec<String> = (1..=keys.len()).map(|i| format!("k{i}")).collect();
        let named: Vec<String> = keys
            .iter()
            .zip(&names)
            .map(|(k, n)| format!("{k} AS {n}"))
            .collect();
        out.push_str(&format!(
            "INSERT INTO {} SELECT {}, {whole}, 0, {}, {STAMP} FROM (SELECT DISTINCT {} FROM {aside} AS l, main.{on} AS t WHERE {same} AND ({again}));
             DROP TABLE {aside}",
            log_columns(&self.table),
            names.join(", "),
            self.generation,
            named.join(", "),
            whole = ChangeKind::Rewritten.code(),
        ));
        out
    }

    /// Whether an update still travels as cells: its mask can be read, and no column that travels with its row is in it.
    fn stays_cells(&self) -> String {
        if self.table.is_wide() || self.columns_before.len() > ColumnMask::MAX_COLUMNS {
            return "0".to_owned();
        }
        let mut whole = self.table.unique_columns();
        if let TableKey::Columns(key) = &self.table.key {
            whole.extend(key.iter().map(|(c, _)| *c));
        }
        let whole = self
            .columns_before
            .iter()
            .enumerate()
            .filter(|(_, name)| self.table.column(name).is_some_and(|c| whole.contains(&c)))
            .fold(ColumnMask::default(), |mask, (c, _)| mask.with(c));
        format!(
            "l.generation = {} AND l.mask & {} = 0",
            self.generation_before, whole.0
        )
    }

    fn has_new_columns(&self) -> bool {
        let known = |name: &str| {
            self.columns_before
                .iter()
                .any(|c| c.eq_ignore_ascii_case(name))
        };
        self.table.columns.iter().any(|c| !known(&c.name))
    }

    /// The mask in the new places.
    fn mask(&self) -> String {
        let bits: Vec<String> = self
            .columns_before
            .iter()
            .enumerate()
            .take(ColumnMask::MAX_COLUMNS)
            .filter_map(|(c, name)| {
                let now = self
                    .table
                    .column(name)
                    .filter(|c| *c < ColumnMask::MAX_COLUMNS)?;
                Some(format!("(((l.mask >> {c}) & 1) << {now})"))
            })
            .collect();
        if bits.is_empty() {
            "0".to_owned()
        } else {
            bits.join(" | ")
        }
    }
}
