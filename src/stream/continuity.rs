//! Whether a stream is still the one that was read, with nothing missing between what was read and what comes next.
//!
//! Invariants: pure decisions, which the daemon and the simulation make alike; whoever has folded a history that the stream no longer holds does not go
//! on, and neither does who would have to skip something.

use super::broker::StreamState;
use super::error::StreamError;
use crate::change::position::Sequence;
use crate::planted::planted;

/// What a node remembers of the message at its position: its bytes and when the stream stored it. The bytes alone do not tell one history from another:
/// after the broker has lost its tail, publishers send the same bytes again, in another order, and the last of them may come to stand where it stood.
#[must_use]
pub fn fingerprint(hash: u64, stored_nanos: u64) -> u64 {
    if planted!(BytesAloneCompared) {
        return hash;
    }
    hash ^ stored_nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Why a node must not read on from its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It ends before the position.
    #[error(
        "stream {stream} ends at {last}, but this node has folded it up to {position}: the broker has lost messages, or the stream was made anew"
    )]
    Shorter {
        /// The stream.
        stream: String,
        /// Its last message.
        last: Sequence,
        /// How far this node has folded it.
        position: Sequence,
    },
    /// It begins behind the next message.
    #[error(
        "stream {stream} begins at {first}, but this node has folded it only up to {position}: it needs a snapshot"
    )]
    Trimmed {
        /// The stream.
        stream: String,
        /// Its first message.
        first: Sequence,
        /// How far this node has folded it.
        position: Sequence,
    },
    /// Another message stands at the position.
    #[error(
        "message {position} of stream {stream} is another than this node has folded: the broker has lost messages, and others stand in their place"
    )]
    Other {
        /// The stream.
        stream: String,
        /// How far this node has folded it.
        position: Sequence,
    },
}

/// Whether a node that has folded `stream` up to `position`, where `remembered` is the fingerprint of the message, may read on. `there`: the fingerprint
/// of what the stream holds at that place now, if it holds anything. What is not known (`remembered` 0: state that an older program wrote) is not compared.
///
/// # Errors
/// Why not.
pub fn compare(
    stream: &str,
    state: &StreamState,
    position: Sequence,
    remembered: u64,
    there: Option<u64>,
) -> Result<(), Broken> {
    let stream = || stream.to_owned();
    if state.last < position && !planted!(ShorterIsFine) {
        return Err(Broken::Shorter {
            stream: stream(),
            last: state.last,
            position,
        });
    }
    if state.first > position.next() && !planted!(TrimmedIsSkipped) {
        return Err(Broken::Trimmed {
            stream: stream(),
            first: state.first,
            position,
        });
    }
    if position > Sequence(0)
        && remembered != 0
        && there.is_some_and(|there| there != remembered)
        && !planted!(HistoryNotCompared)
    {
        return Err(Broken::Other {
            stream: stream(),
            position,
        });
    }
    Ok(())
}

/// Whether reading can go on behind `delivered` in a stream in this state.
pub(super) fn check(
    stream: &str,
    state: &StreamState,
    delivered: Sequence,
    created: Option<u64>,
) -> Result<(), StreamError> {
    let stream = || stream.to_owned();
    if created.is_some_and(|created| created != state.created) {
        return Err(StreamError::Replaced { stream: stream() });
    }
    if state.last < delivered {
        return Err(StreamError::Shorter {
            stream: stream(),
            last: state.last,
            read: delivered,
        });
    }
    if state.first > delivered.next() {
        return Err(StreamError::Trimmed {
            stream: stream(),
            first: state.first,
            wanted: delivered.next(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(first: u64, last: u64) -> StreamState {
        StreamState {
            first: Sequence(first),
            last: Sequence(last),
            messages: (last + 1).saturating_sub(first),
            bytes: 0,
            created: 7,
            limit: None,
        }
    }

    #[test]
    fn a_position_stands_only_in_the_history_that_was_folded() {
        let compare = |first, last, position, there| {
            compare("s", &state(first, last), Sequence(position), 5, there)
        };
        assert_eq!(compare(1, 9, 4, Some(5)), Ok(()));
        assert_eq!(compare(1, 0, 0, None), Ok(()));
        assert_eq!(compare(5, 9, 4, None), Ok(()), "trimmed up to the position");
        assert!(matches!(
            compare(1, 9, 4, Some(6)),
            Err(Broken::Other { .. })
        ));
        assert!(matches!(
            compare(1, 3, 4, None),
            Err(Broken::Shorter { .. })
        ));
        assert!(matches!(
            compare(6, 9, 4, None),
            Err(Broken::Trimmed { .. })
        ));
        assert_eq!(
            super::compare("s", &state(1, 9), Sequence(4), 0, Some(6)),
            Ok(()),
            "nothing is known of it"
        );
        assert_ne!(
            fingerprint(7, 1),
            fingerprint(7, 2),
            "the same bytes, stored twice"
        );
    }

    #[test]
    fn reading_goes_on_only_where_nothing_is_missing() {
        let check = |first, last, delivered, created| {
            check("s", &state(first, last), Sequence(delivered), created)
        };
        assert!(check(1, 0, 0, None).is_ok());
        assert!(check(1, 9, 0, Some(7)).is_ok());
        assert!(check(5, 9, 4, None).is_ok());
        assert!(check(10, 9, 9, None).is_ok());
        assert!(matches!(
            check(6, 9, 4, None),
            Err(StreamError::Trimmed {
                first: Sequence(6),
                wanted: Sequence(5),
                ..
            })
        ));
        assert!(matches!(
            check(1, 8, 9, None),
            Err(StreamError::Shorter {
                last: Sequence(8),
                ..
            })
        ));
        assert!(matches!(
            check(1, 9, 4, Some(8)),
            Err(StreamError::Replaced { .. })
        ));
    }
}
