//! The base of a new history: this node's database, or a snapshot, put before the first message that the stream holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::catalog::Catalog;
use super::fold::{next, unfoldable};
use super::manifest::Manifest;
use super::scratch::Scratch;
use super::take::{self, TakeError, blocking};
use crate::apply::incoming::{self, Body, IncomingBatch};
use crate::apply::order;
use crate::change::history::History;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::codec::spool::Spool;
use crate::consume::payload::{self, PayloadError, PieceCache};
use crate::engine::Engine;
use crate::replica::base::{self, Base};
use crate::replica::copy;
use crate::sqlite::connection;
use crate::state::node::Position;
use crate::state::publishers::{self, Publishers};
use crate::store::Progress;
use crate::stream::Broker;

/// Puts the base of `history` into the store, verified. `from`: the snapshot that it is made of; `None`: this node's database.
///
/// # Errors
/// See [`TakeError`]; what was begun is removed.
pub async fn rebase(
    engine: &Arc<Engine>,
    broker: &Broker,
    catalog: &Catalog,
    from: Option<&Manifest>,
    history: History,
) -> Result<Manifest, TakeError> {
    let scratch = Arc::new(Scratch::new(&engine.config.db_path, "base"));
    let schema = match from {
        Some(manifest) => {
            catalog
                .fetch(manifest, scratch.path(), &Progress::none())
                .await?;
            manifest.schema.clone()
        }
        None => {
            let stop = Arc::new(AtomicBool::new(false));
            let ((), schema) = take::copied(engine, &scratch, stop, |_| Ok(())).await?;
            schema
        }
    };
    let taken = {
        let scratch = Arc::clone(&scratch);
        blocking(move || Ok(publishers::read(&connection::open_reader(scratch.path())?)?)).await?
    };
    let me = NodeId(engine.config.node_id);
    let remains = remains(engine, broker, me, taken).await?;
    let ours = from.is_none();
    let this = Arc::clone(engine);
    let file = Arc::clone(&scratch);
    let position = remains.position;
    blocking(move || {
        let mut copied = connection::open_writer(file.path())?;
        connection::overwrite_deleted(&copied)?;
        let contained = ours
            && remains.complete
            && base::contains(&copied, remains.own.values())
                .map_err(|e| unfoldable(&e))?;
        let stored = this
            .replica()
            .stored_incarnation()
            .map_err(|e| unfoldable(&e))?;
        let ended = base::end_of_lives(stored, remains.highest, rand::random());
        let base = Base {
            history,
            position,
            void: &remains.void,
            ended: contained.then_some((me, ended)),
        };
        base::make(&mut copied, &base)?;
        if !remains.void.is_empty() {
            tracing::error!(
                void = ?remains.void,
                "the broker has lost the rows of these messages, and they count for nothing in the new history; their publishers send again what they have kept of them"
            );
        }
        copy::finish(copied)?;
        Ok(())
    })
    .await?;
    let position = Position {
        sequence: position,
        hash: 0,
        folded: position,
    };
    take::store(
        engine,
        catalog,
        &scratch,
        (history, position),
        (schema, from.map(|m| m.absent.clone()).unwrap_or_default()),
        &Progress::none(),
    )
    .await
}

/// What the stream holds, as far as it matters to the base.
struct Remains {
    /// Directly before the first message.
    position: Sequence,
    /// Records that would count and whose payload is gone.
    void: Vec<Sequence>,
    /// Batches of this node that would count.
    own: BTreeMap<Sequence, IncomingBatch>,
    /// All of those are in `own`.
    complete: bool,
    /// The highest incarnation of this node.
    highest: u64,
}

async fn remains(
    engine: &Arc<Engine>,
    broker: &Broker,
    me: NodeId,
    mut taken: Publishers,
) -> Result<Remains, TakeError> {
    let state = broker
        .stream_state(ShardId::ORDER)
        .await
        .map_err(|e| unfoldable(&e))?;
    let mut out = Remains {
        position: Sequence(state.first.0.saturating_sub(1)),
        void: Vec::new(),
        own: BTreeMap::new(),
        complete: true,
        highest: 0,
    };
    let mut at = out.position;
    if state.last <= at {
        return Ok(out);
    }
    let mut reader = broker.reader(ShardId::ORDER, at.next());
    let mut cache = PieceCache::default();
    let spool = Arc::new(Spool::new(engine.config.folder().to_owned()));
    while at < state.last {
        let message = next(&mut reader).await?;
        at = message.sequence;
        match incoming::open(at, &message.payload).body {
            Body::Payload => cache.keep(at, message.payload),
            Body::Batch(mut batch) => {
                let own = batch.record.node == me;
                if own {
                    out.highest = out.highest.max(batch.record.incarnation.counter);
                }
                if !order::admit(&mut taken, &batch.record, at) {
                    continue;
                }
                match payload::gather(broker, &mut cache, (at, &mut batch), &spool).await {
                    Ok(()) if own => {
                        out.own.insert(at, *batch);
                    }
                    // Who knows that version reads it; this node waits for an upgrade at it, as ever.
                    Ok(()) | Err(PayloadError::Newer(_)) => {}
                    Err(PayloadError::Missing { .. }) => {
                        out.void.push(at);
                        out.complete &= !own;
                    }
                    Err(e) => return Err(unfoldable(&e)),
                }
            }
            Body::Marker(_) | Body::Unreadable { .. } | Body::Newer(_) => {}
        }
    }
    Ok(out)
}
