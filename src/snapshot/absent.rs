//! What a snapshot holds beyond a copy of its taker's database: tables that other nodes have and this one has not.
//!
//! Invariant: their fold is of the snapshot's own position. It is carried from snapshot to snapshot until every living node is known to stand at the snapshot's position or
//! beyond without the table: one that is behind may still make it, and apply what was written to it before. Where it cannot be carried on, the log says so, and the snapshot is
//! taken without: the stream must not fill up for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::catalog::Catalog;
use super::fold::{Folding, nobody, unfoldable};
use super::manifest::Manifest;
use super::presence;
use super::reconciling::literal_glob;
use super::scratch::Scratch;
use super::take::{TakeError, blocking};
use crate::capture::Captured;
use crate::change::history::History;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::engine::Engine;
use crate::registry::cluster;
use crate::replica::absent;
use crate::sqlite::connection;
use crate::sqlite::introspect::has_table;
use crate::state::node::Position;
use crate::store::Progress;
use crate::stream::{Broker, KvError};

/// Puts those tables into a snapshot that is about to be stored. Returns which.
///
/// # Errors
/// SQLite's; [`TakeError::Stopping`].
pub async fn add(
    engine: &Arc<Engine>,
    broker: &Broker,
    catalog: &Catalog,
    snapshot: &Arc<Scratch>,
    position: Position,
) -> Result<Vec<String>, TakeError> {
    let before = before(engine, broker, catalog, position).await?;
    let known = before.as_ref().map_or(&[][..], |b| &b.absent);
    let names = elsewhere(engine, broker, position.sequence, known).await;
    let names = not_in(snapshot, names).await?;
    if names.is_empty() {
        return Ok(names);
    }
    let carried = match before {
        Some(before) => {
            let what = (&before, names.as_slice());
            carry(engine, broker, catalog, snapshot, position, what).await
        }
        None => Err(TakeError::Unfoldable(
            "there is no snapshot before it that reaches the stream".to_owned(),
        )),
    };
    match carried {
        Ok(held) => {
            if !held.is_empty() {
                tracing::info!(
                    tables = held.join(", "),
                    "the snapshot holds tables that are not here and that other nodes have"
                );
            }
            Ok(held)
        }
        Err(TakeError::Stopping) => Err(TakeError::Stopping),
        // Whatever it is, a snapshot before that cannot be had above all: the streams must not fill up for it.
        Err(why) => {
            lacks(&names, &why);
            Ok(Vec::new())
        }
    }
}

fn lacks(names: &[String], why: &dyn std::fmt::Display) {
    tracing::warn!(
        tables = names.join(", "),
        "the snapshot lacks tables that are not here and that other nodes may have: {why}"
    );
}

/// The tables that living nodes have and this one has not, under whatever name; where a node may have others, those too that were dropped here, or are `known` from the
/// snapshot before.
async fn elsewhere(
    engine: &Arc<Engine>,
    broker: &Broker,
    position: Sequence,
    known: &[String],
) -> Vec<String> {
    let captured = tokio::task::block_in_place(|| Arc::clone(engine.replica().captured()));
    let (mut names, all_known) = match others(engine, broker, position).await {
        Ok(others) => others,
        Err(error) => {
            tracing::debug!(%error, "which tables other nodes have is not known");
            (BTreeSet::new(), false)
        }
    };
    if !all_known {
        names.extend(captured.dropped.iter().chain(known).cloned());
    }
    // One that was made again since the copy was made is not in that.
    names.retain(|name| captured.table(name).is_some() || captured.table_meant(name).is_none());
    names.into_iter().collect()
}

/// The tables of the other living nodes, in lower case, and whether those are all that they have or will have of what was written up to a position.
async fn others(
    engine: &Engine,
    broker: &Broker,
    position: Sequence,
) -> Result<(BTreeSet<String>, bool), KvError> {
    let log = &engine.config.replication_log;
    let kv = broker.snapshots_bucket(log.replicas).await?;
    let living = presence::living(&kv, broker, log.silent_after).await?;
    let (entries, _) = cluster::list(broker).await?;
    let (mut tables, mut all_known) = (BTreeSet::new(), true);
    let me = NodeId(engine.config.node_id);
    for node in living.nodes.keys().filter(|n| **n != me) {
        match entries.iter().find(|e| e.entry.node_id == node.0) {
            Some(listed) => {
                let names = listed.entry.tables.iter().map(|t| &t.name);
                tables.extend(names.map(|n| n.to_ascii_lowercase()));
                all_known &=
                    listed.entry.tables_omitted == 0 && listed.entry.position >= position.0;
            }
            None => all_known = false,
        }
    }
    Ok((tables, all_known))
}

/// Those that are not in the copy: one that is there and not replicated stays as it is.
async fn not_in(snapshot: &Arc<Scratch>, names: Vec<String>) -> Result<Vec<String>, TakeError> {
    if names.is_empty() {
        return Ok(names);
    }
    let file = Arc::clone(snapshot);
    blocking(move || {
        let copy = connection::open_reader(file.path())?;
        let mut absent = Vec::new();
        for name in names {
            if !has_table(&copy, &name)? {
                absent.push(name);
            }
        }
        Ok(absent)
    })
    .await
}

/// The newest snapshot from which the stream leads to a position.
async fn before(
    engine: &Arc<Engine>,
    broker: &Broker,
    catalog: &Catalog,
    position: Position,
) -> Result<Option<Manifest>, TakeError> {
    let history: History = tokio::task::block_in_place(|| engine.replica().history());
    let stream = broker
        .stream_state(ShardId::ORDER)
        .await
        .map_err(|e| unfoldable(&e))?;
    Ok(catalog.usable().await?.into_iter().find(|m| {
        let at = Sequence(m.sequence);
        m.history == history
            && at <= position.sequence
            && (at == position.sequence || stream.first <= at.next())
    }))
}

async fn carry(
    engine: &Arc<Engine>,
    broker: &Broker,
    catalog: &Catalog,
    snapshot: &Arc<Scratch>,
    position: Position,
    (before, names): (&Manifest, &[String]),
) -> Result<Vec<String>, TakeError> {
    let scratch = Arc::new(Scratch::new(&engine.config.db_path, "absent"));
    catalog
        .fetch(before, scratch.path(), &Progress::none())
        .await?;
    let captured = tokio::task::block_in_place(|| Arc::clone(engine.replica().captured()));
    let (names, fragments): (Vec<String>, Vec<String>) = {
        let (file, names) = (Arc::clone(&scratch), names.to_vec());
        blocking(move || {
            let conn = connection::open_writer(file.path())?;
            let (mut whole, mut fragments) = (Vec::new(), Vec::new());
            for name in names {
                absent::bring_back(&conn, &name, &name)?;
                // One that was captured here after that snapshot may have had another name when it was taken: the stream alone would give a part of its rows.
                if has_table(&conn, &name)? || !captured.has_dropped(&name) {
                    whole.push(name);
                } else {
                    fragments.push(name);
                }
            }
            Ok((whole, fragments))
        })
        .await?
    };
    if !fragments.is_empty() {
        lacks(&fragments, &"the snapshot before it does not know them");
    }
    let globs = names.iter().map(|n| literal_glob(n)).collect();
    let mut folding = Folding::begin(
        engine,
        broker,
        Arc::clone(&scratch),
        nobody(globs, Vec::new()),
        Some(Arc::new(Captured::default())),
    )
    .await?;
    folding.advance(position.sequence).await?;
    let there = folding.position();
    if there.hash != position.hash && there.hash != 0 && position.hash != 0 {
        return Err(TakeError::Unfoldable(format!(
            "message {} of the stream is another than this node has folded",
            position.sequence
        )));
    }
    let grown = folding.grown();
    let (names, grown): (Vec<String>, Vec<String>) = names
        .into_iter()
        .partition(|name| !grown.iter().any(|g| g.is_of(name)));
    if !grown.is_empty() {
        // What their rows have there is a default that is not in the stream.
        lacks(
            &grown,
            &"they have columns that the snapshot before it does not know",
        );
    }
    let to = Arc::clone(snapshot);
    blocking(move || {
        let mut to = connection::open_writer(to.path())?;
        Ok(absent::put(&mut to, scratch.path(), &names)?)
    })
    .await
}
