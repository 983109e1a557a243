//! Who is there, and how far: each node says so every moment under a key of its own.
//!
//! ```text
//!   <stream_prefix>-snapshots   at-<node id> ─▶ { history, position, incarnation, … }
//! ```
//!
//! Invariant: ages are told by comparing two times of the server's, never by clocks of nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::history::History;
use crate::change::position::{Incarnation, NodeId, Sequence};
use crate::stream::{Broker, Kv, KvError};

const PREFIX: &str = "at-";

#[derive(Serialize, Deserialize)]
struct Announcement {
    /// None: the node needs nothing of the stream.
    position: Option<u64>,
    counter: u64,
    nonce: u64,
    #[serde(default)]
    wanted: u64,
    #[serde(default)]
    history: History,
    #[serde(default)]
    kept: bool,
}

/// What is known of a living node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// How far it has folded the order stream; `None`: it needs nothing of it, since it applies nothing.
    pub position: Option<Sequence>,
    /// The incarnation under which it publishes now; `None`: it has not said so yet.
    pub incarnation: Option<Incarnation>,
    /// Bytes of a batch that finds no room in a stream; 0: none.
    pub wanted: u64,
    /// The history that its position is of.
    pub history: History,
    /// It keeps so much of what it has published that it wants a snapshot.
    pub keeps_much: bool,
}

impl Present {
    /// Of a node that is there, and no more is known.
    pub const UNKNOWN: Self = Self {
        position: Some(Sequence(0)),
        incarnation: None,
        wanted: 0,
        history: History::FIRST,
        keeps_much: false,
    };

    /// What an announcement says. One of a later version may say it otherwise: then the node is only known to be there.
    #[must_use]
    pub fn read(value: &[u8]) -> Self {
        let Ok(said) = serde_json::from_slice::<Announcement>(value) else {
            return Self::UNKNOWN;
        };
        let incarnation = Incarnation {
            counter: said.counter,
            nonce: said.nonce,
        };
        Self {
            position: said.position.map(Sequence),
            incarnation: (said.counter > 0).then_some(incarnation),
            wanted: said.wanted,
            history: said.history,
            keeps_much: said.kept,
        }
    }
}

/// The living nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Living {
    /// By id.
    pub nodes: BTreeMap<NodeId, Present>,
    /// The server's time, in nanoseconds since the Unix epoch.
    pub now: u64,
}

impl Living {
    /// The nodes that hold a lease on their id, and those that have said something within `silent_after`. `said`: what each has said last, and when by the
    /// server's time in nanoseconds since the Unix epoch.
    #[must_use]
    pub fn of(said: &[(NodeId, Present, u64)], leased: &[NodeId], silent_after: Duration) -> Self {
        let now = said.iter().map(|(_, _, at)| *at).max().unwrap_or(0);
        let age = u64::try_from(silent_after.as_nanos()).unwrap_or(u64::MAX);
        // One that holds its id and has said nothing yet is about to read from wherever it stands.
        let mut nodes: BTreeMap<NodeId, Present> = leased
            .iter()
            .map(|node| (*node, Present::UNKNOWN))
            .collect();
        for (node, present, at) in said {
            if nodes.contains_key(node) || now.saturating_sub(*at) <= age {
                nodes.insert(*node, *present);
            }
        }
        Self { nodes, now }
    }

    /// What is known of a node.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Present> {
        self.nodes.get(&node)
    }

    /// The bytes of the largest batch that finds no room; 0: none waits.
    #[must_use]
    pub fn most_wanted(&self) -> u64 {
        self.nodes.values().map(|p| p.wanted).max().unwrap_or(0)
    }

    /// The position that the farthest behind of them has. Who stands in an earlier history restores a snapshot of this one first, and begins from there.
    #[must_use]
    pub fn least_position(&self, history: History) -> Option<Sequence> {
        self.nodes
            .values()
            .filter(|p| p.history == history || p.incarnation.is_none())
            .filter_map(|p| p.position)
            .min()
    }

    /// Whether one of them wants a snapshot for what it keeps.
    #[must_use]
    pub fn keep_much(&self) -> bool {
        self.nodes.values().any(|p| p.keeps_much)
    }
}

/// Says where this node is.
///
/// # Errors
/// The broker's.
pub async fn announce(kv: &Kv, node: NodeId, present: Present) -> Result<(), KvError> {
    let incarnation = present.incarnation.unwrap_or_default();
    let value = Announcement {
        position: present.position.map(|p| p.0),
        counter: incarnation.counter,
        nonce: incarnation.nonce,
        wanted: present.wanted,
        history: present.history,
        kept: present.keeps_much,
    };
    // Structs of numbers always have a JSON form.
    let value = serde_json::to_vec(&value).unwrap_or_default();
    kv.put(&format!("{PREFIX}{node}"), value.into())
        .await
        .map(drop)
}

/// This node leaves: it holds up nothing any more.
///
/// # Errors
/// The broker's.
pub async fn leave(kv: &Kv, node: NodeId) -> Result<(), KvError> {
    kv.purge(&format!("{PREFIX}{node}")).await
}

/// The nodes that have said something within `silent_after`, and those that hold a lease on their id.
///
/// # Errors
/// The broker's.
pub async fn living(kv: &Kv, broker: &Broker, silent_after: Duration) -> Result<Living, KvError> {
    let mut said = Vec::new();
    for key in kv.keys().await? {
        let Some(node) = key.strip_prefix(PREFIX).and_then(|id| id.parse().ok()) else {
            continue;
        };
        if let Some(entry) = kv.get(&key).await? {
            said.push((NodeId(node), Present::read(&entry.value), entry.created));
        }
    }
    Ok(Living::of(
        &said,
        &broker.living_nodes().await?,
        silent_after,
    ))
}
