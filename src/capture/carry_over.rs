//! What becomes of pending changes when a table's columns change: nothing is sent that was not changed, so that no other node's value is set back.
//!
//! A trigger that is older than an `ALTER TABLE` cannot see a new column, and masks name columns by their places. So in the transaction that makes capture current, before anything
//! else can happen to the rows, each logged update is read in the new places, and a new column counts as changed where it is not what `ADD COLUMN` has put there.
//!
//! Invariant: what cannot be read so keeps its old generation, and travels whole.

use super::layout;
use super::triggers::{STAMP, log_columns};
use super::unique_sql::default_value;
use crate::change::operation::{ChangeKind, ColumnMask};
use crate::change::table::{Affinity, Table};
use crate::sqlite::ident::quote;
use crate::sqlite::row_sql::same_key;

/// A change of a table's columns or UNIQUE indexes.
pub(super) struct Change<'a> {
    /// The table as it is now.
    pub table: &'a Table,
    /// Its columns before.
    pub before: &'a [String],
    /// What the columns outside of the key are called now, by their names of before; `None`: not known.
    pub now: Option<&'a [(String, String)]>,
    /// The table was made anew, and is going to be compared with its fold: what nobody captured is found there.
    pub compared: bool,
    /// The generation before.
    pub aged: i64,
    /// The generation now.
    pub generation: i64,
}

impl Change<'_> {
    /// The statements that carry over what is pending.
    pub(super) fn sql(&self) -> Vec<String> {
        let table = self.table;
        let by_name = self.compared.then(|| self.by_name());
        let Some(now) = self.now.or(by_name.as_deref()).filter(|_| !table.is_wide()) else {
            return vec![self.again(&format!("type <> {}", ChangeKind::Done.code()))];
        };
        let found = self.now.is_none();
        let added: Vec<usize> = (0..table.columns.len())
            .filter(|c| !super::droppable::in_key(table, *c))
            .filter(|c| !now.iter().any(|(_, name)| table.column(name) == Some(*c)))
            .collect();
        let mut mask = self.mask(now);
        if found {
            mask = self.with_renamed(mask, &added);
        }
        let uniques = table
            .unique_columns()
            .into_iter()
            .fold(ColumnMask::default(), ColumnMask::with)
            .0;
        let cells = ChangeKind::Cells.code();
        let mut out = Vec::new();
        // Columns that are under a UNIQUE index from now on travel with their whole row, also what is on its way as cells.
        let mut whole = vec![format!(
            "(type = {cells} AND (generation <> {} OR ({mask}) & {uniques}))",
            self.aged
        )];
        if !added.is_empty() && !found {
            // What is on its way whole lacks the new columns, and others' changes of them are ignored until it is back.
            whole.push(format!(
                "type IN ({}, {})",
                ChangeKind::Whole.code(),
                ChangeKind::Rewritten.code()
            ));
        }
        out.push(self.again(&whole.join(" OR ")));
        let differing: Vec<String> = added
            .iter()
            .filter(|_| !found)
            .filter_map(|c| self.differs(*c))
            .collect();
        out.push(format!(
            "UPDATE {} SET generation = {}, mask = ({mask}){} WHERE type = {cells} AND generation = {} AND NOT (({mask}) & {uniques})",
            quote(&layout::change_log(&table.name)),
            self.generation,
            differing.concat(),
            self.aged,
        ));
        out
    }

    /// Columns that are here under the names that they had.
    fn by_name(&self) -> Vec<(String, String)> {
        let here = |name: &&String| self.table.column(name).is_some();
        self.before
            .iter()
            .filter(here)
            .map(|name| (name.clone(), name.clone()))
            .collect()
    }

    /// A table that was made anew may have given a column another name: what was changed in one that is gone counts as changed in all that are new.
    fn with_renamed(&self, mask: String, added: &[usize]) -> String {
        let gone = (0..self.before.len())
            .filter(|i| {
                self.before
                    .get(*i)
                    .is_some_and(|n| self.table.column(n).is_none())
            })
            .fold(ColumnMask::default(), ColumnMask::with);
        let added = added
            .iter()
            .copied()
            .fold(ColumnMask::default(), ColumnMask::with);
        if gone.is_empty() || added.is_empty() {
            return mask;
        }
        format!(
            "({mask}) | (CASE WHEN mask & {} THEN {} ELSE 0 END)",
            gone.0.cast_signed(),
            added.0.cast_signed()
        )
    }

    /// The old mask in the new places.
    fn mask(&self, now: &[(String, String)]) -> String {
        let moved: Vec<(usize, usize)> = self
            .before
            .iter()
            .enumerate()
            .filter_map(|(i, name)| {
                let (_, now) = now.iter().find(|(b, _)| b.eq_ignore_ascii_case(name))?;
                Some((i, self.table.column(now)?))
            })
            .collect();
        if moved.iter().all(|(i, j)| i == j) {
            let stay = moved
                .iter()
                .fold(ColumnMask::default(), |m, (i, _)| m.with(*i));
            return format!("mask & {}", stay.0);
        }
        let bits: Vec<String> = moved
            .iter()
            .map(|(i, j)| format!("(((mask >> {i}) & 1) << {j})"))
            .collect();
        bits.join(" | ")
    }

    /// ` | bit` where the logged row has another value in a new column than the column's default.
    fn differs(&self, column: usize) -> Option<String> {
        let c = self.table.columns.get(column)?;
        let log = quote(&layout::change_log(&self.table.name));
        let same = same_key(
            self.table,
            "IS",
            |k| format!("t.{}", quote(k)),
            |k| format!("{log}.{}", quote(&layout::key_column(k))),
        );
        let name = quote(&c.name);
        let default = default_value(c.default.as_deref().unwrap_or("NULL"));
        // A column with an affinity holds equal numbers in one storage class only.
        let class = match c.affinity {
            Affinity::Blob => format!(" OR typeof(t.{name}) IS NOT typeof({default})"),
            Affinity::Text | Affinity::Numeric | Affinity::Integer | Affinity::Real => {
                String::new()
            }
        };
        Some(format!(
            " | (EXISTS(SELECT 1 FROM {} AS t WHERE {} AND (t.{name} IS NOT {default} COLLATE BINARY{class})) << {column})",
            quote(&self.table.name),
            same,
        ))
    }

    /// Logs once more, whole, every row that is there and has something pending that is so.
    fn again(&self, condition: &str) -> String {
        let table = self.table;
        let log = quote(&layout::change_log(&table.name));
        let keys: Vec<String> = table
            .key_names()
            .iter()
            .map(|k| quote(&layout::key_column(k)))
            .collect();
        let keys = keys.join(", ");
        let same = same_key(
            table,
            "IS",
            |k| format!("t.{}", quote(k)),
            |k| format!("l.{}", quote(&layout::key_column(k))),
        );
        format!(
            "INSERT INTO {} SELECT {keys}, {}, 0, {}, {STAMP} FROM (SELECT DISTINCT {keys} FROM {log} AS l WHERE ({condition}) AND EXISTS(SELECT 1 FROM {} AS t WHERE {}))",
            log_columns(table),
            ChangeKind::Rewritten.code(),
            self.generation,
            quote(&table.name),
            same,
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::capture::fixture::captured;
    use crate::capture::install;

    #[test]
    fn pending_updates_keep_to_what_was_changed() {
        let conn = captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); INSERT INTO t VALUES(1, 1, 1, 1), (2, 2, 2, 2);",
        );
        conn.execute_batch(
            "UPDATE t SET c = 5 WHERE id = 1; UPDATE t SET a = 6 WHERE id = 2;
             ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN word TEXT DEFAULT abc; ALTER TABLE t ADD COLUMN quoted DEFAULT \"it's\";
             ALTER TABLE t ADD COLUMN n INTEGER NOT NULL DEFAULT -1; ALTER TABLE t ADD COLUMN e DEFAULT 2.5;
             UPDATE t SET n = 7 WHERE id = 2;",
        )
        .unwrap();
        let now = install::refresh(&conn, &|_| true, false).unwrap();
        let rows: Vec<(i64, i64, i64)> = conn
            .prepare("SELECT type, mask, generation FROM __harmonylite__t_change_log ORDER BY id")
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let generation = now.tables[0].generation;
        // id, b, c, word, quoted, n, e: of row 1 c, of row 2 n, and of what was dropped nothing.
        assert_eq!(
            rows,
            [
                (2, 1 << 2, generation),
                (2, 1 << 5, generation),
                (2, 1 << 5, generation)
            ]
        );
    }

    #[test]
    fn a_new_value_counts_though_it_equals_the_default_by_collation_or_number() {
        let conn = captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES(1, 1), (2, 1), (3, 1), (4, 1);",
        );
        conn.execute_batch(
            "ALTER TABLE t ADD COLUMN s TEXT COLLATE NOCASE DEFAULT 'x'; ALTER TABLE t ADD COLUMN n DEFAULT 1; ALTER TABLE t ADD COLUMN r REAL DEFAULT 1;
             ALTER TABLE t ADD COLUMN i INTEGER DEFAULT '5'; ALTER TABLE t ADD COLUMN w TEXT DEFAULT 7;
             UPDATE t SET s = 'X' WHERE id = 1; UPDATE t SET n = 1.0 WHERE id = 2; UPDATE t SET r = 1, i = 5.0, w = '7' WHERE id = 3; UPDATE t SET w = '7.0' WHERE id = 4;",
        )
        .unwrap();
        install::refresh(&conn, &|_| true, false).unwrap();
        let masks: Vec<i64> = conn
            .prepare("SELECT mask FROM __harmonylite__t_change_log ORDER BY id")
            .unwrap()
            .query_map([], |r| r.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(masks, [1 << 2, 1 << 3, 0, 1 << 6]);
    }

    #[test]
    fn a_default_that_is_a_name_does_not_break_the_applications_writes() {
        let conn = captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL DEFAULT abc UNIQUE, b TEXT NOT NULL DEFAULT \"x y\" UNIQUE);",
        );
        conn.execute_batch(
            "INSERT INTO t(id) VALUES(1); INSERT OR REPLACE INTO t VALUES(2, NULL, NULL);",
        )
        .unwrap();
        let deleted: i64 = conn
            .query_row(
                "SELECT count(*) FROM __harmonylite__t_change_log WHERE type = 0",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(deleted, 1);
    }
}
