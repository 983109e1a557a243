//! Reads the order stream, opens its messages and completes batches, ahead of the loop that applies them.
//!
//! Invariants: messages are handed over in stream order, none twice; what waits is bounded in number and bytes; a message is never skipped because
//! something failed: it is tried again until it can be had.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::payload::{self, PayloadError, PieceCache};
use crate::apply::incoming::{self, Body, Incoming};
use crate::apply::order::{Verdict, judge_record};
use crate::change::position::{Sequence, ShardId};
use crate::codec::frame::message_hash;
use crate::codec::spool::{IN_MEMORY, Spool};
use crate::engine::Engine;
use crate::http::status::Component;
use crate::runtime::Backoff;
use crate::state::node::Position;
use crate::state::publishers::{LastTaken, Publishers};
use crate::stream::{Broker, StoredMessage, StreamError, continuity};

/// Messages that wait to be applied.
pub const QUEUE: usize = 4096;

/// Bytes of them.
pub const QUEUE_BYTES: usize = 32 << 20;

/// How long a broken history is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A message that waits to be applied; its bytes count against the queue's bound until it is dropped.
pub struct Waiting {
    message: Incoming,
    bytes: OwnedSemaphorePermit,
}

impl Waiting {
    /// The message, and what holds its bytes in the queue.
    pub fn into_parts(self) -> (Incoming, OwnedSemaphorePermit) {
        (self.message, self.bytes)
    }
}

/// Reads from `from` on until the receiver is gone.
pub async fn run(
    engine: Arc<Engine>,
    broker: Broker,
    from: Position,
    mut publishers: Publishers,
    out: mpsc::Sender<Waiting>,
) {
    let bytes = Arc::new(Semaphore::new(QUEUE_BYTES));
    let mut position = from;
    let mut cache = PieceCache::default();
    let folder: PathBuf = engine.config.folder().to_owned();
    loop {
        if let Err(broken) = verify(&broker, position).await {
            if broken.restores && engine.config.snapshot.enabled && engine.config.replicate {
                engine.begin_again(&broken.reason);
                return out.closed().await;
            }
            engine.halt(Some(broken.reason));
            tokio::select! {
                () = out.closed() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => continue,
            }
        }
        engine.halt(None);
        let mut reader = broker.reader(ShardId::ORDER, position.sequence.next());
        let mut link = broker.on_reconnect();
        link.mark_unchanged();
        loop {
            let next = tokio::select! {
                () = out.closed() => return,
                // After each reconnect the history is compared again.
                _ = link.changed() => {
                    if link.borrow().connected { break } else { continue }
                }
                next = reader.next() => next,
            };
            engine
                .metrics
                .stream_last
                .set(ShardId::ORDER, reader.health().snapshot().stream_last.0);
            let message = match next {
                Ok(message) => message,
                Err(e) => {
                    engine.status.failed(Component::Apply, &e);
                    tokio::time::sleep(LOOK_AGAIN / 10).await;
                    break;
                }
            };
            let mut opened = incoming::open(message.sequence, &message.payload);
            opened.hash = continuity::fingerprint(opened.hash, message.timestamp_nanos);
            let weight = u32::try_from(weigh(&opened, &message)).unwrap_or(u32::MAX);
            let Ok(permit) = Arc::clone(&bytes).acquire_many_owned(weight).await else {
                return;
            };
            let mut newer = None;
            match &mut opened.body {
                Body::Payload => cache.keep(message.sequence, message.payload.clone()),
                Body::Batch(batch) => {
                    if judge_record(&publishers, &batch.record) == Verdict::Take {
                        publishers.insert(
                            batch.record.node,
                            LastTaken {
                                incarnation: batch.record.incarnation,
                                batch: batch.record.batch,
                                sequence: message.sequence,
                            },
                        );
                        let spool = Arc::new(Spool::new(folder.clone()));
                        let mut backoff =
                            Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
                        let mut missing = false;
                        while let Err(e) = payload::gather(&broker, &mut cache, batch, &spool).await
                        {
                            if let PayloadError::Newer(version) = e {
                                newer = Some(version);
                                break;
                            }
                            if matches!(e, PayloadError::Missing { .. }) {
                                missing = true;
                                engine.halt(Some(e.to_string()));
                            }
                            engine.status.failed(Component::Apply, &e);
                            let at = message.sequence;
                            if tokio::task::block_in_place(|| engine.replica().skips(at)) {
                                // An operator wants to go on without its rows.
                                break;
                            }
                            tokio::select! {
                                () = out.closed() => return,
                                () = tokio::time::sleep(backoff.next_wait()) => {}
                            }
                        }
                        if missing {
                            engine.halt(None);
                        }
                    }
                }
                Body::Marker(_) | Body::Unreadable { .. } | Body::Newer(_) => {}
            }
            if let Some(version) = newer {
                opened.body = Body::Newer(version);
            }
            position = Position {
                sequence: opened.sequence,
                hash: opened.hash,
                ..position
            };
            if out
                .send(Waiting {
                    message: opened,
                    bytes: permit,
                })
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// Bytes of memory that a message may hold until it is applied: what it is once decompressed, and what its spool keeps in memory.
fn weigh(opened: &Incoming, message: &StoredMessage) -> usize {
    let decoded = match &opened.body {
        Body::Batch(b) => {
            let sections = b
                .record
                .sections
                .iter()
                .fold(0_u64, |sum, s| sum.saturating_add(s.length));
            b.record.rows.len()
                + b.record.covers.len()
                + usize::try_from(sections.min(IN_MEMORY)).unwrap_or(QUEUE_BYTES)
        }
        // Pieces are bounded where they are kept.
        Body::Payload | Body::Marker(_) | Body::Newer(_) => 0,
        Body::Unreadable { .. } => message.payload.len(),
    };
    decoded.clamp(1, QUEUE_BYTES)
}

/// Why reading cannot go on.
struct Broken {
    reason: String,
    /// A snapshot mends it.
    restores: bool,
}

/// Whether the stream is still the one that was read up to `position`; otherwise why not, and what to do. Waits for a broker that does not answer.
async fn verify(broker: &Broker, position: Position) -> Result<(), Broken> {
    const FETCH_DEADLINE: Duration = Duration::from_secs(5);
    const AGAIN: Duration = Duration::from_millis(200);
    let stream = broker.stream_name(ShardId::ORDER);
    loop {
        let state = match broker.stream_state(ShardId::ORDER).await {
            Ok(state) => state,
            Err(StreamError::StreamMissing { .. }) => {
                return Err(Broken {
                    reason: format!(
                        "stream {stream} is gone, of which this node has folded {} messages: bring it back from a backup of the broker",
                        position.sequence
                    ),
                    restores: false,
                });
            }
            // The reader waits for the broker, and shows in health.
            Err(_) => {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let held = (state.first..=state.last).contains(&position.sequence);
        let there = match position.sequence {
            at if at > Sequence(0) && held => {
                match broker.fetch(ShardId::ORDER, at, FETCH_DEADLINE).await {
                    Ok(message) => message.map(|m| {
                        continuity::fingerprint(message_hash(&m.payload), m.timestamp_nanos)
                    }),
                    // Not compared is not equal: only an answer lets this node go on.
                    Err(_) => {
                        tokio::time::sleep(AGAIN).await;
                        continue;
                    }
                }
            }
            _ => None,
        };
        return continuity::compare(&stream, &state, position.sequence, position.hash, there)
            .map_err(|e| Broken {
                reason: e.to_string(),
                restores: matches!(e, continuity::Broken::Trimmed { .. }),
            });
    }
}
