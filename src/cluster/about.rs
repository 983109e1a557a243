//! What a node says about itself beside its position: for people, so a later version may say more and an earlier one less.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::brakes::{Part, Set};
use crate::http::status::{View, judge};

/// Sentences of each kind that are told, and characters of each.
const SENTENCES: usize = 4;
const LETTERS: usize = 300;
/// Nodes and shards of a list that are told.
const MANY: usize = 1024;

/// How a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Publishing and applying.
    #[default]
    Running,
    /// An operator or a schema difference holds it back.
    Paused,
    /// Its health says no.
    Unhealthy,
    /// On its way to the end.
    Stopping,
    /// Ended in good order.
    Stopped,
    /// What a later version calls by a name of its own.
    #[serde(other)]
    Other,
}

/// What a node says about itself. Each field may be lacking.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Its version.
    pub version: String,
    /// Its host's name.
    pub host: String,
    /// Its address as its NATS server sees it.
    pub address: Option<String>,
    /// The NATS server that it is connected to.
    pub server: Option<String>,
    /// How it is.
    pub state: State,
    /// Why it is not well.
    pub reasons: Vec<String>,
    /// What people should look at all the same.
    pub warnings: Vec<String>,
    /// `publish` of its configuration.
    pub publish: bool,
    /// `replicate` of its configuration.
    pub replicate: bool,
    /// Changes of its app that have not come back from the stream.
    pub pending: u64,
    /// Entries in its dead-letter journal.
    pub dead_letters: u64,
    /// Hash of its schema.
    pub schema: String,
    /// Tables that it replicates.
    pub tables: u64,
    /// Seconds since its daemon started.
    pub uptime_seconds: u64,
    /// Shards that it publishes to.
    pub shards: u64,
    /// By shard from 2 on, the last message of payload that it has folded since it started.
    pub offsets: BTreeMap<u64, u64>,
    /// What an operator holds back.
    pub brakes: Set,
    /// Nodes that have answered it lately.
    pub hears: Vec<u64>,
    /// Nodes that announce themselves and do not answer it.
    pub misses: Vec<u64>,
}

impl About {
    /// What a daemon's own status says.
    #[must_use]
    pub fn of(view: &View) -> Self {
        let verdict = judge(view);
        let paused = view.apply_paused.is_some()
            || view.schema_paused.is_some()
            || view.brakes.pause().is_some();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state: match () {
                () if view.stopping => State::Stopping,
                () if paused => State::Paused,
                () if !verdict.is_healthy() => State::Unhealthy,
                () => State::Running,
            },
            reasons: told(&verdict.reasons),
            warnings: told(&verdict.warnings),
            publish: view.publish,
            replicate: view.replicate,
            pending: view.pending,
            dead_letters: view.dead_letters,
            schema: view.schema_hash.clone(),
            tables: view.tables_tracked,
            uptime_seconds: view.uptime.as_secs(),
            brakes: view.brakes.clone(),
            ..Self::default()
        }
    }
}

/// What another node says of itself, as far as it is shown: that is its word, and it may say anything.
impl From<serde_json::Value> for About {
    fn from(said: serde_json::Value) -> Self {
        let mut about: Self = serde_json::from_value(said).unwrap_or_default();
        for part in Part::ALL {
            let since = &mut about.brakes.of_mut(part).paused_since;
            *since = since.as_deref().map(shortened);
        }
        let few = |nodes: Vec<u64>| nodes.into_iter().take(MANY).collect();
        Self {
            version: shortened(&about.version),
            host: shortened(&about.host),
            address: about.address.as_deref().map(shortened),
            server: about.server.as_deref().map(shortened),
            reasons: told(&about.reasons),
            warnings: told(&about.warnings),
            schema: shortened(&about.schema),
            offsets: about.offsets.into_iter().take(MANY).collect(),
            hears: few(about.hears),
            misses: few(about.misses),
            ..about
        }
    }
}

fn told(sentences: &[String]) -> Vec<String> {
    sentences
        .iter()
        .take(SENTENCES)
        .map(|s| shortened(s))
        .collect()
}

/// As much of a text as is shown of it, in one line.
#[must_use]
pub fn shortened(text: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().take(LETTERS).map(plain).collect()
}
