//! A table's digest: for each of 1,024 buckets of keys how many rows there are, and the sum of their digests. The sum does not depend on the order in
//! which rows are read, so memory is bounded whatever the table's size.
//!
//! Invariants: two rows have the same digest exactly when they hold the same, bit by bit, in the columns that are compared (up to a collision of 128-bit
//! hashes); rows whose key holds NULL are not replicated and left out.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::Connection;
use xxhash_rust::xxh3::xxh3_128;

use super::values;
use crate::change::table::{Table, TableKey};
use crate::change::value::Value;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::value::from_sql;

/// Buckets of a table.
pub const BUCKETS: usize = 1024;

/// Bytes of one bucket as it travels.
const BUCKET_BYTES: usize = 24;

/// A row's table and key, as a hash: 128 bits, so that no two rows share one.
pub type RowHash = u128;

/// The hash of a row's table and key.
#[must_use]
pub fn row_hash<'a>(table: &Table, key: impl IntoIterator<Item = Value<'a>>) -> RowHash {
    let mut bytes = table.name.to_ascii_lowercase().into_bytes();
    bytes.push(0);
    bytes.extend_from_slice(&table.normal_key(key));
    xxh3_128(&bytes)
}

/// The bucket that a row falls into.
#[must_use]
pub const fn bucket_of(hash: RowHash) -> usize {
    (hash >> 118) as usize
}

/// One bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bucket {
    /// Its rows.
    pub rows: u64,
    /// The sum of their digests.
    pub sum: u128,
}

/// Buckets as they travel.
#[must_use]
pub fn encode(buckets: &[Bucket]) -> Vec<u8> {
    buckets
        .iter()
        .flat_map(|b| b.rows.to_le_bytes().into_iter().chain(b.sum.to_le_bytes()))
        .collect()
}

/// Buckets from their bytes; `None` where they are none.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Vec<Bucket>> {
    let (chunks, rest) = bytes.as_chunks::<BUCKET_BYTES>();
    (rest.is_empty() && chunks.len() == BUCKETS).then_some(())?;
    chunks
        .iter()
        .map(|chunk| {
            let (rows, sum) = chunk.split_first_chunk::<8>()?;
            Some(Bucket {
                rows: u64::from_le_bytes(*rows),
                sum: u128::from_le_bytes(sum.try_into().ok()?),
            })
        })
        .collect()
}

/// A row that was read.
pub struct Row<'a> {
    /// The hash of table and key.
    pub hash: RowHash,
    /// The digest of what it holds.
    pub digest: u128,
    /// Its key.
    pub key: &'a [Value<'a>],
}

/// Why a table was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// Nobody wants it any more.
    #[error("the comparison is over")]
    Over,
    /// A column that is to be compared is not there.
    #[error("table \"{table}\" has no column \"{column}\" here")]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The rows are more than can be listed.
    #[error("table \"{table}\" differs in too many rows to list them")]
    TooMany {
        /// The table.
        table: String,
    },
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

/// What is read, and how it goes.
pub struct Reading<'a> {
    /// The snapshot.
    pub conn: &'a Connection,
    /// Rows that are left out.
    pub apart: &'a HashSet<RowHash>,
    /// Counts the rows.
    pub progress: &'a AtomicU64,
    /// Asked now and then.
    pub over: &'a dyn Fn() -> bool,
}

/// Reads all rows of a table; `columns` in the order in which all nodes digest them.
///
/// # Errors
/// See [`ScanError`], and what `each` says.
pub fn scan(
    reading: &Reading<'_>,
    table: &Table,
    columns: &[String],
    mut each: impl FnMut(Row<'_>) -> Result<(), ScanError>,
) -> Result<(), ScanError> {
    /// How many rows are read between two looks at the clock and at who waits.
    const LOOK: u64 = 256;
    let doing = || format!("read table \"{}\"", table.name);
    let (sql, key_at) = select(table, columns)?;
    let mut statement = reading.conn.prepare(&sql).doing_with(doing)?;
    let mut rows = statement.query([]).doing_with(doing)?;
    let (mut buffer, mut read) = (Vec::new(), 0_u64);
    while let Some(row) = rows.next().doing_with(doing)? {
        read += 1;
        if read.is_multiple_of(LOOK) {
            reading.progress.fetch_add(LOOK, Ordering::Relaxed);
            if (reading.over)() {
                return Err(ScanError::Over);
            }
        }
        let key: smallvec::SmallVec<[Value<'_>; 4]> = key_at
            .iter()
            .map(|&i| row.get_ref(i).map(from_sql))
            .collect::<Result<_, _>>()
            .doing_with(doing)?;
        if key.iter().any(Value::is_null) {
            continue;
        }
        let hash = row_hash(table, key.iter().copied());
        if reading.apart.contains(&hash) {
            continue;
        }
        buffer.clear();
        buffer.extend_from_slice(&hash.to_le_bytes());
        for i in 0..columns.len() {
            let value = row.get_ref(i).map(from_sql).doing_with(doing)?;
            values::push_for_digest(&mut buffer, &value);
        }
        each(Row {
            hash,
            digest: xxh3_128(&buffer),
            key: &key,
        })?;
    }
    reading.progress.fetch_add(read % LOOK, Ordering::Relaxed);
    Ok(())
}

/// The columns, and behind them what of the key is not among them (a result has no more columns than a table may have); where the key stands in that.
fn select(table: &Table, columns: &[String]) -> Result<(String, Vec<usize>), ScanError> {
    let mut names = Vec::with_capacity(columns.len() + 1);
    for wanted in columns {
        let column = table
            .columns
            .iter()
            .find(|c| c.name.eq_ignore_ascii_case(wanted))
            .ok_or_else(|| ScanError::NoColumn {
                table: table.name.clone(),
                column: wanted.clone(),
            })?;
        names.push(quote(&column.name));
    }
    let mut key_at = Vec::with_capacity(table.key_len());
    for key in table.key_names().into_iter().map(quote) {
        let at = names.iter().position(|n| *n == key).unwrap_or_else(|| {
            names.push(key);
            names.len() - 1
        });
        key_at.push(at);
    }
    let sql = format!(
        "SELECT {} FROM main.{}",
        names.join(", "),
        quote(&table.name)
    );
    Ok((sql, key_at))
}

/// Digests a table.
///
/// # Errors
/// See [`ScanError`].
pub fn digest(
    reading: &Reading<'_>,
    table: &Table,
    columns: &[String],
) -> Result<Vec<Bucket>, ScanError> {
    let mut buckets = vec![Bucket::default(); BUCKETS];
    scan(reading, table, columns, |row| {
        if let Some(bucket) = buckets.get_mut(bucket_of(row.hash)) {
            bucket.rows += 1;
            bucket.sum = bucket.sum.wrapping_add(row.digest);
        }
        Ok(())
    })?;
    Ok(buckets)
}

/// The table's key, with what it compares by: nodes on which this differs do not agree on what a row is.
#[must_use]
pub fn key_text(table: &Table) -> Vec<String> {
    match &table.key {
        TableKey::Rowid(_) => vec!["rowid".to_owned()],
        TableKey::Columns(columns) => columns
            .iter()
            .filter_map(|(i, collation)| {
                let name = table.columns.get(*i)?.name.to_ascii_lowercase();
                Some(format!("{name} COLLATE {}", collation.name()))
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::introspect::read_schema;

    fn buckets(sql: &str, columns: &[&str], apart: &HashSet<RowHash>) -> Vec<Bucket> {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        let schema = read_schema(&conn).unwrap();
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let reading = Reading {
            conn: &conn,
            apart,
            progress: &AtomicU64::new(0),
            over: &|| false,
        };
        digest(&reading, schema.table("t").unwrap(), &columns).unwrap()
    }

    const MADE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);";

    fn with(sql: &str) -> Vec<Bucket> {
        buckets(&format!("{MADE}{sql}"), &["id", "a", "b"], &HashSet::new())
    }

    #[test]
    fn order_and_position_of_columns_do_not_matter() {
        let one = with("INSERT INTO t VALUES(1, 'x', 2), (2, NULL, x'00')");
        assert_eq!(
            one,
            with("INSERT INTO t VALUES(2, NULL, x'00'), (1, 'x', 2)")
        );
        let other = "CREATE TABLE T(B, a, id INTEGER PRIMARY KEY, more); INSERT INTO t VALUES(2, 'x', 1, 7), (x'00', NULL, 2, 8)";
        assert_eq!(one, buckets(other, &["id", "a", "b"], &HashSet::new()));
        assert_eq!(one.iter().map(|b| b.rows).sum::<u64>(), 2);
        assert_eq!(decode(&encode(&one)), Some(one));
        assert_eq!(decode(&[0; 24]), None);
    }

    #[test]
    fn every_difference_is_seen() {
        let base = with("INSERT INTO t VALUES(1, 1, 'a'), (2, 0.0, 'b')");
        for other in [
            "INSERT INTO t VALUES(1, 1.0, 'a'), (2, 0.0, 'b')",
            "INSERT INTO t VALUES(1, 1, 'A'), (2, 0.0, 'b')",
            "INSERT INTO t VALUES(1, 1, x'61'), (2, 0.0, 'b')",
            "INSERT INTO t VALUES(1, 1, 'a'), (2, -0.0, 'b')",
            "INSERT INTO t VALUES(1, 'a', 1), (2, 0.0, 'b')",
            "INSERT INTO t VALUES(1, 1, 'a'), (3, 0.0, 'b')",
            "INSERT INTO t VALUES(1, 1, 'b'), (2, 0.0, 'a')",
            "INSERT INTO t VALUES(1, 1, 'a')",
        ] {
            assert_ne!(base, with(other), "{other}");
        }
    }

    #[test]
    fn rows_set_apart_and_rows_without_a_key_do_not_count() {
        let conn = Connection::open_in_memory().unwrap();
        let made = "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v);";
        conn.execute_batch(made).unwrap();
        let schema = read_schema(&conn).unwrap();
        let table = schema.table("t").unwrap();
        let apart = HashSet::from([row_hash(table, [Value::Text(b"ABC")])]);
        let base = buckets(made, &["v"], &HashSet::new());
        let rows = format!("{made} INSERT INTO t VALUES('abc', 1), (NULL, 2)");
        assert_eq!(buckets(&rows, &["v"], &apart), base);
        assert_ne!(buckets(&rows, &["v"], &HashSet::new()), base);
    }
}
