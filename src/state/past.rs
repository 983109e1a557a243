//! Fingerprints of messages that this node has folded: of the last 64 groups the last, of the last few thousand about every sixty-fourth, of many more fewer. By them a node whose position the stream
//! holds no more can show that it has folded everything before a message that the stream still holds.
//!
//! Invariant: bounded: one row for each slot.

use rusqlite::{Connection, params};

use super::node::Position;
use crate::change::position::Sequence;
use crate::sqlite::error::{Doing, SqliteError};

/// Messages between two fingerprints, in the finer of the two rings.
const FINE: u64 = 64;

/// In the coarser one.
const COARSE: u64 = FINE * SLOTS;

/// Fingerprints in each ring.
const SLOTS: u64 = 64;

/// Notes the message at the new position, if it is the first of a stretch. `before`: the position until now.
///
/// # Errors
/// SQLite's.
pub fn note(conn: &Connection, before: Sequence, now: Position) -> Result<(), SqliteError> {
    // Of a stream that was trimmed to a few messages and lost the last of them, only the newest tell.
    for (ring, stretch) in [(0, FINE), (SLOTS, COARSE), (2 * SLOTS, 1)] {
        if before.0 / stretch == now.sequence.0 / stretch && before.0 > 0 {
            continue;
        }
        let slot = ring + now.sequence.0 / stretch % SLOTS;
        conn.prepare_cached(
            "INSERT OR REPLACE INTO __harmonylite__past(slot, sequence, hash) VALUES(?1, ?2, ?3)",
        )
        .and_then(|mut s| {
            s.execute(params![
                slot.cast_signed(),
                now.sequence.0.cast_signed(),
                now.hash.cast_signed()
            ])
        })
        .doing("note what was folded")?;
    }
    Ok(())
}

/// What was noted, latest first: where, and the fingerprint.
///
/// # Errors
/// SQLite's.
pub fn read(conn: &Connection) -> Result<Vec<(Sequence, u64)>, SqliteError> {
    let doing = "read what was folded";
    let mut stmt = conn
        .prepare("SELECT DISTINCT sequence, hash FROM __harmonylite__past ORDER BY sequence DESC")
        .doing(doing)?;
    stmt.query_map([], |r| {
        Ok((
            Sequence(r.get::<_, i64>(0)?.cast_unsigned()),
            r.get::<_, i64>(1)?.cast_unsigned(),
        ))
    })
    .and_then(Iterator::collect)
    .doing(doing)
}

/// Takes over what another database has noted.
///
/// # Errors
/// SQLite's.
pub fn replace(conn: &Connection, from: &Connection) -> Result<(), SqliteError> {
    let doing = "take over what was folded";
    conn.execute("DELETE FROM __harmonylite__past", [])
        .doing(doing)?;
    let mut stmt = from
        .prepare("SELECT slot, sequence, hash FROM __harmonylite__past")
        .doing(doing)?;
    let mut rows = stmt.query([]).doing(doing)?;
    while let Some(row) = rows.next().doing(doing)? {
        let (slot, at, hash): (i64, i64, i64) = (
            row.get(0).doing(doing)?,
            row.get(1).doing(doing)?,
            row.get(2).doing(doing)?,
        );
        conn.prepare_cached(
            "INSERT INTO __harmonylite__past(slot, sequence, hash) VALUES(?1, ?2, ?3)",
        )
        .and_then(|mut s| s.execute([slot, at, hash]))
        .doing(doing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ddl;

    #[test]
    fn some_of_many_stay_and_the_newest_are_dense() {
        let conn = Connection::open_in_memory().unwrap();
        ddl::migrate(&conn).unwrap();
        let mut before = Sequence(0);
        for at in (1..=400_000).step_by(7) {
            let now = Position {
                sequence: Sequence(at),
                hash: at * 3,
                folded: Sequence(at),
            };
            note(&conn, before, now).unwrap();
            before = now.sequence;
        }
        let noted = read(&conn).unwrap();
        assert!(noted.len() <= 192, "{}", noted.len());
        assert!(noted.iter().all(|(at, hash)| at.0 * 3 == *hash));
        assert!(noted[0].0.0 > 400_000 - 70 && noted.last().unwrap().0.0 < 400_000 - 200_000);
        assert!(noted.windows(2).all(|w| w[0].0 > w[1].0));
        let other = Connection::open_in_memory().unwrap();
        ddl::migrate(&other).unwrap();
        replace(&other, &conn).unwrap();
        assert_eq!(read(&other).unwrap(), noted);
    }
}
