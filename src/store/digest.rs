//! SHA-256 of what goes through, taken on the way.
//!
//! Invariant: a hash is of all bytes from the first on, each once and in order; of anything else there is none.

use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// The hash of a file as far as it was read in order. Shared by the readers of all tries: what is sent again is hashed once.
#[derive(Debug, Clone, Default)]
pub(super) struct InOrder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    digest: Sha256,
    at: u64,
}

impl InOrder {
    /// `bytes` were read, the first of them at `from`.
    pub(super) fn feed(&self, from: u64, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state
            .at
            .checked_sub(from)
            .and_then(|n| usize::try_from(n).ok());
        if let Some(new) = known.and_then(|known| bytes.get(known..)) {
            state.digest.update(new);
            state.at += new.len() as u64;
        }
    }

    /// The hash of the first `len` bytes, hexadecimal; `None` where they were not all read, or not in order.
    pub(super) fn finish(&self, len: u64) -> Option<String> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.at == len).then(|| hexadecimal(state.digest.clone()))
    }
}

/// A hash for people and manifests.
pub(super) fn hexadecimal(digest: Sha256) -> String {
    digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_again_is_hashed_once() {
        let digest = InOrder::default();
        digest.feed(0, b"abc");
        digest.feed(0, b"ab");
        digest.feed(1, b"bcdef");
        digest.feed(2, b"");
        let whole = hexadecimal(Sha256::new().chain_update(b"abcdef"));
        assert_eq!(digest.finish(6), Some(whole));
        assert_eq!(digest.finish(7), None);
    }

    #[test]
    fn there_is_none_of_what_was_left_out() {
        let digest = InOrder::default();
        digest.feed(0, b"abc");
        digest.feed(4, b"ef");
        assert_eq!(digest.finish(6), None);
        digest.feed(3, b"d");
        assert_eq!(
            digest.finish(4),
            Some(hexadecimal(Sha256::new().chain_update(b"abcd")))
        );
    }
}
