//! What is kept of one batch: the keys that it wrote, and the change-log rows that it covered. No values: those are in the database.
//!
//! A frame is its length (4 bytes) and hash (8 bytes), little-endian, and CBOR. A batch of several sections is several frames; the first has the covers.

use std::io::{self, Read};

use minicbor::{Decode, Encode};
use xxhash_rust::xxh3::xxh3_64;

use crate::apply::incoming::IncomingBatch;
use crate::change::history::History;
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::change::value::Value;
use crate::codec::bounds;
use crate::codec::commit::TableDefinition;
use crate::codec::covers;
use crate::codec::rows::{RowOp, RowReader, RowWriter};

/// Before each frame: its length and hash.
const HEAD: usize = 12;

/// No frame is longer: one section's keys, and the covers of a whole batch.
const LONGEST: usize = 1 << 30;

/// A part of a batch of ours.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Frame {
    /// Number and id of the history in which it came back.
    #[n(0)]
    history: (u64, u64),
    /// Where it stood in the stream.
    #[n(1)]
    pub at: Sequence,
    /// Under which node id.
    #[n(2)]
    pub node: NodeId,
    /// Its incarnation.
    #[n(3)]
    pub incarnation: Incarnation,
    /// Its number.
    #[n(4)]
    pub batch: BatchNumber,
    /// What its tables were.
    #[n(5)]
    pub tables: Vec<TableDefinition>,
    /// What it covered.
    #[cbor(n(6), with = "minicbor::bytes")]
    pub covers: Vec<u8>,
    /// Its row operations without values: whole rows and deletes as deletes, cells with NULLs.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub rows: Vec<u8>,
    /// It came back while this node applied nothing (`replicate = false`): it was not folded.
    #[n(8)]
    pub unfolded: bool,
}

impl Frame {
    /// The history in which it came back.
    #[must_use]
    pub fn history(&self) -> History {
        History {
            number: self.history.0,
            id: self.history.1,
        }
    }

    /// Whether it is of the same batch.
    #[must_use]
    pub fn continues(&self, other: &Self) -> bool {
        (self.node, self.incarnation, self.batch) == (other.node, other.incarnation, other.batch)
    }
}

/// The frames of a batch, one after the other.
///
/// # Errors
/// The spool's, and those of `each`.
pub fn of_batch(
    batch: &IncomingBatch,
    at: Sequence,
    history: History,
    unfolded: bool,
    mut each: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let record = &batch.record;
    let mut covered = Vec::new();
    for table in batch.covered()? {
        covers::encode(&mut covered, &table);
    }
    if covered.is_empty() {
        return Ok(());
    }
    let mut covered = Some(covered);
    batch.each_section::<io::Error>(|bytes| {
        let rows = keys(bytes, &record.tables)?;
        let frame = Frame {
            history: (history.number, history.id),
            at,
            node: record.node,
            incarnation: record.incarnation,
            batch: record.batch,
            tables: record.tables.clone(),
            covers: covered.take().unwrap_or_default(),
            rows,
            unfolded,
        };
        each(encode(&frame))
    })
}

fn keys(bytes: &[u8], tables: &[TableDefinition]) -> io::Result<Vec<u8>> {
    let mut reader = RowReader::new(bytes, tables);
    let mut writer = RowWriter::default();
    let mut values = Vec::new();
    while let Some((table, op)) = reader
        .next(&mut values)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?
    {
        let Some(definition) = tables.get(table as usize) else {
            continue;
        };
        let key = definition.key_of(op, &values);
        match op {
            RowOp::Delete | RowOp::Whole => writer.delete(table, key.into_iter()),
            RowOp::Cells(mask) => {
                let cells = mask.columns().count();
                writer.cells(
                    table,
                    mask,
                    key.len() + cells,
                    key.into_iter()
                        .chain(std::iter::repeat_n(Value::Null, cells)),
                );
            }
        }
    }
    Ok(writer.take())
}

fn encode(frame: &Frame) -> Vec<u8> {
    // Writing CBOR to memory cannot fail.
    let body = minicbor::to_vec(frame).unwrap_or_default();
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&xxh3_64(&body).to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// The next frame and its length; `None` at the end, and where what follows is torn or damaged.
///
/// # Errors
/// The file's.
pub fn next(from: &mut impl Read) -> io::Result<Option<(Frame, u64)>> {
    let mut length = [0; 4];
    let mut hash = [0; 8];
    if !fill(from, &mut length)? || !fill(from, &mut hash)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Ok(None);
    }
    let mut body = Vec::new();
    from.by_ref().take(length as u64).read_to_end(&mut body)?;
    if body.len() != length || xxh3_64(&body) != u64::from_le_bytes(hash) {
        return Ok(None);
    }
    let frame = bounds::decode(&body, bounds::ITEMS_OF_RECORD).ok();
    Ok(frame.map(|frame| (frame, (HEAD + length) as u64)))
}

/// Whether there were so many bytes.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}
