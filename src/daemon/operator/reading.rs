//! The messages of a replay on their way from the stream to the fold: read ahead of the transaction, put aside outside of memory, and judged as at the
//! first time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{FETCH, refuse};
use crate::apply::incoming::{self, Body, IncomingBatch};
use crate::apply::order::{Verdict, judge};
use crate::change::position::{BatchNumber, NodeId, Sequence, ShardId};
use crate::cli::exit::ExitCode;
use crate::codec::commit::SectionKind;
use crate::codec::spool::{Blob, Spool};
use crate::consume::payload::{self, PieceCache};
use crate::control::{Refusal, Reply};
use crate::state::publishers::{LastTaken, Publishers};
use crate::stream::{Broker, StreamError};

/// How often progress is told.
const TELL: Duration = Duration::from_secs(2);

/// A message that was read, put aside.
pub(super) struct Kept {
    at: Sequence,
    message: Blob,
    /// Its sections, framed, as they are folded.
    sections: Vec<(SectionKind, Blob)>,
    /// Whether it is in the range, or only before it.
    wanted: bool,
}

/// Messages on their way from the stream to the fold, outside of memory.
pub(super) struct Reading {
    pub(super) broker: Broker,
    pub(super) spool: Arc<Spool>,
    pub(super) cache: PieceCache,
    /// The first message that is wanted.
    pub(super) first: Sequence,
    /// The next to be read.
    pub(super) next: Sequence,
    pub(super) kept: VecDeque<Kept>,
    /// Every commit record read: whose, and where.
    pub(super) records: Vec<(Sequence, LastTaken, NodeId)>,
    pub(super) told: Instant,
}

impl Reading {
    /// Reads on, up to and with `last`.
    pub(super) async fn up_to(
        &mut self,
        last: Sequence,
        reply: Option<&Reply>,
    ) -> Result<(), Refusal> {
        if self.next > last {
            return Ok(());
        }
        let unavailable = |e: StreamError| refuse(ExitCode::Unavailable, e.to_string());
        let mut reader = self.broker.reader(ShardId::ORDER, self.next);
        while self.next <= last {
            let Ok(next) = tokio::time::timeout(FETCH, reader.next()).await else {
                // Removed from the very end of the stream, where no later message tells the reader of it?
                let fetched = self.broker.fetch(ShardId::ORDER, self.next, FETCH).await;
                if fetched.map_err(unavailable)?.is_some() {
                    return Err(refuse(
                        ExitCode::Unavailable,
                        format!("message {} does not come: nothing was changed", self.next),
                    ));
                }
                self.next = self.next.next();
                reader = self.broker.reader(ShardId::ORDER, self.next);
                continue;
            };
            let message = next.map_err(unavailable)?;
            let at = message.sequence;
            if at > last {
                break;
            }
            self.next = at.next();
            let mut opened = incoming::open(at, &message.payload);
            match &mut opened.body {
                Body::Payload => self.cache.keep(at, message.payload.clone()),
                Body::Batch(batch) => {
                    self.records.push((
                        at,
                        LastTaken {
                            incarnation: batch.record.incarnation,
                            batch: batch.record.batch,
                            sequence: at,
                        },
                        batch.record.node,
                    ));
                    self.keep_batch(at, message.payload.to_vec(), batch).await?;
                }
                Body::Newer(_) => self.keep(at, message.payload.to_vec(), Vec::new())?,
                Body::Marker(_) | Body::Unreadable { .. } => {}
            }
            if let Some(reply) = reply.filter(|_| self.told.elapsed() >= TELL) {
                self.told = Instant::now();
                reply.progress(format!("read up to message {at} of {last}"));
            }
        }
        Ok(())
    }

    async fn keep_batch(
        &mut self,
        at: Sequence,
        message: Vec<u8>,
        batch: &mut IncomingBatch,
    ) -> Result<(), Refusal> {
        let mut sections = Vec::new();
        if at >= self.first {
            payload::gather(&self.broker, &mut self.cache, (at, batch), &self.spool)
                .await
                .map_err(|e| refuse(ExitCode::Failed, format!("message {at}: {e}")))?;
            let rows = batch.rows.iter().map(|b| (SectionKind::Rows, b.clone()));
            let covers = batch
                .covers
                .iter()
                .map(|b| (SectionKind::Covers, b.clone()));
            sections = rows.chain(covers).collect();
        }
        self.keep(at, message, sections)
    }

    fn keep(
        &mut self,
        at: Sequence,
        message: Vec<u8>,
        sections: Vec<(SectionKind, Blob)>,
    ) -> Result<(), Refusal> {
        if at < self.first {
            return Ok(());
        }
        let message = self
            .spool
            .put(message)
            .map_err(|e| refuse(ExitCode::Io, format!("could not put messages aside: {e}")))?;
        self.kept.push_back(Kept {
            at,
            message,
            sections,
            wanted: true,
        });
        Ok(())
    }

    /// The next message that counted when it was folded the first time.
    pub(super) fn give(&mut self) -> std::io::Result<Option<incoming::Incoming>> {
        if !self.records.is_empty() {
            let taken = taken(&std::mem::take(&mut self.records));
            for kept in &mut self.kept {
                kept.wanted = taken.binary_search(&kept.at).is_ok();
            }
        }
        while let Some(kept) = self.kept.pop_front() {
            let mut opened = incoming::open(kept.at, &kept.message.read()?);
            match &mut opened.body {
                Body::Batch(_) if !kept.wanted => continue,
                Body::Batch(batch) => {
                    for (kind, blob) in kept.sections {
                        batch.add_section(kind, &blob.read()?, blob);
                    }
                }
                _ => {}
            }
            return Ok(Some(opened));
        }
        Ok(None)
    }
}

/// Which of these records counted: the same verdict as at the first time, from what stands before them. The first batch seen of a publisher is taken to
/// follow the one before it, and a lower one that comes later (a resend after a gap) to come first.
fn taken(records: &[(Sequence, LastTaken, NodeId)]) -> Vec<Sequence> {
    let mut publishers = Publishers::new();
    for (_, record, node) in records {
        let least = publishers.entry(*node).or_insert(*record);
        if least.incarnation == record.incarnation {
            least.batch = least.batch.min(record.batch);
        }
    }
    for last in publishers.values_mut() {
        last.batch = BatchNumber(last.batch.0.saturating_sub(1));
    }
    let mut out = Vec::new();
    for (at, record, node) in records {
        let verdict = judge(publishers.get(node), record.incarnation, record.batch);
        if verdict == Verdict::Take {
            publishers.insert(*node, *record);
            out.push(*at);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::position::Incarnation;

    /// Which of these (node, incarnation, batch) counted, as places from 1.
    fn places(records: &[(u64, u64, u64)]) -> Vec<u64> {
        let records: Vec<_> = records
            .iter()
            .zip(1..)
            .map(|(&(node, counter, batch), at)| {
                let last = LastTaken {
                    incarnation: Incarnation { counter, nonce: 1 },
                    batch: BatchNumber(batch),
                    sequence: Sequence(at),
                };
                (Sequence(at), last, NodeId(node))
            })
            .collect();
        taken(&records).into_iter().map(|s| s.0).collect()
    }

    #[test]
    fn what_counted_the_first_time_counts_again() {
        // Two publishers, one of which begins anew.
        assert_eq!(
            places(&[(1, 1, 7), (2, 5, 1), (1, 1, 8), (1, 2, 1), (2, 5, 2)]),
            [1, 2, 3, 4, 5]
        );
        // A resend is a duplicate; what came before a lost one counts only after it.
        assert_eq!(places(&[(1, 1, 7), (1, 1, 7), (1, 1, 8)]), [1, 3]);
        assert_eq!(
            places(&[(1, 1, 8), (1, 1, 9), (1, 1, 7), (1, 1, 8), (1, 1, 9)]),
            [3, 4, 5]
        );
        // A former life is over.
        assert_eq!(places(&[(1, 2, 1), (1, 1, 9), (1, 2, 2)]), [1, 3]);
    }
}
