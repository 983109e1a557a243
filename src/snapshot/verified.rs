//! Which snapshots were read back whole: named in KV, for the leaders to come.
//!
//! Invariant: only what a node has read back from the store itself is named.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::catalog::OLDER;
use super::manifest::Manifest;
use crate::change::history::History;
use crate::change::position::Sequence;
use crate::stream::{Kv, KvError};

/// The key under which they are named.
const VERIFIED: &str = "verified";

/// Snapshots of which it is known, in KV, that they were read back whole. Newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified(pub Vec<Manifest>);

impl Verified {
    /// Reads them, with the revision.
    ///
    /// # Errors
    /// The broker's.
    pub async fn read(kv: &Kv) -> Result<(Self, Option<u64>), KvError> {
        Ok(match kv.get(VERIFIED).await? {
            Some(entry) => (
                serde_json::from_slice(&entry.value).unwrap_or_default(),
                Some(entry.revision),
            ),
            None => (Self::default(), None),
        })
    }

    /// Adds one; those beyond what the store keeps are forgotten.
    ///
    /// # Errors
    /// The broker's.
    pub async fn add(kv: &Kv, manifest: &Manifest) -> Result<Self, KvError> {
        loop {
            let (all, revision) = Self::read(kv).await?;
            let all = all.with(manifest.clone());
            let value = serde_json::to_vec(&all).unwrap_or_default().into();
            let written = match revision {
                Some(revision) => kv.update(VERIFIED, value, revision).await,
                None => kv.create(VERIFIED, value).await,
            };
            match written {
                Ok(_) => return Ok(all),
                Err(KvError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// These and one more; those beyond what the store keeps are forgotten.
    #[must_use]
    pub fn with(mut self, manifest: Manifest) -> Self {
        self.0.retain(|m| m.file != manifest.file);
        self.0.push(manifest);
        self.0
            .sort_by_key(|m| std::cmp::Reverse((m.history, m.sequence)));
        self.0.truncate(OLDER + 1);
        self
    }

    /// Those of one history; positions of others mean nothing in it.
    #[must_use]
    pub fn of(mut self, history: History) -> Self {
        self.0.retain(|m| m.history == history);
        self
    }

    /// Whether this one is among them.
    #[must_use]
    pub fn has(&self, manifest: &Manifest) -> bool {
        self.0
            .iter()
            .any(|m| m.file == manifest.file && m.sha256 == manifest.sha256)
    }

    /// The position up to which the order stream may go: that of the one before the newest, or of the newest where room must be made.
    #[must_use]
    pub fn covered(&self, unblock: bool) -> Option<Sequence> {
        let at = usize::from(!unblock);
        self.0.get(at).map(|m| Sequence(m.sequence))
    }
}

/// How long ago it was made, by the clocks of two machines: it decides when, never what.
#[must_use]
pub fn age(manifest: &Manifest) -> Duration {
    OffsetDateTime::parse(&manifest.time, &Rfc3339)
        .ok()
        .and_then(|at| Duration::try_from(OffsetDateTime::now_utc() - at).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_waits_for_a_second_snapshot_unless_room_is_needed() {
        let manifest = |sequence| Manifest {
            format: 1,
            file: String::new(),
            cluster: String::new(),
            node: String::new(),
            history: History::FIRST,
            sequence,
            hash: String::new(),
            folded: sequence,
            schema: String::new(),
            absent: Vec::new(),
            size: 0,
            sha256: String::new(),
            time: String::new(),
            harmonylite: String::new(),
        };
        let one = Verified(vec![manifest(7)]);
        assert_eq!(
            (one.covered(false), one.covered(true)),
            (None, Some(Sequence(7)))
        );
        let two = Verified(vec![manifest(9), manifest(7)]);
        assert_eq!(two.covered(false), Some(Sequence(7)));
        assert_eq!(two.covered(true), Some(Sequence(9)));
        let second = History { number: 2, id: 1 };
        assert_eq!(two.of(second).covered(true), None);
    }
}
