//! Node to node, beside the log: questions and answers over core NATS, and who holds a lease at the moment.
//!
//! ```text
//!   harmonylite.peers.<stream_prefix>.<node id>   each node hears its own; answers go to the asker's inbox
//! ```
//!
//! Invariants: every question has a deadline; a question to a node that is not connected fails at once; the stream's prefix stands in the subject,
//! so that two clusters on one NATS do not hear one another. Nothing here is stored: a question or an answer may be lost, and is then asked again.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::Subscriber;
use async_nats::client::RequestErrorKind;
use async_nats::{Request, Subject};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::broker::Broker;
use super::error::{KvError, StreamError};
use super::holder::Holder;
use super::lease;
use crate::change::position::NodeId;

/// The questions that come to a node.
#[derive(Debug)]
pub struct PeerQuestions {
    broker: Broker,
    subscriber: Subscriber,
}

/// One question.
#[derive(Debug)]
pub struct PeerQuestion {
    /// What is asked.
    pub payload: Bytes,
    broker: Broker,
    reply: Subject,
}

impl PeerQuestions {
    /// The next question; `None` when the client has ended.
    pub async fn next(&mut self) -> Option<PeerQuestion> {
        loop {
            let message = self.subscriber.next().await?;
            // One without a way back was not sent by a node.
            if let Some(reply) = message.reply {
                return Some(PeerQuestion {
                    payload: message.payload,
                    broker: self.broker.clone(),
                    reply,
                });
            }
        }
    }
}

impl PeerQuestion {
    /// Sends the answer. Lost when the connection is: the asker asks again.
    pub async fn answer(self, payload: Bytes) {
        if let Err(error) = self.broker.client().publish(self.reply, payload).await {
            tracing::debug!(%error, "an answer to another node could not be sent");
        }
    }
}

impl Broker {
    /// The subject on which a node hears questions.
    #[must_use]
    pub fn peer_subject(&self, node: NodeId) -> String {
        format!("harmonylite.peers.{}.{node}", self.bucket_prefix())
    }

    /// Hears the questions to `node` from now on.
    ///
    /// # Errors
    /// [`StreamError::Request`].
    pub async fn peer_questions(&self, node: NodeId) -> Result<PeerQuestions, StreamError> {
        let subject = self.peer_subject(node);
        let subscriber = self
            .client()
            .subscribe(subject.clone())
            .await
            .map_err(|source| StreamError::Request {
                what: format!("subscription to {subject}"),
                source: Box::new(source),
            })?;
        Ok(PeerQuestions {
            broker: self.clone(),
            subscriber,
        })
    }

    /// Asks a node.
    ///
    /// # Errors
    /// [`StreamError::NobodyHears`] at once when the node is not connected, [`StreamError::Timeout`], [`StreamError::NotConnected`], or
    /// why the broker did not pass it on.
    pub async fn ask_peer(
        &self,
        node: NodeId,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, StreamError> {
        let what = || format!("a question to node {node}");
        self.require_connection(what)?;
        let request = Request::new().payload(payload).timeout(Some(deadline));
        match self
            .client()
            .send_request(self.peer_subject(node), request)
            .await
        {
            Ok(message) => Ok(message.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => StreamError::NobodyHears {
                    subject: self.peer_subject(node),
                },
                RequestErrorKind::TimedOut => StreamError::Timeout {
                    what: what(),
                    after: deadline,
                },
                _ => StreamError::Request {
                    what: what(),
                    source: Box::new(error),
                },
            }),
        }
    }

    /// Who holds a lease on a node id at this moment, by node. One whose entry does not read was written by a later version, and is left out.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn holders(&self) -> Result<BTreeMap<NodeId, Holder>, KvError> {
        let bucket = self
            .kv_bucket(&lease::leases_bucket(self), Some(lease::TIME_TO_LIVE), 1)
            .await?;
        let mut holders = BTreeMap::new();
        for (key, entry) in bucket.entries().await? {
            if let Some(node) = holder_of(&key)
                && let Ok(holder) = serde_json::from_slice(&entry.value)
            {
                holders.insert(node, holder);
            }
        }
        Ok(holders)
    }

    /// The nodes that hold a lease on their id at this moment, rising. One that was killed counts until its lease has expired.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn living_nodes(&self) -> Result<Vec<NodeId>, KvError> {
        let bucket = self
            .kv_bucket(&lease::leases_bucket(self), Some(lease::TIME_TO_LIVE), 1)
            .await?;
        let keys = bucket.keys().await?;
        let mut nodes: Vec<NodeId> = keys.iter().filter_map(|key| holder_of(key)).collect();
        nodes.sort_unstable();
        Ok(nodes)
    }
}

/// The node whose id a key of the leases holds.
fn holder_of(key: &str) -> Option<NodeId> {
    key.strip_prefix("node-")?.parse().ok().map(NodeId)
}
