//! What a node must settle before it may read the stream from where it stands: whether it founds the cluster, joins it, or is so far behind that it begins
//! from a snapshot.
//!
//! Invariants: nothing is published before the common starting state is in the store; whoever restores keeps what is pending here; a database that was never
//! part of the cluster is copied beside itself before rows of it are removed; what cannot be had is waited for, visibly, and nothing is guessed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Fatal;
use super::download::Download;
use super::histories::{self, Court, Election};
use super::restoring::Restoring;
use crate::brakes::Part;
use crate::change::position::{Sequence, ShardId};
use crate::cli::exit::ExitCode;
use crate::engine::Engine;
use crate::history::agree;
use crate::http::status::Component;
use crate::replica::left;
use crate::runtime::Backoff;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::take::{self, Own};
use crate::snapshot::verified::Verified;
use crate::store::{self, Progress};
use crate::stream::{Broker, Kv, KvError};

/// The key under which the cluster is known.
const KEY: &str = "cluster";

/// How often a cluster that another node is founding is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long one try waits for the write lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the cluster, in KV.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cluster {
    id: String,
    /// The common starting state is in the store.
    founded: bool,
    /// Who founds it.
    by: u64,
}

/// Settles it. Returns the cluster's snapshots.
///
/// # Errors
/// What waiting does not mend: a database of another cluster, a store that is configured wrongly.
pub async fn settle(engine: &Arc<Engine>, broker: &Broker) -> Result<Option<Catalog>, Fatal> {
    if !engine.config.snapshot.enabled {
        return Ok(None);
    }
    let store = store::open(&engine.config.snapshot, Some(broker.clone()))
        .map_err(|e| Fatal::new(ExitCode::Config, e))?;
    let store: Arc<dyn store::SnapshotStore> = Arc::from(store);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut election = Election::default();
    let mut download = Download::default();
    let mut told = String::new();
    loop {
        let settled = try_settle(engine, broker, &store, &mut election, &mut download).await;
        let waiting = match settled {
            Ok(catalog) => return Ok(Some(catalog)),
            Err(Unsettled::Fatal(fatal)) => return Err(fatal),
            Err(Unsettled::NotYet(why)) => {
                engine.status.failed(Component::Broker, &why);
                LOOK
            }
            Err(Unsettled::Fault(why) | Unsettled::Unusable(why)) => {
                if why != told || backoff.tries() % 60 == 59 {
                    tracing::warn!("{why}; trying again, changes are captured meanwhile");
                    told.clone_from(&why);
                }
                engine.status.failed(Component::Broker, &why);
                backoff.next_wait()
            }
        };
        tokio::time::sleep(waiting).await;
    }
}

/// Why it is not settled yet.
pub(super) enum Unsettled {
    /// It never will be.
    Fatal(Fatal),
    /// Somebody else is at it.
    NotYet(String),
    /// Something failed that may pass.
    Fault(String),
    /// This snapshot cannot be used; another may.
    Unusable(String),
}

pub(super) fn fault(e: impl std::fmt::Display) -> Unsettled {
    Unsettled::Fault(e.to_string())
}

async fn try_settle(
    engine: &Arc<Engine>,
    broker: &Broker,
    store: &Arc<dyn store::SnapshotStore>,
    election: &mut Election,
    download: &mut Download,
) -> Result<Catalog, Unsettled> {
    let replicas = engine.config.replication_log.replicas;
    let kv = agree::bucket(broker, replicas).await.map_err(fault)?;
    let stream = broker.stream_state(ShardId::ORDER).await.map_err(fault)?;
    let mine = engine.replica().cluster().map_err(fault)?;
    let position = engine.replica().position().sequence;
    let me = engine.config.node_id;
    let known = kv.get(KEY).await.map_err(fault)?;
    let (cluster, revision) = match known {
        Some(entry) => {
            let cluster: Cluster = serde_json::from_slice(&entry.value).map_err(|e| {
                Unsettled::Fatal(Fatal::new(
                    ExitCode::DataError,
                    format!("key {KEY} of bucket {} does not read ({e}): was it written by a newer harmonylite? Upgrade this node", kv.bucket()),
                ))
            })?;
            (cluster, entry.revision)
        }
        None => {
            if left::forget(&engine.config.db_path) {
                return Err(leave_cluster(engine));
            }
            // A database without tables is no state to begin from: the node waits for its app, or for a node that has some.
            if mine.is_none()
                && position == Sequence(0)
                && engine.replica().is_empty().map_err(fault)?
            {
                return Err(Unsettled::NotYet(
                    "there is no cluster yet and the database here is empty: waiting for tables here, or for a node that has some".to_owned(),
                ));
            }
            let cluster = Cluster {
                // A cluster that is older than this record, or whose record is lost, keeps its name.
                id: mine
                    .clone()
                    .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>())),
                founded: mine.is_some() || position > Sequence(0) || stream.last > Sequence(0),
                by: me,
            };
            match kv.create(KEY, encoded(&cluster)).await {
                Ok(revision) => (cluster, revision),
                Err(KvError::Conflict { .. }) => {
                    return Err(Unsettled::NotYet(
                        "another node founds the cluster".to_owned(),
                    ));
                }
                Err(e) => return Err(fault(e)),
            }
        }
    };
    if let Some(mine) = &mine
        && *mine != cluster.id
    {
        if left::forget(&engine.config.db_path) {
            return Err(leave_cluster(engine));
        }
        return Err(Unsettled::Fatal(Fatal::new(
            ExitCode::Config,
            format!(
                "this database is part of cluster {mine}, and NATS at stream {} has cluster {}: correct [nats] urls or stream_prefix; to move the database into that cluster, run -cleanup first",
                broker.stream_name(ShardId::ORDER),
                cluster.id
            ),
        )));
    }
    let catalog = Catalog::new(Arc::clone(store), &cluster.id);
    if !cluster.founded {
        found(engine, broker, &kv, &catalog, cluster.clone(), revision).await?;
        set_cluster(engine, &cluster.id)?;
        return Ok(catalog);
    }
    let never_part = mine.is_none() && position == Sequence(0);
    let replicate = engine.config.replicate;
    let court = Court {
        engine,
        broker,
        kv: &kv,
        catalog: &catalog,
        has_fold: replicate && !never_part,
    };
    let history = histories::settle(&court, election).await?;
    let catalog = catalog.of(history);
    let elsewhere = replicate && history != engine.replica().history();
    // Where no snapshot was ever taken, all nodes are taken to have begun from equal databases.
    let first_start = never_part
        // Who applies nothing takes over nothing; it joins when it does.
        && replicate
        && !catalog.usable().await.map_err(fault)?.is_empty();
    let mut restoring = Restoring {
        engine,
        catalog: &catalog,
        download,
        cluster: &cluster.id,
        stream: &stream,
        first_start,
    };
    // Who applies nothing needs nothing of what was trimmed.
    let behind = stream.first > position.next() && replicate;
    let paused = engine.brakes.set().apply.pause(Part::Apply);
    if let Some(sentence) =
        paused.filter(|_| first_start || behind || elsewhere || engine.wants_recovery())
    {
        return Err(Unsettled::Fault(format!(
            "this node must begin from a snapshot, and {sentence}"
        )));
    }
    if first_start || behind || elsewhere {
        let mut oldest = Sequence(stream.first.0.saturating_sub(1));
        if elsewhere {
            tracing::info!(
                history = history.number,
                "this node goes over to the new history of the log"
            );
        } else {
            oldest = oldest.max(position);
        }
        restoring.newest(oldest).await?;
    } else if engine.wants_recovery() {
        restoring.recover().await?;
    }
    if replicate {
        engine.replica().keep_this_history().map_err(fault)?;
        set_cluster(engine, &cluster.id)?;
    } else {
        histories::publish_in(engine, &catalog, history).await?;
    }
    left::forget(&engine.config.db_path);
    Ok(catalog)
}

/// What `-cleanup` left is of another cluster than the one that is here: this database was never part of this one. It is settled anew.
fn leave_cluster(engine: &Engine) -> Unsettled {
    let shutdown = engine.shutdown.clone();
    let left = tokio::task::block_in_place(|| {
        let stop = || shutdown.is_requested();
        engine.replica().forget_cluster(PATIENCE, &stop)
    });
    engine.stands_at(Sequence(0));
    match left {
        Ok(()) => Unsettled::NotYet("this database was cleaned up in another cluster".to_owned()),
        Err(error) => fault(error),
    }
}

/// Puts the common starting state into the store.
async fn found(
    engine: &Arc<Engine>,
    broker: &Broker,
    kv: &Kv,
    catalog: &Catalog,
    cluster: Cluster,
    revision: u64,
) -> Result<(), Unsettled> {
    let me = engine.config.node_id;
    if cluster.by != me {
        // Who dies at it is followed by another.
        let living = broker
            .living_nodes()
            .await
            .map_err(fault)?
            .iter()
            .any(|n| n.0 == cluster.by);
        let waiting = format!(
            "node {} founds the cluster: its snapshot is awaited",
            cluster.by
        );
        if living {
            return Err(Unsettled::NotYet(waiting));
        }
        let taken_over = Cluster { by: me, ..cluster };
        return match kv.update(KEY, encoded(&taken_over), revision).await {
            Ok(_) | Err(KvError::Conflict { .. }) => Err(Unsettled::NotYet(waiting)),
            Err(e) => Err(fault(e)),
        };
    }
    tracing::info!(cluster = %cluster.id, store = catalog.store_name(), "founding the cluster: a first snapshot of this database is the state that all nodes begin from");
    let manifest = take::take(engine, catalog, Own::IsTheBeginning, &Progress::none())
        .await
        .map_err(|e| fault(format!("Failed to create snapshot: {e}")))?;
    let founded = Cluster {
        founded: true,
        ..cluster
    };
    kv.update(KEY, encoded(&founded), revision)
        .await
        .map_err(fault)?;
    tracing::info!(snapshot = %manifest.file, bytes = manifest.size, "the cluster is founded");
    let replicas = engine.config.replication_log.replicas;
    let snapshots = broker.snapshots_bucket(replicas).await.map_err(fault)?;
    Verified::add(&snapshots, &manifest).await.map_err(fault)?;
    Ok(())
}

fn set_cluster(engine: &Engine, id: &str) -> Result<(), Unsettled> {
    let shutdown = engine.shutdown.clone();
    let set = tokio::task::block_in_place(|| {
        engine
            .replica()
            .set_cluster(id, PATIENCE, &|| shutdown.is_requested())
    });
    set.map_err(fault)
}

fn encoded(cluster: &Cluster) -> Bytes {
    // Structs of strings and numbers always have a JSON form.
    Bytes::from(serde_json::to_vec(cluster).unwrap_or_default())
}
