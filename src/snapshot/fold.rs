//! A snapshot made of the one before and the stream behind it, in a database of its own: what the cluster has agreed on, and nothing of what is pending here.
//!
//! It is for a stream that is nearly full. A copy of this node's database would hold changes that are not published yet, and could not count before they
//! are; but they may find no room in the stream until a snapshot has made some.
//!
//! Invariant: the result is the fold, as every node has it; where anything cannot be folded here, there is no result.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::Catalog;
use super::manifest::Manifest;
use super::scratch::Scratch;
use super::take::{TakeError, blocking};
use crate::apply::incoming::{self, Body, Incoming};
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::codec::spool::Spool;
use crate::consume::payload::{self, PieceCache};
use crate::engine::Engine;
use crate::replica::group::{ApplyOptions, Stopped};
use crate::replica::lifecycle::OpenOptions;
use crate::replica::{Replica, copy};
use crate::sqlite::connection;
use crate::state::node::Position;
use crate::store::Progress;
use crate::stream::Broker;

/// Messages folded at once.
const GROUP: usize = 256;

/// Nobody else writes there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the next message may take, of which the stream says that it is there.
const NEXT: Duration = Duration::from_secs(30);

/// Makes `to` of the snapshot and the stream. Returns where it stands, and the hash of its schema.
///
/// # Errors
/// What is in the way, [`TakeError::Unfoldable`] above all.
pub async fn fold(
    engine: &Arc<Engine>,
    broker: &Broker,
    catalog: &Catalog,
    from: &Manifest,
    to: &Arc<Scratch>,
) -> Result<(Position, String), TakeError> {
    catalog.fetch(from, to.path(), &Progress::none()).await?;
    let unfoldable = |e: &dyn std::fmt::Display| TakeError::Unfoldable(e.to_string());
    let options = OpenOptions {
        // Nobody's: every batch is another's.
        node_id: NodeId(0),
        publish: false,
        include: engine.config.replication.include.clone(),
        exclude: engine.config.replication.exclude.clone(),
    };
    let mut replica = {
        let to = Arc::clone(to);
        blocking(move || {
            Replica::open(to.path(), &options, PATIENCE, &|| false)
                .map_err(|e| TakeError::Unfoldable(e.to_string()))
        })
        .await?
    };
    let last = broker
        .stream_state(ShardId::ORDER)
        .await
        .map_err(|e| unfoldable(&e))?
        .last;
    let mut at = replica.position().sequence;
    let mut reader = broker.reader(ShardId::ORDER, at.next());
    let mut cache = PieceCache::default();
    let spool = Arc::new(Spool::new(engine.config.folder().to_owned()));
    let mut group: Vec<Incoming> = Vec::new();
    while at < last {
        let message = tokio::time::timeout(NEXT, reader.next())
            .await
            .map_err(|e| unfoldable(&e))?
            .map_err(|e| unfoldable(&e))?;
        at = message.sequence;
        let mut opened = incoming::open(at, &message.payload);
        match &mut opened.body {
            Body::Payload => cache.keep(at, message.payload),
            Body::Batch(batch) => payload::gather(broker, &mut cache, batch, &spool)
                .await
                .map_err(|e| unfoldable(&e))?,
            _ => {}
        }
        // Large batches lie in their spools until they are folded: they are not gathered.
        let large = matches!(&opened.body, Body::Batch(b) if !b.record.sections.is_empty());
        group.push(opened);
        if large || group.len() >= GROUP || at >= last {
            let messages = std::mem::take(&mut group);
            replica = blocking(move || apply(replica, messages)).await?;
        }
    }
    let schema = replica.captured().schema_hash();
    let position = replica.position();
    let to = Arc::clone(to);
    blocking(move || {
        drop(replica);
        copy::finish(connection::open_writer(to.path())?)?;
        Ok(())
    })
    .await?;
    if position.sequence <= Sequence(from.sequence) {
        return Err(TakeError::Unfoldable(
            "nothing has come since the snapshot before".to_owned(),
        ));
    }
    Ok((position, schema))
}

fn apply(mut replica: Replica, mut messages: Vec<Incoming>) -> Result<Replica, TakeError> {
    let options = ApplyOptions {
        max_time: Duration::from_secs(1),
        given_up: true,
        patience: PATIENCE,
        stop: &|| false,
    };
    while !messages.is_empty() {
        let applied = replica
            .apply(&messages, &options)
            .map_err(|e| TakeError::Unfoldable(e.to_string()))?;
        if applied.consumed == 0 {
            return Err(TakeError::Unfoldable(match applied.stopped {
                Stopped::Schema(reason) => {
                    format!("the schema has changed since the snapshot before: {reason}")
                }
                other => format!("the stream cannot be folded here ({other:?})"),
            }));
        }
        messages.drain(..applied.consumed.min(messages.len()));
    }
    Ok(replica)
}
