//! An echo takes the change-log rows that it covers out of the log.
//!
//! Invariants: a row goes only if id and stamp are those that the batch covers; the newest row of a table is never deleted but marked
//! done, so that ids go on rising.

use rusqlite::{Connection, params};

use crate::capture::CapturedTable;
use crate::change::operation::ChangeKind;
use crate::codec::covers::TableCovers;
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};

/// What became of a table's covered rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// Exactly the rows up to this id were covered, and are gone.
    UpTo(i64),
    /// Others stand among them; the covered ones are gone.
    Some,
}

/// Removes the covered rows of one table.
///
/// # Errors
/// SQLite's.
pub fn retire(
    conn: &Connection,
    table: &CapturedTable,
    covers: &TableCovers,
) -> Result<Retired, SqliteError> {
    let doing = || {
        format!(
            "take sent rows out of the change log of table \"{}\"",
            table.table.name
        )
    };
    let Some(last) = covers
        .runs
        .last()
        .and_then(|&(first, count)| first.checked_add_unsigned(count.saturating_sub(1)))
    else {
        return Ok(Retired::Some);
    };
    if planted!(RetiresUpToLast) || covers_all(conn, table, covers, last)? {
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
        let delete = format!("DELETE FROM {} WHERE id <= ?1", table.log);
        conn.prepare_cached(&delete)
            .and_then(|mut s| s.execute([below]))
            .doing_with(doing)?;
        if below != up_to {
            mark_done(conn, table, up_to)?;
        }
        drop_former(conn, table, "<=", up_to)?;
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

/// Whether the log up to `last` holds nothing but covered rows and rows that are done with.
fn covers_all(
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

fn newest(conn: &Connection, table: &CapturedTable) -> Result<Option<i64>, SqliteError> {
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
