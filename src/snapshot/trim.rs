//! What may be removed from the streams, and removing it.
//!
//! ```text
//!   order stream   1 ……… cut │ cut+1 ……… snapshot ……… last         a node reads on from its position, or from a snapshot: above the cut
//!   other shards   1 … cut_k │ what records above the cut name
//! ```
//!
//! Who may still need a message? A node at position P, or one that restores a snapshot of position P, reads the records above P and the payload that
//! these name, nothing else. So everything is right as long as
//! 1. the cut is below the position of a verified snapshot, whose message stays so that the stream is known by it (read back and hashed): whoever finds the stream beginning above its position restores
//!    that one, or a newer one. In ordinary times the cut stays at the verified snapshot *before* the newest, so that a newest one which is damaged later
//!    can be done without; only above the soft limit the newest counts.
//! 2. no record above the cut names payload that is gone. [`Scan`] reads every record that stands in the order stream: where one above the cut names a
//!    piece below it, the cut goes below that piece ([`Scan::cut`]). A record that comes later can only name pieces of a batch that is not taken
//!    yet. Every piece says whose it is; one whose batch is taken (or its publisher's later batch, or one of a later incarnation) is never named by a
//!    record that counts and that is not there already. All other pieces of living nodes stay.
//! 3. A node that was silent for long enough not to be living may come back with payload of a batch under way. It sends all of it again before it sends the
//!    record ([`crate::publish::gate`]): such pieces are at the stream's end, above any snapshot that was verified before they came.
//!
//! Positions of living nodes and `max_entries` are no matter of safety: they save a node that is a little behind the restore. Above the soft
//! limit they count for nothing.

use std::collections::BTreeMap;

use super::cut::Scan;
use super::presence::Living;
use super::streams::{NEXT, Streams};
use crate::change::history::History;
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence, ShardId};
use crate::codec::commit;
use crate::codec::frame::{self, FrameError, Kind};
use crate::codec::payload;
use crate::config::ReplicationLogConfig;
use crate::planted::planted;
use crate::state::publishers::Publishers;
use crate::stream::{StoredMessage, StreamError};

/// Messages of one stream that are considered in one go: bounds what is remembered of them to a few MiB.
const WINDOW: u64 = 250_000;

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The broker.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A message of a later format may name anything.
    #[error(
        "message {at} of shard {shard} has format version {version}, which this program does not know: nothing is trimmed by this node; upgrade it"
    )]
    Newer {
        /// The shard.
        shard: ShardId,
        /// The message.
        at: Sequence,
        /// Its version.
        version: u8,
    },
    /// A message that the stream says it has does not come.
    #[error("message {at} of shard {shard} did not come within {} s", NEXT.as_secs())]
    NotRead {
        /// The shard.
        shard: ShardId,
        /// The message.
        at: Sequence,
    },
}

/// What is known when trimming begins. All of it was read before the streams are.
#[derive(Debug)]
pub struct Known<'a> {
    /// What was taken of each publisher.
    pub publishers: Publishers,
    /// Who is there, and where.
    pub living: &'a Living,
    /// The history that all positions are of.
    pub history: History,
    /// The position that a verified snapshot covers.
    pub covered: Sequence,
    /// A stream is above its soft limit: only the snapshot counts.
    pub unblock: bool,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Messages of all shards.
    pub messages: u64,
    /// Their bytes, as far as others did not publish meanwhile.
    pub bytes: u64,
}

/// Whose a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    node: NodeId,
    incarnation: Incarnation,
    batch: BatchNumber,
}

impl Known<'_> {
    /// How far the order stream may go by what anybody still reads of it.
    #[must_use]
    pub fn bound(&self, last: Sequence, kept: Sequence) -> Sequence {
        // The message at a position stays: by it whoever stands there, or restores a snapshot of it, knows the stream again, or sees that it is another.
        let before = |at: Sequence| Sequence(at.0.saturating_sub(1));
        if self.unblock {
            return before(self.covered).min(last);
        }
        let behind = self.living.least_position(self.history).unwrap_or(last);
        if planted!(TrimsPastTheSnapshot) {
            return behind.min(kept).min(last);
        }
        before(self.covered.min(behind)).min(kept).min(last)
    }

    /// Whether a record that names the piece may still come.
    fn may_still_be_named(&self, piece: Owner) -> bool {
        if planted!(OpenPayloadTrimmed) {
            return false;
        }
        let Some(present) = self.living.get(piece.node) else {
            return false;
        };
        let ended = |now: Incarnation| now.counter > piece.incarnation.counter;
        // Until a later life's batch stands in the stream, a record of this one counts when it comes. Where room must be made it is taken not to come: the next
        // life has announced itself. If it does, the history has broken.
        if self.unblock && present.incarnation.is_some_and(ended) {
            return false;
        }
        self.publishers.get(&piece.node).is_none_or(|taken| {
            let past = ended(taken.incarnation)
                || (taken.incarnation == piece.incarnation && taken.batch >= piece.batch);
            !past
        })
    }
}

/// What a message is, as far as trimming goes.
enum Seen {
    /// A record, and the first piece that it names in each shard.
    Record(BTreeMap<ShardId, Sequence>),
    /// A piece.
    Piece(Owner),
    /// Nothing that anybody needs.
    Other,
}

fn look(shard: ShardId, message: &StoredMessage) -> Result<Seen, TrimError> {
    Ok(match frame::open(&message.payload) {
        Ok((Kind::Commit, body)) => {
            let mut firsts = BTreeMap::new();
            if let Ok(record) = commit::decode(&body) {
                for section in record.sections {
                    for piece in section.pieces {
                        let first = firsts.entry(section.shard).or_insert(piece);
                        *first = piece.min(*first);
                    }
                }
            }
            Seen::Record(firsts)
        }
        Ok((Kind::Payload, body)) => match payload::decode(&body) {
            Ok(piece) => Seen::Piece(Owner {
                node: piece.node,
                incarnation: piece.incarnation,
                batch: piece.batch,
            }),
            Err(_) => Seen::Other,
        },
        Err(FrameError::Newer(version)) => {
            return Err(TrimError::Newer {
                shard,
                at: message.sequence,
                version,
            });
        }
        Ok(_) | Err(_) => Seen::Other,
    })
}

/// Removes what nobody needs.
///
/// # Errors
/// See [`TrimError`]; what was removed until then was allowed to go.
pub async fn trim(
    streams: &impl Streams,
    config: &ReplicationLogConfig,
    known: &Known<'_>,
) -> Result<Trimmed, TrimError> {
    let state = streams.state(ShardId::ORDER).await?;
    let kept = if known.unblock {
        state.last
    } else {
        kept_entries(streams, config, ShardId::ORDER, state.last, known).await?
    };
    let bound = known
        .bound(state.last, kept)
        .min(Sequence(state.first.0.saturating_add(WINDOW)));
    let mut trimmed = Trimmed::default();
    if bound < state.first {
        return Ok(trimmed);
    }
    let mut scan = Scan::new(bound);
    streams
        .read(ShardId::ORDER, state.first, state.last, |message| {
            let at = message.sequence;
            match look(ShardId::ORDER, message)? {
                Seen::Record(firsts) => {
                    for (shard, first) in firsts {
                        scan.record(at, shard, first);
                    }
                }
                Seen::Piece(owner) if at <= bound && known.may_still_be_named(owner) => {
                    scan.open(at)
                }
                Seen::Piece(_) | Seen::Other => {}
            }
            Ok(true)
        })
        .await?;
    let cut = scan.cut();
    if cut >= state.first {
        purge(streams, ShardId::ORDER, cut, &mut trimmed).await?;
    }
    for shard in (2..=config.shards.max(scan.shards())).map(ShardId) {
        let state = match streams.state(shard).await {
            Ok(state) => state,
            // A node with more shards has named it, and it was removed since.
            Err(StreamError::StreamMissing { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let mut upper = match scan.named_above(cut, shard) {
            Some(first) => Sequence(first.0.saturating_sub(1)),
            None => state.last,
        }
        .min(Sequence(state.first.0.saturating_add(WINDOW)));
        if !known.unblock {
            upper = upper.min(kept_entries(streams, config, shard, state.last, known).await?);
        }
        if upper < state.first {
            continue;
        }
        let mut free = Sequence(state.first.0.saturating_sub(1));
        streams
            .read(shard, state.first, upper.min(state.last), |message| {
                match look(shard, message)? {
                    Seen::Piece(owner) if known.may_still_be_named(owner) => return Ok(false),
                    Seen::Record(_) | Seen::Piece(_) | Seen::Other => free = message.sequence,
                }
                Ok(true)
            })
            .await?;
        if free >= state.first {
            purge(streams, shard, free, &mut trimmed).await?;
        }
    }
    Ok(trimmed)
}

/// What `max_entries` and `max_age` leave to be removed of a shard.
async fn kept_entries(
    streams: &impl Streams,
    config: &ReplicationLogConfig,
    shard: ShardId,
    last: Sequence,
    known: &Known<'_>,
) -> Result<Sequence, StreamError> {
    let many = Sequence(last.0.saturating_sub(config.max_entries));
    if config.max_age.is_zero() {
        return Ok(many);
    }
    let aged = streams
        .older_than(shard, config.max_age, known.living.now)
        .await?;
    Ok(aged.map_or(many, |aged| aged.max(many)))
}

async fn purge(
    streams: &impl Streams,
    shard: ShardId,
    cut: Sequence,
    trimmed: &mut Trimmed,
) -> Result<(), StreamError> {
    let before = streams.state(shard).await?;
    trimmed.messages += streams.purge(shard, cut).await?;
    let after = streams.state(shard).await?;
    trimmed.bytes += before.bytes.saturating_sub(after.bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::presence::Present;
    use super::*;
    use crate::state::publishers::LastTaken;

    #[test]
    fn a_piece_is_open_until_its_batch_is_taken_or_its_publisher_has_ended() {
        let incarnation = |counter| Incarnation { counter, nonce: 1 };
        let present = |now| Present {
            position: Some(Sequence(5)),
            incarnation: now,
            wanted: 0,
            history: History::FIRST,
            keeps_much: false,
            gone: false,
        };
        let living = Living {
            nodes: [
                (NodeId(1), present(Some(incarnation(4)))),
                (NodeId(2), present(None)),
            ]
            .into(),
            now: 0,
        };
        let taken = LastTaken {
            incarnation: incarnation(3),
            batch: BatchNumber(7),
            sequence: Sequence(1),
        };
        let known = Known {
            publishers: [(NodeId(1), taken), (NodeId(2), taken)].into(),
            living: &living,
            history: History::FIRST,
            covered: Sequence(9),
            unblock: false,
        };
        let named = |node, counter, batch| {
            known.may_still_be_named(Owner {
                node: NodeId(node),
                incarnation: incarnation(counter),
                batch: BatchNumber(batch),
            })
        };
        // It has begun anew since, but a record of its life before may be under way.
        assert!(named(1, 3, 8));
        assert!(named(1, 4, 1));
        assert!(named(2, 3, 8));
        assert!(!named(2, 3, 7) && !named(2, 2, 9));
        // Silent.
        assert!(!named(3, 3, 8));
        assert_eq!(known.bound(Sequence(20), Sequence(20)), Sequence(4));
        assert_eq!(known.bound(Sequence(20), Sequence(2)), Sequence(2));
        let unblock = Known {
            unblock: true,
            ..known
        };
        assert_eq!(unblock.bound(Sequence(20), Sequence(2)), Sequence(8));
        let before = Owner {
            node: NodeId(1),
            incarnation: incarnation(3),
            batch: BatchNumber(8),
        };
        assert!(!unblock.may_still_be_named(before));
    }
}
