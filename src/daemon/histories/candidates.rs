//! Who stands in an election, and the choice.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Court, Election, agreeing, write};
use crate::change::history::History;
use crate::change::position::Sequence;
use crate::daemon::membership::{Unsettled, fault};
use crate::history::agree::{self, Agreement, Candidacy, Stage};
use crate::history::choose::{Candidate, Source, choose};
use crate::history::standing::{self, Standing};
use crate::snapshot::presence;
use crate::state::node::Position;

/// How long a node that holds its id is waited for.
const LIVING: Duration = Duration::from_secs(15);

/// How long one that was here lately and holds its id no more: it may be between two lives, or come back with the broker.
const LATELY: Duration = Duration::from_secs(5);

/// Where this node stands.
pub(super) async fn candidacy(court: &Court<'_>) -> Result<Candidacy, Unsettled> {
    let (position, history, past) = {
        let replica = court.engine.replica();
        let past = replica.past().map_err(fault)?;
        (replica.position(), replica.history(), past)
    };
    let (lost, reaches) = lost_and_reaches(court, position, &past).await?;
    Ok(Candidacy {
        history: court.has_fold.then_some(history),
        position: position.sequence.0,
        lost,
        reaches,
    })
}

/// Whether the stream has lost what stands at a position, and whether who is there, and has folded `past`, has folded all from before the stream's first message.
async fn lost_and_reaches(
    court: &Court<'_>,
    position: Position,
    past: &[(Sequence, u64)],
) -> Result<(bool, bool), Unsettled> {
    let standing = standing::look(court.broker, position);
    Ok(match standing.await.map_err(fault)? {
        Standing::Holds => (false, true),
        Standing::Trimmed(_) => (false, false),
        Standing::Broken(_) => {
            let reaches = standing::reaches(court.broker, past);
            (true, reaches.await.map_err(fault)?)
        }
    })
}

/// Waits for the nodes, and chooses.
pub(super) async fn choose_base(
    court: &Court<'_>,
    election: &mut Election,
    agreed: &Agreement,
    revision: u64,
    living: &BTreeSet<u64>,
    age: Duration,
) -> Result<Unsettled, Unsettled> {
    let engine = court.engine;
    let number = agreed.history.number;
    let said = agree::candidacies(court.kv, number)
        .await
        .map_err(agreeing)?;
    let answered: BTreeSet<u64> = said.iter().map(|(n, _)| n.0).collect();
    let silent: Vec<u64> = living.difference(&answered).copied().collect();
    let lately: Vec<u64> = lately(court, agreed)
        .await?
        .difference(&answered)
        .copied()
        .collect();
    let awaited = if age < LATELY {
        silent.iter().chain(&lately).copied().collect()
    } else if age < LIVING {
        silent
    } else {
        Vec::new()
    };
    if !awaited.is_empty() {
        election.say(format!(
            "a new history of the log is elected ({}): nodes {awaited:?} are to say where they stand",
            agreed.reason
        ));
        return Ok(Unsettled::NotYet(format!(
            "waiting for nodes {awaited:?} to say where they stand"
        )));
    }
    // Of the history that has broken; of the latest that anybody has, where nobody is in that one.
    let latest = said.iter().filter_map(|(_, c)| c.history).max();
    let of = if said.iter().any(|(_, c)| c.history == Some(agreed.before)) {
        Some(agreed.before)
    } else {
        latest
    };
    let mut candidates: Vec<Candidate> = said
        .iter()
        .filter(|(_, c)| c.history.is_some() && c.history == of)
        .map(|(node, c)| c.of(*node))
        .collect();
    if let Some(history) = of {
        candidates.extend(snapshots(court, history).await?);
    }
    let Some(chosen) = choose(&candidates) else {
        return Ok(Unsettled::NotYet(
            "no node is here that applies changes, and could give the base of a new history"
                .to_owned(),
        ));
    };
    if !chosen.reaches {
        tracing::error!(
            position = chosen.position.0,
            "nobody is certain to have all that stood in the stream before its first message: what was trimmed and nobody here has folded is in no node's data"
        );
    }
    let giver = match &chosen.source {
        Source::Node(node) => *node,
        Source::Snapshot(_) => engine.config.node_id,
    };
    tracing::info!(
        history = number, source = ?chosen.source, position = chosen.position.0, lost = chosen.lost, candidates = candidates.len(),
        "chosen whose data the new history begins from"
    );
    let next = Agreement {
        history: History {
            number,
            id: rand::random(),
        },
        stage: Stage::Chosen {
            source: chosen.source.clone(),
            giver,
        },
        ..agreed.clone()
    };
    write(court, &next, revision).await?;
    Ok(Unsettled::NotYet(format!(
        "waiting for node {giver} to give the base of history {number}"
    )))
}

/// Nodes that may come to say where they stand, though they do not hold their ids at the moment.
async fn lately(court: &Court<'_>, agreed: &Agreement) -> Result<BTreeSet<u64>, Unsettled> {
    let config = &court.engine.config.replication_log;
    let kv = court
        .broker
        .snapshots_bucket(config.replicas)
        .await
        .map_err(fault)?;
    let announced = presence::living(&kv, court.broker, config.silent_after)
        .await
        .map_err(fault)?;
    let here = announced.nodes.iter().filter(|(_, p)| !p.gone);
    let mut out: BTreeSet<u64> = here.map(|(node, _)| node.0).collect();
    out.extend(&agreed.living);
    Ok(out)
}

/// The snapshots of the broken history, as candidates.
async fn snapshots(court: &Court<'_>, history: History) -> Result<Vec<Candidate>, Unsettled> {
    let catalog = court.catalog.clone().of(history);
    let mut out = Vec::new();
    // One that was trimmed by is among them; more than the newest say nothing more.
    for manifest in catalog.usable().await.map_err(fault)?.into_iter().take(1) {
        let position = manifest.position();
        let (lost, reaches) = lost_and_reaches(court, position, &[]).await?;
        out.push(Candidate {
            source: Source::Snapshot(manifest.file),
            position: position.sequence,
            lost,
            reaches,
        });
    }
    Ok(out)
}
