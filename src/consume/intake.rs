//! Reads the order stream, opens its messages and completes batches, ahead of the loop that applies them.
//!
//! Invariants: messages are handed over in stream order, none twice; what waits is bounded in number and bytes; a message is never skipped because
//! something failed: it is tried again until it can be had.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::payload::{self, PayloadError, PieceCache};
use crate::apply::incoming::{self, Body, Incoming};
use crate::apply::order;
use crate::change::position::ShardId;
use crate::cluster::way::Reading;
use crate::codec::spool::{IN_MEMORY, Spool};
use crate::engine::Engine;
use crate::history::mend::mend;
use crate::history::standing::{self, Standing};
use crate::http::status::Component;
use crate::runtime::Backoff;
use crate::state::node::Position;
use crate::state::publishers::Publishers;
use crate::stream::{Broker, StoredMessage, continuity};

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
    publishers: Publishers,
    out: mpsc::Sender<Waiting>,
) {
    read(&engine, &broker, from, publishers, &out).await;
    engine.way.set_reading(Reading::Not);
    out.closed().await;
}

/// Reads until the receiver is gone, or until this life of the daemon is over.
async fn read(
    engine: &Arc<Engine>,
    broker: &Broker,
    from: Position,
    mut publishers: Publishers,
    out: &mpsc::Sender<Waiting>,
) {
    let bytes = Arc::new(Semaphore::new(QUEUE_BYTES));
    let mut position = from;
    let mut cache = PieceCache::default();
    let folder: PathBuf = engine.config.folder().to_owned();
    let depth = engine.metrics.queues.queue("apply_bytes", QUEUE_BYTES).ok();
    loop {
        engine.way.set_reading(Reading::Looking(Instant::now()));
        let halted = match verify(broker, position).await {
            Standing::Holds => None,
            Standing::Trimmed(why) if engine.config.snapshot.enabled && engine.config.replicate => {
                engine.begin_again(&why);
                return;
            }
            Standing::Trimmed(why) => Some(why),
            Standing::Broken(why) => match mend(engine, broker, why).await {
                Ok(()) => return,
                Err(why) => Some(why),
            },
        };
        if halted.is_some() {
            engine.way.set_reading(Reading::Not);
            engine.halt(halted);
            tokio::select! {
                () = out.closed() => return,
                () = tokio::time::sleep(LOOK_AGAIN) => continue,
            }
        }
        engine.halt(None);
        let mut reader = broker.reader(ShardId::ORDER, position.sequence.next());
        engine.way.set_reading(Reading::With(reader.health()));
        let mut link = broker.on_reconnect();
        link.mark_unchanged();
        loop {
            if let Some(depth) = &depth {
                let used = QUEUE_BYTES.saturating_sub(bytes.available_permits());
                depth.set(i64::try_from(used).unwrap_or(i64::MAX));
            }
            let next = tokio::select! {
                () = out.closed() => return,
                // After each reconnect the history is compared again.
                _ = link.changed() => {
                    if link.borrow().connected { break } else { continue }
                }
                next = reader.next() => next,
                // A stream that is gone is no fault of the reader's, which would wait for it for ever.
                () = tokio::time::sleep(LOOK_AGAIN) => {
                    if reader.health().snapshot().trouble.is_some() { break } else { continue }
                }
            };
            let message = match next {
                Ok(message) => message,
                Err(e) => {
                    engine.status.failed(Component::Apply, &e);
                    tokio::time::sleep(LOOK_AGAIN / 10).await;
                    break;
                }
            };
            engine.metrics.messages_read.inc();
            engine
                .metrics
                .read_bytes
                .inc_by(message.payload.len() as u64);
            engine
                .way
                .timeline
                .note(message.sequence, message.timestamp_nanos);
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
                    if order::admit(&mut publishers, &batch.record, message.sequence) {
                        let spool = Arc::new(Spool::new(folder.clone()));
                        let mut backoff =
                            Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
                        let at = message.sequence;
                        let mut missing = false;
                        while let Err(e) =
                            payload::gather(broker, &mut cache, (at, batch), &spool).await
                        {
                            if let PayloadError::Newer(version) = e {
                                newer = Some(version);
                                break;
                            }
                            if tokio::task::block_in_place(|| engine.replica().skips(at)) {
                                // It is void, or an operator wants to go on without its rows.
                                break;
                            }
                            engine.status.failed(Component::Apply, &e);
                            if matches!(e, PayloadError::NoStream { .. }) && backoff.tries() == 0 {
                                tracing::error!(position = at.0, "applying stands still: {e}");
                            }
                            if matches!(e, PayloadError::Missing { .. }) {
                                match mend(engine, broker, e.to_string()).await {
                                    Ok(()) => return,
                                    Err(why) => engine.halt(Some(why)),
                                }
                                missing = true;
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

/// Whether the stream is still the one that was read up to `position`. Waits for a broker that does not answer.
async fn verify(broker: &Broker, position: Position) -> Standing {
    const AGAIN: Duration = Duration::from_millis(200);
    loop {
        // Not compared is not equal: only an answer lets this node go on. The reader waits for the broker, and shows in health.
        match standing::look(broker, position).await {
            Ok(standing) => return standing,
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
