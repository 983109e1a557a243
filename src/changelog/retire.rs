//! An echo takes the change-log rows that it covers out of the log.
//!
//! Invariants: a row goes only if id and stamp are those that the batch covers; the newest row of a table is never deleted but marked
//! done, so that ids go on rising.

use rusqlite::{Connection, params};

use crate::capture::CapturedTable;
use crate::change::operation::ChangeKind;
use crate::change::value::OwnedValue;
use crate::codec::covers::TableCovers;
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::value::from_sql;

/// Where fewer rows go, each goes for itself.
const MANY: usize = 10_000;

/// Rows that are put aside at most.
const FEW: usize = 1_000;

/// What became of a table's covered rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// Exactly the rows up to this id were covered, and are gone.
    UpTo(i64),
    /// Others stand among them; the covered ones are gone.
    Some,
}

/// Removes the covered rows of one table. `all_covered`: [`covers_all`] is known to hold.
///
/// # Errors
/// SQLite's.
pub fn retire(
    conn: &Connection,
    table: &CapturedTable,
    covers: &TableCovers,
    all_covered: bool,
) -> Result<Retired, SqliteError> {
    let doing = || {
        format!(
            "take sent rows out of the change log of table \"{}\"",
            table.table.name
        )
    };
    let Some(last) = covers.last() else {
        return Ok(Retired::Some);
    };
    if all_covered || planted!(RetiresUpToLast) || covers_all(conn, table, covers, last)? {
        // A batch of a life that this file knows nothing of (an older file was put back) may cover ids above all that are here: what the
        // log gets from now on is not covered by it, and its newest row must stay all the same.
        let Some(newest) = newest(conn, table)? else {
            return Ok(Retired::Some);
        };
        let up_to = if planted!(RetiresTheFuture) {
            last
        } else {
            last.min(newest)
        };
        let below = if newest == up_to && !planted!(NewestNotKept) {
            up_to.saturating_sub(1)
        } else {
            up_to
        };
        let rows = covers.stamps.len();
        delete_up_to(conn, &table.log, below, rows).doing_with(doing)?;
        if below != up_to {
            mark_done(conn, table, up_to)?;
        }
        if let Some(former) = &table.former {
            delete_up_to(conn, &former.table, up_to, rows).doing_with(doing)?;
        }
        return Ok(Retired::UpTo(up_to));
    }
    let newest = newest(conn, table)?;
    let delete = format!(
        "DELETE FROM {} WHERE id = ?1 AND (stamp = ?2 OR {})",
        table.log,
        planted!(StampsIgnored)
    );
    let mark = format!(
        "UPDATE {} SET type = ?3 WHERE id = ?1 AND (stamp = ?2 OR {})",
        table.log,
        planted!(StampsIgnored)
    );
    for (id, stamp) in covers.rows() {
        if newest == Some(id) {
            conn.prepare_cached(&mark)
                .and_then(|mut s| s.execute(params![id, stamp, ChangeKind::Done.code()]))
                .doing_with(doing)?;
        } else {
            conn.prepare_cached(&delete)
                .and_then(|mut s| s.execute(params![id, stamp]))
                .doing_with(doing)?;
        }
        // Of a row with another stamp too: they are an aid, and it has none of its own to lose that matters.
        drop_former(conn, table, "=", id)?;
    }
    Ok(Retired::Some)
}

/// Removes the rows up to an id. `about`: how many these may be.
///
/// SQLite empties a table without a look at its rows. So where they are many, and what is to stay is little, that is put aside for the moment.
fn delete_up_to(conn: &Connection, table: &str, up_to: i64, about: usize) -> rusqlite::Result<()> {
    if about >= MANY {
        let stay = rows_behind(conn, table, up_to)?;
        if stay.len() <= FEW {
            conn.prepare_cached(&format!("DELETE FROM {table}"))?
                .execute([])?;
            let columns = stay.first().map_or(0, Vec::len);
            let params = vec!["?"; columns].join(", ");
            for row in stay {
                conn.prepare_cached(&format!("INSERT INTO {table} VALUES({params})"))?
                    .execute(rusqlite::params_from_iter(row))?;
            }
            return Ok(());
        }
    }
    conn.prepare_cached(&format!("DELETE FROM {table} WHERE id <= ?1"))?
        .execute([up_to])?;
    Ok(())
}

/// The rows behind an id: all of them, or one more than [`FEW`].
fn rows_behind(conn: &Connection, table: &str, id: i64) -> rusqlite::Result<Vec<Vec<OwnedValue>>> {
    let mut stmt = conn.prepare_cached(&format!(
        "SELECT * FROM {table} WHERE id > ?1 ORDER BY id LIMIT {}",
        FEW + 1
    ))?;
    let columns = stmt.column_count();
    stmt.query_map([id], |r| {
        (0..columns)
            .map(|i| r.get_ref(i).map(|v| from_sql(v).to_owned()))
            .collect()
    })?
    .collect()
}

/// Removes one row, or marks it if it is the newest.
///
/// # Errors
/// SQLite's.
pub fn remove(conn: &Connection, table: &CapturedTable, id: i64) -> Result<(), SqliteError> {
    drop_former(conn, table, "=", id)?;
    if newest(conn, table)? == Some(id) && !planted!(NewestNotKept) {
        return mark_done(conn, table, id);
    }
    conn.prepare_cached(&format!("DELETE FROM {} WHERE id = ?1", table.log))
        .and_then(|mut s| s.execute([id]))
        .doing_with(|| {
            format!(
                "take a row out of the change log of table \"{}\"",
                table.table.name
            )
        })?;
    Ok(())
}

/// Whether the log up to `last`, the last covered id, holds nothing but covered rows and rows that are done with.
///
/// # Errors
/// SQLite's.
pub fn covers_all(
    conn: &Connection,
    table: &CapturedTable,
    covers: &TableCovers,
    last: i64,
) -> Result<bool, SqliteError> {
    let doing = || format!("read the change log of table \"{}\"", table.table.name);
    let mut stmt = conn
        .prepare_cached(&format!(
            "SELECT id, stamp, type FROM {} WHERE id <= ?1 ORDER BY id",
            table.log
        ))
        .doing_with(doing)?;
    let mut rows = stmt.query([last]).doing_with(doing)?;
    let mut covered = covers.rows();
    while let Some(row) = rows.next().doing_with(doing)? {
        let (id, stamp, kind): (i64, i64, i64) = row
            .get(0)
            .and_then(|a| row.get(1).and_then(|b| row.get(2).map(|c| (a, b, c))))
            .doing_with(doing)?;
        if kind == ChangeKind::Done.code() {
            continue;
        }
        // Covered rows that are gone already (forgotten) are passed over.
        match covered.find(|(c, _)| *c >= id) {
            Some((c, s)) if c == id && (i64::from(s) == stamp || planted!(StampsIgnored)) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The former values of changes that are done with are of no use any more.
fn drop_former(
    conn: &Connection,
    table: &CapturedTable,
    compare: &str,
    id: i64,
) -> Result<(), SqliteError> {
    let Some(former) = &table.former else {
        return Ok(());
    };
    conn.prepare_cached(&format!(
        "DELETE FROM {} WHERE id {compare} ?1",
        former.table
    ))
    .and_then(|mut s| s.execute([id]))
    .doing_with(|| format!("forget former values of table \"{}\"", table.table.name))?;
    Ok(())
}

/// The last id that the log has given.
///
/// # Errors
/// SQLite's.
pub fn newest(conn: &Connection, table: &CapturedTable) -> Result<Option<i64>, SqliteError> {
    let sql = format!("SELECT max(id) FROM {}", table.log);
    conn.prepare_cached(&sql)
        .and_then(|mut s| s.query_row([], |r| r.get(0)))
        .doing_with(|| format!("read the change log of table \"{}\"", table.table.name))
}

fn mark_done(conn: &Connection, table: &CapturedTable, id: i64) -> Result<(), SqliteError> {
    let sql = format!(
        "UPDATE {} SET type = {} WHERE id = ?1",
        table.log,
        ChangeKind::Done.code()
    );
    conn.prepare_cached(&sql)
        .and_then(|mut s| s.execute([id]))
        .doing_with(|| {
            format!(
                "mark a row of the change log of table \"{}\"",
                table.table.name
            )
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::install;

    #[test]
    fn what_stays_beside_many_rows_that_go_stays_as_it_was() {
        let conn = Connection::open_in_memory().unwrap();
        crate::state::ddl::migrate(&conn).unwrap();
        conn.execute_batch("CREATE TABLE t(id BLOB PRIMARY KEY, u UNIQUE)")
            .unwrap();
        let captured = install::refresh(&conn, &|_| true, true).unwrap();
        let table = captured.table("t").unwrap();
        conn.execute_batch(&format!(
            "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY}) INSERT INTO t SELECT CAST('k' || i AS BLOB), i FROM n;
             UPDATE t SET u = -1 WHERE u = 5; UPDATE t SET u = -2 WHERE u = 6;
             INSERT INTO t VALUES(x'ff00', 'a'), (CAST(x'ff' AS TEXT), 'b')"
        ))
        .unwrap();
        let covered = i64::try_from(MANY).unwrap() + 1;
        let rows = |of: &str| -> Vec<String> {
            conn.prepare(&format!(
                "SELECT * FROM {of} WHERE id > {covered} ORDER BY id"
            ))
            .unwrap()
            .query_map([], |r| {
                let row = (0..r.as_ref().column_count()).map(|i| r.get_ref(i));
                Ok(format!("{:?}", row.collect::<Result<Vec<_>, _>>()?))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect()
        };
        let former = &table.former.as_ref().unwrap().table;
        let before = (rows(&table.log), rows(former));
        assert_eq!((before.0.len(), before.1.len()), (3, 1));
        let mut covers = TableCovers::default();
        let mut stmt = conn
            .prepare(&format!(
                "SELECT id, stamp FROM {} WHERE id <= {covered}",
                table.log
            ))
            .unwrap();
        let mut ids = stmt.query([]).unwrap();
        while let Some(row) = ids.next().unwrap() {
            covers.push(row.get(0).unwrap(), row.get(1).unwrap());
        }
        drop(ids);
        let retired = retire(&conn, table, &covers, false).unwrap();
        assert_eq!(retired, Retired::UpTo(covered));
        assert_eq!((rows(&table.log), rows(former)), before);
        let left: i64 = conn
            .query_row(
                &format!(
                    "SELECT (SELECT count(*) FROM {}) + (SELECT count(*) FROM {former})",
                    table.log
                ),
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(left, 4);
        // All of it: the newest is marked, and ids go on rising.
        let mut rest = TableCovers {
            stamps: vec![0; MANY],
            ..TableCovers::default()
        };
        rest.runs.push((covered + 1, 3));
        retire(&conn, table, &rest, true).unwrap();
        conn.execute_batch("INSERT INTO t VALUES('last', 'c')")
            .unwrap();
        let kinds: Vec<(i64, i64)> = conn
            .prepare(&format!("SELECT id, type FROM {} ORDER BY id", table.log))
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let (done, whole) = (ChangeKind::Done.code(), ChangeKind::Whole.code());
        assert_eq!(kinds, [(covered + 3, done), (covered + 4, whole)]);
    }
}
