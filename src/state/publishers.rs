//! The last batch taken from each publisher: what decides, the same on every node, whether a message counts.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::sqlite::error::{Doing, SqliteError};

/// The last batch taken from one publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTaken {
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its number.
    pub batch: BatchNumber,
    /// Where its commit record stands.
    pub sequence: Sequence,
}

/// All publishers.
pub type Publishers = HashMap<NodeId, LastTaken>;

/// Reads them all.
///
/// # Errors
/// SQLite's.
pub fn read(conn: &Connection) -> Result<Publishers, SqliteError> {
    let mut stmt = conn
        .prepare_cached(
            "SELECT node_id, incarnation, nonce, batch, sequence FROM __harmonylite__publishers",
        )
        .doing("read the publishers")?;
    stmt.query_map([], |r| {
        let id: String = r.get(0)?;
        Ok((
            NodeId(id.parse().unwrap_or_default()),
            LastTaken {
                incarnation: Incarnation {
                    counter: r.get::<_, i64>(1)?.cast_unsigned(),
                    nonce: r.get::<_, i64>(2)?.cast_unsigned(),
                },
                batch: BatchNumber(r.get::<_, i64>(3)?.cast_unsigned()),
                sequence: Sequence(r.get::<_, i64>(4)?.cast_unsigned()),
            },
        ))
    })
    .and_then(Iterator::collect)
    .doing("read the publishers")
}

/// Writes one.
///
/// # Errors
/// SQLite's.
pub fn write(conn: &Connection, node: NodeId, last: LastTaken) -> Result<(), SqliteError> {
    conn.prepare_cached(
        "INSERT INTO __harmonylite__publishers(node_id, incarnation, nonce, batch, sequence) VALUES(?1, ?2, ?3, ?4, ?5)
         ON CONFLICT(node_id) DO UPDATE SET incarnation = excluded.incarnation, nonce = excluded.nonce, batch = excluded.batch, sequence = excluded.sequence",
    )
    .and_then(|mut s| {
        s.execute(params![
            node.to_string(),
            last.incarnation.counter.cast_signed(),
            last.incarnation.nonce.cast_signed(),
            last.batch.0.cast_signed(),
            last.sequence.0.cast_signed()
        ])
    })
    .doing("write what was taken from a publisher")?;
    Ok(())
}

/// Takes over what another database has.
///
/// # Errors
/// SQLite's.
pub fn replace(conn: &Connection, all: &Publishers) -> Result<(), SqliteError> {
    conn.execute("DELETE FROM __harmonylite__publishers", [])
        .doing("take over what was taken from the publishers")?;
    all.iter()
        .try_for_each(|(publisher, last)| write(conn, *publisher, *last))
}
