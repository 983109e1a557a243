//! Follows `ALTER TABLE … RENAME TO` and `RENAME COLUMN`: the change log of a renamed table or key column is renamed with it, so that what it holds,
//! deletes above all, is still sent.
//!
//! Invariant: only a table that still bears our triggers was renamed; one that was rebuilt has lost them, and its log's keys may mean
//! something else.

use std::collections::HashSet;

use rusqlite::Connection;

use super::known::note_former_name;
use super::layout;
use crate::change::table::Table;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{OWN_PREFIX, has_table};
use crate::state::unsure;

/// Renames change logs after their tables and key columns. Returns which tables were renamed, from what to what.
///
/// # Errors
/// SQLite's.
pub fn follow(conn: &Connection, tables: &[Table]) -> Result<Vec<(String, String)>, SqliteError> {
    let mut out = Vec::new();
    let mut free = false;
    // Asked for all before anything is touched, since making way drops the triggers that tell.
    let mut bearing = Vec::new();
    for table in tables {
        if let Some(before) = captured_as(conn, &table.name)? {
            bearing.push((table, before));
        }
    }
    for (table, before) in bearing {
        let log = layout::change_log(&table.name);
        if !before.eq_ignore_ascii_case(&table.name)
            && !tables.iter().any(|t| t.name.eq_ignore_ascii_case(&before))
            && has_table(conn, &layout::change_log(&before))?
            && !has_table(conn, &log)?
        {
            make_way(conn, &mut free)?;
            rename_table(conn, &layout::change_log(&before), &log)?;
            if has_table(conn, &layout::notes(&before))? {
                rename_table(conn, &layout::notes(&before), &layout::notes(&table.name))?;
            }
            conn.execute("UPDATE OR REPLACE __harmonylite__tables SET table_name = ?1 WHERE table_name = ?2 COLLATE NOCASE", [&table.name, &before])
                .doing("note the new name of a table")?;
            note_former_name(conn, &table.name, &before)?;
            unsure::rename(conn, &before, &table.name)?;
            out.push((before, table.name.clone()));
        }
        let wanted: Vec<String> = table
            .key_names()
            .iter()
            .map(|k| layout::key_column(k))
            .collect();
        for object in [log, layout::notes(&table.name)] {
            let there = key_columns(conn, &object)?;
            if there.len() != wanted.len()
                || there
                    .iter()
                    .zip(&wanted)
                    .all(|(a, b)| a.eq_ignore_ascii_case(b))
            {
                continue;
            }
            make_way(conn, &mut free)?;
            rename_columns(conn, &object, &there, &wanted)?;
        }
    }
    Ok(out)
}

/// The name under which a table was captured, by the insert trigger that it bears.
fn captured_as(conn: &Connection, table: &str) -> Result<Option<String>, SqliteError> {
    let names: Vec<String> = conn
        .prepare_cached("SELECT name FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE ORDER BY rowid DESC")
        .and_then(|mut s| s.query_map([table], |r| r.get(0))?.collect())
        .doing("look for our triggers")?;
    Ok(names.iter().find_map(|n| {
        n.strip_prefix(OWN_PREFIX)?
            .strip_suffix("_insert")
            .map(str::to_owned)
    }))
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

/// Our triggers and views name the logs; they go, once, and the installation makes them again.
fn make_way(conn: &Connection, free: &mut bool) -> Result<(), SqliteError> {
    if std::mem::replace(free, true) {
        return Ok(());
    }
    for kind in ["trigger", "view"] {
        let names: Vec<String> = conn
            .prepare("SELECT name FROM main.sqlite_schema WHERE type = ?1 AND lower(substr(name, 1, length(?2))) = ?2")
            .and_then(|mut s| s.query_map([kind, OWN_PREFIX], |r| r.get(0))?.collect())
            .doing("list our objects")?;
        for name in names {
            conn.execute_batch(&format!("DROP {kind} {}", quote(&name)))
                .doing_with(|| format!("drop {kind} {name}"))?;
        }
    }
    Ok(())
}

fn rename_table(conn: &Connection, from: &str, to: &str) -> Result<(), SqliteError> {
    conn.execute_batch(&format!(
        "ALTER TABLE {} RENAME TO {}",
        quote(from),
        quote(to)
    ))
    .doing_with(|| format!("rename {from} to {to}"))
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
