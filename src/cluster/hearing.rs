//! Whether this node and the others hear one another, and whether JetStream stores what this node says.
//!
//! Three things can be seen from here, each while the connection to NATS stands:
//! - *jetstream*: nothing that this node says is stored. A part of a NATS cluster that is cut off, or a leaf whose hub is away, has no quorum: nothing is published or applied.
//! - *isolated*: others announce themselves, and none of them answers.
//! - *peers*: some of them do not answer.
//! - *alone*: there are others, none of which has stopped in good order, and none says anything any more. They have ended, or are cut off from what this node sees.
//!
//! Invariant: a node counts as not heard only if it goes on announcing itself while it does not answer, time after time; one that was killed is none of that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::about::State;
use super::shown::Shown;
use crate::change::position::{NodeId, Sequence};
use crate::engine::Engine;
use crate::http::status::Partition;
use crate::peers::protocol::{self, Question};
use crate::snapshot::presence::{self, Announced};
use crate::stream::{Broker, KvError};

/// How often others are asked.
const ROUND: Duration = Duration::from_secs(2);

/// In a large cluster, at least so much for each node: what all of them ask grows with the square of their number.
const EACH: Duration = Duration::from_millis(100);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How many are asked in one round; in a larger cluster each gets its turn.
const ASKED: usize = 32;

/// Rounds without an answer after which a node counts as not heard.
const ROUNDS: u32 = 3;

/// Who has said nothing for this long has fallen silent: longer than a lease lasts.
const FELL_SILENT: Duration = Duration::from_secs(15);

/// How long nothing may be stored until that is called a fault: a few elections of a NATS cluster.
const STORED: Duration = Duration::from_secs(8);

/// What is known at the moment. Shared by who asks, who announces and who shows it.
#[derive(Debug, Default)]
pub struct Hearing(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Who has answered when asked last, and how often in a row each other one has not.
    peers: BTreeMap<NodeId, u32>,
    /// Others that have fallen silent, where all of them have.
    silent: Vec<u64>,
    /// When something was stored last, or the first failure since the connection stands.
    stored: Option<Instant>,
    /// What fails since then.
    failure: Option<String>,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its name in metrics.
    pub kind: &'static str,
    /// For people, with the remedy.
    pub sentence: String,
}

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node has announced itself, or could not.
    pub fn announced(&self, broker: &Broker, error: Option<&KvError>) {
        let mut known = self.lock();
        match error {
            // Without a connection there is another trouble, which is shown as such.
            Some(error) if broker.is_connected() => {
                known.stored.get_or_insert_with(Instant::now);
                known.failure = Some(error.to_string());
            }
            Some(_) => (known.stored, known.failure) = (None, None),
            None => (known.stored, known.failure) = (Some(Instant::now()), None),
        }
    }

    /// Who answers, and who does not.
    #[must_use]
    pub fn peers(&self) -> (Vec<u64>, Vec<u64>) {
        let known = self.lock();
        let with = |wanted: &dyn Fn(u32) -> bool| {
            let peers = known.peers.iter();
            peers
                .filter(|(_, n)| wanted(**n))
                .map(|(p, _)| p.0)
                .collect()
        };
        (with(&|n| n == 0), with(&|n| n >= ROUNDS))
    }

    /// Whether all others have fallen silent, and who they are.
    fn fell_silent(&self, silent: Vec<u64>) {
        self.lock().silent = silent;
    }

    /// Notes one round: who was asked and whether it has answered; who is not there any more is forgotten.
    fn heard(&self, there: &[NodeId], answers: &[(NodeId, bool)]) {
        let mut known = self.lock();
        known.peers.retain(|node, _| there.contains(node));
        for (node, answered) in answers {
            let missed = known.peers.entry(*node).or_default();
            *missed = if *answered {
                0
            } else {
                missed.saturating_add(1)
            };
        }
    }

    /// What is wrong, if anything is.
    #[must_use]
    pub fn fault(&self, server: &str) -> Option<Fault> {
        let (failure, stored, gone) = {
            let known = self.lock();
            (known.failure.clone(), known.stored, known.silent.clone())
        };
        if let (Some(failure), Some(since)) = (failure, stored)
            && since.elapsed() >= STORED
        {
            return Some(Fault {
                kind: "jetstream",
                sentence: format!(
                    "connected to NATS server {server}, but JetStream stores nothing ({failure}): the server may be cut off from the others and lack a quorum; nats server report jetstream shows it"
                ),
            });
        }
        let (hears, misses) = self.peers();
        let list = |nodes: &[u64]| {
            let nodes: Vec<String> = nodes.iter().map(u64::to_string).collect();
            nodes.join(", ")
        };
        match (hears.as_slice(), misses.as_slice()) {
            (_, []) if gone.is_empty() => None,
            (_, []) => Some(Fault {
                kind: "alone",
                sentence: format!(
                    "none of the other nodes ({}) says anything, and none has stopped in good order: they have ended without a word, or are cut off from NATS server {server}; harmonylite nodes forget takes out one that is gone for good",
                    list(&gone)
                ),
            }),
            ([], silent) => Some(Fault {
                kind: "isolated",
                sentence: format!(
                    "this node hears nobody: of the nodes that announce themselves ({}) none answers it over NATS; changes go through JetStream, but wait, verify and ping reach no other node: look at the permissions of harmonylite.peers.> and at the routes of NATS server {server}",
                    list(silent)
                ),
            }),
            (some, silent) => Some(Fault {
                kind: "peers",
                sentence: format!(
                    "nodes {} announce themselves and do not answer this node over NATS, while nodes {} do: look at their permissions of harmonylite.peers.> and at the routes between the NATS servers",
                    list(silent),
                    list(some)
                ),
            }),
        }
    }
}

/// Asks the others until it is dropped, and shows what follows.
pub async fn run(engine: Arc<Engine>, broker: Broker) {
    let me = NodeId(engine.config.node_id);
    let log = &engine.config.replication_log;
    let mut before: BTreeMap<NodeId, u64> = BTreeMap::new();
    let mut turn = 0;
    let mut told: Option<Fault> = None;
    let mut shown = Shown::default();
    loop {
        tokio::time::sleep(ROUND.max(EACH * u32::try_from(before.len()).unwrap_or(u32::MAX))).await;
        if broker.is_connected() {
            match others(&broker, me, log.replicas).await {
                Ok((mine, others)) => {
                    let now = mine.as_ref().map_or(0, |mine| mine.at);
                    shown
                        .show(&engine, &broker, mine.as_ref(), &others, now)
                        .await;
                    engine
                        .hearing
                        .fell_silent(silent(&others, now, log.silent_after));
                    let alive: Vec<NodeId> = others
                        .iter()
                        .filter(|a| before.get(&a.node).is_some_and(|at| a.at > *at))
                        .map(|a| a.node)
                        .collect();
                    before = others.iter().map(|a| (a.node, a.at)).collect();
                    let asked = whose_turn(&alive, &mut turn);
                    let answers = ask(&broker, asked).await;
                    engine.hearing.heard(&alive, &answers);
                }
                // Whether anything is stored is seen by what this node says.
                Err(error) => tracing::debug!(%error, "the other nodes could not be looked up"),
            }
        } else {
            before.clear();
            engine.hearing.heard(&[], &[]);
            engine.hearing.fell_silent(Vec::new());
            shown.clear(&engine);
        }
        show(&engine, &broker, &mut told);
    }
}

/// Those whose turn it is.
fn whose_turn(alive: &[NodeId], turn: &mut usize) -> Vec<NodeId> {
    let skip = if alive.len() > ASKED {
        *turn % alive.len()
    } else {
        0
    };
    *turn = skip + ASKED;
    alive
        .iter()
        .cycle()
        .skip(skip)
        .take(ASKED.min(alive.len()))
        .copied()
        .collect()
}

/// What this node has said and what the others have. The time of the former is the server's time, to a second or so.
async fn others(
    broker: &Broker,
    me: NodeId,
    replicas: usize,
) -> Result<(Option<Announced>, Vec<Announced>), KvError> {
    let kv = broker.snapshots_bucket(replicas).await?;
    let mut said = presence::said(&kv).await?;
    let mine = said.iter().find(|a| a.node == me).cloned();
    said.retain(|a| a.node != me && a.gone.is_none());
    Ok((mine, said))
}

/// Those of whom something is still expected, where none of them says anything.
fn silent(others: &[Announced], now: u64, silent_after: Duration) -> Vec<u64> {
    let age = |a: &Announced| Duration::from_nanos(now.saturating_sub(a.at));
    let stopped = |a: &Announced| a.about.as_ref().is_some_and(|a| a.state == State::Stopped);
    let expected = || {
        let there = others.iter();
        there.filter(|a| !stopped(a) && age(a) <= silent_after)
    };
    // Who has stopped in good order is no sign of life, and none of a fault.
    if expected().all(|a| age(a) >= FELL_SILENT) {
        expected().map(|a| a.node.0).collect()
    } else {
        Vec::new()
    }
}

/// One question to each. That it is answered is all that counts.
async fn ask(broker: &Broker, nodes: Vec<NodeId>) -> Vec<(NodeId, bool)> {
    let question = Question::Where {
        until: Sequence(0),
        patience: 0,
    };
    let payload = Bytes::from(protocol::encode(&question));
    let mut asking = JoinSet::new();
    for node in nodes {
        let (broker, payload) = (broker.clone(), payload.clone());
        asking.spawn(async move {
            let answer = broker.ask_peer(node, payload, ANSWER).await;
            (node, answer.is_ok())
        });
    }
    asking.join_all().await
}

/// To health, metrics and the log.
fn show(engine: &Engine, broker: &Broker, told: &mut Option<Fault>) {
    let server = broker.connected().map(|c| c.server).unwrap_or_default();
    let fault = engine
        .hearing
        .fault(&server)
        .filter(|_| broker.is_connected());
    let (hears, misses) = engine.hearing.peers();
    let metrics = &engine.metrics;
    metrics.peers.set("heard", hears.len() as u64);
    metrics.peers.set("unheard", misses.len() as u64);
    metrics.partition.set(fault.as_ref().map(|f| f.kind));
    if fault.as_ref().map(|f| f.kind) != told.as_ref().map(|f| f.kind) {
        match &fault {
            Some(fault) => tracing::warn!("{}", fault.sentence),
            None if broker.is_connected() => {
                tracing::info!(
                    "the partition is over: JetStream stores what this node says, and others answer it"
                );
            }
            None => {}
        }
    }
    engine
        .status
        .set_partition(fault.as_ref().map(|f| Partition {
            kind: f.kind,
            cut_off: matches!(f.kind, "jetstream" | "isolated"),
            sentence: f.sentence.clone(),
        }));
    told.clone_from(&fault);
}

#[cfg(test)]
mod tests {
    use super::super::about::About;
    use super::*;
    use crate::snapshot::presence::Present;

    #[test]
    fn all_must_be_silent_and_expected() {
        let said = |node: u64, at: u64, state: State| {
            let about = About {
                state,
                ..About::default()
            };
            let at = Duration::from_secs(at).as_nanos() as u64;
            Announced::new(NodeId(node), Present::UNKNOWN, Some(about), at)
        };
        let now = Duration::from_secs(1000).as_nanos() as u64;
        let hour = Duration::from_secs(3600);
        let gone = said(2, 980, State::Running);
        let here = said(3, 999, State::Running);
        let stopped = said(4, 990, State::Stopped);
        let of = |others: &[&Announced]| {
            let others: Vec<Announced> = others.iter().copied().cloned().collect();
            silent(&others, now, hour)
        };
        assert_eq!(of(&[&gone, &stopped]), [2]);
        assert!(of(&[&gone, &here]).is_empty());
        assert!(of(&[&stopped]).is_empty() && of(&[]).is_empty());
        assert!(silent(&[gone], now, Duration::from_secs(10)).is_empty());
    }

    #[test]
    fn a_large_cluster_gets_its_turns() {
        let all: Vec<NodeId> = (1..=70).map(NodeId).collect();
        let mut turn = 0;
        let mut asked = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let these = whose_turn(&all, &mut turn);
            assert_eq!(these.len(), ASKED);
            asked.extend(these);
        }
        assert_eq!(asked.len(), 70);
        assert_eq!(whose_turn(&all[..3], &mut turn), &all[..3]);
        assert!(whose_turn(&[], &mut turn).is_empty());
    }

    #[test]
    fn one_missed_answer_is_none() {
        let hearing = Hearing::default();
        let (two, three) = (NodeId(2), NodeId(3));
        for _ in 1..ROUNDS {
            hearing.heard(&[two, three], &[(two, false), (three, true)]);
        }
        assert_eq!(hearing.fault("s"), None);
        hearing.heard(&[two, three], &[(two, false), (three, true)]);
        assert_eq!(hearing.fault("s").unwrap().kind, "peers");
        hearing.heard(&[two], &[(two, false)]);
        assert_eq!(hearing.fault("s").unwrap().kind, "isolated");
        hearing.heard(&[two], &[(two, true)]);
        assert_eq!(hearing.fault("s"), None);
        hearing.fell_silent(vec![2]);
        assert_eq!(hearing.fault("s").unwrap().kind, "alone");
    }
}
