//! Why a position cannot be told or waited for.

use std::time::Duration;

use super::token::{StreamIdentity, Token};
use crate::change::position::{NodeId, Sequence};
use crate::sqlite::error::SqliteError;
use crate::stream::{KvError, StreamError};

/// Why a position cannot be told or waited for.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// This node has not been connected to its broker since it started.
    #[error("this node is not connected to NATS yet: its log and health say why")]
    NotConnected,
    /// The daemon is stopping.
    #[error("this node is stopping")]
    Stopping,
    /// The token is of another stream.
    #[error(
        "position {token} is of another cluster or of a stream that was deleted and made anew (the one here begins with {here}): ask a node of this cluster for a new one"
    )]
    OtherStream {
        /// The token.
        token: Token,
        /// The stream here.
        here: StreamIdentity,
    },
    /// The stream is shorter than the token says.
    #[error(
        "position {token} is behind the end of the stream, which is {end}: it was changed by hand, or the broker has lost messages"
    )]
    BeyondEnd {
        /// The token.
        token: Token,
        /// The last message of the stream.
        end: Sequence,
    },
    /// This node never gets there.
    #[error("this node applies nothing (replicate = false): wait on another one")]
    NotApplying,
    /// It cannot come back: an operator holds it back.
    #[error("what the app has committed is not in the stream yet: {reason}")]
    Paused {
        /// What holds it back, and how to end that.
        reason: String,
    },
    /// It did not come back in time.
    #[error(
        "what the app has committed has not come back from the stream within {after:?}{}",
        because(.reason.as_deref())
    )]
    NotBack {
        /// How long was waited.
        after: Duration,
        /// Why replication stands still here, if it does.
        reason: Option<String>,
    },
    /// This node was not there in time.
    #[error(
        "this node has folded the stream up to {at}, and not up to {wanted}, within {after:?}{}",
        because(.reason.as_deref())
    )]
    NotThere {
        /// Where it is.
        at: Sequence,
        /// Where it should be.
        wanted: Sequence,
        /// How long was waited.
        after: Duration,
        /// Why replication stands still here, if it does.
        reason: Option<String>,
    },
    /// Other nodes were not there in time.
    #[error(
        "not every living node has folded position {wanted} within {after:?}: {}",
        .lacking.iter().map(|(node, why)| format!("node {node} {why}")).collect::<Vec<_>>().join("; ")
    )]
    Lacking {
        /// Where they should be.
        wanted: Sequence,
        /// How long was waited.
        after: Duration,
        /// Which, and where each is.
        lacking: Vec<(NodeId, String)>,
    },
    /// The broker did not answer.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The broker did not say who lives.
    #[error("could not see which nodes live: {0}")]
    Living(#[from] KvError),
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
}

impl WaitError {
    /// Whether the request itself is wrong, so that no later try can succeed.
    #[must_use]
    pub const fn is_bad_request(&self) -> bool {
        matches!(
            self,
            Self::OtherStream { .. } | Self::BeyondEnd { .. } | Self::NotApplying
        )
    }

    /// Whether time ran out.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::NotBack { .. } | Self::NotThere { .. } | Self::Lacking { .. }
        )
    }
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |r| format!(" ({r})"))
}
