//! Whether a stream is still the one that was read, with nothing missing between what was read and what comes next.

use super::broker::StreamState;
use super::error::StreamError;
use crate::change::position::Sequence;

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
        }
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
