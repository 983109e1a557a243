//! The commit record: the one message that makes a batch count, and that names where the rest of it is.
//!
//! Invariant: a record says all that a reader needs to judge it (whose it is, its number, its tables and their UNIQUE indexes) before any payload
//! is fetched. Fields are numbered CBOR, so that later versions can add some that older readers skip.

use minicbor::{Decode, Encode};

use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence, ShardId};
use crate::change::table::{Table, TableKey};
use crate::codec::bounds;

/// A commit record.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CommitRecord {
    /// The publisher.
    #[n(0)]
    pub node: NodeId,
    /// Its incarnation.
    #[n(1)]
    pub incarnation: Incarnation,
    /// The batch's number in that incarnation.
    #[n(2)]
    pub batch: BatchNumber,
    /// The last batch that the publisher had folded when it scanned: one that directly follows it folds to nothing on its own node.
    #[n(3)]
    pub base: Sequence,
    /// The tables that its rows are of.
    #[n(4)]
    pub tables: Vec<TableDefinition>,
    /// Rows in the record itself: the usual batch.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub rows: Vec<u8>,
    /// Covered change-log rows in the record itself.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub covers: Vec<u8>,
    /// Rows and covers elsewhere, in the order in which they are to be folded.
    #[n(7)]
    pub sections: Vec<SectionRef>,
    /// How many row operations the batch has.
    #[n(8)]
    pub row_count: u64,
    /// Microseconds since 1970 when the first of its commits was noticed. Feeds lag metrics, nothing else.
    #[n(9)]
    pub scanned_at: u64,
}

/// What a reader must know of a table to fold its rows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TableDefinition {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its columns, in the order of the values of a whole row.
    #[n(1)]
    pub columns: Vec<String>,
    /// The key's columns as positions in `columns`; empty: the rowid, which then stands before the values of a whole row.
    #[n(2)]
    pub key: Vec<u64>,
    /// The definitions of its UNIQUE indexes, sorted: they decide what displaces what.
    #[n(3)]
    pub uniques: Vec<String>,
}

impl TableDefinition {
    /// The definition of a captured table.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        Self {
            name: table.name.clone(),
            columns: table.columns.iter().map(|c| c.name.clone()).collect(),
            key: match &table.key {
                TableKey::Columns(columns) => columns.iter().map(|(i, _)| *i as u64).collect(),
                TableKey::Rowid(_) => Vec::new(),
            },
            uniques: table.unique_definitions(),
        }
    }

    /// The key's columns by name; none: the rowid.
    pub fn key_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.key
            .iter()
            .filter_map(|&k| self.columns.get(usize::try_from(k).ok()?))
            .map(String::as_str)
    }

    /// How many values a key has.
    #[must_use]
    pub fn key_len(&self) -> usize {
        self.key.len().max(1)
    }

    /// How many values a whole row has.
    #[must_use]
    pub fn whole_len(&self) -> usize {
        self.columns.len() + usize::from(self.key.is_empty())
    }
}

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum SectionKind {
    /// Row operations.
    #[n(0)]
    Rows,
    /// The change-log rows that the batch covers; only the publisher needs them at once.
    #[n(1)]
    Covers,
}

/// Where a section is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SectionRef {
    /// What it holds.
    #[n(0)]
    pub kind: SectionKind,
    /// In which shard's stream.
    #[n(1)]
    pub shard: ShardId,
    /// The messages that, one after the other, are its frame.
    #[n(2)]
    pub pieces: Vec<Sequence>,
    /// The length of its frame.
    #[n(3)]
    pub length: u64,
    /// The hash of its frame.
    #[n(4)]
    pub hash: u64,
}

/// Encodes a record's body.
#[must_use]
pub fn encode(record: &CommitRecord) -> Vec<u8> {
    // Writing CBOR to memory cannot fail.
    minicbor::to_vec(record).unwrap_or_default()
}

/// Decodes a record's body.
///
/// # Errors
/// A sentence about what does not fit.
pub fn decode(body: &[u8]) -> Result<CommitRecord, minicbor::decode::Error> {
    let record: CommitRecord = bounds::decode(body, bounds::ITEMS_OF_RECORD)?;
    if record.batch.0 == 0 || record.incarnation.counter == 0 {
        return Err(minicbor::decode::Error::message(
            "a commit record without a number",
        ));
    }
    for t in &record.tables {
        if t.columns.len() > MAX_COLUMNS || t.key.iter().any(|&k| k >= t.columns.len() as u64) {
            return Err(minicbor::decode::Error::message(
                "a table definition that does not fit itself",
            ));
        }
    }
    Ok(record)
}

/// SQLite's hard bound on columns.
const MAX_COLUMNS: usize = 32_767;
