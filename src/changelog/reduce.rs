//! Reads change-log rows, and tells which is the last of its key and what the key's rows come to.
//!
//! Memory: some sixty bytes a key, for at most [`KEYS_AT_ONCE`] keys; beyond that the log is read several times, each time for a part of the keys.

use std::collections::HashMap;

use rusqlite::{Connection, Row};

use super::in_flight::InFlight;
use crate::capture::{CapturedTable, layout};
use crate::change::operation::{ChangeKind, ColumnMask, Reduced};
use crate::change::value::Value;
use crate::planted::planted;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::value::from_sql;
use xxhash_rust::xxh3::xxh3_128;

/// Keys that are reduced in memory at once: 26 MB, since as many fit a table of 2^19 places.
pub const KEYS_AT_ONCE: u64 = 450_000;

/// A key by its hash: 128 bits, so that no two keys of a table share one.
pub type KeyHash = u128;

/// The statement that reads a table's log from an id on. Columns: id, type, mask, generation, stamp, key values.
#[must_use]
pub fn read_log_sql(table: &CapturedTable) -> String {
    let keys = layout::key_columns(&table.table);
    format!(
        "SELECT id, type, mask, generation, stamp, {} FROM {} WHERE id > ?1 AND id <= ?2 ORDER BY id",
        keys.join(", "),
        table.log
    )
}

/// Columns before the key values in [`read_log_sql`].
pub const KEY_AT: usize = 5;

/// One change-log row, but for its key.
#[derive(Debug, Clone, Copy)]
pub struct LogRow {
    /// Its id.
    pub id: i64,
    /// What it records. An update logged by an older generation of triggers counts as whole: they may not have seen a new column. One of a former key's columns does so, too.
    pub kind: ChangeKind,
    /// The columns of an update.
    pub mask: ColumnMask,
    /// Its stamp.
    pub stamp: u32,
}

/// Reads a row of [`read_log_sql`]; `None` for one whose type is unknown (of a newer program).
///
/// # Errors
/// SQLite's.
pub fn log_row(row: &Row<'_>, table: &CapturedTable) -> rusqlite::Result<Option<LogRow>> {
    let Some(kind) = ChangeKind::from_code(row.get(1)?) else {
        return Ok(None);
    };
    let generation: i64 = row.get(3)?;
    let aged = generation != table.generation && !planted!(GenerationForgotten);
    let mask: i64 = row.get(2)?;
    // What the columns of a former key hold decides which row batches under that key mean.
    let moves = mask.cast_unsigned() & table.former_key.0 != 0;
    let kind = if kind == ChangeKind::Cells && (aged || moves) {
        ChangeKind::Rewritten
    } else {
        kind
    };
    let stamp: i64 = row.get(4)?;
    // Stamps are made of 31 bits.
    Ok(Some(LogRow {
        id: row.get(0)?,
        kind,
        mask: ColumnMask(mask.cast_unsigned()),
        stamp: stamp as u32,
    }))
}

/// The key values of a row of [`read_log_sql`].
///
/// # Errors
/// SQLite's.
pub fn log_key<'r>(
    row: &'r Row<'_>,
    table: &CapturedTable,
) -> rusqlite::Result<smallvec::SmallVec<[Value<'r>; 4]>> {
    key_values(row, table, KEY_AT)
}

/// The key values of a row that has them from this column on.
///
/// # Errors
/// SQLite's.
pub(super) fn key_values<'r>(
    row: &'r Row<'_>,
    table: &CapturedTable,
    at: usize,
) -> rusqlite::Result<smallvec::SmallVec<[Value<'r>; 4]>> {
    (0..table.table.key_len())
        .map(|i| row.get_ref(at + i).map(from_sql))
        .collect()
}

/// The hash of a key.
#[must_use]
pub fn hash_key<'a>(table: &CapturedTable, values: impl IntoIterator<Item = Value<'a>>) -> KeyHash {
    xxh3_128(&table.table.normal_key(values))
}

/// What the rows of one key come to.
#[derive(Debug, Clone, Copy)]
pub struct KeyState {
    /// The id of the last of them.
    pub last: i64,
    /// What they come to.
    pub reduced: Reduced,
}

/// A part of the keys: those whose hash falls to `index` of `of`.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Which part.
    pub index: u64,
    /// How many there are.
    pub of: u64,
}

impl Part {
    /// Into how many parts a range of ids falls.
    #[must_use]
    pub fn count(rows: u64) -> u64 {
        rows.div_ceil(KEYS_AT_ONCE).max(1)
    }

    /// Whether a key is in this part.
    #[must_use]
    pub fn has(self, key: KeyHash) -> bool {
        // The low half of the hash; the map uses the rest.
        self.of == 1 || (key as u64) % self.of == self.index
    }
}

/// Reduces the rows of `(from, to]`, leaving out those that batches of former incarnations carry.
///
/// # Errors
/// SQLite's.
pub fn reduce(
    conn: &Connection,
    table: &CapturedTable,
    from: i64,
    to: i64,
    in_flight: &InFlight,
    part: Part,
) -> Result<HashMap<KeyHash, KeyState>, SqliteError> {
    let doing = || format!("read the change log of table \"{}\"", table.table.name);
    let mut keys: HashMap<KeyHash, KeyState> = HashMap::new();
    let mut stmt = conn
        .prepare_cached(&read_log_sql(table))
        .doing_with(doing)?;
    let mut rows = stmt.query([from, to]).doing_with(doing)?;
    while let Some(row) = rows.next().doing_with(doing)? {
        let Some(change) = log_row(row, table).doing_with(doing)? else {
            continue;
        };
        if change.kind == ChangeKind::Done
            || in_flight.is_ahead(&table.table.name, change.id, change.stamp)
        {
            continue;
        }
        let hash = hash_key(table, log_key(row, table).doing_with(doing)?);
        if !part.has(hash) {
            continue;
        }
        if let Some(state) = keys.get_mut(&hash) {
            *state = KeyState {
                last: change.id,
                reduced: state.reduced.then(change.kind, change.mask),
            };
        } else if let Some(reduced) = Reduced::first(change.kind, change.mask) {
            keys.insert(
                hash,
                KeyState {
                    last: change.id,
                    reduced,
                },
            );
        }
    }
    Ok(keys)
}
