//! The journals: values that lost to another write (P8), and messages that no node can apply (P12).
//!
//! Invariants: both are bounded in number, age and (messages) bytes, by `[journals]`, also while entries come in a flood: the transaction that adds
//! entries removes the oldest; ids rise and are not used again while later entries are there.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::change::position::{NodeId, Sequence, ShardId};
use crate::change::value::Value;
use crate::config::JournalsConfig;
use crate::sqlite::error::{Doing, SqliteError};

/// Bytes of a dead letter that are kept: the largest message that NATS recommends, whole, so that it can be read again later. The least value of
/// `journals.max_dead_letter_bytes` holds one.
pub const DEAD_LETTER_BYTES: usize = 8 << 20;

/// One lost value.
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

/// The number of the newest lost value; 0 where there is none.
///
/// # Errors
/// SQLite's.
pub fn last_conflict(conn: &Connection) -> Result<i64, SqliteError> {
    conn.query_row(
        "SELECT coalesce(max(id), 0) FROM __harmonylite__conflicts",
        [],
        |r| r.get(0),
    )
    .doing("read the conflict journal")
}

/// The table of an update of this node's that was journaled after this number because its row was deleted; `None` where there is none.
///
/// # Errors
/// SQLite's.
pub fn deleted_since(
    conn: &Connection,
    last: i64,
    me: NodeId,
) -> Result<Option<String>, SqliteError> {
    conn.query_row(
        "SELECT table_name FROM __harmonylite__conflicts WHERE id > ?1 AND losing_node = ?2 AND reason = 'deleted-elsewhere' LIMIT 1",
        params![last, me.to_string()],
        |r| r.get(0),
    )
    .optional()
    .doing("read the conflict journal")
}

/// Forgets what was journaled after this number of rows that nobody's pending write had: they came back in the same transaction.
///
/// # Errors
/// SQLite's.
pub fn forget_folded_since(conn: &Connection, last: i64) -> Result<(), SqliteError> {
    conn.execute(
        "DELETE FROM __harmonylite__conflicts WHERE id > ?1 AND losing_node = ''",
        [last],
    )
    .doing(TIDYING)?;
    Ok(())
}

/// Holds the bound on the number of lost values. A look-up where nothing is over, so that it can run in every transaction that adds any.
///
/// # Errors
/// SQLite's.
pub fn bound_conflicts(conn: &Connection, limits: &JournalsConfig) -> Result<(), SqliteError> {
    // Ids follow one another, so so many ids hold at most so many entries.
    let over: Option<i64> = conn
        .prepare_cached(
            "SELECT id FROM __harmonylite__conflicts WHERE id <= (SELECT max(id) FROM __harmonylite__conflicts) - ?1 ORDER BY id DESC LIMIT 1",
        )
        .and_then(|mut s| s.query_row([limits.max_conflicts.cast_signed()], |r| r.get(0)).optional())
        .doing(TIDYING)?;
    over.map_or(Ok(()), |last| remove_conflicts_up_to(conn, last))
}

/// Holds the bounds on the number and bytes of dead letters, for every transaction that adds any.
///
/// # Errors
/// SQLite's.
pub fn bound_dead_letters(conn: &Connection, limits: &JournalsConfig) -> Result<(), SqliteError> {
    conn.prepare_cached(
        "DELETE FROM __harmonylite__dead_letters WHERE id <= (SELECT max(id) FROM (
           SELECT id, row_number() OVER newest AS place, sum(length(bytes)) OVER newest AS total FROM __harmonylite__dead_letters
           WINDOW newest AS (ORDER BY id DESC)) WHERE place > ?1 OR total > ?2)",
    )
    .and_then(|mut s| {
        s.execute([
            limits.max_dead_letters.cast_signed(),
            limits.max_dead_letter_bytes.cast_signed(),
        ])
    })
    .doing(TIDYING)?;
    Ok(())
}

/// Holds all bounds: entries that are too many, too large or too old go, the oldest first.
///
/// # Errors
/// SQLite's.
pub fn tidy(conn: &Connection, limits: &JournalsConfig) -> Result<(), SqliteError> {
    bound_conflicts(conn, limits)?;
    bound_dead_letters(conn, limits)?;
    if let Some(last) = last_before(conn, "__harmonylite__conflicts", limits.max_conflict_age)? {
        remove_conflicts_up_to(conn, last)?;
    }
    if let Some(last) = last_before(
        conn,
        "__harmonylite__dead_letters",
        limits.max_dead_letter_age,
    )? {
        conn.execute(
            "DELETE FROM __harmonylite__dead_letters WHERE id <= ?1",
            [last],
        )
        .doing(TIDYING)?;
    }
    Ok(())
}

/// Removes the oldest lost values, the whole conflict of the last of them included: half a row is worse than none.
fn remove_conflicts_up_to(conn: &Connection, last: i64) -> Result<(), SqliteError> {
    const OF_LAST: &str = "SELECT table_name, key, position, reason, losing_node FROM __harmonylite__conflicts WHERE id = ?1";
    let next: Option<i64> = conn
        .query_row(
            &format!(
                "SELECT id FROM __harmonylite__conflicts WHERE id > ?1
                 AND (table_name, key, position, reason, losing_node) IS NOT ({OF_LAST}) ORDER BY id LIMIT 1"
            ),
            [last],
            |r| r.get(0),
        )
        .optional()
        .doing(TIDYING)?;
    // Where all that is left belongs to the last one, it stays: a single conflict may be larger than the bound, and shows at least.
    let below = next.unwrap_or(last);
    conn.execute(
        "DELETE FROM __harmonylite__conflicts WHERE id < ?1",
        [below],
    )
    .doing(TIDYING)?;
    Ok(())
}

/// The newest of the entries at the beginning of a journal that are older than `age`.
fn last_before(
    conn: &Connection,
    journal: &str,
    age: Duration,
) -> Result<Option<i64>, SqliteError> {
    let before = rfc3339(OffsetDateTime::now_utc() - age);
    // Entries stand in the order of their times, so this ends at the first that is young enough.
    let next: Option<i64> = conn
        .query_row(
            &format!("SELECT id FROM {journal} WHERE time >= ?1 ORDER BY id LIMIT 1"),
            [&before],
            |r| r.get(0),
        )
        .optional()
        .doing(TIDYING)?;
    conn.query_row(
        &format!("SELECT max(id) FROM {journal} WHERE ?1 IS NULL OR id < ?1"),
        [next],
        |r| r.get(0),
    )
    .doing(TIDYING)
}

const TIDYING: &str = "tidy the journals";

/// A time as the journals hold it.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn now() -> String {
    rfc3339(OffsetDateTime::now_utc())
}

#[cfg(test)]
mod tests;
