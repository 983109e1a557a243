//! The messages whose rows are not folded here: those that an operator has told this node to skip, and those that are void in this history, on every node
//! alike, since the broker has lost their payload.
//!
//! Invariant: a skip says nothing about what a message counts as. A batch that is skipped is taken all the same for the order of its publisher, so what
//! follows it is no gap.

use rusqlite::Connection;

use super::journal::rfc3339;
use crate::change::position::Sequence;
use crate::sqlite::error::{Doing, SqliteError};

/// Ranges of the order stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skips {
    told: Vec<(Sequence, Sequence)>,
    void: Vec<Sequence>,
}

impl Skips {
    /// Whether this message is to be skipped.
    #[must_use]
    pub fn contains(&self, message: Sequence) -> bool {
        let told = |(first, last): &(Sequence, Sequence)| (*first..=*last).contains(&message);
        self.is_void(message) || self.told.iter().any(told)
    }

    /// Whether no node folds this message: whoever sent it still has what it carried, and sends it again.
    #[must_use]
    pub fn is_void(&self, message: Sequence) -> bool {
        self.void.contains(&message)
    }

    /// Reads those that are not behind the position yet.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(conn: &Connection, position: Sequence) -> Result<Self, SqliteError> {
        let mut stmt = conn
            .prepare_cached("SELECT first, last FROM __harmonylite__skips WHERE last > ?1")
            .doing(READING)?;
        let told = stmt
            .query_map([position.0.cast_signed()], |r| {
                Ok((
                    Sequence(r.get::<_, i64>(0)?.cast_unsigned()),
                    Sequence(r.get::<_, i64>(1)?.cast_unsigned()),
                ))
            })
            .and_then(Iterator::collect)
            .doing(READING)?;
        let void = read_void(conn, position)?;
        Ok(Self { told, void })
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

    /// What is void in this history: exactly this, from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub fn set_void(conn: &Connection, messages: &[Sequence]) -> Result<(), SqliteError> {
        let doing = "note which messages are void";
        conn.execute("DELETE FROM __harmonylite__void", [])
            .doing(doing)?;
        for at in messages {
            conn.execute(
                "INSERT OR IGNORE INTO __harmonylite__void(sequence) VALUES(?1)",
                [at.0.cast_signed()],
            )
            .doing(doing)?;
        }
        Ok(())
    }

    /// Takes over what is void by another database of this history.
    ///
    /// # Errors
    /// SQLite's.
    pub fn replace_void(conn: &Connection, from: &Connection) -> Result<(), SqliteError> {
        Self::set_void(conn, &read_void(from, Sequence(0))?)
    }

    /// Removes all of the operator's: the database has become another node's.
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
        for sql in [
            "DELETE FROM __harmonylite__skips WHERE last <= ?1",
            "DELETE FROM __harmonylite__void WHERE sequence <= ?1",
        ] {
            conn.execute(sql, [position.0.cast_signed()])
                .doing("tidy what is to be skipped")?;
        }
        Ok(())
    }
}

fn read_void(conn: &Connection, position: Sequence) -> Result<Vec<Sequence>, SqliteError> {
    let mut stmt = conn
        .prepare_cached("SELECT sequence FROM __harmonylite__void WHERE sequence > ?1")
        .doing(READING)?;
    stmt.query_map([position.0.cast_signed()], |r| {
        Ok(Sequence(r.get::<_, i64>(0)?.cast_unsigned()))
    })
    .and_then(Iterator::collect)
    .doing(READING)
}

const READING: &str = "read what is to be skipped";
