//! The messages that an operator has told this node to skip: their rows are not folded here.
//!
//! Invariant: a skip says nothing about what a message counts as. A batch that is skipped is taken all the same for the order of its publisher, so what
//! follows it is no gap.

use rusqlite::Connection;

use super::journal::rfc3339;
use crate::change::position::Sequence;
use crate::sqlite::error::{Doing, SqliteError};

/// Ranges of the order stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skips(Vec<(Sequence, Sequence)>);

impl Skips {
    /// Whether this message is to be skipped.
    #[must_use]
    pub fn contains(&self, message: Sequence) -> bool {
        self.0
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&message))
    }

    /// Reads those that are not behind the position yet.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(conn: &Connection, position: Sequence) -> Result<Self, SqliteError> {
        let mut stmt = conn
            .prepare_cached("SELECT first, last FROM __harmonylite__skips WHERE last > ?1")
            .doing(READING)?;
        stmt.query_map([position.0.cast_signed()], |r| {
            Ok((
                Sequence(r.get::<_, i64>(0)?.cast_unsigned()),
                Sequence(r.get::<_, i64>(1)?.cast_unsigned()),
            ))
        })
        .and_then(Iterator::collect)
        .doing(READING)
        .map(Self)
    }

    /// Adds a range, for good.
    ///
    /// # Errors
    /// SQLite's.
    pub fn add(conn: &Connection, first: Sequence, last: Sequence) -> Result<(), SqliteError> {
        conn.execute(
            "INSERT INTO __harmonylite__skips(first, last, time) VALUES(?1, ?2, ?3)",
            (
                first.0.cast_signed(),
                last.0.cast_signed(),
                rfc3339(time::OffsetDateTime::now_utc()),
            ),
        )
        .doing("write what is to be skipped")?;
        Ok(())
    }

    /// Removes all: the database has become another node's.
    ///
    /// # Errors
    /// SQLite's.
    pub fn forget(conn: &Connection) -> Result<(), SqliteError> {
        conn.execute("DELETE FROM __harmonylite__skips", [])
            .doing("forget what another node was told to skip")?;
        Ok(())
    }

    /// Removes what lies behind the position: it has served its turn.
    ///
    /// # Errors
    /// SQLite's.
    pub fn tidy(conn: &Connection, position: Sequence) -> Result<(), SqliteError> {
        conn.execute(
            "DELETE FROM __harmonylite__skips WHERE last <= ?1",
            [position.0.cast_signed()],
        )
        .doing("tidy what is to be skipped")?;
        Ok(())
    }
}

const READING: &str = "read what is to be skipped";
