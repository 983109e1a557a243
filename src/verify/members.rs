//! The nodes that take part in a comparison, from the coordinator's side: steps for many at once, and what becomes of one that does not answer.
//!
//! Invariant: a node that fails a step takes no further part, and is named with its reason; the others go on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::change::position::{NodeId, Sequence};
use crate::peers::ask::{AskError, ask};
use crate::peers::protocol::{Answer, Command, Outcome, Question};
use crate::stream::Broker;

/// What hears how it goes.
pub type Say = dyn Fn(String) + Send + Sync;

/// How long one answer may wait for its step; then we hear how far it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// A node that answers nothing for this long has gone, whatever the timeout: its snapshot goes a little later.
const SILENCE: Duration = Duration::from_secs(15);

/// How often nodes that are done with a step are asked to stay while others are not.
const KEEP: Duration = Duration::from_secs(5);

/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// The nodes of one comparison.
pub struct Members {
    broker: Broker,
    /// The marker's id.
    pub id: u64,
    /// Each with the number of its last step.
    steps: BTreeMap<NodeId, u64>,
    /// Nodes that take no part any more.
    pub lost: BTreeMap<NodeId, String>,
}

/// How far each node is in the present step.
type Progress = Arc<Mutex<BTreeMap<NodeId, (u64, Sequence)>>>;

impl Members {
    /// These nodes.
    pub fn new(broker: Broker, id: u64, nodes: &[NodeId]) -> Self {
        Self {
            broker,
            id,
            steps: nodes.iter().map(|node| (*node, 0)).collect(),
            lost: BTreeMap::new(),
        }
    }

    /// Which they are.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.steps.keys().copied().collect()
    }

    /// The node takes no further part.
    pub fn lose(&mut self, node: NodeId, reason: String) {
        self.steps.remove(&node);
        self.lost.insert(node, reason);
    }

    /// Asks each of them the same question once; those that answer otherwise than `fits` are lost.
    pub async fn ask_all(&mut self, question: &Question, fits: impl Fn(&Answer) -> bool) {
        for (node, answer) in ask_each(&self.broker, &self.nodes(), question).await {
            match answer {
                Ok(answer) if fits(&answer) => {}
                Ok(Answer::Refused { reason }) => self.lose(node, format!("refuses: {reason}")),
                Ok(_) => self.lose(node, "gave another answer".to_owned()),
                Err(error) => self.lose(node, error.in_words()),
            }
        }
    }

    /// Lets go of all snapshots. What does not hear it lets go by itself.
    pub async fn release(&self) {
        let question = Question::Release { id: self.id };
        let all: Vec<NodeId> = self.steps.keys().chain(self.lost.keys()).copied().collect();
        for (node, answer) in ask_each(&self.broker, &all, &question).await {
            if let Err(error) = answer {
                tracing::debug!(peer = node.0, %error, "a node was not told that the comparison is over");
            }
        }
    }

    /// Does one step on all.
    pub async fn step_all(
        &mut self,
        command: &Command,
        until: Option<Instant>,
        telling: &Telling<'_>,
    ) -> BTreeMap<NodeId, Outcome> {
        let commands = self.nodes().into_iter().map(|n| (n, command.clone()));
        self.steps(commands.collect(), until, telling).await
    }

    /// Does one step on some. `until`: who is not done by then is lost; without it, who says nothing for long.
    pub async fn steps(
        &mut self,
        commands: Vec<(NodeId, Command)>,
        until: Option<Instant>,
        telling: &Telling<'_>,
    ) -> BTreeMap<NodeId, Outcome> {
        let progress = Progress::default();
        let mut working = JoinSet::new();
        for (node, command) in commands {
            let Some(step) = self.steps.get_mut(&node) else {
                continue;
            };
            *step += 1;
            let question = Question::Step {
                id: self.id,
                step: *step,
                command,
                patience: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
            };
            let (broker, progress) = (self.broker.clone(), Arc::clone(&progress));
            working.spawn(async move {
                (
                    node,
                    one_step(&broker, node, &question, until, &progress).await,
                )
            });
        }
        let mut done = BTreeMap::new();
        let mut tell = tokio::time::interval_at(Instant::now() + TELL, TELL);
        let mut keep = tokio::time::interval_at(Instant::now() + KEEP, KEEP);
        // Dropped with this step: nobody waits for what they answer.
        let mut keeping = JoinSet::new();
        loop {
            tokio::select! {
                next = working.join_next() => match next {
                    None => return done,
                    Some(Ok((node, Ok(outcome)))) => {
                        done.insert(node, outcome);
                    }
                    Some(Ok((node, Err(reason)))) => self.lose(node, reason),
                    Some(Err(error)) => tracing::error!(%error, "a step of a comparison ended by a fault"),
                },
                _ = tell.tick() => telling.tell(&progress, &done),
                _ = keep.tick() => {
                    keeping.abort_all();
                    let (broker, nodes) = (self.broker.clone(), self.nodes());
                    let question = Question::Keep { id: self.id };
                    keeping.spawn(async move { ask_each(&broker, &nodes, &question).await });
                }
            }
        }
    }
}

/// How a step is told while it takes long.
pub struct Telling<'a> {
    /// Who hears it.
    pub say: &'a Say,
    /// What is under way.
    pub what: String,
    /// Whether positions tell how far it is, or rows.
    pub positions: bool,
}

impl Telling<'_> {
    fn tell(&self, progress: &Progress, done: &BTreeMap<NodeId, Outcome>) {
        let parts: Vec<String> = progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|(node, _)| !done.contains_key(node))
            .map(|(node, (rows, position))| {
                if self.positions {
                    format!("node {node} is at {position}")
                } else {
                    format!("node {node} has read {rows} rows")
                }
            })
            .collect();
        if parts.is_empty() {
            (self.say)(self.what.clone());
        } else {
            (self.say)(format!("{}: {}", self.what, parts.join(", ")));
        }
    }
}

async fn one_step(
    broker: &Broker,
    node: NodeId,
    question: &Question,
    until: Option<Instant>,
    progress: &Progress,
) -> Result<Outcome, String> {
    let mut heard = Instant::now();
    let mut position = None;
    loop {
        match ask(broker, node, question, PATIENCE).await {
            Ok(Answer::Done(Outcome::Failed { reason })) => {
                return Err(format!("says that {reason}"));
            }
            Ok(Answer::Done(outcome)) => return Ok(outcome),
            Ok(Answer::Working {
                rows,
                position: at,
                paused,
            }) => {
                heard = Instant::now();
                position = Some((at, paused));
                progress
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(node, (rows, at));
            }
            Ok(Answer::Refused { reason }) => return Err(format!("says that {reason}")),
            Ok(_) => return Err("gave another answer".to_owned()),
            Err(AskError::Stream(error)) if error.is_transient() && heard.elapsed() < SILENCE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => return Err(error.in_words()),
        }
        if until.is_some_and(|until| Instant::now() >= until) {
            return Err(position.map_or_else(
                || "does not answer".to_owned(),
                |(at, paused)| {
                    let why = paused.map_or_else(String::new, |p| format!(" ({p})"));
                    format!("was not done in time: it has folded the stream up to {at}{why}")
                },
            ));
        }
    }
}

/// Asks nodes the same question, all at once.
pub async fn ask_each(
    broker: &Broker,
    nodes: &[NodeId],
    question: &Question,
) -> Vec<(NodeId, Result<Answer, AskError>)> {
    let mut asking = JoinSet::new();
    for &node in nodes {
        let (broker, question) = (broker.clone(), question.clone());
        asking.spawn(async move { (node, ask(&broker, node, &question, Duration::ZERO).await) });
    }
    asking.join_all().await
}
