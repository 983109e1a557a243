//! What a node does that finds the history broken while it runs.

use super::agree;
use crate::change::position::NodeId;
use crate::engine::Engine;
use crate::stream::Broker;

/// Proposes a new history and ends this life of the daemon, whose next one takes part in the election.
///
/// # Errors
/// The reason to stand still for, where no new history can begin or the broker does not answer.
pub async fn mend(engine: &Engine, broker: &Broker, why: String) -> Result<(), String> {
    if !engine.config.snapshot.enabled {
        return Err(format!(
            "{why}; with snapshots disabled no new history can begin: bring the stream back from a backup of the broker, or stop all nodes, copy the database of the one that is farthest to the others, remove the stream, and start them"
        ));
    }
    // Who applies nothing has folded nothing that could be lost, and goes on at the end of the stream.
    if engine.config.replicate {
        let mine = tokio::task::block_in_place(|| engine.replica().history());
        let proposed = async {
            let kv = agree::bucket(broker, engine.config.replication_log.replicas).await?;
            agree::propose(broker, &kv, NodeId(engine.config.node_id), mine, &why).await
        };
        proposed.await.map_err(|e| format!("{why}; {e}"))?;
    }
    engine.halt(None);
    engine.begin_again(&why);
    Ok(())
}
