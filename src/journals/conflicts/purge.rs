//! Clearing conflicts out of the journal.

use rusqlite::{Connection, params};

use super::find;
use crate::journals::{JournalError, Which};
use crate::sqlite::error::Doing;

/// Removes conflicts from the journal, inside a transaction. Returns how many lost values went.
///
/// # Errors
/// [`JournalError::Unknown`] for the first that is not there; SQLite's.
pub fn purge(conn: &Connection, which: &Which) -> Result<usize, JournalError> {
    const DOING: &str = "purge the conflict journal";
    match which {
        Which::All => Ok(conn
            .execute("DELETE FROM __harmonylite__conflicts", [])
            .doing(DOING)?),
        Which::Before(time) => Ok(conn
            .execute(
                "DELETE FROM __harmonylite__conflicts WHERE time < ?1",
                [time],
            )
            .doing(DOING)?),
        Which::These(ids) => {
            let mut gone = 0;
            for &id in ids {
                let conflict = find(conn, id)?.ok_or(JournalError::Unknown {
                    kind: "conflict",
                    id,
                    remedy: "conflicts list shows their ids; nothing was purged",
                })?;
                gone += conn
                    .execute(
                        "DELETE FROM __harmonylite__conflicts WHERE id BETWEEN ?1 AND ?2",
                        params![conflict.id, conflict.last],
                    )
                    .doing(DOING)?;
            }
            Ok(gone)
        }
    }
}
