//! Follows `ALTER TABLE … RENAME TO` and `RENAME COLUMN`: the change log of a renamed table or key column is renamed with it, so that what it holds,
//! deletes above all, is still sent.
//!
//! Invariant: only a table that still bears our triggers was renamed; one that was rebuilt has lost them, and its log's keys may mean
//! something else.

use std::collections::{HashMap, HashSet};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::known::{StoredObject, note_former_name};
use super::{layout, triggers};
use crate::change::table::Table;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{OWN_PREFIX, has_table};
use crate::state::unsure;

/// What is to be renamed: found by reading alone.
#[derive(Debug)]
pub(super) struct Renames {
    tables: Vec<RenamedTable>,
}

#[derive(Debug)]
struct RenamedTable {
    table: Table,
    /// What it was called until now, if its log is to be renamed with it.
    before: Option<String>,
}

impl Renames {
    /// Which of these tables have been renamed, or columns of their keys.
    pub fn find(
        conn: &Connection,
        tables: &[Table],
        there: &HashMap<String, StoredObject>,
    ) -> Result<Self, SqliteError> {
        let bearing = captured_as(there);
        let now: HashSet<String> = tables.iter().map(|t| t.name.to_ascii_lowercase()).collect();
        let is_there = |name: String| {
            there
                .get(&name.to_ascii_lowercase())
                .is_some_and(|o| o.kind == "table")
        };
        let mut out = Vec::new();
        let mut taken = HashSet::new();
        for table in tables {
            let Some(before) = bearing.get(&table.name.to_ascii_lowercase()) else {
                continue;
            };
            let log = layout::change_log(&table.name);
            let renamed = !before.eq_ignore_ascii_case(&table.name)
                && !now.contains(&before.to_ascii_lowercase())
                && is_there(layout::change_log(before))
                && !is_there(log)
                && taken.insert(before.to_ascii_lowercase());
            let before = renamed.then(|| before.clone());
            let called = before.as_ref().unwrap_or(&table.name);
            let mut rekeyed = false;
            for object in [layout::change_log(called), layout::notes(called)] {
                let kept = there.get(&object.to_ascii_lowercase());
                // Most have the text that they would be given.
                if kept.is_some_and(|o| !triggers::tables(table).iter().any(|t| t.sql == o.sql)) {
                    rekeyed |= key_columns_to_rename(conn, &object, table)?.is_some();
                }
            }
            if rekeyed || before.is_some() {
                out.push(RenamedTable {
                    table: table.clone(),
                    before,
                });
            }
        }
        Ok(Self { tables: out })
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Renames change logs after their tables and key columns. Returns which tables were renamed, from what to what.
    pub fn follow(
        &self,
        conn: &Connection,
        there: &HashMap<String, StoredObject>,
    ) -> Result<Vec<(String, String)>, SqliteError> {
        make_way(conn, &self.tables, there)?;
        let mut out = Vec::new();
        for RenamedTable { table, before } in &self.tables {
            if let Some(before) = before {
                rename_table(
                    conn,
                    &layout::change_log(before),
                    &layout::change_log(&table.name),
                )?;
                if has_table(conn, &layout::notes(before))? {
                    rename_table(conn, &layout::notes(before), &layout::notes(&table.name))?;
                }
                conn.execute("UPDATE OR REPLACE __harmonylite__tables SET table_name = ?1 WHERE table_name = ?2 COLLATE NOCASE", [&table.name, before])
                    .doing("note the new name of a table")?;
                note_former_name(conn, &table.name, before)?;
                unsure::rename(conn, before, &table.name)?;
                out.push((before.clone(), table.name.clone()));
            }
            for object in [layout::change_log(&table.name), layout::notes(&table.name)] {
                if let Some((from, to)) = key_columns_to_rename(conn, &object, table)? {
                    rename_columns(conn, &object, &from, &to)?;
                }
            }
        }
        Ok(out)
    }
}

/// The names under which tables were captured, by the insert triggers that they bear; by their names now in lower case.
fn captured_as(there: &HashMap<String, StoredObject>) -> HashMap<String, String> {
    let mut newest: HashMap<String, (i64, String)> = HashMap::new();
    for trigger in there.values().filter(|o| o.kind == "trigger" && o.ours) {
        let before = trigger
            .name
            .strip_prefix(OWN_PREFIX)
            .and_then(|name| name.strip_suffix("_insert"));
        if let Some(before) = before {
            let entry = newest
                .entry(trigger.on.to_ascii_lowercase())
                .or_insert_with(|| (trigger.rowid, before.to_owned()));
            if trigger.rowid > entry.0 {
                *entry = (trigger.rowid, before.to_owned());
            }
        }
    }
    newest
        .into_iter()
        .map(|(table, (_, before))| (table, before))
        .collect()
}

/// Names of columns as they are, and as they should be.
type FromTo = (Vec<String>, Vec<String>);

/// The key columns of a change log or of notes as they are and as they should be, where those are others.
fn key_columns_to_rename(
    conn: &Connection,
    object: &str,
    table: &Table,
) -> Result<Option<FromTo>, SqliteError> {
    let wanted: Vec<String> = table
        .key_names()
        .iter()
        .map(|k| layout::key_column(k))
        .collect();
    let there = key_columns(conn, object)?;
    let same = there
        .iter()
        .zip(&wanted)
        .all(|(a, b)| a.eq_ignore_ascii_case(b));
    Ok((there.len() == wanted.len() && !same).then_some((there, wanted)))
}

/// Whether there is a change log of a table of this name.
///
/// # Errors
/// SQLite's.
pub fn has_log(conn: &Connection, table: &str) -> Result<bool, SqliteError> {
    has_table(conn, &layout::change_log(table))
}

fn key_columns(conn: &Connection, table: &str) -> Result<Vec<String>, SqliteError> {
    let all: Vec<String> = conn
        .prepare_cached("SELECT name FROM pragma_table_xinfo(?1, 'main') ORDER BY cid")
        .and_then(|mut s| s.query_map([table], |r| r.get(0))?.collect())
        .doing("read the columns of a change log")?;
    Ok(all.into_iter().filter(|c| c.starts_with("val_")).collect())
}

/// The triggers of these tables and our views name the logs; they go, and the installation makes them again.
fn make_way(
    conn: &Connection,
    tables: &[RenamedTable],
    there: &HashMap<String, StoredObject>,
) -> Result<(), SqliteError> {
    let is_on = |o: &StoredObject| {
        let mut tables = tables.iter();
        tables.any(|t| o.on.eq_ignore_ascii_case(&t.table.name))
    };
    for kind in ["trigger", "view"] {
        let ours = there.values().filter(|o| o.ours && o.kind == kind);
        for object in ours.filter(|o| kind == "view" || is_on(o)) {
            conn.execute_batch(&format!("DROP {kind} {}", quote(&object.name)))
                .doing_with(|| format!("drop {kind} {}", object.name))?;
        }
    }
    Ok(())
}

/// Nothing names the table any more, so SQLite need not look through all triggers and views for its name: measured, that takes a second where there are thousands.
fn rename_table(conn: &Connection, from: &str, to: &str) -> Result<(), SqliteError> {
    let doing = || format!("rename {from} to {to}");
    let all = DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE;
    conn.set_db_config(all, true).doing_with(doing)?;
    let renamed = conn
        .execute_batch(&format!(
            "ALTER TABLE {} RENAME TO {}",
            quote(from),
            quote(to)
        ))
        .doing_with(doing);
    conn.set_db_config(all, false).doing_with(doing)?;
    renamed
}

/// In two steps, since two columns may have changed places.
fn rename_columns(
    conn: &Connection,
    table: &str,
    from: &[String],
    to: &[String],
) -> Result<(), SqliteError> {
    let rename = |a: &str, b: &str| {
        conn.execute_batch(&format!(
            "ALTER TABLE {} RENAME COLUMN {} TO {}",
            quote(table),
            quote(a),
            quote(b)
        ))
        .doing_with(|| format!("rename column {a} of {table}"))
    };
    let changed: Vec<(&String, &String)> = from
        .iter()
        .zip(to)
        .filter(|(a, b)| !a.eq_ignore_ascii_case(b))
        .collect();
    let targets: HashSet<String> = changed
        .iter()
        .map(|(_, b)| b.to_ascii_lowercase())
        .collect();
    debug_assert_eq!(targets.len(), changed.len());
    for (i, (a, _)) in changed.iter().enumerate() {
        rename(a, &format!("moving_{i}"))?;
    }
    for (i, (_, b)) in changed.iter().enumerate() {
        rename(&format!("moving_{i}"), b)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::fixture::captured;
    use crate::capture::install;

    fn log(conn: &Connection, table: &str) -> Vec<(i64, String)> {
        let keys = key_columns(conn, &layout::change_log(table)).unwrap();
        let sql = format!(
            "SELECT type, CAST({} AS TEXT) FROM {} ORDER BY id",
            keys.iter()
                .map(|k| quote(k))
                .collect::<Vec<_>>()
                .join(" || "),
            quote(&layout::change_log(table))
        );
        conn.prepare(&sql)
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn a_renamed_key_column_keeps_what_is_pending() {
        let conn = captured(
            "CREATE TABLE t(a TEXT, b TEXT, c UNIQUE, PRIMARY KEY(a, b)); INSERT INTO t VALUES('x', 'y', 1);",
        );
        conn.execute_batch("DELETE FROM t; ALTER TABLE t RENAME COLUMN a TO k")
            .unwrap();
        install::refresh(&conn, &|_| true, false).unwrap();
        assert_eq!(log(&conn, "t"), [(0, "xy".to_owned())]);
        conn.execute_batch("INSERT INTO t VALUES('p', 'q', 2)")
            .unwrap();
        assert_eq!(
            log(&conn, "t"),
            [(0, "xy".to_owned()), (1, "pq".to_owned())]
        );
    }

    #[test]
    fn several_renames_at_once() {
        let conn = captured(
            "CREATE TABLE a(k TEXT PRIMARY KEY); CREATE TABLE b(k TEXT PRIMARY KEY); INSERT INTO a VALUES('x'); INSERT INTO b VALUES('y');",
        );
        conn.execute_batch("DELETE FROM a; DELETE FROM b; ALTER TABLE a RENAME COLUMN k TO kk; ALTER TABLE b RENAME TO c").unwrap();
        install::refresh(&conn, &|_| true, false).unwrap();
        assert_eq!(log(&conn, "a"), [(0, "x".to_owned())]);
        assert_eq!(log(&conn, "c"), [(0, "y".to_owned())]);
    }

    #[test]
    fn columns_that_change_places() {
        let conn = captured(
            "CREATE TABLE t(a TEXT, b TEXT, PRIMARY KEY(a, b)); INSERT INTO t VALUES('x', 'y');",
        );
        conn.execute_batch("DELETE FROM t; ALTER TABLE t RENAME COLUMN a TO z; ALTER TABLE t RENAME COLUMN b TO a; ALTER TABLE t RENAME COLUMN z TO b").unwrap();
        install::refresh(&conn, &|_| true, false).unwrap();
        assert_eq!(log(&conn, "t"), [(0, "xy".to_owned())]);
    }

    #[test]
    fn a_renamed_table_takes_its_log_along() {
        let conn = captured(
            "CREATE TABLE o(id INTEGER PRIMARY KEY, e TEXT UNIQUE); INSERT INTO o VALUES(1, 'a'), (2, 'b');",
        );
        conn.execute_batch("DELETE FROM o WHERE id = 1; ALTER TABLE o RENAME TO p")
            .unwrap();
        install::refresh(&conn, &|_| true, false).unwrap();
        assert_eq!(log(&conn, "p"), [(0, "1".to_owned())]);
        assert!(!has_table(&conn, &layout::change_log("o")).unwrap());
        conn.execute_batch("UPDATE p SET e = 'c'").unwrap();
        assert_eq!(log(&conn, "p").len(), 2);
        let pending: i64 = conn
            .query_row(
                "SELECT count(*) FROM __harmonylite___global_change_log WHERE table_name = 'p'",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(pending, 2);
    }
}
