//! The picture: every node with its state, and what people should look at. A pure function of what was read.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::about::{About, State, shortened};
use super::look::Seen;
use crate::brakes::Set;
use crate::change::position::NodeId;
use crate::snapshot::presence::{Announced, Gone, Present};
use crate::snapshot::verified::age;
use crate::stream::Holder;

/// A node that holds its id and has announced nothing for so long is silent. Seconds; nodes announce themselves every second.
const SILENT: f64 = 6.0;

/// How a node is, seen from outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Publishing and applying.
    #[default]
    Running,
    /// An operator or a schema difference holds it back.
    Paused,
    /// Its health says no.
    Unhealthy,
    /// On its way to the end.
    Stopping,
    /// It holds its id and announces nothing: it is starting, or what it says is not stored.
    Silent,
    /// Ended in good order, expected back.
    Stopped,
    /// Ended or cut off without a word, expected back.
    Lost,
    /// It has left.
    Left,
    /// An operator has told the others to forget it.
    Forgotten,
}

impl NodeState {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Unhealthy => "unhealthy",
            Self::Stopping => "stopping",
            Self::Silent => "silent",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
            Self::Left => "left",
            Self::Forgotten => "forgotten",
        }
    }

    /// Whether it is gone for good, as far as anybody knows.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        matches!(self, Self::Left | Self::Forgotten)
    }

    /// Whether a daemon is there.
    #[must_use]
    pub const fn is_here(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Paused | Self::Unhealthy | Self::Stopping | Self::Silent
        )
    }
}

/// The cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The node whose daemon has looked; `None`: the command itself has, without a daemon.
    pub seen_by: Option<u64>,
    /// The order stream.
    pub stream: String,
    /// Its last message.
    pub last: u64,
    /// The node that takes the snapshots and trims the streams.
    pub snapshot_leader: Option<u64>,
    /// The newest verified snapshot.
    pub snapshot: Option<SnapshotView>,
    /// By rising id.
    pub nodes: Vec<NodeView>,
    /// What people should look at.
    pub warnings: Vec<String>,
}

/// A snapshot.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its file.
    pub file: String,
    /// The position that it covers.
    pub position: u64,
    /// Seconds since it was taken, by the clock of its node.
    pub age_seconds: f64,
    /// Who has taken it.
    pub node: String,
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Which.
    pub node_id: u64,
    /// How it is.
    pub state: NodeState,
    /// Why it is not well, in its own words or in those of who looks.
    pub reasons: Vec<String>,
    /// What it says people should look at all the same.
    pub warnings: Vec<String>,
    /// Its version.
    pub version: String,
    /// Its host's name.
    pub host: String,
    /// Its process there, where it holds its id.
    pub pid: Option<u32>,
    /// Its address as its NATS server sees it.
    pub address: Option<String>,
    /// The NATS server that it is connected to.
    pub nats_server: Option<String>,
    /// How far it has folded the order stream; `None`: it applies nothing, or does not say.
    pub position: Option<u64>,
    /// The history that this is of.
    pub history: u64,
    /// Messages that it has not folded.
    pub lag_messages: Option<u64>,
    /// How long the first of them has waited in the stream.
    pub lag_seconds: Option<f64>,
    /// Changes of its app that have not come back from the stream.
    pub pending: u64,
    /// Entries in its dead-letter journal.
    pub dead_letters: u64,
    /// Hash of its schema.
    pub schema: String,
    /// Tables that it replicates.
    pub tables: u64,
    /// Seconds since it announced itself, by the server's clock.
    pub last_seen_seconds: Option<f64>,
    /// Seconds since its daemon started, when it said so.
    pub uptime_seconds: u64,
    /// `publish` of its configuration.
    pub publish: bool,
    /// `replicate` of its configuration.
    pub replicate: bool,
    /// Shards that it publishes to.
    pub shards: u64,
    /// What an operator holds back.
    pub brakes: Set,
    /// Whether it takes the snapshots.
    pub snapshot_leader: bool,
    /// Nodes that have answered it lately.
    pub hears: Vec<u64>,
    /// Nodes that announce themselves and do not answer it.
    pub misses: Vec<u64>,
}

/// A time of the server's, RFC 3339 to the second; `None` for 0.
#[must_use]
pub fn moment(nanos: u64) -> Option<String> {
    let seconds = i64::try_from(nanos / 1_000_000_000)
        .ok()
        .filter(|s| *s > 0)?;
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    at.format(&Rfc3339).ok()
}

fn seconds(nanos: u64) -> f64 {
    // Milliseconds: finer digits are noise.
    (std::time::Duration::from_nanos(nanos).as_secs_f64() * 1e3).round() / 1e3
}

impl ClusterView {
    /// What follows from what was read. `seen_by`: the node whose daemon has looked.
    #[must_use]
    pub fn of(seen: &Seen, seen_by: Option<NodeId>) -> Self {
        let mut nodes: BTreeMap<NodeId, NodeView> = seen
            .said
            .iter()
            .map(|a| (a.node, of_announced(seen, a)))
            .collect();
        for (node, holder) in &seen.holders {
            // It has not said anything yet.
            nodes
                .entry(*node)
                .or_insert_with(|| starting(*node, holder));
        }
        let mut view = Self {
            seen_by: seen_by.map(|n| n.0),
            stream: seen.stream.clone(),
            last: seen.order.state.last.0,
            snapshot_leader: seen.leader.map(|n| n.0),
            snapshot: seen.snapshot.as_ref().map(|m| SnapshotView {
                file: m.file.clone(),
                position: m.sequence,
                age_seconds: age(m).as_secs_f64().round(),
                node: m.node.clone(),
            }),
            nodes: nodes.into_values().collect(),
            warnings: Vec::new(),
        };
        view.warnings = view.warnings(seen);
        view
    }

    /// Nothing but this node, where nothing else can be seen. `why`: what is in the way.
    #[must_use]
    pub fn alone(node: NodeId, present: Present, about: About, why: String) -> Self {
        let state = match about.state {
            State::Running | State::Other => NodeState::Running,
            State::Paused => NodeState::Paused,
            State::Unhealthy => NodeState::Unhealthy,
            State::Stopping | State::Stopped => NodeState::Stopping,
        };
        let position = present.position.map(|p| p.0);
        let own = NodeView {
            position,
            history: present.history.number,
            pid: Some(std::process::id()),
            last_seen_seconds: Some(0.0),
            ..of_about(node, state, about)
        };
        Self {
            seen_by: Some(node.0),
            nodes: vec![own],
            warnings: vec![why],
            ..Self::default()
        }
    }

    fn warnings(&self, seen: &Seen) -> Vec<String> {
        let mut out = Vec::new();
        for node in &self.nodes {
            let id = node.node_id;
            let for_seconds = node.last_seen_seconds.unwrap_or_default().round();
            match node.state {
                NodeState::Lost => out.push(format!(
                    "node {id} ended or was cut off without a word {for_seconds} s ago: if it does not come back, harmonylite nodes forget {id}"
                )),
                NodeState::Silent => out.push(format!(
                    "node {id} holds its id and announces nothing: it is starting, or JetStream does not store what it says"
                )),
                _ => {}
            }
            if !node.misses.is_empty() && node.state.is_here() {
                let them: Vec<String> = node.misses.iter().map(u64::to_string).collect();
                let all = node.hears.is_empty();
                out.push(format!(
                    "a partition is suspected: node {id} (NATS server {}) gets no answer from {} that it sees in JetStream ({})",
                    node.nats_server.as_deref().unwrap_or("unknown"),
                    if all { "any node" } else { "nodes" },
                    them.join(", ")
                ));
            }
        }
        let here = || {
            self.nodes
                .iter()
                .filter(|n| n.state.is_here() && !n.schema.is_empty())
        };
        let schemas: BTreeSet<&str> = here().map(|n| n.schema.as_str()).collect();
        if schemas.len() > 1 {
            let groups = schemas.iter().map(|schema| {
                let nodes = here().filter(|n| n.schema == *schema);
                let nodes: Vec<String> = nodes.map(|n| n.node_id.to_string()).collect();
                format!("{} on {}", short(schema), nodes.join(", "))
            });
            let groups: Vec<String> = groups.collect();
            out.push(format!("schemas differ: {}", groups.join("; ")));
        }
        for (what, servers) in [
            ("is offline", &seen.order.offline),
            ("is behind", &seen.order.behind),
        ] {
            for server in servers {
                out.push(format!(
                    "the copy of stream {} on NATS server {server} {what}",
                    seen.stream
                ));
            }
        }
        out
    }
}

/// The part of a schema's hash that people compare.
#[must_use]
pub fn short(schema: &str) -> String {
    schema.chars().take(8).collect()
}

fn of_announced(seen: &Seen, a: &Announced) -> NodeView {
    let about = a.about.clone().unwrap_or_default();
    let holder = seen.holders.get(&a.node);
    let age = seconds(seen.now.saturating_sub(a.at));
    let state = state(a, &about, holder.is_some(), age);
    let last = seen.order.state.last.0;
    let position = a.present.position.map(|p| p.0);
    let waits = a
        .present
        .position
        .and_then(|p| seen.next.get(&p))
        .map(|since| seconds(seen.now.saturating_sub(*since)));
    let behind = position.map(|p| last.saturating_sub(p));
    NodeView {
        pid: holder.map(|h| h.pid),
        position,
        history: a.present.history.number,
        lag_messages: behind,
        lag_seconds: match behind {
            Some(0) => Some(0.0),
            _ => waits,
        },
        last_seen_seconds: Some(age),
        snapshot_leader: seen.leader == Some(a.node),
        ..of_about(a.node, state, about)
    }
}

/// What a node says about itself.
fn of_about(node: NodeId, state: NodeState, about: About) -> NodeView {
    NodeView {
        node_id: node.0,
        state,
        reasons: about.reasons,
        warnings: about.warnings,
        version: about.version,
        host: about.host,
        address: about.address,
        nats_server: about.server,
        pending: about.pending,
        dead_letters: about.dead_letters,
        schema: about.schema,
        tables: about.tables,
        uptime_seconds: about.uptime_seconds,
        publish: about.publish,
        replicate: about.replicate,
        shards: about.shards,
        brakes: about.brakes,
        hears: about.hears,
        misses: about.misses,
        ..NodeView::default()
    }
}

fn state(a: &Announced, about: &About, held: bool, age: f64) -> NodeState {
    match a.gone {
        Some(Gone::Left) if !held => return NodeState::Left,
        Some(Gone::Forgotten) if !held => return NodeState::Forgotten,
        Some(_) => return NodeState::Silent,
        None => {}
    }
    match (held, about.state) {
        // It has said so, and may hold its id for a moment longer, or have begun anew.
        (false, State::Stopped) => NodeState::Stopped,
        (true, State::Stopped) => NodeState::Silent,
        (false, _) if age > SILENT => NodeState::Lost,
        (true, _) if age > SILENT => NodeState::Silent,
        (_, State::Running | State::Other) => NodeState::Running,
        (_, State::Paused) => NodeState::Paused,
        (_, State::Unhealthy) => NodeState::Unhealthy,
        (_, State::Stopping) => NodeState::Stopping,
    }
}

fn starting(node: NodeId, holder: &Holder) -> NodeView {
    NodeView {
        node_id: node.0,
        state: NodeState::Silent,
        version: shortened(&holder.version),
        host: shortened(&holder.host),
        pid: Some(holder.pid),
        ..NodeView::default()
    }
}

#[cfg(test)]
mod tests;
