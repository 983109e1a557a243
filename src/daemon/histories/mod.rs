//! Settling which history of the log is the cluster's, before a node reads or publishes anything; and electing a new one where it has broken.
//!
//! Invariants: every step is a compare-and-set on what was read; nobody is waited for without bound; the base counts when it is in the store, read back.

mod candidates;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candidates::{candidacy, choose_base};

use super::Fatal;
use super::membership::{Unsettled, fault};
use crate::change::history::History;
use crate::change::position::NodeId;
use crate::cli::exit::ExitCode;
use crate::engine::Engine;
use crate::history::agree::{self, AgreeError, Agreement, Stage};
use crate::history::choose::Source;
use crate::history::standing::{self, Standing};
use crate::snapshot::catalog::Catalog;
use crate::snapshot::rebase::rebase;
use crate::snapshot::scratch::Scratch;
use crate::snapshot::verified::Verified;
use crate::store::Progress;
use crate::stream::{Broker, Kv, KvError};

/// How long one try waits for the write lock.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long who elects, or gives the base, may be without its id before another one goes on.
const GONE: Duration = Duration::from_secs(3);

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub struct Election {
    /// Which was looked at, and since when.
    since: Option<(u64, Instant)>,
    /// Since when the node that is awaited does not hold its id.
    gone: Option<(u64, Instant)>,
    /// What was said last.
    said: Option<String>,
}

impl Election {
    fn say(&mut self, text: String) {
        if self.said.as_ref() != Some(&text) {
            tracing::info!("{text}");
            self.said = Some(text);
        }
    }

    /// How long this node has been in the election of this number.
    fn age(&mut self, number: u64) -> Duration {
        match self.since {
            Some((of, since)) if of == number => since.elapsed(),
            _ => {
                self.since = Some((number, Instant::now()));
                Duration::ZERO
            }
        }
    }

    /// Whether a node has been without its id for long enough.
    fn has_gone(&mut self, node: u64, living: &BTreeSet<u64>) -> bool {
        if living.contains(&node) {
            self.gone = None;
            return false;
        }
        match self.gone {
            Some((of, since)) if of == node => since.elapsed() >= GONE,
            _ => {
                self.gone = Some((node, Instant::now()));
                false
            }
        }
    }
}

/// What an election works with.
pub struct Court<'a> {
    pub engine: &'a Arc<Engine>,
    pub broker: &'a Broker,
    pub kv: &'a Kv,
    pub catalog: &'a Catalog,
    /// This node has folded something that may become the base.
    pub has_fold: bool,
}

fn agreeing(error: AgreeError) -> Unsettled {
    match error {
        AgreeError::Kv(KvError::Conflict { .. }) => {
            Unsettled::NotYet("another node was faster".to_owned())
        }
        AgreeError::Kv(e) => fault(e),
        unreadable @ AgreeError::Unreadable { .. } => {
            Unsettled::Fatal(Fatal::new(ExitCode::DataError, unreadable))
        }
    }
}

/// The cluster's history, once it is settled. Where the one of this node has broken, a new one is proposed.
pub async fn settle(court: &Court<'_>, election: &mut Election) -> Result<History, Unsettled> {
    let engine = court.engine;
    let agreed = agree::read(court.kv).await.map_err(agreeing)?;
    let (mine, position) = {
        let replica = engine.replica();
        (replica.history(), replica.position())
    };
    let current = match &agreed {
        Some((agreed, revision)) if !agreed.is_settled() => {
            let reason = format!(
                "history {} of the log has broken: {}",
                agreed.before.number, agreed.reason
            );
            engine.halt(Some(reason));
            return Err(elect(court, election, agreed, *revision).await?);
        }
        Some((agreed, _)) => agreed.history,
        None => History::FIRST,
    };
    let broken = if !court.has_fold {
        None
    } else if current.number < mine.number {
        Some(format!(
            "this node is in history {}, and NATS knows of {} only: the broker was set back",
            mine.number, current.number
        ))
    } else if current != mine {
        None
    } else {
        match standing::look(court.broker, position)
            .await
            .map_err(fault)?
        {
            Standing::Broken(why) => Some(why),
            Standing::Holds | Standing::Trimmed(_) => {
                // A store that does not answer now is asked by whoever leads.
                let usable = court.catalog.clone().of(mine).usable().await;
                let usable = usable.unwrap_or_default();
                standing::of_snapshot(court.broker, usable.first())
                    .await
                    .map_err(fault)?
            }
        }
    };
    let Some(why) = broken else {
        engine.halt(None);
        return Ok(current);
    };
    let me = NodeId(engine.config.node_id);
    agree::propose(court.broker, court.kv, me, mine, &why)
        .await
        .map_err(agreeing)?;
    Err(Unsettled::NotYet(why))
}

/// One look at an election, and what this node has to do in it. Returns what is waited for.
async fn elect(
    court: &Court<'_>,
    election: &mut Election,
    agreed: &Agreement,
    revision: u64,
) -> Result<Unsettled, Unsettled> {
    let me = court.engine.config.node_id;
    let number = agreed.history.number;
    let age = election.age(number);
    let living: BTreeSet<u64> = court
        .broker
        .living_nodes()
        .await
        .map_err(fault)?
        .iter()
        .map(|n| n.0)
        .collect();
    match &agreed.stage {
        Stage::Proposed => {
            let candidacy = candidacy(court).await?;
            agree::stand(court.kv, number, NodeId(me), &candidacy)
                .await
                .map_err(fault)?;
            if agreed.by == me {
                return choose_base(court, election, agreed, revision, &living, age).await;
            }
            election.say(format!(
                "history {} of the log has broken ({}): node {} chooses whose data the new one begins from",
                agreed.before.number, agreed.reason, agreed.by
            ));
            if election.has_gone(agreed.by, &living) {
                let mine = Agreement {
                    by: me,
                    ..agreed.clone()
                };
                write(court, &mine, revision).await?;
            }
            Ok(Unsettled::NotYet(format!(
                "waiting for node {} to choose the base of history {number}",
                agreed.by
            )))
        }
        Stage::Chosen { source, giver } if *giver == me => {
            give(court, agreed, revision, source).await?;
            Ok(Unsettled::NotYet(format!("history {number} is settled")))
        }
        Stage::Chosen { giver, .. } => {
            election.say(format!(
                "history {number} of the log begins from the data of node {giver}: they are awaited"
            ));
            if election.has_gone(*giver, &living) {
                tracing::warn!(
                    giver,
                    "it has gone before its data were in the store: others are chosen"
                );
                agree::withdraw(court.kv, number, NodeId(*giver))
                    .await
                    .map_err(fault)?;
                let again = Agreement {
                    by: me,
                    stage: Stage::Proposed,
                    ..agreed.clone()
                };
                write(court, &again, revision).await?;
            }
            Ok(Unsettled::NotYet(format!(
                "waiting for node {giver} to give the base of history {number}"
            )))
        }
        Stage::Settled { .. } => Ok(Unsettled::NotYet(format!("history {number} is settled"))),
    }
}

/// Puts the base into the store and settles the history.
async fn give(
    court: &Court<'_>,
    agreed: &Agreement,
    revision: u64,
    source: &Source,
) -> Result<(), Unsettled> {
    let from = match source {
        Source::Node(_) => None,
        Source::Snapshot(file) => {
            let usable = court.catalog.usable().await.map_err(fault)?;
            let found = usable.into_iter().find(|m| m.file == *file);
            if found.is_none() {
                let again = Agreement {
                    stage: Stage::Proposed,
                    ..agreed.clone()
                };
                write(court, &again, revision).await?;
                return Err(fault(format!(
                    "snapshot {file} was chosen as the base, and is not in the store any more"
                )));
            }
            found
        }
    };
    tracing::info!(history = agreed.history.number, source = ?source, store = court.catalog.store_name(), "putting the base of the new history into the store");
    let catalog = court.catalog.clone().of(agreed.history);
    let base = rebase(
        court.engine,
        court.broker,
        &catalog,
        from.as_ref(),
        agreed.history,
    )
    .await
    .map_err(|e| {
        fault(format!(
            "the base of history {} could not be put into the store: {e}",
            agreed.history.number
        ))
    })?;
    let settled = Agreement {
        stage: Stage::Settled {
            base: base.file.clone(),
        },
        ..agreed.clone()
    };
    match agree::write(court.kv, &settled, Some(revision)).await {
        Ok(_) => {}
        Err(error) => {
            let lost = matches!(error, KvError::Conflict { .. });
            if lost {
                // Others were faster, with another base.
                let _ = catalog.remove(&base).await;
            }
            return Err(fault(error));
        }
    }
    tracing::warn!(history = agreed.history.number, base = %base.file, "the new history of the log is settled");
    let replicas = court.engine.config.replication_log.replicas;
    let kv = court
        .broker
        .snapshots_bucket(replicas)
        .await
        .map_err(fault)?;
    Verified::add(&kv, &base).await.map_err(fault)?;
    agree::tidy(court.kv, agreed.history.number)
        .await
        .map_err(fault)
}

async fn write(court: &Court<'_>, agreement: &Agreement, revision: u64) -> Result<(), Unsettled> {
    let written = agree::write(court.kv, agreement, Some(revision)).await;
    written.map(drop).map_err(|e| agreeing(e.into()))
}

/// A node that applies nothing goes over to a new history: what it had published and the base lacks is published again.
pub async fn publish_in(
    engine: &Arc<Engine>,
    catalog: &Catalog,
    history: History,
) -> Result<(), Unsettled> {
    let lacking = engine
        .replica()
        .kept()
        .is_some_and(|k| k.is_of_others(history));
    let mut snapshot = None;
    if lacking {
        let usable = catalog.usable().await.map_err(fault)?;
        let Some(newest) = usable.first() else {
            return Err(fault(format!(
                "{} has no snapshot of history {}, by which this node would know what of its changes was lost",
                catalog.store_name(),
                history.number
            )));
        };
        let scratch = Scratch::new(&engine.config.db_path, "restore");
        catalog
            .fetch(newest, scratch.path(), &Progress::none())
            .await
            .map_err(fault)?;
        snapshot = Some(scratch);
    }
    let shutdown = engine.shutdown.clone();
    let entered = tokio::task::block_in_place(|| {
        let snapshot = snapshot.as_ref().map(Scratch::path);
        engine
            .replica()
            .publish_in(history, snapshot, PATIENCE, &|| shutdown.is_requested())
    })
    .map_err(fault)?;
    if entered > 0 {
        tracing::info!(
            history = history.number,
            entered,
            "what this node had published and the new history lacks is published again"
        );
    }
    Ok(())
}
