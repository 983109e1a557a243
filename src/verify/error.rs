//! Why nodes cannot be compared at all. What one node cannot do is named in the report.

use std::time::Duration;

use crate::change::position::NodeId;
use crate::stream::{KvError, PublishError};

/// Why nodes cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// This node has not been connected to its broker since it started.
    #[error("this node is not connected to NATS yet: its log and health say why")]
    NotConnected,
    /// The daemon is stopping.
    #[error("this node is stopping")]
    Stopping,
    /// The broker did not say who lives.
    #[error("could not see which nodes live: {0}")]
    Living(#[from] KvError),
    /// The marker was not stored.
    #[error("could not publish the marker: {0}")]
    Marker(#[from] PublishError),
    /// Nobody could be compared.
    #[error(
        "no node can be compared: {}",
        .why.iter().map(|(node, why)| format!("node {node} {why}")).collect::<Vec<_>>().join("; ")
    )]
    Nobody {
        /// Each living node, with the reason.
        why: Vec<(NodeId, String)>,
    },
    /// The node that the rows are to be sent from is none that is compared.
    #[error(
        "node {from} is not among the nodes that can be compared ({}): name one of them with --from{}",
        list(.compared),
        .why.as_ref().map_or_else(String::new, |w| format!("; node {from} {w}"))
    )]
    UnknownSource {
        /// The node that was named.
        from: NodeId,
        /// Those that could be.
        compared: Vec<NodeId>,
        /// Why it is none of them, where that is known.
        why: Option<String>,
    },
    /// The rows were not sent again.
    #[error("node {from} did not send the rows again: it {reason}")]
    NotResent {
        /// The node.
        from: NodeId,
        /// Why, in words that follow "it".
        reason: String,
    },
    /// More rows wait to be published than can be left out.
    #[error(
        "{rows} rows wait to be published, more than the {most} that can be set apart: verify again when they are (harmonylite wait)"
    )]
    TooManyPending {
        /// How many.
        rows: usize,
        /// The bound.
        most: usize,
    },
    /// No marker could be hit.
    #[error(
        "within {after:?} no marker could be folded by itself on all nodes ({reason}): verify again when there are fewer conflicting writes"
    )]
    NoMarker {
        /// How long was tried.
        after: Duration,
        /// What the last one said.
        reason: String,
    },
}

/// `1, 2, 3`
pub fn list(nodes: &[NodeId]) -> String {
    let nodes: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    nodes.join(", ")
}
