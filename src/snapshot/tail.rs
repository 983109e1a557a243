//! The end of the log that a snapshot cannot free by itself.
//!
//! ```text
//!   order stream   1 ……… R │                    a snapshot at R leaves R, and all payload that R names
//!   order stream   1 ……… R   marker │           one at the marker leaves the marker
//! ```
//!
//! The message at which a snapshot stands stays in the stream, so that the stream is known by it. Where that is a commit record its payload stays too, and one batch can be
//! larger than the soft limit: nothing new is published then, so that no later snapshot would ever be due. A marker folds to nothing and needs next to no room; a snapshot behind
//! it frees the payload.
//!
//! Invariant: a marker is published only where nothing stands behind the record, and nobody waits for it without a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change::position::{NodeId, Sequence, ShardId};
use crate::codec::commit;
use crate::codec::frame::{self, Kind};
use crate::codec::marker::{self, Marker};
use crate::engine::Engine;
use crate::stream::{Broker, PublishError, StreamError};

/// A message of fewer bytes may stay: a small share of the least that a stream may hold, and within what a batch leaves free.
const LIGHT: usize = 32 << 10;

/// How long the broker may take to show or to store a message.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long this node may take to fold a marker, on a machine that is slow for a moment.
const FOLDED: Duration = Duration::from_secs(10);

/// How often it is asked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Why the log could not be carried on.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// The broker did not show the end of the log.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It did not store the marker.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// This node did not fold it.
    #[error("marker {at} was not folded within {} s", FOLDED.as_secs())]
    NotFolded {
        /// Where it stands.
        at: Sequence,
    },
}

/// Whether a snapshot that stands at the message keeps room in the streams by that: the message is large, or a commit record that names payload.
#[must_use]
pub fn is_heavy(message: &[u8]) -> bool {
    if message.len() > LIGHT {
        return true;
    }
    let Ok((Kind::Commit, body)) = frame::open(message) else {
        return false;
    };
    commit::decode(&body).is_ok_and(|record| record.sections.iter().any(|s| !s.pieces.is_empty()))
}

/// Whether what stands at this place of the order stream is [heavy](is_heavy).
///
/// # Errors
/// The broker's.
pub async fn is_heavy_at(broker: &Broker, at: Sequence) -> Result<bool, StreamError> {
    if at == Sequence(0) {
        return Ok(false);
    }
    let message = broker.fetch(ShardId::ORDER, at, DEADLINE).await?;
    Ok(message.is_some_and(|m| is_heavy(&m.payload)))
}

/// Where this node stands at the end of the log, and what stands there is heavy: publishes a marker, and waits until it is folded here.
///
/// # Errors
/// See [`TailError`].
pub async fn pass(engine: &Arc<Engine>, broker: &Broker) -> Result<(), TailError> {
    let position = || tokio::task::block_in_place(|| engine.replica().position().sequence);
    let here = position();
    if broker.stream_state(ShardId::ORDER).await?.last != here || !is_heavy_at(broker, here).await?
    {
        return Ok(());
    }
    let marker = marker::message(&Marker {
        node: NodeId(engine.config.node_id),
        id: rand::random(),
    });
    let at = broker
        .publish(ShardId::ORDER, marker.into(), DEADLINE)
        .await?;
    tracing::info!(
        seq = at.0,
        "published a marker, so that a snapshot behind it frees what the last batch takes"
    );
    let until = Instant::now() + FOLDED;
    while position() < at {
        if Instant::now() > until {
            return Err(TailError::NotFolded { at });
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::position::{BatchNumber, Incarnation};
    use crate::codec::commit::{CommitRecord, SectionKind, SectionRef};
    use crate::codec::frame::Sealer;

    fn record(pieces: Vec<Sequence>) -> Vec<u8> {
        let record = CommitRecord {
            node: NodeId(1),
            incarnation: Incarnation {
                counter: 1,
                nonce: 1,
            },
            batch: BatchNumber(1),
            base: Sequence(0),
            tables: Vec::new(),
            rows: Vec::new(),
            covers: Vec::new(),
            sections: vec![SectionRef {
                kind: SectionKind::Rows,
                shard: ShardId(2),
                length: 10,
                hash: 0,
                pieces,
            }],
            row_count: 1,
            scanned_at: 0,
        };
        Sealer::new(false, 0).seal(Kind::Commit, &commit::encode(&record))
    }

    #[test]
    fn a_record_with_payload_is_heavy_and_a_marker_is_not() {
        assert!(is_heavy(&record(vec![Sequence(3)])));
        assert!(!is_heavy(&record(Vec::new())));
        let marker = Marker {
            node: NodeId(1),
            id: 7,
        };
        assert!(!is_heavy(&marker::message(&marker)));
        assert!(!is_heavy(b"something else"));
        assert!(is_heavy(&[0; LIGHT + 1]));
    }
}
