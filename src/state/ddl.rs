//! The tables of our state, and their migration from older formats.

use rusqlite::{Connection, OptionalExtension};

use super::StateError;
use crate::sqlite::error::Doing;

/// The format that this program writes. Raise it with a step in [`migrate`] and a golden file in `tests/golden`.
pub const FORMAT: i64 = 3;

/// What format 1 consists of. Node ids are text, since they are unsigned and SQLite's integers are not.
const FORMAT_1: &str = "
CREATE TABLE __harmonylite__node(
  id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER NOT NULL, node_id TEXT NOT NULL, database_id TEXT NOT NULL, cluster_id TEXT,
  history TEXT, incarnation INTEGER NOT NULL, nonce INTEGER NOT NULL, position INTEGER NOT NULL, position_hash INTEGER NOT NULL,
  folded INTEGER NOT NULL);
CREATE TABLE __harmonylite__publishers(
  node_id TEXT PRIMARY KEY, incarnation INTEGER NOT NULL, nonce INTEGER NOT NULL, batch INTEGER NOT NULL, sequence INTEGER NOT NULL);
CREATE TABLE __harmonylite__tables(table_name TEXT PRIMARY KEY, generation INTEGER NOT NULL, columns TEXT NOT NULL, key TEXT NOT NULL);
CREATE TABLE __harmonylite__conflicts(
  id INTEGER PRIMARY KEY, time TEXT NOT NULL, table_name TEXT NOT NULL, key TEXT NOT NULL, column_name TEXT NOT NULL, losing_value,
  losing_node TEXT NOT NULL, winning_node TEXT NOT NULL, position INTEGER NOT NULL, reason TEXT NOT NULL);
CREATE TABLE __harmonylite__dead_letters(
  id INTEGER PRIMARY KEY, time TEXT NOT NULL, shard INTEGER NOT NULL, sequence INTEGER NOT NULL, reason TEXT NOT NULL, bytes BLOB NOT NULL);
";

/// What format 2 adds: when a conflict was restored, up to where own batches have left the change log without being folded, and the messages that an operator has told this node to skip. What format 1 kept of the message at
/// the position was a hash of its bytes alone, which is no fingerprint: it is forgotten, and known again with the next message.
const FORMAT_2: &str = "
ALTER TABLE __harmonylite__conflicts ADD COLUMN restored TEXT;
ALTER TABLE __harmonylite__node ADD COLUMN settled INTEGER NOT NULL DEFAULT 0;
CREATE TABLE __harmonylite__skips(first INTEGER NOT NULL, last INTEGER NOT NULL, time TEXT NOT NULL);
UPDATE __harmonylite__node SET position_hash = 0;
";

/// What format 3 adds: which change-log rows the batches taken have covered, so that a snapshot tells; the last batch taken of each life of each publisher; the
/// messages that count for nothing in this history, on every node; fingerprints of messages that were folded, some of many; which tables have rows that
/// may be in no change log, and which triggers a table was given, so that it shows when some are gone.
const FORMAT_3: &str = "
CREATE TABLE __harmonylite__covered(
  id INTEGER PRIMARY KEY, node_id TEXT NOT NULL, sequence INTEGER NOT NULL, base INTEGER NOT NULL, count INTEGER NOT NULL, covers BLOB NOT NULL);
CREATE TABLE __harmonylite__lives(
  node_id TEXT NOT NULL, incarnation INTEGER NOT NULL, nonce INTEGER NOT NULL, batch INTEGER NOT NULL, PRIMARY KEY(node_id, incarnation));
CREATE TABLE __harmonylite__void(sequence INTEGER PRIMARY KEY);
CREATE TABLE __harmonylite__past(slot INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, hash INTEGER NOT NULL);
INSERT INTO __harmonylite__lives SELECT node_id, incarnation, nonce, batch FROM __harmonylite__publishers;
CREATE TABLE __harmonylite__unsure(
  table_name TEXT PRIMARY KEY COLLATE NOCASE, mark INTEGER NOT NULL, kind TEXT NOT NULL, since TEXT NOT NULL);
ALTER TABLE __harmonylite__tables ADD COLUMN triggers TEXT NOT NULL DEFAULT '';
";

/// The format in the database; `None` where there is no state of ours.
///
/// # Errors
/// SQLite's.
pub fn stored_format(conn: &Connection) -> Result<Option<i64>, StateError> {
    let there: Option<i64> = conn
        .query_row("SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = '__harmonylite__node'", [], |r| r.get(0))
        .optional()
        .doing("look for the replication state")?;
    if there.is_none() {
        return Ok(None);
    }
    Ok(conn
        .query_row(
            "SELECT format FROM __harmonylite__node WHERE id = 1",
            [],
            |r| r.get(0),
        )
        .optional()
        .doing("read the format of the replication state")?)
}

/// Makes the state tables, or brings older ones up to date. Call it inside a write transaction.
///
/// # Errors
/// [`StateError::Newer`] for state of a newer program; SQLite's.
pub fn migrate(conn: &Connection) -> Result<(), StateError> {
    /// The step to each format from the one before it.
    const STEPS: [(i64, &str); 3] = [(1, FORMAT_1), (2, FORMAT_2), (3, FORMAT_3)];
    let found = stored_format(conn)?.unwrap_or(0);
    if !(0..=FORMAT).contains(&found) {
        return Err(StateError::Newer {
            found,
            known: FORMAT,
        });
    }
    for (_, step) in STEPS.iter().filter(|(to, _)| *to > found) {
        conn.execute_batch(step)
            .doing("make the tables of the replication state")?;
    }
    if (1..FORMAT).contains(&found) {
        conn.execute("UPDATE __harmonylite__node SET format = ?1", [FORMAT])
            .doing("write the format of the replication state")?;
        tracing::info!(
            from = found,
            to = FORMAT,
            "the replication state in the database was brought to this version's format"
        );
    }
    Ok(())
}
