//! What the nodes have agreed on, in KV.
//!
//! ```text
//!   <stream_prefix>-cluster   history ─▶ Agreement       candidate-<number>-<node> ─▶ Candidacy
//! ```

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::choose::{Candidate, Source};
use crate::change::history::History;
use crate::change::position::{NodeId, Sequence};
use crate::stream::{Broker, Kv, KvError};

const KEY: &str = "history";

const CANDIDATE: &str = "candidate-";

/// How far the nodes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nodes say where they stand.
    Proposed,
    /// This is to be the base; `giver` puts it into the store.
    Chosen {
        /// What.
        source: Source,
        /// Who.
        giver: u64,
    },
    /// The base is in the store, and verified.
    Settled {
        /// The snapshot.
        base: String,
    },
}

/// The last history that was spoken of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// It. Its id is drawn with each choice, so that two bases of one number are never taken for one another.
    pub history: History,
    /// The one that has broken.
    pub before: History,
    /// How far the nodes are.
    pub stage: Stage,
    /// Who chooses.
    pub by: u64,
    /// Who was there when it was proposed.
    pub living: Vec<u64>,
    /// Why.
    pub reason: String,
}

impl Agreement {
    /// Whether its base can be restored.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.stage, Stage::Settled { .. })
    }
}

/// Where a node stands in the history that has broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidacy {
    /// Its history; none: what it has is no fold.
    pub history: Option<History>,
    /// Its position.
    pub position: u64,
    /// The stream does not hold what it has folded there.
    pub lost: bool,
    /// It has folded everything from before the stream's first message.
    pub reaches: bool,
}

impl Candidacy {
    /// As a candidate.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Candidate {
        Candidate {
            source: Source::Node(node.0),
            position: Sequence(self.position),
            lost: self.lost,
            reaches: self.reaches,
        }
    }
}

/// Why it cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AgreeError {
    /// The broker, or another node was faster.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// Written by a newer program.
    #[error(
        "key {key} of bucket {bucket} does not read ({source}): was it written by a newer harmonylite? Upgrade this node"
    )]
    Unreadable {
        /// The key.
        key: String,
        /// The bucket.
        bucket: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// The bucket.
///
/// # Errors
/// The broker's.
pub async fn bucket(broker: &Broker, replicas: usize) -> Result<Kv, KvError> {
    let name = format!("{}-cluster", broker.bucket_prefix());
    broker.kv_bucket(&name, None, replicas).await
}

/// What was agreed, with its revision; `None`: the first history has never broken.
///
/// # Errors
/// See [`AgreeError`].
pub async fn read(kv: &Kv) -> Result<Option<(Agreement, u64)>, AgreeError> {
    let Some(entry) = kv.get(KEY).await? else {
        return Ok(None);
    };
    let agreement =
        serde_json::from_slice(&entry.value).map_err(|source| unreadable(kv, KEY, source))?;
    Ok(Some((agreement, entry.revision)))
}

fn unreadable(kv: &Kv, key: &str, source: serde_json::Error) -> AgreeError {
    AgreeError::Unreadable {
        key: key.to_owned(),
        bucket: kv.bucket().to_owned(),
        source,
    }
}

/// Writes it, if nothing was written since `revision` was read (`None`: there was nothing).
///
/// # Errors
/// [`KvError::Conflict`] where another node was faster.
pub async fn write(kv: &Kv, agreement: &Agreement, revision: Option<u64>) -> Result<u64, KvError> {
    match revision {
        Some(revision) => kv.update(KEY, json(agreement), revision).await,
        None => kv.create(KEY, json(agreement)).await,
    }
}

/// Proposes a history after `mine`, which has broken, unless one is proposed or settled already that this node does not know.
///
/// # Errors
/// See [`AgreeError`]; that another node was faster is none.
pub async fn propose(
    broker: &Broker,
    kv: &Kv,
    me: NodeId,
    mine: History,
    reason: &str,
) -> Result<(), AgreeError> {
    let known = read(kv).await?;
    let highest = match &known {
        Some((agreed, _)) if agreed.history.number > mine.number => return Ok(()),
        Some((agreed, _)) if agreed.history.number == mine.number && agreed.history != mine => {
            return Ok(());
        }
        _ => mine.number,
    };
    let agreement = Agreement {
        history: History {
            number: highest + 1,
            id: 0,
        },
        before: mine,
        stage: Stage::Proposed,
        by: me.0,
        living: broker.living_nodes().await?.iter().map(|n| n.0).collect(),
        reason: reason.to_owned(),
    };
    match write(kv, &agreement, known.map(|(_, revision)| revision)).await {
        Ok(_) => {
            tracing::warn!(
                history = agreement.history.number,
                "{reason}: a new history is proposed"
            );
            Ok(())
        }
        Err(KvError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Says where this node stands.
///
/// # Errors
/// The broker's.
pub async fn stand(
    kv: &Kv,
    number: u64,
    node: NodeId,
    candidacy: &Candidacy,
) -> Result<(), KvError> {
    let value = json(candidacy);
    let key = key(number, node);
    if kv.get(&key).await?.is_some_and(|e| e.value == value) {
        return Ok(());
    }
    kv.put(&key, value).await.map(drop)
}

/// Who has said where it stands.
///
/// # Errors
/// See [`AgreeError`].
pub async fn candidacies(kv: &Kv, number: u64) -> Result<Vec<(NodeId, Candidacy)>, AgreeError> {
    let mut out = Vec::new();
    for (key, entry) in kv.entries().await? {
        let Some((_, node)) = parse(&key).filter(|(of, _)| *of == number) else {
            continue;
        };
        let candidacy =
            serde_json::from_slice(&entry.value).map_err(|source| unreadable(kv, &key, source))?;
        out.push((node, candidacy));
    }
    Ok(out)
}

/// A node is not to be chosen any more.
///
/// # Errors
/// The broker's.
pub async fn withdraw(kv: &Kv, number: u64, node: NodeId) -> Result<(), KvError> {
    kv.purge(&key(number, node)).await
}

/// Removes what was said about this history and those before.
///
/// # Errors
/// The broker's.
pub async fn tidy(kv: &Kv, number: u64) -> Result<(), KvError> {
    for key in kv.keys().await? {
        if parse(&key).is_some_and(|(of, _)| of <= number) {
            kv.purge(&key).await?;
        }
    }
    Ok(())
}

fn key(number: u64, node: NodeId) -> String {
    format!("{CANDIDATE}{number}-{node}")
}

fn parse(key: &str) -> Option<(u64, NodeId)> {
    let (number, node) = key.strip_prefix(CANDIDATE)?.split_once('-')?;
    Some((number.parse().ok()?, NodeId(node.parse().ok()?)))
}

/// Structs of strings and numbers always have a JSON form.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_agreed_is_read_as_it_was_written() {
        for stage in [
            Stage::Proposed,
            Stage::Chosen {
                source: Source::Node(u64::MAX),
                giver: 1,
            },
            Stage::Chosen {
                source: Source::Snapshot("s".to_owned()),
                giver: 1,
            },
            Stage::Settled {
                base: "b".to_owned(),
            },
        ] {
            let agreement = Agreement {
                history: History { number: 2, id: 9 },
                before: History::FIRST,
                stage,
                by: 3,
                living: vec![3, 4],
                reason: "r".to_owned(),
            };
            let read: Agreement = serde_json::from_slice(&json(&agreement)).unwrap();
            assert_eq!(read, agreement);
        }
        assert_eq!(parse(&key(12, NodeId(7))), Some((12, NodeId(7))));
        assert_eq!(parse("candidate-x-1"), None);
        assert_eq!(parse("cluster"), None);
    }
}
