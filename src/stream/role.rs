//! A part that one node plays at a time: the leader that schedules snapshots, the one that takes one at the moment.
//!
//! ```text
//!   <stream_prefix>-snapshots   leader ─▶ RoleHolder   taking ─▶ RoleHolder   verified ─▶ ...
//! ```
//!
//! Invariants: the key changes by compare-and-set alone, so two nodes never both believe to have written it last; who has not renewed for the time to
//! live has lost the role by its own clock, before anybody else can take it by theirs; who waits judges by whether the key changes, not by anybody's clock.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::broker::Broker;
use super::error::KvError;
use super::kv::Kv;
use crate::change::position::NodeId;

/// What stands under a role's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleHolder {
    /// The node.
    pub node: u64,
    /// Random per start.
    pub nonce: u64,
}

/// A role that this node has, wants, or leaves alone.
#[derive(Debug)]
pub struct Role {
    kv: Kv,
    key: &'static str,
    ours: RoleHolder,
    value: Bytes,
    time_to_live: Duration,
    /// Revision of our own last write, and when it was begun.
    held: Option<(u64, Instant)>,
    /// Somebody else's entry as it was last seen to change.
    watched: Option<(u64, Instant)>,
    by: Option<RoleHolder>,
}

impl Broker {
    /// The bucket in which nodes agree about snapshots.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn snapshots_bucket(&self, replicas: usize) -> Result<Kv, KvError> {
        self.kv_bucket(
            &format!("{}-snapshots", self.bucket_prefix()),
            None,
            replicas,
        )
        .await
    }
}

impl Role {
    /// A role that is not held yet. All nodes must agree on `time_to_live` within a factor of two or so; a holder renews three times as often.
    #[must_use]
    pub fn new(kv: Kv, key: &'static str, node: NodeId, time_to_live: Duration) -> Self {
        let ours = RoleHolder {
            node: node.0,
            nonce: rand::random(),
        };
        Self {
            kv,
            key,
            // Structs of numbers always have a JSON form.
            value: serde_json::to_vec(&ours).unwrap_or_default().into(),
            ours,
            time_to_live,
            held: None,
            watched: None,
            by: None,
        }
    }

    /// How often [`Role::hold`] is to be called.
    #[must_use]
    pub fn renew_every(&self) -> Duration {
        self.time_to_live / 3
    }

    /// Whether this node has the role at this moment, by its own clock.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
            .is_some_and(|(_, since)| since.elapsed() < self.time_to_live)
    }

    /// Who else was last seen to have it.
    #[must_use]
    pub fn holder(&self) -> Option<&RoleHolder> {
        self.by.as_ref()
    }

    /// Renews the role, or takes it where nobody has renewed it for the time to live. Whether it is held now.
    ///
    /// # Errors
    /// The broker's: [`Role::is_held`] says whether the last renewal still counts.
    pub async fn hold(&mut self) -> Result<bool, KvError> {
        let begun = Instant::now();
        // Expired by our own clock: somebody may be about to take it, so it is only had by taking it anew.
        if let Some((revision, _)) = self.held.filter(|_| self.is_held()) {
            match self.kv.update(self.key, self.value.clone(), revision).await {
                Ok(revision) => {
                    self.held = Some((revision, begun));
                    return Ok(true);
                }
                Err(KvError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.held = None;
        let Some(entry) = self.kv.get(self.key).await? else {
            return self.won(self.kv.create(self.key, self.value.clone()).await, begun);
        };
        let holder: Option<RoleHolder> = serde_json::from_slice(&entry.value).ok();
        // Our own write whose answer was lost.
        let mine = holder.as_ref() == Some(&self.ours);
        let now = Instant::now();
        let since = match self.watched {
            Some((revision, since)) if revision == entry.revision => since,
            _ => {
                self.watched = Some((entry.revision, now));
                now
            }
        };
        self.by = holder;
        if !mine && since.elapsed() <= self.time_to_live {
            return Ok(false);
        }
        let taken = self
            .kv
            .update(self.key, self.value.clone(), entry.revision)
            .await;
        self.won(taken, begun)
    }

    fn won(&mut self, written: Result<u64, KvError>, begun: Instant) -> Result<bool, KvError> {
        match written {
            Ok(revision) => {
                self.held = Some((revision, begun));
                self.watched = None;
                self.by = None;
                Ok(true)
            }
            Err(KvError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives the role back, if it is held.
    ///
    /// # Errors
    /// The broker's: it expires by itself.
    pub async fn release(&mut self) -> Result<(), KvError> {
        let Some((revision, _)) = self.held.take() else {
            return Ok(());
        };
        match self.kv.delete_expecting(self.key, revision).await {
            Ok(()) | Err(KvError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
