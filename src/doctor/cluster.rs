//! The other nodes: whether they are there, run the same version, have the same schema and the same time.

use std::collections::BTreeSet;

use super::Look;
use super::database::Known;
use super::problem::{Check, Problem};
use super::report::Notes;
use super::streams::OFF;
use crate::change::position::NodeId;
use crate::cluster::look::look as look_at_cluster;
use crate::cluster::view::{ClusterView, NodeState};
use crate::config::Config;
use crate::registry::cluster::{self, Listed};
use crate::stream::{Broker, Holder, KvError};

/// Looks. `daemon`: one runs here; `view`: what it says of the cluster.
pub async fn look(
    look: &Look,
    broker: &Broker,
    known: &Known,
    daemon: bool,
    view: Option<ClusterView>,
) {
    let (config, notes) = (&look.config, &look.notes);
    match has_buckets(broker).await {
        Ok(true) => {}
        Ok(false) => {
            return notes.note(
                Check::Nodes,
                "no node has announced itself in this NATS yet",
            );
        }
        Err(error) => return notes.note(Check::Nodes, format!("not looked at: {error}")),
    }
    if let (Some(mine), Ok(Some(theirs))) = (&known.cluster, cluster_id(broker).await)
        && *mine != theirs
    {
        notes.problem(
            Problem::OtherCluster,
            format!("this database is part of cluster {mine}, and NATS has cluster {theirs} under {}", broker.bucket_prefix()),
            "correct nats.urls or nats.stream_prefix; to move the database into that cluster, run harmonylite -cleanup first",
        );
    }
    if !daemon && let Ok(holders) = broker.holders().await {
        taken(config, known, holders.get(&NodeId(config.node_id)), notes);
    }
    let view = match view.filter(|v| !v.stream.is_empty()) {
        Some(view) => Ok(view),
        None => look_at_cluster(broker, config.replication_log.replicas)
            .await
            .map(|seen| ClusterView::of(&seen, None)),
    };
    match view {
        Ok(view) => nodes(config, &view, notes),
        Err(error) => notes.note(Check::Nodes, format!("not looked at: {error}")),
    }
    match cluster::list(broker).await {
        Ok((listed, _)) => {
            schemas(config, &listed, known, notes);
            clocks(config, &listed, notes);
        }
        Err(error) => notes.note(Check::Schema, format!("not compared: {error}")),
    }
}

/// Whether the buckets are there that looking would make otherwise.
async fn has_buckets(broker: &Broker) -> Result<bool, KvError> {
    for bucket in ["snapshots", "leases"] {
        let name = format!("{}-{bucket}", broker.bucket_prefix());
        if broker.existing_bucket(&name).await?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The cluster that NATS knows.
async fn cluster_id(broker: &Broker) -> Result<Option<String>, KvError> {
    let name = format!("{}-cluster", broker.bucket_prefix());
    let Some(kv) = broker.existing_bucket(&name).await? else {
        return Ok(None);
    };
    let entry = kv.get("cluster").await?;
    let value: Option<serde_json::Value> =
        entry.and_then(|e| serde_json::from_slice(&e.value).ok());
    Ok(value.and_then(|v| v.get("id")?.as_str().map(str::to_owned)))
}

fn nodes(config: &Config, view: &ClusterView, notes: &Notes) {
    let expected = || view.nodes.iter().filter(|n| !n.state.is_gone());
    for node in expected() {
        let id = node.node_id;
        // Of this node the daemon speaks, and who holds its id is looked at by itself.
        if id == config.node_id {
            continue;
        }
        match node.state {
            NodeState::Lost | NodeState::Silent => notes.problem(
                Problem::NodeLost,
                format!(
                    "node {id} ({}) is {}, last heard of {:.0} s ago",
                    node.host,
                    node.state.word(),
                    node.last_seen_seconds.unwrap_or_default()
                ),
                format!(
                    "see why it does not run; if it is gone for good: harmonylite nodes forget {id}"
                ),
            ),
            NodeState::Unhealthy | NodeState::Paused => notes.problem(
                Problem::NodeUnwell,
                format!(
                    "node {id} ({}) is {}: {}",
                    node.host,
                    node.state.word(),
                    node.reasons.join("; ")
                ),
                "run harmonylite doctor there",
            ),
            _ => {}
        }
    }
    let versions: BTreeSet<&str> = expected()
        .filter(|n| n.state.is_here())
        .map(|n| n.version.as_str())
        .filter(|v| !v.is_empty())
        .collect();
    if versions.len() > 1 {
        let all: Vec<&str> = versions.into_iter().collect();
        notes.problem(
            Problem::Versions,
            format!("running nodes have versions {}", all.join(", ")),
            "nothing during an upgrade; otherwise install the latest on all of them",
        );
    }
    if !notes.has(Check::Nodes) {
        let here = expected().filter(|n| n.state.is_here()).count();
        let others = expected().count().saturating_sub(here);
        let stopped = match others {
            0 => String::new(),
            n => format!(", {n} stopped in good order"),
        };
        notes.ok(
            Check::Nodes,
            format!("{} running{stopped}", super::count(here, "node")),
        );
    }
}

/// Who holds this node's id, where no daemon runs here. One with this very database was killed a moment ago: a start takes its lease over.
fn taken(config: &Config, known: &Known, holder: Option<&Holder>, notes: &Notes) {
    let ours = known.state.as_ref().map(|s| s.database_id.as_str());
    if let Some(holder) = holder.filter(|h| Some(h.database.as_str()) != ours) {
        notes.problem(
            Problem::NodeIdTaken,
            format!("no daemon runs for this database, and node id {} is held by {holder}", config.node_id),
            "give this node another node_id, or stop that one; where it was killed a moment ago, look again in 10 s",
        );
    }
}

fn schemas(config: &Config, listed: &[Listed], known: &Known, notes: &Notes) {
    let Some(own) = &known.schema else {
        return notes.note(Check::Schema, "not compared: the schema here is not known");
    };
    let others = || {
        listed
            .iter()
            .filter(|l| l.running && l.entry.node_id != config.node_id)
    };
    for other in others() {
        let differences = own.differences(&other.entry);
        if !differences.is_empty() {
            let shown: Vec<&str> = differences.iter().take(4).map(String::as_str).collect();
            let more = match differences.len().saturating_sub(shown.len()) {
                0 => String::new(),
                n => format!(", and {n} more"),
            };
            notes.problem(
                Problem::SchemaDiffers,
                format!("node {} {}{more}", other.entry.node_id, shown.join("; ")),
                "run the application's migration on every node (docs/schema-changes.md); harmonylite schema --cluster shows all differences",
            );
        }
    }
    if !notes.has(Check::Schema) {
        match others().count() {
            0 => notes.note(Check::Schema, "no other node runs to compare with"),
            n => notes.ok(Check::Schema, format!("equal on {} others", n)),
        }
    }
}

/// What nodes say the time is, beside the time at which NATS stored that.
fn clocks(config: &Config, listed: &[Listed], notes: &Notes) {
    let mut compared = 0;
    for other in listed
        .iter()
        .filter(|l| l.running && l.entry.node_id != config.node_id)
    {
        let Some(ahead) = other.clock_ahead else {
            continue;
        };
        compared += 1;
        if ahead.abs() > OFF {
            let which = if ahead > 0.0 { "ahead of" } else { "behind" };
            notes.problem(
                Problem::PeerClock,
                format!("the clock of node {} is {:.1} s {which} the NATS server's", other.entry.node_id, ahead.abs()),
                "let that machine follow an NTP server: no change is lost, but lags in seconds, certificates and the age of snapshots go by clocks",
            );
        }
    }
    if !notes.has(Check::PeerClocks) {
        match compared {
            0 => notes.note(Check::PeerClocks, "no other node runs to compare with"),
            n => notes.ok(
                Check::PeerClocks,
                format!("of {n} others within {OFF:.0} s of the NATS server's"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeView;

    fn names(notes: &Notes) -> Vec<&'static str> {
        notes
            .all()
            .iter()
            .filter_map(|f| f.problem.map(Problem::name))
            .collect()
    }

    fn judged(nodes_seen: Vec<NodeView>) -> Vec<&'static str> {
        let view = ClusterView {
            nodes: nodes_seen,
            ..ClusterView::default()
        };
        let notes = Notes::default();
        nodes(&Config::with_defaults("a.db", 1), &view, &notes);
        names(&notes)
    }

    fn node(node_id: u64, version: &str, state: NodeState) -> NodeView {
        NodeView {
            node_id,
            version: version.to_owned(),
            state,
            ..NodeView::default()
        }
    }

    #[test]
    fn nodes_that_are_not_well_are_told_but_those_that_have_gone() {
        assert_eq!(judged(vec![node(2, "1", NodeState::Lost)]), ["node-lost"]);
        assert_eq!(
            judged(vec![node(2, "1", NodeState::Paused)]),
            ["node-unwell"]
        );
        assert!(judged(vec![node(2, "1", NodeState::Left)]).is_empty());
        assert!(judged(vec![node(2, "1", NodeState::Stopped)]).is_empty());
        // Its own daemon tells of this one.
        assert!(judged(vec![node(1, "1", NodeState::Paused)]).is_empty());
    }

    #[test]
    fn versions_of_those_that_run_are_compared() {
        let two = |state| {
            judged(vec![
                node(1, "1.0", NodeState::Running),
                node(2, "1.1", state),
            ])
        };
        assert_eq!(two(NodeState::Running), ["versions-differ"]);
        assert!(two(NodeState::Stopped).is_empty());
    }

    #[test]
    fn who_holds_this_nodes_id_with_another_database_is_another() {
        let holder = Holder::this_process("theirs", 1);
        let notes = Notes::default();
        taken(
            &Config::with_defaults("a.db", 1),
            &Known::default(),
            Some(&holder),
            &notes,
        );
        assert_eq!(names(&notes), ["node-id-taken"]);
    }
}
