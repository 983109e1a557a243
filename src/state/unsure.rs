//! Tables whose rows may be in no change log though the stream does not have them: capture was missing for a while, or the table has just appeared.
//!
//! Invariants: a mark is set in the transaction that installs capture, so that everything written later is captured; it goes in the transaction that enters
//! the last of the difference, so that nothing is forgotten by a crash; a mark that was set anew meanwhile is another one and stays.

use rusqlite::{Connection, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::sqlite::error::{Doing, SqliteError};

/// Why a table's rows are not certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It was not known here before: it may have been filled before it was captured, here as on other nodes.
    New,
    /// Its capture was missing for a while.
    Gap,
    /// The configuration had left it out until now: others may have written to it, and what was written here was this node's alone.
    Included,
    /// Others have written to it what this node has passed over: what is here is older than the fold, and no news to anybody.
    Behind,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Gap => "gap",
            Self::Included => "included",
            Self::Behind => "behind",
        }
    }
}

/// A table that is to be compared with the fold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsure {
    /// Its name.
    pub table: String,
    /// Which mark this is.
    pub mark: i64,
    /// Why it was set.
    pub reason: Reason,
}

/// Marks a table. One that is marked as new stays new: none of its rows is certain. But one that is behind is that above all.
///
/// # Errors
/// SQLite's.
pub fn mark(conn: &Connection, table: &str, reason: Reason) -> Result<(), SqliteError> {
    let now = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    conn.execute(
        "INSERT INTO __harmonylite__unsure(table_name, mark, kind, since) VALUES(?1, random(), ?2, ?3)
         ON CONFLICT(table_name) DO UPDATE SET mark = excluded.mark, kind = CASE excluded.kind WHEN 'behind' THEN 'behind' ELSE kind END",
        params![table, reason.word(), now],
    )
    .doing("mark a table as not certain")?;
    Ok(())
}

/// All marks.
///
/// # Errors
/// SQLite's.
pub fn read(conn: &Connection) -> Result<Vec<Unsure>, SqliteError> {
    conn.prepare_cached(
        "SELECT table_name, mark, kind FROM __harmonylite__unsure ORDER BY table_name",
    )
    .and_then(|mut s| {
        s.query_map([], |r| {
            let kind: String = r.get(2)?;
            let reason = [Reason::New, Reason::Included, Reason::Behind]
                .into_iter()
                .find(|r| kind == r.word())
                .unwrap_or(Reason::Gap);
            Ok(Unsure {
                table: r.get(0)?,
                mark: r.get(1)?,
                reason,
            })
        })?
        .collect()
    })
    .doing("read which tables are not certain")
}

/// Takes a mark away, unless it was set anew meanwhile.
///
/// # Errors
/// SQLite's.
pub fn clear(conn: &Connection, unsure: &Unsure) -> Result<(), SqliteError> {
    conn.execute(
        "DELETE FROM __harmonylite__unsure WHERE table_name = ?1 AND mark = ?2",
        params![unsure.table, unsure.mark],
    )
    .doing("note that a table is certain")?;
    Ok(())
}

/// Follows a table that was renamed.
///
/// # Errors
/// SQLite's.
pub fn rename(conn: &Connection, from: &str, to: &str) -> Result<(), SqliteError> {
    conn.execute(
        "UPDATE OR REPLACE __harmonylite__unsure SET table_name = ?2 WHERE table_name = ?1",
        params![from, to],
    )
    .doing("note the new name of a table that is not certain")?;
    Ok(())
}
