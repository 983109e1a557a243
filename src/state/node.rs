//! The node's own row: identity, incarnation, position.
//!
//! Invariant: the position and the hash of the message there change in the transaction that folds up to it, never otherwise.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StateError, ddl};
use crate::change::history::History;
use crate::change::position::{Incarnation, NodeId, Sequence};
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};

/// How far this node has folded the order stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The last message that was taken or ignored.
    pub sequence: Sequence,
    /// Its fingerprint (bytes and time), by which a stream with another history is recognised; 0 where it is not known.
    pub hash: u64,
    /// The last message that was taken, not ignored.
    pub folded: Sequence,
}

/// The row of `__harmonylite__node`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Whose state this is.
    pub node_id: NodeId,
    /// Random, made with the state: tells databases apart that bear the same node id.
    pub database_id: String,
    /// The incarnation that was last begun.
    pub incarnation: Incarnation,
    /// How far the order stream is folded.
    pub position: Position,
    /// The history that the position is of.
    pub history: History,
}

/// Reads the node's row; `None` where there is none.
///
/// # Errors
/// SQLite's.
pub fn read(conn: &Connection) -> Result<Option<NodeState>, StateError> {
    if ddl::stored_format(conn)?.is_none() {
        return Ok(None);
    }
    let row = conn
        .query_row("SELECT node_id, database_id, incarnation, nonce, position, position_hash, folded, history FROM __harmonylite__node WHERE id = 1", [], |r| {
            let node_id: String = r.get(0)?;
            let history: Option<String> = r.get(7)?;
            Ok(NodeState {
                node_id: NodeId(node_id.parse().unwrap_or_default()),
                database_id: r.get(1)?,
                incarnation: Incarnation { counter: r.get::<_, i64>(2)?.cast_unsigned(), nonce: r.get::<_, i64>(3)?.cast_unsigned() },
                position: Position {
                    sequence: Sequence(r.get::<_, i64>(4)?.cast_unsigned()),
                    hash: r.get::<_, i64>(5)?.cast_unsigned(),
                    folded: Sequence(r.get::<_, i64>(6)?.cast_unsigned()),
                },
                // Who has not heard of any is in the first.
                history: history.and_then(|h| h.parse().ok()).unwrap_or_default(),
            })
        })
        .optional()
        .doing("read this node's replication state")?;
    Ok(row)
}

/// Writes the row of a node that has none yet.
///
/// # Errors
/// SQLite's.
pub fn create(conn: &Connection, node_id: NodeId, database_id: &str) -> Result<(), SqliteError> {
    conn.execute(
        "INSERT INTO __harmonylite__node(id, format, node_id, database_id, incarnation, nonce, position, position_hash, folded) VALUES(1, ?1, ?2, ?3, 0, 0, 0, 0, 0)",
        params![ddl::FORMAT, node_id.to_string(), database_id],
    )
    .doing("write this node's replication state")?;
    Ok(())
}

/// Makes the database another node's: its id and a new identity; the position stays, for the data are of it.
///
/// # Errors
/// SQLite's.
pub fn rename(conn: &Connection, node_id: NodeId, database_id: &str) -> Result<(), SqliteError> {
    conn.execute(
        "UPDATE __harmonylite__node SET node_id = ?1, database_id = ?2 WHERE id = 1",
        params![node_id.to_string(), database_id],
    )
    .doing("write this node's identity")?;
    Ok(())
}

/// The counter of the incarnation that begins: above all that were ever seen, of which the database, the stream and the KV may each know the highest.
#[must_use]
pub fn next_incarnation(stored: u64, streamed: u64, recorded: u64) -> u64 {
    if planted!(OnlyOwnIncarnation) {
        return stored + 1;
    }
    stored.max(streamed).max(recorded) + 1
}

/// Writes the incarnation that begins.
///
/// # Errors
/// SQLite's.
pub fn set_incarnation(conn: &Connection, incarnation: Incarnation) -> Result<(), SqliteError> {
    conn.execute(
        "UPDATE __harmonylite__node SET incarnation = ?1, nonce = ?2 WHERE id = 1",
        params![
            incarnation.counter.cast_signed(),
            incarnation.nonce.cast_signed()
        ],
    )
    .doing("write this node's incarnation")?;
    Ok(())
}

/// The cluster that this database is part of; `None` before it was ever part of one.
///
/// # Errors
/// SQLite's.
pub fn cluster(conn: &Connection) -> Result<Option<String>, SqliteError> {
    conn.query_row(
        "SELECT cluster_id FROM __harmonylite__node WHERE id = 1",
        [],
        |r| r.get(0),
    )
    .optional()
    .map(Option::flatten)
    .doing("read the cluster's id")
}

/// Makes the database part of a cluster.
///
/// # Errors
/// SQLite's.
pub fn set_cluster(conn: &Connection, cluster: &str) -> Result<(), SqliteError> {
    conn.execute(
        "UPDATE __harmonylite__node SET cluster_id = ?1 WHERE id = 1",
        [cluster],
    )
    .doing("write the cluster's id")?;
    Ok(())
}

/// Up to where own batches have left the change log though they are not folded (`replicate = false`).
///
/// # Errors
/// SQLite's.
pub fn settled(conn: &Connection) -> Result<Sequence, SqliteError> {
    let at: Option<i64> = conn
        .query_row(
            "SELECT settled FROM __harmonylite__node WHERE id = 1",
            [],
            |r| r.get(0),
        )
        .optional()
        .doing("read up to where own batches are settled")?;
    Ok(Sequence(at.unwrap_or_default().cast_unsigned()))
}

/// Notes up to where own batches have left the change log though they are not folded.
///
/// # Errors
/// SQLite's.
pub fn set_settled(conn: &Connection, at: Sequence) -> Result<(), SqliteError> {
    conn.prepare_cached("UPDATE __harmonylite__node SET settled = ?1 WHERE id = 1")
        .and_then(|mut s| s.execute([at.0.cast_signed()]))
        .doing("note up to where own batches are settled")?;
    Ok(())
}

/// The history that positions are of from now on.
///
/// # Errors
/// SQLite's.
pub fn set_history(conn: &Connection, history: History) -> Result<(), SqliteError> {
    conn.execute(
        "UPDATE __harmonylite__node SET history = ?1 WHERE id = 1",
        [history.to_string()],
    )
    .doing("write this node's history")?;
    Ok(())
}

/// Moves the position.
///
/// # Errors
/// SQLite's.
pub fn set_position(conn: &Connection, position: Position) -> Result<(), SqliteError> {
    conn.prepare_cached("UPDATE __harmonylite__node SET position = ?1, position_hash = ?2, folded = ?3 WHERE id = 1")
        .and_then(|mut s| s.execute(params![position.sequence.0.cast_signed(), position.hash.cast_signed(), position.folded.0.cast_signed()]))
        .doing("write this node's position")?;
    Ok(())
}
