//! Which change-log rows the batches taken so far have covered, by publisher: from a snapshot a node learns what of its own change log the snapshot
//! contains already, though the messages themselves may be trimmed by then.
//!
//! Bound: what its publisher is known to have folded itself may go, but for the newest `KEPT` rows of each, so that a backup put in place finds
//! them; no publisher has more than `MOST`. What is not found here any more is published again: when in doubt, publish.

use minicbor::{Decode, Encode};
use rusqlite::{Connection, params};

use crate::change::position::{NodeId, Sequence};
use crate::codec::covers::{self, TableCovers};
use crate::sqlite::error::{Doing, SqliteError};

/// Covered rows that are kept of each publisher in any case: about 5 MB.
const KEPT: u64 = 1_000_000;

/// Covered rows that are kept of one publisher at most.
const MOST: u64 = 10_000_000;

/// What one batch covered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// The tables, as the batch names them.
    pub tables: Vec<String>,
    /// The rows of each.
    pub rows: Vec<TableCovers>,
}

#[derive(Encode, Decode)]
struct Stored {
    #[n(0)]
    tables: Vec<String>,
    #[cbor(n(1), with = "minicbor::bytes")]
    rows: Vec<u8>,
}

/// Notes what a batch that was taken has covered. `base`: up to where its publisher had folded the stream when it made the batch.
///
/// # Errors
/// SQLite's.
pub fn note(
    conn: &Connection,
    node: NodeId,
    at: Sequence,
    base: Sequence,
    tables: &[String],
    covered: &[TableCovers],
) -> Result<(), SqliteError> {
    let mut rows = Vec::new();
    let mut count: u64 = 0;
    for table in covered {
        count += table.stamps.len() as u64;
        covers::encode(&mut rows, table);
    }
    if count == 0 {
        return Ok(());
    }
    let stored = Stored {
        tables: tables.to_vec(),
        rows,
    };
    // Writing CBOR to memory cannot fail.
    let bytes = minicbor::to_vec(&stored).unwrap_or_default();
    conn.prepare_cached(
        "INSERT INTO __harmonylite__covered(node_id, sequence, base, count, covers) VALUES(?1, ?2, ?3, ?4, ?5)",
    )
    .and_then(|mut s| {
        s.execute(params![
            node.to_string(),
            at.0.cast_signed(),
            base.0.cast_signed(),
            count.cast_signed(),
            bytes
        ])
    })
    .doing("note what a batch has covered")?;
    Ok(())
}

/// What the batches of a node have covered, oldest first, by `each`.
///
/// # Errors
/// SQLite's, and those of `each`; covers that do not decode count as damage of the database.
pub fn each<E: From<SqliteError>>(
    conn: &Connection,
    node: NodeId,
    mut each: impl FnMut(Covered) -> Result<(), E>,
) -> Result<(), E> {
    let doing = "read what batches have covered";
    let mut stmt = conn
        .prepare("SELECT covers FROM __harmonylite__covered WHERE node_id = ?1 ORDER BY id")
        .doing(doing)?;
    let mut found = stmt.query([node.to_string()]).doing(doing)?;
    while let Some(row) = found.next().doing(doing)? {
        let bytes: Vec<u8> = row.get(0).doing(doing)?;
        let damaged = |e: minicbor::decode::Error| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(e))
        };
        let stored: Stored = minicbor::decode(&bytes).map_err(damaged).doing(doing)?;
        let rows = covers::decode(&stored.rows).map_err(damaged).doing(doing)?;
        each(Covered {
            tables: stored.tables,
            rows,
        })?;
    }
    Ok(())
}

/// Takes over what another database has noted.
///
/// # Errors
/// SQLite's.
pub fn replace(conn: &Connection, from: &Connection) -> Result<(), SqliteError> {
    let doing = "take over what batches have covered";
    conn.execute("DELETE FROM __harmonylite__covered", [])
        .doing(doing)?;
    let mut stmt = from
        .prepare(
            "SELECT node_id, sequence, base, count, covers FROM __harmonylite__covered ORDER BY id",
        )
        .doing(doing)?;
    let mut rows = stmt.query([]).doing(doing)?;
    while let Some(row) = rows.next().doing(doing)? {
        let values: [rusqlite::types::Value; 5] = [
            row.get(0).doing(doing)?,
            row.get(1).doing(doing)?,
            row.get(2).doing(doing)?,
            row.get(3).doing(doing)?,
            row.get(4).doing(doing)?,
        ];
        conn.prepare_cached("INSERT INTO __harmonylite__covered(node_id, sequence, base, count, covers) VALUES(?1, ?2, ?3, ?4, ?5)")
            .and_then(|mut s| s.execute(rusqlite::params_from_iter(values)))
            .doing(doing)?;
    }
    Ok(())
}

/// Removes what is not needed any more.
///
/// # Errors
/// SQLite's.
pub fn tidy(conn: &Connection) -> Result<(), SqliteError> {
    // `newer`: how many rows the later batches of the same publisher have covered.
    conn.prepare_cached(
        "WITH o AS (SELECT id, sequence,
             sum(count) OVER newest - count AS newer, max(base) OVER (PARTITION BY node_id) AS folded
           FROM __harmonylite__covered WINDOW newest AS (PARTITION BY node_id ORDER BY id DESC))
         DELETE FROM __harmonylite__covered WHERE id IN (SELECT id FROM o WHERE newer >= ?2 OR (newer >= ?1 AND sequence <= folded))",
    )
    .and_then(|mut s| s.execute(params![KEPT.cast_signed(), MOST.cast_signed()]))
    .doing("forget what old batches have covered")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ddl;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        ddl::migrate(&conn).unwrap();
        conn
    }

    fn covered(first: i64, count: u64) -> Covered {
        Covered {
            tables: vec!["t".to_owned()],
            rows: vec![TableCovers {
                table: 0,
                runs: vec![(first, count)],
                stamps: vec![7; usize::try_from(count).unwrap()],
            }],
        }
    }

    fn put(
        conn: &Connection,
        node: NodeId,
        at: Sequence,
        base: Sequence,
        covered: &Covered,
    ) -> Result<(), SqliteError> {
        note(conn, node, at, base, &covered.tables, &covered.rows)
    }

    fn all(conn: &Connection, node: u64) -> Vec<Covered> {
        let mut out = Vec::new();
        each::<SqliteError>(conn, NodeId(node), |c| {
            out.push(c);
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn what_was_noted_is_read_back_and_taken_over() {
        let (conn, other) = (database(), database());
        put(&conn, NodeId(1), Sequence(5), Sequence(0), &covered(1, 2)).unwrap();
        put(&conn, NodeId(2), Sequence(6), Sequence(0), &covered(9, 1)).unwrap();
        put(&other, NodeId(3), Sequence(6), Sequence(0), &covered(9, 1)).unwrap();
        replace(&other, &conn).unwrap();
        assert_eq!(all(&other, 1), [covered(1, 2)]);
        assert_eq!(all(&other, 2), [covered(9, 1)]);
        assert!(all(&other, 3).is_empty());
    }

    #[test]
    fn the_newest_stay_whatever_their_publisher_has_folded() {
        let conn = database();
        for n in 1..=4_u64 {
            let base = Sequence(n - 1);
            put(&conn, NodeId(1), Sequence(n), base, &covered(1, KEPT / 2)).unwrap();
        }
        tidy(&conn).unwrap();
        assert_eq!(all(&conn, 1).len(), 2);
    }

    #[test]
    fn what_its_publisher_has_not_folded_stays() {
        let conn = database();
        for n in 1..=3_u64 {
            put(
                &conn,
                NodeId(1),
                Sequence(n),
                Sequence(0),
                &covered(1, KEPT),
            )
            .unwrap();
        }
        tidy(&conn).unwrap();
        assert_eq!(all(&conn, 1).len(), 3);
    }
}
