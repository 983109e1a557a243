//! Waiting for all living nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::error::WaitError;
use super::here;
use super::token::Token;
use crate::change::position::{NodeId, Sequence};
use crate::engine::Engine;
use crate::peers::ask::{AskError, ask};
use crate::peers::protocol::{Answer, Question};
use crate::stream::Broker;

/// How long a node may take for one answer before we hear what the others say, and say how far it is.
const SLICE: Duration = Duration::from_secs(1);

/// How long the answer of a node may be on its way when the time is up.
const ON_THE_WAY: Duration = Duration::from_millis(300);

/// All living nodes have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Everywhere {
    /// The position that they have folded.
    pub token: Token,
    /// Which.
    pub nodes: Vec<NodeId>,
    /// Nodes that were not waited for, with the reason.
    pub left_out: Vec<(NodeId, String)>,
    /// Whether this node sends anything of its app at all.
    pub publishes: bool,
}

impl std::fmt::Display for Everywhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(NodeId::to_string).collect();
        write!(
            f,
            "everything up to position {} is on every living node ({})",
            self.token,
            nodes.join(", ")
        )?;
        for (node, why) in &self.left_out {
            write!(f, "; node {node} {why}, and was not waited for")?;
        }
        if !self.publishes {
            f.write_str("; but this node publishes nothing (publish = false): what its own app writes stays here")?;
        }
        Ok(())
    }
}

/// A node that is not there yet.
#[derive(Debug, Default)]
struct Behind {
    /// In words that follow "node 3".
    where_it_is: String,
}

/// Waits until everything that this node's app has committed by now is on every living node.
///
/// # Errors
/// [`WaitError::NotBack`], [`WaitError::Lacking`] at the deadline; see there for the others.
pub async fn everywhere(
    engine: &Arc<Engine>,
    timeout: Duration,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<Everywhere, WaitError> {
    here::unless_stopping(engine, wait_everywhere(engine, timeout, say)).await
}

async fn wait_everywhere(
    engine: &Arc<Engine>,
    timeout: Duration,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<Everywhere, WaitError> {
    let deadline = Instant::now() + timeout;
    let token = here::committed(engine, timeout).await?;
    let broker = engine.broker().ok_or(WaitError::NotConnected)?;
    let mut behind: BTreeMap<NodeId, Behind> = broker
        .living_nodes()
        .await?
        .into_iter()
        .map(|node| (node, Behind::default()))
        .collect();
    let mut done = Everywhere {
        token,
        nodes: Vec::new(),
        left_out: Vec::new(),
        publishes: engine.config.publish,
    };
    let mut said = String::new();
    while !behind.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let lacking = behind.into_iter().map(|(node, b)| (node, b.where_it_is));
            return Err(WaitError::Lacking {
                wanted: token.sequence,
                after: timeout,
                lacking: lacking.collect(),
            });
        }
        let patience = SLICE.min(left);
        // The last round ends with the time that was given, but for the way of an answer.
        let at_most = (patience + SLICE).min(left + ON_THE_WAY);
        let nodes = behind.keys().copied();
        let heard = round(&broker, nodes, token.sequence, patience, at_most).await;
        let mut silent = Vec::new();
        for (node, answer) in heard {
            let Some(state) = behind.get_mut(&node) else {
                continue;
            };
            match answer {
                Ok(Answer::At {
                    replicate: false, ..
                }) => {
                    behind.remove(&node);
                    let reason = "applies nothing (replicate = false)".to_owned();
                    done.left_out.push((node, reason));
                }
                Ok(Answer::At { position, .. }) if position >= token.sequence => {
                    behind.remove(&node);
                    done.nodes.push(node);
                }
                Ok(Answer::At {
                    position, paused, ..
                }) => {
                    let why = paused.map_or_else(String::new, |p| format!(" ({p})"));
                    state.where_it_is = format!(
                        "is at {position}, {} behind{why}",
                        token.sequence.0.saturating_sub(position.0)
                    );
                }
                Ok(Answer::Refused { reason }) => {
                    state.where_it_is = format!("does not say where it is: {reason}");
                }
                Ok(_) => state.where_it_is = "gave another answer".to_owned(),
                Err(error) => {
                    state.where_it_is = error.in_words();
                    if error.nobody_hears() {
                        silent.push(node);
                    }
                }
            }
        }
        if !silent.is_empty() {
            // Without a connection and without a lease it lives no more.
            let living = broker.living_nodes().await?;
            for node in silent.into_iter().filter(|node| !living.contains(node)) {
                behind.remove(&node);
                let reason = "has stopped meanwhile".to_owned();
                done.left_out.push((node, reason));
            }
            tokio::time::sleep(Duration::from_millis(100).min(left)).await;
        }
        let now: Vec<String> = behind
            .iter()
            .map(|(node, b)| format!("node {node} {}", b.where_it_is))
            .collect();
        let now = format!("position {}: {}", token.sequence, now.join("; "));
        if !behind.is_empty() && now != said {
            say(now.clone());
            said = now;
        }
    }
    done.nodes.sort_unstable();
    Ok(done)
}

/// One question to each node.
async fn round(
    broker: &Broker,
    nodes: impl Iterator<Item = NodeId>,
    until: Sequence,
    patience: Duration,
    at_most: Duration,
) -> Vec<(NodeId, Result<Answer, AskError>)> {
    let mut asking = JoinSet::new();
    for node in nodes {
        let broker = broker.clone();
        asking.spawn(async move {
            let question = Question::Where {
                until,
                patience: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
            };
            // A node that can answer does so by its patience; who does not is asked again in the next round.
            let answer = tokio::time::timeout(at_most, ask(&broker, node, &question, patience));
            let answer = answer.await.unwrap_or_else(|_| {
                Err(AskError::Stream(crate::stream::StreamError::Timeout {
                    what: format!("a question to node {node}"),
                    after: at_most,
                }))
            });
            (node, answer)
        });
    }
    asking.join_all().await
}
