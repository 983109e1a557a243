//! The payload of large batches: pieces that passed by in the order stream are kept for a moment, everything else is fetched by its sequence.
//!
//! Invariant: memory is bounded by `CACHE_BYTES` and one window of fetches; sections go to the batch's spool as soon as they are whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::apply::incoming::IncomingBatch;
use crate::change::position::{Sequence, ShardId};
use crate::codec::commit::{CommitRecord, SectionRef};
use crate::codec::frame::{self, Kind, message_hash};
use crate::codec::payload;
use crate::codec::spool::Spool;
use crate::planted::planted;
use crate::stream::{Broker, StreamError};

/// Bytes of pieces that are kept while their commit record has not come.
const CACHE_BYTES: usize = 16 << 20;

/// Pieces fetched at once.
const WINDOW: usize = 8;

/// No honest section is longer.
const LONGEST_SECTION: u64 = (frame::MAX_RAW + frame::HEADER) as u64;

const FETCH_DEADLINE: Duration = Duration::from_secs(5);

/// Why a batch's payload is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The broker did not answer: try again.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A commit record names a message that is not there.
    #[error("shard {shard} has no message {sequence}, which a batch needs: the broker has lost it")]
    Missing {
        /// The shard.
        shard: ShardId,
        /// The message.
        sequence: Sequence,
    },
    /// A commit record names a stream that is not there. No node could go on if it took that for a loss of the broker's: somebody has removed it.
    #[error(
        "stream {stream} does not exist, and batch {batch} of the stream of shard 1 has payload in it: bring it back from a backup of the broker, or leave the batch out, with harmonylite skip 1 {batch} on every node"
    )]
    NoStream {
        /// The stream.
        stream: String,
        /// The commit record.
        batch: Sequence,
    },
    /// Its payload was written by a newer program: not damage, but a reason to wait for an upgrade.
    #[error(
        "the payload has format version {0}, which this program does not know: upgrade harmonylite on this node"
    )]
    Newer(u8),
    /// The spool failed.
    #[error("could not put a large batch aside: {0}")]
    Spool(#[from] std::io::Error),
}

/// Pieces of the order stream that may be needed soon.
#[derive(Debug, Default)]
pub struct PieceCache {
    pieces: BTreeMap<Sequence, Bytes>,
    bytes: usize,
}

impl PieceCache {
    /// Keeps a piece that passed by; the oldest go when there are too many.
    pub fn keep(&mut self, at: Sequence, message: Bytes) {
        self.bytes += message.len();
        self.pieces.insert(at, message);
        while self.bytes > CACHE_BYTES {
            let Some((_, oldest)) = self.pieces.pop_first() else {
                break;
            };
            self.bytes -= oldest.len();
        }
    }

    fn take(&mut self, at: Sequence) -> Option<Bytes> {
        let message = self.pieces.remove(&at)?;
        self.bytes -= message.len();
        Some(message)
    }
}

/// Brings the sections of a batch together, whose commit record stands at this place.
///
/// # Errors
/// See [`PayloadError`]; the batch is then as before, but for sections that are complete.
pub async fn gather(
    broker: &Broker,
    cache: &mut PieceCache,
    (at, batch): (Sequence, &mut IncomingBatch),
    spool: &Arc<Spool>,
) -> Result<(), PayloadError> {
    let sections = batch.record.sections.clone();
    let begun = batch.rows.len() + batch.covers.len();
    for (number, section) in sections.iter().enumerate().skip(begun) {
        let framed = gather_section(broker, cache, &batch.record, number, section)
            .await
            .map_err(|e| without_stream(e, at))?;
        let whole = framed.len() as u64 == section.length && message_hash(&framed) == section.hash;
        if let Some(version) = frame::newer(&framed).filter(|_| whole) {
            return Err(PayloadError::Newer(version));
        }
        // A section that is not what its record says is damage that every node sees alike; what is added then does not open.
        let framed = if whole { framed } else { b"damaged".to_vec() };
        let blob = spool.put(framed.clone())?;
        batch.add_section(section.kind, &framed, blob);
    }
    Ok(())
}

/// Adds the bytes of a message that a record names as the piece `number` of its section `section`; `false` if it is something else, or a piece of
/// something else: then the broker has lost the piece, and what came later stands in its place. Whoever read the record before has had the piece, so the
/// batch is not damaged, but not to be had here.
#[must_use]
pub fn add_piece(
    message: &[u8],
    record: &CommitRecord,
    section: usize,
    number: usize,
    out: &mut Vec<u8>,
) -> bool {
    let Ok((Kind::Payload, body)) = frame::open(message) else {
        return false;
    };
    let Ok(piece) = payload::decode(&body) else {
        return false;
    };
    let of_this = (piece.node, piece.incarnation, piece.batch)
        == (record.node, record.incarnation, record.batch)
        && (piece.section as usize, piece.piece as usize) == (section, number);
    if of_this || planted!(AnyPieceWillDo) {
        out.extend_from_slice(piece.bytes);
        return true;
    }
    false
}

fn without_stream(error: PayloadError, batch: Sequence) -> PayloadError {
    match error {
        PayloadError::Stream(StreamError::StreamMissing { stream }) => {
            PayloadError::NoStream { stream, batch }
        }
        other => other,
    }
}

async fn gather_section(
    broker: &Broker,
    cache: &mut PieceCache,
    record: &CommitRecord,
    number: usize,
    section: &SectionRef,
) -> Result<Vec<u8>, PayloadError> {
    // The length is the publisher's word: no memory is taken on it.
    let mut out = Vec::new();
    for (at_window, window) in section.pieces.chunks(WINDOW).enumerate() {
        let mut found: BTreeMap<usize, Bytes> = BTreeMap::new();
        let mut fetching = JoinSet::new();
        for (i, &at) in window.iter().enumerate() {
            match Some(at)
                .filter(|_| section.shard == ShardId::ORDER)
                .and_then(|at| cache.take(at))
            {
                Some(message) => {
                    found.insert(i, message);
                }
                None => {
                    let (broker, shard) = (broker.clone(), section.shard);
                    fetching.spawn(async move {
                        (i, at, broker.fetch(shard, at, FETCH_DEADLINE).await)
                    });
                }
            }
        }
        for (i, sequence, fetched) in fetching.join_all().await {
            let message = fetched?.ok_or(PayloadError::Missing {
                shard: section.shard,
                sequence,
            })?;
            found.insert(i, message.payload);
        }
        for (i, message) in found {
            if let Some(version) = frame::newer(&message) {
                return Err(PayloadError::Newer(version));
            }
            let piece = at_window * WINDOW + i;
            if !add_piece(&message, record, number, piece, &mut out) {
                return Err(PayloadError::Missing {
                    shard: section.shard,
                    sequence: window.get(i).copied().unwrap_or_default(),
                });
            }
            // A record may repeat a piece a million times; its section is damaged as soon as it is longer than it says or can be.
            if out.len() as u64 > section.length.min(LONGEST_SECTION) {
                return Ok(out);
            }
        }
    }
    Ok(out)
}
