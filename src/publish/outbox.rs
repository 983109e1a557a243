//! The messages of a batch, one after the other: first its payload, many in flight; when all of that is stored, its commit record.
//!
//! Invariants: the commit record is made once, so that a resend sends identical bytes; it names every piece by the sequence that the broker gave it,
//! so a publisher that dies half way leaves payload that nothing names.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;

use super::gate::MARGIN;
use crate::change::position::{Sequence, ShardId};
use crate::codec::batch::Batch;
use crate::codec::commit::{self, SectionRef};
use crate::codec::frame::{Kind, Sealer};
use crate::codec::payload::{self, Payload};

/// Bytes that a message takes in a stream beside what it carries, at most: our heads, the server's, and a subject.
const ENVELOPE: usize = payload::OVERHEAD + 256;

/// A piece of a section: which bytes of which section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    section: usize,
    piece: usize,
    from: usize,
    to: usize,
}

/// A batch on its way out.
#[derive(Debug)]
pub struct Outbox {
    batch: Batch,
    pieces: Vec<(Piece, Option<Sequence>)>,
    commit: Option<Bytes>,
    sent_bytes: u64,
    /// When the first piece that counts was sent.
    since: Option<Instant>,
}

impl Outbox {
    /// Cuts a batch into messages.
    #[must_use]
    pub fn new(batch: Batch) -> Self {
        let size = batch.limits.piece_bytes();
        let mut pieces = Vec::new();
        for (section, s) in batch.sections.iter().enumerate() {
            let length = s.frame.len();
            for piece in 0..length.div_ceil(size) {
                pieces.push((
                    Piece {
                        section,
                        piece,
                        from: piece * size,
                        to: ((piece + 1) * size).min(length),
                    },
                    None,
                ));
            }
        }
        Self {
            batch,
            pieces,
            commit: None,
            sent_bytes: 0,
            since: None,
        }
    }

    /// The batch.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Bytes of all messages made so far.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// The messages that it takes: its pieces and its commit record.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.pieces.len() + 1
    }

    /// The pieces that are not known to be stored, by number.
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        self.pieces
            .iter()
            .enumerate()
            .filter(|(_, (_, stored))| stored.is_none())
            .map(|(i, _)| i)
            .collect()
    }

    /// The message of a piece and the shard that it goes to.
    ///
    /// # Errors
    /// The spool's.
    pub fn piece(&mut self, number: usize) -> std::io::Result<Option<(ShardId, Bytes)>> {
        let Some((piece, _)) = self.pieces.get(number).copied() else {
            return Ok(None);
        };
        let Some(section) = self.batch.sections.get(piece.section) else {
            return Ok(None);
        };
        let frame = section.frame.read()?;
        let record = &self.batch.record;
        let body = payload::encode(&Payload {
            node: record.node,
            incarnation: record.incarnation,
            batch: record.batch,
            section: u32::try_from(piece.section).unwrap_or(u32::MAX),
            piece: u32::try_from(piece.piece).unwrap_or(u32::MAX),
            bytes: frame.get(piece.from..piece.to).unwrap_or_default(),
        });
        // The section is compressed already.
        let message = Sealer::new(false, 0).seal(Kind::Payload, &body);
        self.sent_bytes += message.len() as u64;
        Ok(Some((section.shard, message.into())))
    }

    /// Bytes that it takes of each shard's stream, with the commit record.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<ShardId, u64> {
        let record = &self.batch.record;
        let mut shares = BTreeMap::from([(
            ShardId::ORDER,
            (record.rows.len() + record.covers.len() + ENVELOPE) as u64,
        )]);
        if !self.pieces.is_empty() {
            *shares.entry(ShardId::ORDER).or_default() += MARGIN;
        }
        for (piece, _) in &self.pieces {
            if let Some(section) = self.batch.sections.get(piece.section) {
                let bytes = piece.to.saturating_sub(piece.from) + ENVELOPE;
                *shares.entry(section.shard).or_default() += bytes as u64;
            }
        }
        shares
    }

    /// When the first piece that counts was sent; `None`: none was.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// The broker has stored a piece that was sent at `sent`.
    pub fn stored(&mut self, number: usize, at: Sequence, sent: Instant) {
        self.since = Some(self.since.map_or(sent, |since| since.min(sent)));
        if let Some((_, stored)) = self.pieces.get_mut(number) {
            *stored = Some(at);
        }
    }

    /// Everything is to be sent again: the broker has lost what came before. A second copy of what it has not lost is harmless, since readers take the first.
    pub fn renew(&mut self) {
        if !self.pieces.is_empty() {
            self.commit = None;
            self.since = None;
            for (_, stored) in &mut self.pieces {
                *stored = None;
            }
        }
    }

    /// The commit record's message; `None` while payload is missing.
    pub fn commit(&mut self) -> Option<Bytes> {
        if self.commit.is_none() {
            if self.pieces.iter().any(|(_, stored)| stored.is_none()) {
                return None;
            }
            let mut record = self.batch.record.clone();
            record.sections = self
                .batch
                .sections
                .iter()
                .enumerate()
                .map(|(i, s)| SectionRef {
                    kind: s.kind,
                    shard: s.shard,
                    pieces: self
                        .pieces
                        .iter()
                        .filter(|(p, _)| p.section == i)
                        .filter_map(|(_, stored)| *stored)
                        .collect(),
                    length: s.frame.len() as u64,
                    hash: s.hash,
                })
                .collect();
            let mut sealer = Sealer::new(
                self.batch.limits.compress,
                self.batch.limits.compress_min_bytes,
            );
            let message = Bytes::from(sealer.seal(Kind::Commit, &commit::encode(&record)));
            self.sent_bytes += message.len() as u64;
            self.commit = Some(message);
        }
        self.commit.clone()
    }
}
