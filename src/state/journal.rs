//! The journals: values that lost to another write (P8), and messages that no node can apply (P12). Both are bounded: the oldest entries
//! go first.

use rusqlite::{Connection, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::change::position::{NodeId, Sequence, ShardId};
use crate::change::value::Value;
use crate::sqlite::error::{Doing, SqliteError};

/// Entries that each journal keeps. A journal is for people, who read hundreds; ten thousand leave room for a bad night.
pub const KEPT: i64 = 10_000;

/// Bytes of a dead letter that are kept: enough to see what it is.
const DEAD_LETTER_BYTES: usize = 1 << 20;

/// One lost value, or with `column` `None` nothing but the fact that a row was removed.
#[derive(Debug)]
pub struct Conflict<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's key as SQL literals.
    pub key: &'a str,
    /// The column.
    pub column: &'a str,
    /// What lost.
    pub losing_value: Value<'a>,
    /// Whose write lost, where that is known.
    pub losing_node: Option<NodeId>,
    /// Whose write won.
    pub winning_node: NodeId,
    /// The message at which it happened.
    pub position: Sequence,
    /// Why, as a word.
    pub reason: &'static str,
}

/// Writes a lost value down.
///
/// # Errors
/// SQLite's.
pub fn record_conflict(conn: &Connection, c: &Conflict<'_>) -> Result<(), SqliteError> {
    conn.prepare_cached(
        "INSERT INTO __harmonylite__conflicts(time, table_name, key, column_name, losing_value, losing_node, winning_node, position, reason)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .and_then(|mut s| {
        s.execute(params![
            now(),
            c.table,
            c.key,
            c.column,
            c.losing_value,
            c.losing_node.map(|n| n.to_string()).unwrap_or_default(),
            c.winning_node.to_string(),
            c.position.0.cast_signed(),
            c.reason
        ])
    })
    .doing("write to the conflict journal")?;
    Ok(())
}

/// The id that the next conflict will have.
///
/// # Errors
/// SQLite's.
pub fn next_conflict(conn: &Connection) -> Result<i64, SqliteError> {
    conn.prepare_cached("SELECT coalesce(max(id), 0) + 1 FROM __harmonylite__conflicts")
        .and_then(|mut s| s.query_row([], |r| r.get(0)))
        .doing("read the conflict journal")
}

/// Takes entries back that turned out to be no conflicts. Returns how many.
///
/// # Errors
/// SQLite's.
pub fn remove_conflicts(conn: &Connection, ids: std::ops::Range<i64>) -> Result<u64, SqliteError> {
    conn.prepare_cached("DELETE FROM __harmonylite__conflicts WHERE id >= ?1 AND id < ?2")
        .and_then(|mut s| s.execute([ids.start, ids.end]))
        .map(|n| n as u64)
        .doing("take entries of the conflict journal back")
}

/// Keeps a message that cannot be read, with the reason.
///
/// # Errors
/// SQLite's.
pub fn record_dead_letter(
    conn: &Connection,
    shard: ShardId,
    sequence: Sequence,
    reason: &str,
    bytes: &[u8],
) -> Result<(), SqliteError> {
    let kept = bytes.get(..DEAD_LETTER_BYTES).unwrap_or(bytes);
    conn.prepare_cached("INSERT INTO __harmonylite__dead_letters(time, shard, sequence, reason, bytes) VALUES(?1, ?2, ?3, ?4, ?5)")
        .and_then(|mut s| s.execute(params![now(), shard.0.cast_signed(), sequence.0.cast_signed(), reason, kept]))
        .doing("write to the dead-letter journal")?;
    Ok(())
}

/// How many dead letters there are.
///
/// # Errors
/// SQLite's.
pub fn dead_letters(conn: &Connection) -> Result<u64, SqliteError> {
    let n: i64 = conn
        .query_row(
            "SELECT count(*) FROM __harmonylite__dead_letters",
            [],
            |r| r.get(0),
        )
        .doing("count the dead letters")?;
    Ok(n.cast_unsigned())
}

/// Removes the oldest entries beyond [`KEPT`] of both journals.
///
/// # Errors
/// SQLite's.
pub fn tidy(conn: &Connection) -> Result<(), SqliteError> {
    for table in ["__harmonylite__conflicts", "__harmonylite__dead_letters"] {
        conn.execute(
            &format!("DELETE FROM {table} WHERE id <= (SELECT max(id) FROM {table}) - ?1"),
            [KEPT],
        )
        .doing("tidy the journals")?;
    }
    Ok(())
}

fn now() -> String {
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}
