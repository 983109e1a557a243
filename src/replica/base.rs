//! A copy of a database, or a snapshot, as the base of a new history.
//!
//! Invariants: it contains all that its node had written, published or not: where that is certain, what is pending in it counts as covered and the node's lives
//! until now have ended, so that none of it is published, or folded, a second time over what others make of it. It stands before the first message of the
//! stream: all that the stream still holds is judged anew, by everybody alike.

use rusqlite::Connection;

use crate::apply::incoming::IncomingBatch;
use crate::capture::layout;
use crate::change::history::History;
use crate::change::operation::ChangeKind;
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::codec::covers::TableCovers;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::has_table;
use crate::state::covered;
use crate::state::node::{self, Position};
use crate::state::publishers::{self, LastTaken};
use crate::state::skips::Skips;

const DOING: &str = "make the copy the base of a new history";

/// Covered rows in one entry.
const CHUNK: usize = 100_000;

/// What the base is of.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The history that begins with it.
    pub history: History,
    /// Directly before the stream's first message.
    pub position: Sequence,
    /// Messages of the stream that count for nothing, though they stand there: their payload is gone.
    pub void: &'a [Sequence],
    /// The node whose database it is a copy of, if all that the stream holds of it is contained; and an incarnation above any that it has had, with a random
    /// nonce.
    pub ended: Option<(NodeId, Incarnation)>,
}

/// The incarnation by which a node's lives until now have ended: above the one that its database knows and the highest that the stream holds, so that those that
/// were stay known as they were. `nonce`: one that none of them had.
#[must_use]
pub fn end_of_lives(stored: u64, highest: u64, nonce: u64) -> Incarnation {
    Incarnation {
        counter: stored.max(highest) + 1,
        nonce,
    }
}

/// Whether all that these batches of a node carry is contained in the copy of its database, so that nothing is lost when they are ignored.
///
/// # Errors
/// SQLite's and the spool's.
pub fn contains<'b>(
    copy: &Connection,
    batches: impl IntoIterator<Item = &'b IncomingBatch>,
) -> Result<bool, super::ReplicaError> {
    for batch in batches {
        for covers in batch.covered()? {
            let Some(table) = batch.record.tables.get(covers.table as usize) else {
                continue;
            };
            let log = layout::change_log(&table.name);
            if !has_table(copy, &log)? {
                return Ok(false);
            }
            let mut found = copy
                .prepare_cached(&format!(
                    "SELECT EXISTS(SELECT 1 FROM {} WHERE id = ?1 AND stamp = ?2)",
                    quote(&log)
                ))
                .doing(DOING)?;
            for row in covers.rows() {
                let there: bool = found.query_row(row, |r| r.get(0)).doing(DOING)?;
                if !there {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// Makes a copy the base, before [`super::copy::finish`] takes its change logs out.
///
/// # Errors
/// SQLite's.
pub fn make(copy: &mut Connection, base: &Base<'_>) -> Result<(), SqliteError> {
    let copy = copy.transaction().doing(DOING)?;
    // What was covered in the history before is of other positions.
    copy.execute_batch("UPDATE __harmonylite__covered SET sequence = 0, base = 0; DELETE FROM __harmonylite__past; DELETE FROM __harmonylite__skips")
        .doing(DOING)?;
    if let Some((node, incarnation)) = base.ended {
        for table in logged(&copy)? {
            cover_log(&copy, node, base.position, &table)?;
        }
        let last = LastTaken {
            incarnation,
            batch: BatchNumber(0),
            sequence: base.position,
        };
        publishers::write(&copy, node, last)?;
    }
    let position = Position {
        sequence: base.position,
        hash: 0,
        folded: base.position,
    };
    node::set_position(&copy, position)?;
    node::set_settled(&copy, Sequence(0))?;
    node::set_history(&copy, base.history)?;
    Skips::set_void(&copy, base.void)?;
    copy.commit().doing(DOING)
}

/// The captured tables that have a change log.
///
/// # Errors
/// SQLite's.
pub fn logged(conn: &Connection) -> Result<Vec<String>, SqliteError> {
    let mut stmt = conn
        .prepare("SELECT table_name FROM __harmonylite__tables")
        .doing(DOING)?;
    let tables: Vec<String> = stmt
        .query_map([], |r| r.get(0))
        .and_then(Iterator::collect)
        .doing(DOING)?;
    let mut out = Vec::new();
    for table in tables {
        if has_table(conn, &layout::change_log(&table))? {
            out.push(table);
        }
    }
    Ok(out)
}

/// What is pending of a table counts as covered.
fn cover_log(
    conn: &Connection,
    node: NodeId,
    at: Sequence,
    table: &str,
) -> Result<(), SqliteError> {
    let log = quote(&layout::change_log(table));
    let mut stmt = conn
        .prepare(&format!(
            "SELECT id, stamp FROM {log} WHERE type <> {} ORDER BY id",
            ChangeKind::Done.code()
        ))
        .doing(DOING)?;
    let mut rows = stmt.query([]).doing(DOING)?;
    let mut covers = TableCovers::default();
    let note = |covers: &mut TableCovers| {
        let rows = [std::mem::take(covers)];
        covered::note(conn, node, at, Sequence(0), &[table.to_owned()], &rows)
    };
    while let Some(row) = rows.next().doing(DOING)? {
        covers.push(row.get(0).doing(DOING)?, row.get(1).doing(DOING)?);
        if covers.stamps.len() >= CHUNK {
            note(&mut covers)?;
        }
    }
    note(&mut covers)
}
