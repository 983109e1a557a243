//! What the streams hold, and how far each node has read them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::look::{self, LookError, Seen};
use super::view::moment;
use crate::change::position::{Sequence, ShardId};
use crate::snapshot::presence::Announced;
use crate::stream::{Broker, Overview, StreamError};

/// All shards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamsView {
    /// By shard, from 1.
    pub streams: Vec<StreamView>,
}

/// One shard's stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    /// The shard.
    pub shard: u64,
    /// The stream's name.
    pub stream: String,
    /// Why it could not be looked at; then the rest says nothing.
    pub error: Option<String>,
    /// Messages.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that it takes; `None`: no limit.
    pub limit_bytes: Option<u64>,
    /// The first message; one above `last` where there is none.
    pub first: u64,
    /// The last message ever stored.
    pub last: u64,
    /// When the first was stored, RFC 3339 by the server's clock.
    pub oldest: Option<String>,
    /// When the last was.
    pub newest: Option<String>,
    /// Copies that JetStream is told to keep.
    pub replicas: usize,
    /// The server that leads it.
    pub leader: Option<String>,
    /// Servers whose copy is offline.
    pub offline: Vec<String>,
    /// Servers whose copy is behind.
    pub behind: Vec<String>,
    /// How far each node has folded it; `None`: it does not say.
    pub offsets: BTreeMap<u64, Option<u64>>,
}

/// Looks at the streams of all shards that this configuration or any node publishes to.
///
/// # Errors
/// [`LookError`].
pub async fn look(broker: &Broker, shards: u64, replicas: usize) -> Result<StreamsView, LookError> {
    let seen = look::look(broker, replicas).await?;
    let here = seen.said.iter().filter(|a| a.gone.is_none());
    let theirs = here.filter_map(|a| a.about.as_ref().map(|about| about.shards));
    // What a node says of itself is bounded as the configuration is.
    let shards = theirs.max().unwrap_or(1).clamp(1, 1024).max(shards);
    let mut streams = Vec::new();
    for shard in (1..=shards).map(ShardId) {
        let overview = match broker.overview(shard).await {
            // A shard that another node was configured for and that is gone.
            Err(StreamError::StreamMissing { .. }) if shard != ShardId::ORDER => continue,
            overview => overview,
        };
        streams.push(match overview {
            Ok(overview) => one(broker.stream_name(shard), shard, &overview, &seen),
            Err(error) => StreamView {
                shard: shard.0,
                stream: broker.stream_name(shard),
                error: Some(error.to_string()),
                ..StreamView::default()
            },
        });
    }
    Ok(StreamsView { streams })
}

fn one(stream: String, shard: ShardId, overview: &Overview, seen: &Seen) -> StreamView {
    let offset = |a: &Announced| {
        let about = a.about.as_ref();
        match a.present.position {
            Some(Sequence(at)) if shard == ShardId::ORDER => Some(at),
            _ => about.and_then(|about| about.offsets.get(&shard.0).copied()),
        }
    };
    let here = seen.said.iter().filter(|a| a.gone.is_none());
    StreamView {
        shard: shard.0,
        stream,
        error: None,
        entries: overview.state.messages,
        bytes: overview.state.bytes,
        limit_bytes: overview.state.limit,
        first: overview.state.first.0,
        last: overview.state.last.0,
        oldest: moment(overview.oldest),
        newest: moment(overview.newest),
        replicas: overview.replicas,
        leader: overview.leader.clone(),
        offline: overview.offline.clone(),
        behind: overview.behind.clone(),
        offsets: here.map(|a| (a.node.0, offset(a))).collect(),
    }
}
