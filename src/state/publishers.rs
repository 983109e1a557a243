//! The last batch taken from each publisher: what decides, the same on every node, whether a message counts. And the last of each of its lives, by which a node
//! knows whether a snapshot contains a batch of its own, however long ago that was.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::codec::commit::CommitRecord;
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

impl LastTaken {
    /// The batch of this record, which stands at `at`.
    #[must_use]
    pub fn of(record: &CommitRecord, at: Sequence) -> Self {
        Self {
            incarnation: record.incarnation,
            batch: record.batch,
            sequence: at,
        }
    }
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
    conn.prepare_cached(
        "INSERT INTO __harmonylite__lives(node_id, incarnation, nonce, batch) VALUES(?1, ?2, ?3, ?4)
         ON CONFLICT(node_id, incarnation) DO UPDATE SET nonce = excluded.nonce, batch = excluded.batch",
    )
    .and_then(|mut s| {
        s.execute(params![
            node.to_string(),
            last.incarnation.counter.cast_signed(),
            last.incarnation.nonce.cast_signed(),
            last.batch.0.cast_signed()
        ])
    })
    .doing("write what was taken from a publisher")?;
    Ok(())
}

/// Whether a batch was taken.
///
/// # Errors
/// SQLite's.
pub fn has_taken(
    conn: &Connection,
    node: NodeId,
    incarnation: Incarnation,
    batch: BatchNumber,
) -> Result<bool, SqliteError> {
    conn.prepare_cached(
        "SELECT EXISTS(SELECT 1 FROM __harmonylite__lives WHERE node_id = ?1 AND incarnation = ?2 AND nonce = ?3 AND batch >= ?4)",
    )
    .and_then(|mut s| {
        s.query_row(
            params![
                node.to_string(),
                incarnation.counter.cast_signed(),
                incarnation.nonce.cast_signed(),
                batch.0.cast_signed()
            ],
            |r| r.get(0),
        )
    })
    .doing("look for a batch among those that were taken")
}

/// Forgets lives that ended long ago: nobody has batches of them any more that were not seen to be in a snapshot.
///
/// # Errors
/// SQLite's.
pub fn tidy(conn: &Connection) -> Result<(), SqliteError> {
    /// Lives of each publisher that are remembered.
    const LIVES: i64 = 10_000;
    conn.prepare_cached(
        "DELETE FROM __harmonylite__lives WHERE incarnation <=
           (SELECT incarnation FROM __harmonylite__publishers AS p WHERE p.node_id = __harmonylite__lives.node_id) - ?1",
    )
    .and_then(|mut s| s.execute([LIVES]))
    .doing("forget lives that ended long ago")?;
    Ok(())
}

/// Takes over what another database has.
///
/// # Errors
/// SQLite's.
pub fn replace(conn: &Connection, from: &Connection) -> Result<(), SqliteError> {
    let doing = "take over what was taken from the publishers";
    conn.execute_batch("DELETE FROM __harmonylite__publishers; DELETE FROM __harmonylite__lives")
        .doing(doing)?;
    let mut stmt = from
        .prepare("SELECT node_id, incarnation, nonce, batch FROM __harmonylite__lives")
        .doing(doing)?;
    let mut rows = stmt.query([]).doing(doing)?;
    while let Some(row) = rows.next().doing(doing)? {
        let (node, numbers): (String, [i64; 3]) = (
            row.get(0).doing(doing)?,
            [
                row.get(1).doing(doing)?,
                row.get(2).doing(doing)?,
                row.get(3).doing(doing)?,
            ],
        );
        conn.prepare_cached("INSERT INTO __harmonylite__lives(node_id, incarnation, nonce, batch) VALUES(?1, ?2, ?3, ?4)")
            .and_then(|mut s| s.execute(params![node, numbers[0], numbers[1], numbers[2]]))
            .doing(doing)?;
    }
    read(from)?
        .into_iter()
        .try_for_each(|(publisher, last)| write(conn, publisher, last))
}
