//! Who is there, and how far: each node says so every moment under a key of its own.
//!
//! ```text
//!   <stream_prefix>-snapshots   at-<node id> ─▶ { history, position, incarnation, …, about, gone }
//! ```
//!
//! A node that is gone for good leaves its last words here, marked as gone: its position counts no more, but what it may have sent and not named yet is kept for as long as that of any
//! silent node, for one that was forgotten may have been cut off only. It overwrites the mark when it comes back.
//!
//! Invariants: a mark is set only where nothing was said since that was looked at; ages are told by comparing two times of the server's, never by clocks of nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::change::history::History;
use crate::change::position::{Incarnation, NodeId, Sequence};
use crate::cluster::about::About;
use crate::stream::{Broker, Kv, KvEntry, KvError};

const PREFIX: &str = "at-";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// For people: what does not read is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    about: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<Gone>,
}

/// How a node has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// It has left by itself, everything published.
    Left,
    /// An operator has told the others to forget it.
    Forgotten,
}

/// What a node has said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// Which.
    pub node: NodeId,
    /// What the others need to know.
    pub present: Present,
    /// What people want to know.
    pub about: Option<About>,
    /// Whether it has gone for good.
    pub gone: Option<Gone>,
    /// When, by the server's time in nanoseconds since the Unix epoch.
    pub at: u64,
    /// The revision of its entry.
    pub revision: u64,
    said: Announcement,
}

impl Announced {
    /// What a node says at a time of the server's.
    #[must_use]
    pub fn new(node: NodeId, present: Present, about: Option<About>, at: u64) -> Self {
        Self {
            node,
            present,
            gone: None,
            at,
            revision: 0,
            said: announcement(present, about.as_ref()),
            about,
        }
    }

    /// What an announcement says. One of a later version may say it otherwise: then the node is only known to be there.
    #[must_use]
    pub fn read(node: NodeId, entry: &KvEntry) -> Self {
        let said = serde_json::from_slice::<Announcement>(&entry.value).ok();
        let present = said.as_ref().map_or(Present::UNKNOWN, present_of);
        let said = said.unwrap_or_else(|| announcement(present, None));
        let about = said.about.clone().map(About::from);
        Self {
            gone: said.gone,
            revision: entry.revision,
            said,
            ..Self::new(node, present, about, entry.created)
        }
    }
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
    /// It has gone for good, as far as anybody knows: it needs nothing of the stream.
    pub gone: bool,
}

impl Present {
    /// Of a node that is there, and no more is known.
    pub const UNKNOWN: Self = Self {
        position: Some(Sequence(0)),
        incarnation: None,
        wanted: 0,
        history: History::FIRST,
        keeps_much: false,
        gone: false,
    };
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
pub async fn announce(
    kv: &Kv,
    node: NodeId,
    present: Present,
    about: Option<&About>,
) -> Result<(), KvError> {
    let said = announcement(present, about);
    kv.put(&key(node), encoded(&said)).await.map(drop)
}

fn announcement(present: Present, about: Option<&About>) -> Announcement {
    let incarnation = present.incarnation.unwrap_or_default();
    Announcement {
        position: present.position.map(|p| p.0),
        counter: incarnation.counter,
        nonce: incarnation.nonce,
        wanted: present.wanted,
        history: present.history,
        kept: present.keeps_much,
        // Texts and numbers always have a JSON form.
        about: about.and_then(|a| serde_json::to_value(a).ok()),
        gone: None,
    }
}

fn key(node: NodeId) -> String {
    format!("{PREFIX}{node}")
}

fn encoded(said: &Announcement) -> Bytes {
    serde_json::to_vec(said).unwrap_or_default().into()
}

/// This node has gone for good: what it needed of the stream nobody has to keep.
///
/// # Errors
/// The broker's.
pub async fn mark_left(
    kv: &Kv,
    node: NodeId,
    present: Present,
    about: &About,
) -> Result<(), KvError> {
    let said = Announcement {
        position: None,
        wanted: 0,
        kept: false,
        gone: Some(Gone::Left),
        ..announcement(present, Some(about))
    };
    kv.put(&key(node), encoded(&said)).await.map(drop)
}

/// A node is taken to have gone for good, unless it has said something since `last`.
///
/// # Errors
/// [`KvError::Conflict`]: it has. The broker's.
pub async fn mark_forgotten(kv: &Kv, last: &Announced) -> Result<(), KvError> {
    let said = Announcement {
        position: None,
        wanted: 0,
        kept: false,
        gone: Some(Gone::Forgotten),
        ..last.said.clone()
    };
    kv.update(&key(last.node), encoded(&said), last.revision)
        .await
        .map(drop)
}

/// This node leaves: it holds up nothing any more.
///
/// # Errors
/// The broker's.
pub async fn leave(kv: &Kv, node: NodeId) -> Result<(), KvError> {
    kv.purge(&key(node)).await
}

/// What every node has said last, by rising id.
///
/// # Errors
/// The broker's.
pub async fn said(kv: &Kv) -> Result<Vec<Announced>, KvError> {
    let entries = kv.entries().await?;
    let of = |(key, entry): (&String, &KvEntry)| {
        let node = NodeId(key.strip_prefix(PREFIX)?.parse().ok()?);
        Some(Announced::read(node, entry))
    };
    let mut all: Vec<Announced> = entries.iter().filter_map(of).collect();
    all.sort_unstable_by_key(|a| a.node);
    Ok(all)
}

/// What one node has said last.
///
/// # Errors
/// The broker's.
pub async fn said_by(kv: &Kv, node: NodeId) -> Result<Option<Announced>, KvError> {
    let entry = kv.get(&key(node)).await?;
    Ok(entry.map(|entry| Announced::read(node, &entry)))
}

/// The nodes that have said something within `silent_after`, and those that hold a lease on their id.
///
/// # Errors
/// The broker's.
pub async fn living(kv: &Kv, broker: &Broker, silent_after: Duration) -> Result<Living, KvError> {
    let said = said(kv).await?;
    let leased = broker.living_nodes().await?;
    // One that had gone and holds its id again is about to read from wherever it stands.
    let counts = |a: &&Announced| a.gone.is_none() || !leased.contains(&a.node);
    let said: Vec<_> = said
        .iter()
        .filter(counts)
        .map(|a| (a.node, a.present, a.at))
        .collect();
    Ok(Living::of(&said, &leased, silent_after))
}

fn present_of(said: &Announcement) -> Present {
    let incarnation = Incarnation {
        counter: said.counter,
        nonce: said.nonce,
    };
    Present {
        position: said.position.map(Sequence),
        incarnation: (said.counter > 0).then_some(incarnation),
        wanted: said.wanted,
        history: said.history,
        keeps_much: said.kept,
        gone: said.gone.is_some(),
    }
}
