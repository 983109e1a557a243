//! Whether the stream is still the one that a position is of.

use std::time::Duration;

use crate::change::position::{Sequence, ShardId};
use crate::codec::frame::message_hash;
use crate::snapshot::manifest::Manifest;
use crate::state::node::Position;
use crate::stream::{Broker, StreamError, StreamState, continuity};

/// How long one message may take.
const FETCH_DEADLINE: Duration = Duration::from_secs(5);

/// How a position stands to the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Reading goes on behind it.
    Holds,
    /// The stream begins behind it: a snapshot is needed.
    Trimmed(String),
    /// The stream has lost what was folded.
    Broken(String),
}

/// Looks. Where the stream is gone it is broken.
///
/// # Errors
/// The broker did not answer: nothing is known then.
pub async fn look(broker: &Broker, position: Position) -> Result<Standing, StreamError> {
    let stream = broker.stream_name(ShardId::ORDER);
    let state = match broker.stream_state(ShardId::ORDER).await {
        Ok(state) => state,
        Err(StreamError::StreamMissing { .. }) => {
            return Ok(Standing::Broken(format!(
                "stream {stream} is gone, of which this node has folded {} messages",
                position.sequence
            )));
        }
        Err(error) => return Err(error),
    };
    let there = fingerprint(broker, &state, position.sequence).await?;
    let compared = continuity::compare(&stream, &state, position.sequence, position.hash, there);
    Ok(match compared {
        Ok(()) => Standing::Holds,
        Err(e @ continuity::Broken::Trimmed { .. }) => Standing::Trimmed(e.to_string()),
        Err(e) => Standing::Broken(e.to_string()),
    })
}

/// Whether the stream has lost what a snapshot covers: everybody who has folded that may be gone. Why, if so.
///
/// # Errors
/// The broker did not answer.
pub async fn of_snapshot(
    broker: &Broker,
    newest: Option<&Manifest>,
) -> Result<Option<String>, StreamError> {
    let Some(manifest) = newest else {
        return Ok(None);
    };
    Ok(match look(broker, manifest.position()).await? {
        Standing::Broken(why) => Some(format!("as to snapshot {}: {why}", manifest.file)),
        Standing::Holds | Standing::Trimmed(_) => None,
    })
}

/// The fingerprint of a message, if the stream holds it.
async fn fingerprint(
    broker: &Broker,
    state: &StreamState,
    at: Sequence,
) -> Result<Option<u64>, StreamError> {
    if at == Sequence(0) || !(state.first..=state.last).contains(&at) {
        return Ok(None);
    }
    let message = broker.fetch(ShardId::ORDER, at, FETCH_DEADLINE).await?;
    Ok(message.map(|m| continuity::fingerprint(message_hash(&m.payload), m.timestamp_nanos)))
}

/// Whether who has folded these messages has folded all that stood in the stream before its first: it has begun with nothing missing, or it has folded one that
/// the stream still holds.
///
/// # Errors
/// The broker's.
pub async fn reaches(broker: &Broker, past: &[(Sequence, u64)]) -> Result<bool, StreamError> {
    let state = match broker.stream_state(ShardId::ORDER).await {
        Ok(state) => state,
        Err(StreamError::StreamMissing { .. }) => return Ok(true),
        Err(error) => return Err(error),
    };
    if state.first <= Sequence(1) {
        return Ok(true);
    }
    for (at, hash) in past.iter().filter(|(_, hash)| *hash != 0) {
        if fingerprint(broker, &state, *at).await? == Some(*hash) {
            return Ok(true);
        }
    }
    Ok(false)
}
