//! The asker's side.

use std::time::Duration;

use super::protocol::{self, Answer, NotUnderstood, Question};
use crate::change::position::NodeId;
use crate::stream::{Broker, StreamError};

/// How long an answer may take beyond the patience that was asked for.
pub const ON_THE_WAY: Duration = Duration::from_secs(4);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It did not come.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// It is not understood.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
}

impl AskError {
    /// Whether the node has no connection to the broker.
    #[must_use]
    pub const fn nobody_hears(&self) -> bool {
        matches!(self, Self::Stream(StreamError::NobodyHears { .. }))
    }

    /// What it means, in words that follow "node 3".
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Stream(StreamError::NobodyHears { .. }) => {
                "is not connected to NATS, or is starting".to_owned()
            }
            Self::Stream(StreamError::Timeout { .. }) => "does not answer".to_owned(),
            error => format!("does not answer: {error}"),
        }
    }
}

/// Asks a node, which may take `patience` by the question itself.
///
/// # Errors
/// See [`AskError`]. A question may have been heard although its answer did not come.
pub async fn ask(
    broker: &Broker,
    node: NodeId,
    question: &Question,
    patience: Duration,
) -> Result<Answer, AskError> {
    let payload = protocol::encode(question).into();
    let answer = broker
        .ask_peer(node, payload, patience + ON_THE_WAY)
        .await?;
    Ok(protocol::decode(&answer)?)
}
