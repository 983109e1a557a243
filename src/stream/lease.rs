//! Holding a node id, so that two daemons never publish under one; and the highest incarnation that a node has had.
//!
//! ```text
//!   <stream_prefix>-leases   node-<id> ─▶ Holder      written every 2 s, gone 10 s after its holder
//!   <stream_prefix>-nodes    node-<id> ─▶ incarnation kept for ever, only ever raised
//! ```
//!
//! Invariants: both change by compare-and-set alone. A lease is taken over only from a holder that is dead (its process is gone
//! from our own process table) or has let a renewal pass; a living holder is refused, and one whose lease was taken learns it at its
//! next renewal. (Were both still to publish, readers would tell their incarnations apart.)

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::broker::Broker;
use super::error::KvError;
use super::holder::Holder;
use super::kv::{Kv, KvEntry};
use crate::change::position::NodeId;

/// How often a holder renews.
const RENEW_EVERY: Duration = Duration::from_secs(2);

/// A lease that is not renewed is gone after this: five renewals, so that a broker that elects a leader costs nobody his id.
pub(super) const TIME_TO_LIVE: Duration = Duration::from_secs(10);

/// How long a newcomer watches for a renewal: a bit more than one interval.
const WATCH: Duration = Duration::from_millis(3500);

/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Rounds of compare-and-set before giving up; each lost round means that somebody else succeeded.
const ROUNDS: usize = 20;

/// A lease that cannot be had, or that is had no longer.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A living daemon holds the node id.
    #[error(
        "node id {node} is held by {holder}, which is running; this is {ours}; \
         set another node_id in the configuration (or -node-id) of one of them"
    )]
    Held {
        /// The node id.
        node: NodeId,
        /// Who holds it.
        holder: Box<Holder>,
        /// Who wanted it.
        ours: Box<Holder>,
    },
    /// Another daemon has taken the node id over while we ran.
    #[error(
        "node id {node} was taken over by {by} while {ours} was running; \
         set another node_id in the configuration (or -node-id) of one of them"
    )]
    Lost {
        /// The node id.
        node: NodeId,
        /// Who took it.
        by: Box<Holder>,
        /// Who had it.
        ours: Box<Holder>,
    },
    /// What stands under the node's key was not written by this program, or by a newer version of it.
    #[error(
        "key {key} of bucket {bucket} does not hold what this version writes there; \
         if no newer version of HarmonyLite runs under this stream_prefix, remove the key"
    )]
    Unreadable {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The broker did not do it, or others were faster time and again. Try again.
    #[error(transparent)]
    Kv(#[from] KvError),
}

#[derive(Serialize, Deserialize)]
struct NodeRecord {
    incarnation: u64,
}

/// A node id that this daemon holds, as long as it is renewed every [`NodeLease::RENEW_EVERY`].
#[derive(Debug)]
pub struct NodeLease {
    leases: Kv,
    nodes: Kv,
    node: NodeId,
    key: String,
    ours: Holder,
    value: Bytes,
    revision: u64,
}

impl NodeLease {
    /// How often [`renew`](Self::renew) is to be called.
    pub const RENEW_EVERY: Duration = RENEW_EVERY;

    /// Takes the node id for `ours`. Takes up to four seconds where another holder's life has to be watched.
    ///
    /// # Errors
    /// [`LeaseError::Held`] when a living daemon has it; [`LeaseError::Kv`] when the broker does not answer.
    pub async fn acquire(
        broker: &Broker,
        replicas: usize,
        node: NodeId,
        ours: Holder,
    ) -> Result<Self, LeaseError> {
        let prefix = broker.bucket_prefix();
        let leases = broker
            .kv_bucket(&leases_bucket(broker), Some(TIME_TO_LIVE), replicas)
            .await?;
        let nodes = broker
            .kv_bucket(&format!("{prefix}-nodes"), None, replicas)
            .await?;
        let mut lease = Self {
            leases,
            nodes,
            node,
            key: format!("node-{node}"),
            value: json(&ours),
            ours,
            revision: 0,
        };
        for _ in 0..ROUNDS {
            match lease.try_acquire().await {
                Err(LeaseError::Kv(KvError::Conflict { .. })) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(lease),
            }
        }
        Err(lease.conflict().into())
    }

    async fn try_acquire(&mut self) -> Result<(), LeaseError> {
        let Some(entry) = self.leases.get(&self.key).await? else {
            self.revision = self.leases.create(&self.key, self.value.clone()).await?;
            return Ok(());
        };
        let holder: Holder = self.parse(&self.leases, &entry)?;
        if holder.nonce != self.ours.nonce {
            let alive = match holder.lives_beside(&self.ours) {
                Some(alive) => alive,
                None => self.renews(&entry).await?,
            };
            if alive {
                return Err(LeaseError::Held {
                    node: self.node,
                    holder: Box::new(holder),
                    ours: Box::new(self.ours.clone()),
                });
            }
            tracing::info!(before = %holder, "taking over a node id from a daemon that has ended");
        }
        self.revision = self
            .leases
            .update(&self.key, self.value.clone(), entry.revision)
            .await?;
        Ok(())
    }

    /// Whether the lease is renewed while we watch. One that vanishes is not.
    async fn renews(&self, seen: &KvEntry) -> Result<bool, LeaseError> {
        let end = Instant::now() + WATCH;
        while Instant::now() < end {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.leases.get(&self.key).await? {
                Some(now) if now.revision != seen.revision => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Renews the lease; makes it anew when it has expired meanwhile and nobody else has taken it.
    ///
    /// # Errors
    /// [`LeaseError::Lost`]: another daemon has the node id; stop. [`LeaseError::Kv`]: the broker did not answer; go on.
    pub async fn renew(&mut self) -> Result<(), LeaseError> {
        for _ in 0..ROUNDS {
            let renewed = self
                .leases
                .update(&self.key, self.value.clone(), self.revision)
                .await;
            match renewed {
                Ok(revision) => {
                    self.revision = revision;
                    return Ok(());
                }
                Err(KvError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            // Expired, taken, or our own renewal whose answer was lost.
            match self.leases.get(&self.key).await? {
                Some(entry) => {
                    let holder: Holder = self.parse(&self.leases, &entry)?;
                    if holder.nonce != self.ours.nonce {
                        return Err(LeaseError::Lost {
                            node: self.node,
                            by: Box::new(holder),
                            ours: Box::new(self.ours.clone()),
                        });
                    }
                    self.revision = entry.revision;
                }
                None => match self.leases.create(&self.key, self.value.clone()).await {
                    Ok(revision) => {
                        self.revision = revision;
                        return Ok(());
                    }
                    Err(KvError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Err(self.conflict().into())
    }

    /// Gives the node id back. Somebody else's lease is left alone.
    ///
    /// # Errors
    /// [`LeaseError::Kv`]: it will expire by itself.
    pub async fn release(self) -> Result<(), LeaseError> {
        match self.leases.delete_expecting(&self.key, self.revision).await {
            Ok(()) | Err(KvError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The highest incarnation counter recorded for this node; 0 when none is.
    ///
    /// # Errors
    /// [`LeaseError::Unreadable`] or [`LeaseError::Kv`].
    pub async fn highest_incarnation(&self) -> Result<u64, LeaseError> {
        Ok(match self.nodes.get(&self.key).await? {
            Some(entry) => self.parse::<NodeRecord>(&self.nodes, &entry)?.incarnation,
            None => 0,
        })
    }

    /// Records that the node has the incarnation `counter`; a higher one that is recorded stays.
    ///
    /// # Errors
    /// [`LeaseError::Unreadable`] or [`LeaseError::Kv`].
    pub async fn record_incarnation(&self, counter: u64) -> Result<(), LeaseError> {
        let value = json(&NodeRecord {
            incarnation: counter,
        });
        for _ in 0..ROUNDS {
            let written = match self.nodes.get(&self.key).await? {
                Some(entry) => {
                    if self.parse::<NodeRecord>(&self.nodes, &entry)?.incarnation >= counter {
                        return Ok(());
                    }
                    self.nodes
                        .update(&self.key, value.clone(), entry.revision)
                        .await
                }
                None => self.nodes.create(&self.key, value.clone()).await,
            };
            match written {
                Ok(_) => return Ok(()),
                Err(KvError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(KvError::Conflict {
            bucket: self.nodes.bucket().to_owned(),
            key: self.key.clone(),
        }
        .into())
    }

    fn parse<T: serde::de::DeserializeOwned>(
        &self,
        kv: &Kv,
        entry: &KvEntry,
    ) -> Result<T, LeaseError> {
        serde_json::from_slice(&entry.value).map_err(|source| LeaseError::Unreadable {
            bucket: kv.bucket().to_owned(),
            key: self.key.clone(),
            source,
        })
    }

    fn conflict(&self) -> KvError {
        KvError::Conflict {
            bucket: self.leases.bucket().to_owned(),
            key: self.key.clone(),
        }
    }
}

/// The bucket of the leases.
pub(super) fn leases_bucket(broker: &Broker) -> String {
    format!("{}-leases", broker.bucket_prefix())
}

/// Structs of strings and numbers always have a JSON form.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
