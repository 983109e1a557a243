//! This node's entry: written at the start, within a moment of each change of the schema or of what it waits for, after reconnects, and now and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::cluster::{bucket_name, key_of};
use super::entry::Entry;
use crate::capture::Captured;
use crate::change::position::NodeId;
use crate::engine::Engine;
use crate::runtime::Backoff;
use crate::stream::{Broker, Kv, KvError};

/// How often this node looks whether there is news: a reader sees a change well within a second.
const LOOK: Duration = Duration::from_millis(200);

/// How often it says that it is still there.
const AGAIN: Duration = Duration::from_secs(10);

/// Writes the entry until it is dropped.
pub async fn run(engine: Arc<Engine>, broker: Broker) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let result = async {
            let mut announcer = Announcer::begin(&engine, &broker).await?;
            loop {
                announcer.look().await?;
                backoff.reset();
                tokio::time::sleep(LOOK).await;
            }
        };
        // A bucket that the broker has lost is made anew.
        let Err(error): Result<std::convert::Infallible, KvError> = result.await;
        if backoff.tries() == 0 {
            tracing::warn!(%error, "this node's schema could not be entered in the registry; trying again");
        }
        tokio::time::sleep(backoff.next_wait()).await;
    }
}

struct Announcer<'e> {
    engine: &'e Arc<Engine>,
    broker: &'e Broker,
    kv: Kv,
    /// What was said last, when, and over which connection.
    said: Option<(Said, Instant, u64)>,
}

/// What makes an entry news.
#[derive(PartialEq, Eq)]
struct Said {
    hash: String,
    waits_for: Option<String>,
}

impl<'e> Announcer<'e> {
    /// Opens the registry, and takes from it what was the schema before this daemon began.
    async fn begin(engine: &'e Arc<Engine>, broker: &'e Broker) -> Result<Self, KvError> {
        let replicas = engine.config.replication_log.replicas;
        let kv = broker
            .kv_bucket(&bucket_name(broker), None, replicas)
            .await?;
        let node = NodeId(engine.config.node_id);
        let before = kv.get(&key_of(node)).await?;
        if let Some(before) = before.and_then(|e| serde_json::from_slice::<Entry>(&e.value).ok()) {
            let now = engine.status.view().schema_hash;
            engine
                .status
                .set_schema_before(if before.schema_hash == now {
                    &before.previous_hash
                } else {
                    &before.schema_hash
                });
        }
        Ok(Self {
            engine,
            broker,
            kv,
            said: None,
        })
    }

    async fn look(&mut self) -> Result<(), KvError> {
        let view = self.engine.status.view();
        let now = Said {
            hash: view.schema_hash,
            waits_for: view.schema_paused,
        };
        let reconnects = self.broker.reconnects();
        let news = self.said.as_ref().is_none_or(|(said, at, over)| {
            *said != now || at.elapsed() >= AGAIN || *over != reconnects
        });
        if !news {
            return Ok(());
        }
        // A scan or an application may hold it for long.
        let (captured, position): (Arc<Captured>, u64) = tokio::task::block_in_place(|| {
            let replica = self.engine.replica();
            (
                Arc::clone(replica.captured()),
                replica.position().sequence.0,
            )
        });
        let entry = Entry {
            node_id: self.engine.config.node_id,
            previous_hash: view.schema_previous_hash,
            updated_at: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            position,
            pending: view.pending,
            waits_for: now.waits_for.clone(),
            ..Entry::of(&captured)
        };
        // Texts and numbers always have a JSON form.
        let value = serde_json::to_vec(&entry).unwrap_or_default();
        let node = NodeId(self.engine.config.node_id);
        self.kv.put(&key_of(node), value.into()).await?;
        self.said = Some((now, Instant::now(), reconnects));
        Ok(())
    }
}
