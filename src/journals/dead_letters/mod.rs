//! The dead-letter journal: messages that no node can read, and those that an operator has skipped.

mod retry;

pub use retry::{Retried, RetryError, retry};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{JournalError, Which};
use crate::apply::incoming::{self, Body};
use crate::change::position::Sequence;
use crate::codec::commit::CommitRecord;
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::journal::DEAD_LETTER_BYTES;

/// A message in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number in the journal.
    pub id: i64,
    /// When it came there, RFC 3339 in UTC.
    pub time: String,
    /// The shard whose stream has it.
    pub shard: u64,
    /// Its place there.
    pub sequence: u64,
    /// Why it is here, as a sentence.
    pub reason: String,
    /// How many bytes of it the journal has.
    pub length: u64,
}

const HEAD: &str = "id, time, shard, sequence, reason, length(bytes)";
const READING: &str = "read the dead-letter journal";

fn of_row(row: &Row<'_>) -> rusqlite::Result<DeadLetter> {
    Ok(DeadLetter {
        id: row.get(0)?,
        time: row.get(1)?,
        shard: row.get::<_, i64>(2)?.cast_unsigned(),
        sequence: row.get::<_, i64>(3)?.cast_unsigned(),
        reason: row.get(4)?,
        length: row.get::<_, i64>(5)?.cast_unsigned(),
    })
}

/// Lists dead letters, the newest first, at most `limit`.
///
/// # Errors
/// SQLite's.
pub fn list(conn: &Connection, limit: usize) -> Result<Vec<DeadLetter>, SqliteError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut stmt = conn
        .prepare(&format!(
            "SELECT {HEAD} FROM __harmonylite__dead_letters ORDER BY id DESC LIMIT ?1"
        ))
        .doing(READING)?;
    stmt.query_map([limit], of_row)
        .and_then(Iterator::collect)
        .doing(READING)
}

/// One dead letter with its bytes.
///
/// # Errors
/// [`JournalError::Unknown`]; SQLite's.
pub fn find(conn: &Connection, id: i64) -> Result<(DeadLetter, Bytes), JournalError> {
    let found = conn
        .query_row(
            &format!("SELECT {HEAD}, bytes FROM __harmonylite__dead_letters WHERE id = ?1"),
            [id],
            |r| Ok((of_row(r)?, Bytes::from(r.get::<_, Vec<u8>>(6)?))),
        )
        .optional()
        .doing(READING)?;
    found.ok_or(JournalError::Unknown {
        kind: "dead letter",
        id,
        remedy: "dead-letters list shows their ids",
    })
}

/// What this program makes of a dead letter's bytes.
#[derive(Debug)]
pub enum Reading {
    /// A batch whose rows are all in the message.
    Batch(Box<incoming::IncomingBatch>),
    /// A batch whose rows are in other messages, or cannot be read.
    Record(Box<CommitRecord>, String),
    /// No batch, with the reason.
    Nothing(String),
}

/// Reads a dead letter again: a newer program may know more.
#[must_use]
pub fn read_again(letter: &DeadLetter, bytes: &Bytes) -> Reading {
    if bytes.len() >= DEAD_LETTER_BYTES {
        return Reading::Nothing(format!(
            "the journal holds only its first {DEAD_LETTER_BYTES} bytes"
        ));
    }
    match incoming::open(Sequence(letter.sequence), bytes).body {
        Body::Batch(batch) => match &batch.damage {
            Some(damage) => Reading::Record(Box::new(batch.record.clone()), damage.clone()),
            None if !batch.record.sections.is_empty() => {
                let record = batch.record;
                let why = format!(
                    "its rows are in other messages of the stream: harmonylite replay {} {} fetches and folds them",
                    letter.shard, letter.sequence
                );
                Reading::Record(Box::new(record), why)
            }
            None => Reading::Batch(batch),
        },
        Body::Payload => Reading::Nothing(
            "it is a piece of a batch's payload, which counts for nothing by itself".to_owned(),
        ),
        Body::Marker(_) => Reading::Nothing(
            "it is a marker at which nodes were compared, and carries nothing".to_owned(),
        ),
        Body::Newer(version) => Reading::Nothing(format!(
            "it has format version {version}, which this program does not know: upgrade harmonylite, then retry"
        )),
        Body::Unreadable { reason, .. } => Reading::Nothing(reason),
    }
}

/// Removes dead letters, inside a transaction. Returns how many went.
///
/// # Errors
/// [`JournalError::Unknown`] for the first that is not there; SQLite's.
pub fn purge(conn: &Connection, which: &Which) -> Result<usize, JournalError> {
    const DOING: &str = "purge the dead-letter journal";
    match which {
        Which::All => Ok(conn
            .execute("DELETE FROM __harmonylite__dead_letters", [])
            .doing(DOING)?),
        Which::Before(time) => Ok(conn
            .execute(
                "DELETE FROM __harmonylite__dead_letters WHERE time < ?1",
                [time],
            )
            .doing(DOING)?),
        Which::These(ids) => {
            for &id in ids {
                let gone = conn
                    .execute(
                        "DELETE FROM __harmonylite__dead_letters WHERE id = ?1",
                        [id],
                    )
                    .doing(DOING)?;
                if gone == 0 {
                    return Err(JournalError::Unknown {
                        kind: "dead letter",
                        id,
                        remedy: "dead-letters list shows their ids; nothing was purged",
                    });
                }
            }
            Ok(ids.len())
        }
    }
}
