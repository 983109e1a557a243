//! Forgetting a node that is gone for good.
//!
//! Invariants: who lives is never forgotten: neither who holds its id nor who says something while we look; what is forgotten is only what others keep for
//! a node, never the incarnations that it had, so that it may come back at any time.

use super::about::shortened;
use crate::change::position::{NodeId, ShardId};
use crate::snapshot::presence::{self, Gone};
use crate::stream::{Broker, KvError, StreamError};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It holds up nothing from now on.
    Now,
    /// It was forgotten before.
    Already,
    /// It had left by itself, and is not listed any more.
    HadLeft,
}

impl Forgotten {
    /// In a sentence.
    #[must_use]
    pub fn in_words(self, node: NodeId) -> String {
        match self {
            Self::Now => format!(
                "node {node} is forgotten: neither trimming nor wait nor verify looks at it any more; when it comes back it catches up from the stream, or from a snapshot where the stream was trimmed meanwhile"
            ),
            Self::Already => format!("node {node} was forgotten already"),
            Self::HadLeft => format!("node {node} had left by itself: it is listed no more"),
        }
    }
}

/// Why a node is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// It is the node that is asked.
    #[error("node {0} is this node: harmonylite leave takes it out of the cluster")]
    Itself(NodeId),
    /// It lives.
    #[error(
        "node {node} is not forgotten: {holder} holds its id, as far as node {by} can see; run harmonylite leave there first (a daemon that was killed lets go of its id within 10 s)"
    )]
    Living {
        /// Which.
        node: NodeId,
        /// Who lives, in words.
        holder: String,
        /// Who asks.
        by: NodeId,
    },
    /// It has just said something.
    #[error(
        "node {node} is not forgotten: it has said something while node {by} was looking, so it lives; run harmonylite leave there"
    )]
    Spoke {
        /// Which.
        node: NodeId,
        /// Who asks.
        by: NodeId,
    },
    /// Nobody knows it.
    #[error(
        "there is no node {node}: harmonylite nodes lists those that there are ({})",
        list(known)
    )]
    Unknown {
        /// Which.
        node: NodeId,
        /// Those that there are.
        known: Vec<NodeId>,
    },
    /// The streams.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The buckets.
    #[error(transparent)]
    Kv(#[from] KvError),
}

fn list(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}

/// Forgets a node. `replicas`: of the bucket, where nobody has made it yet; `by`: the node whose operator asks; `running`: whether its daemon runs.
///
/// # Errors
/// [`ForgetError`].
pub async fn forget(
    broker: &Broker,
    replicas: usize,
    node: NodeId,
    by: NodeId,
    running: bool,
) -> Result<Forgotten, ForgetError> {
    if node == by && running {
        return Err(ForgetError::Itself(node));
    }
    // Where there is no stream there is no bucket, and looking makes none.
    broker.stream_state(ShardId::ORDER).await?;
    let kv = broker.snapshots_bucket(replicas).await?;
    // Before the leases: what is said after this is noticed.
    let last = presence::said_by(&kv, node).await?;
    if broker.living_nodes().await?.contains(&node) {
        // What a later version says of itself may not read; it lives all the same.
        let holder = broker.holders().await?.remove(&node);
        let holder = holder.map_or_else(
            || "a daemon of another version".to_owned(),
            |holder| shortened(&holder.to_string()),
        );
        return Err(ForgetError::Living { node, holder, by });
    }
    let Some(last) = last else {
        let known = presence::said(&kv).await?;
        return Err(ForgetError::Unknown {
            node,
            known: known.into_iter().map(|a| a.node).collect(),
        });
    };
    match last.gone {
        Some(Gone::Forgotten) => return Ok(Forgotten::Already),
        Some(Gone::Left) => {
            presence::leave(&kv, node).await?;
            return Ok(Forgotten::HadLeft);
        }
        None => {}
    }
    match presence::mark_forgotten(&kv, &last).await {
        Ok(()) => Ok(Forgotten::Now),
        Err(KvError::Conflict { .. }) => Err(ForgetError::Spoke { node, by }),
        Err(error) => Err(error.into()),
    }
}
