//! This node says where it is and how it is, every moment, and how it ends.
//!
//! Invariant: the publisher learns of an announcement only once the broker has stored it, and of the time at which it was begun.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::about::{About, State};
use crate::change::position::NodeId;
use crate::engine::Engine;
use crate::replica::kept::Kept;
use crate::runtime::Backoff;
use crate::snapshot::presence::{self, Present};
use crate::snapshot::watch::Looking;
use crate::stream::{Broker, Kv, KvError, StreamError};

/// How often a node announces itself at most.
const EVERY: Duration = Duration::from_secs(1);

/// How long one announcement may take: a broker that needs longer stores nothing else either.
const DEADLINE: Duration = Duration::from_secs(5);

/// How a node's presence ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It may come back: what it needs is kept for it.
    Stops,
    /// It has gone for good, until it says otherwise.
    Leaves,
    /// Nothing is left of it here.
    Removed,
}

/// How often a node announces itself, where nodes count as silent after `silent_after`.
#[must_use]
pub fn every(silent_after: Duration) -> Duration {
    (silent_after / 5).min(EVERY)
}

/// Announces this node once.
///
/// # Errors
/// The broker's.
pub async fn say(engine: &Engine, broker: &Broker, kv: &Kv) -> Result<(), KvError> {
    let begun = Instant::now();
    let (present, about) = now(engine, Some(broker));
    let node = NodeId(engine.config.node_id);
    let said = presence::announce(kv, node, present, Some(&about));
    let said = match tokio::time::timeout(DEADLINE, said).await {
        Ok(said) => said,
        Err(_) => Err(KvError::Stream(StreamError::Timeout {
            what: "the announcement of this node".to_owned(),
            after: DEADLINE,
        })),
    };
    engine.hearing.announced(broker, said.as_ref().err());
    said?;
    engine.gate.announced(begun);
    Ok(())
}

/// Announces this node until it is dropped, where no snapshots are taken and nobody else does.
pub async fn run(engine: Arc<Engine>, broker: Broker) {
    let config = &engine.config.replication_log;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let kv = loop {
        match broker.snapshots_bucket(config.replicas).await {
            Ok(kv) => break kv,
            Err(error) => tracing::debug!(%error, "this node could not be announced"),
        }
        tokio::time::sleep(backoff.next_wait()).await;
    };
    let mut looking = Looking::default();
    loop {
        if let Err(error) = say(&engine, &broker, &kv).await {
            tracing::debug!(%error, "this node could not be announced");
        }
        // A full stream drops its oldest messages where there are no snapshots: its size holds nothing up.
        let _ = looking.look(&engine, &broker).await;
        tokio::time::sleep(every(config.silent_after)).await;
    }
}

/// Says how this node ends.
///
/// # Errors
/// The broker's: the others go by what it said last.
pub async fn end(engine: &Engine, broker: &Broker, end: End) -> Result<(), KvError> {
    let node = NodeId(engine.config.node_id);
    let (present, about) = now(engine, Some(broker));
    let about = About {
        state: State::Stopped,
        reasons: Vec::new(),
        hears: Vec::new(),
        misses: Vec::new(),
        ..about
    };
    let say = async {
        let replicas = engine.config.replication_log.replicas;
        let kv = broker.snapshots_bucket(replicas).await?;
        match end {
            End::Stops => presence::announce(&kv, node, present, Some(&about)).await,
            End::Leaves => presence::mark_left(&kv, node, present, &about).await,
            End::Removed => presence::leave(&kv, node).await,
        }
    };
    match tokio::time::timeout(DEADLINE, say).await {
        Ok(said) => said,
        Err(_) => Err(KvError::Stream(StreamError::Timeout {
            what: "the last announcement of this node".to_owned(),
            after: DEADLINE,
        })),
    }
}

/// Where this node is, and how.
#[must_use]
pub fn now(engine: &Engine, broker: Option<&Broker>) -> (Present, About) {
    let present = tokio::task::block_in_place(|| {
        let replica = engine.replica();
        Present {
            position: engine.config.replicate.then(|| replica.position().sequence),
            incarnation: replica.incarnation(),
            wanted: engine.gate.wanted(),
            history: replica.history(),
            keeps_much: replica.kept().is_some_and(Kept::wants_snapshot),
            gone: false,
        }
    });
    let connected = broker.and_then(Broker::connected);
    let (hears, misses) = engine.hearing.peers();
    let about = About {
        host: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        server: connected.as_ref().map(|c| c.server.clone()),
        address: connected.map(|c| c.address),
        shards: engine.config.replication_log.shards,
        offsets: engine.way.offsets(),
        hears,
        misses,
        ..About::of(&engine.status.view())
    };
    (present, about)
}
