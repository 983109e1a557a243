//! Everything that NATS knows of the cluster, read at one moment. Needs no daemon, only the broker.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use crate::change::position::{NodeId, Sequence, ShardId};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::presence::{self, Announced};
use crate::snapshot::verified::Verified;
use crate::stream::{Broker, Holder, KvError, Overview, RoleHolder, StreamError};

/// How long one message may take to come.
const FETCH: std::time::Duration = std::time::Duration::from_secs(5);

/// Why the cluster cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The streams.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The nodes.
    #[error("could not see which nodes there are: {0}")]
    Nodes(#[from] KvError),
}

/// What was read.
#[derive(Debug)]
pub struct Seen {
    /// What nodes have said.
    pub said: Vec<Announced>,
    /// Who holds a node id.
    pub holders: BTreeMap<NodeId, Holder>,
    /// The order stream.
    pub order: Overview,
    /// Its name.
    pub stream: String,
    /// Who takes the snapshots.
    pub leader: Option<NodeId>,
    /// The newest verified snapshot.
    pub snapshot: Option<Manifest>,
    /// When the first message behind a position was stored, by position.
    pub next: BTreeMap<Sequence, u64>,
    /// The server's time, in nanoseconds since the Unix epoch.
    pub now: u64,
}

/// Looks. `replicas`: of the bucket, where nobody has made it yet.
///
/// # Errors
/// [`LookError`]; [`StreamError::StreamMissing`] where no node was ever here.
pub async fn look(broker: &Broker, replicas: usize) -> Result<Seen, LookError> {
    // First: where there is no stream there is no bucket, and looking makes none.
    let order = broker.overview(ShardId::ORDER).await?;
    let kv = broker.snapshots_bucket(replicas).await?;
    let said = presence::said(&kv).await?;
    let holders = broker.holders().await?;
    let leader = match kv.get("leader").await? {
        Some(entry) => serde_json::from_slice::<RoleHolder>(&entry.value)
            .ok()
            .map(|holder| NodeId(holder.node))
            .filter(|node| holders.contains_key(node)),
        None => None,
    };
    let (verified, _) = Verified::read(&kv).await?;
    // Read after what was said, so that nothing is from the future.
    let order = broker.overview(ShardId::ORDER).await.unwrap_or(order);
    let spoken = said.iter().map(|a| a.at).max();
    Ok(Seen {
        next: behind(broker, &said, &order).await,
        now: order.now.or(spoken).unwrap_or(order.newest),
        stream: broker.stream_name(ShardId::ORDER),
        snapshot: verified.0.into_iter().next(),
        said,
        holders,
        order,
        leader,
    })
}

/// Since when the messages wait that nodes have not folded yet.
async fn behind(broker: &Broker, said: &[Announced], order: &Overview) -> BTreeMap<Sequence, u64> {
    let mut asking = JoinSet::new();
    let mut asked = Vec::new();
    for position in said.iter().filter_map(|a| a.present.position) {
        let at = position.next();
        if at > order.state.last || at < order.state.first || asked.contains(&position) {
            continue;
        }
        asked.push(position);
        let broker = broker.clone();
        asking.spawn(async move {
            let message = broker.fetch(ShardId::ORDER, at, FETCH).await;
            message
                .ok()
                .flatten()
                .map(|m| (position, m.timestamp_nanos))
        });
    }
    asking.join_all().await.into_iter().flatten().collect()
}
