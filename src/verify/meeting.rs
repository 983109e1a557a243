//! Bringing all living nodes to one marker.
//!
//! Invariant: a marker counts only if every node that takes part has folded exactly up to it; else another one is tried, until the time is up.

use std::time::Duration;

use tokio::time::Instant;

use super::coordinator::Coordinator;
use super::error::VerifyError;
use super::members::{Members, Telling, ask_each};
use super::report::NotCompared;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::codec::marker::{self, Marker};
use crate::peers::protocol::{Answer, Command, Outcome, Question};

/// How long the broker may take to store a marker.
const MARKER_DEADLINE: Duration = Duration::from_secs(5);

/// Markers that are tried while all nodes publish as ever; from then on publishing stands still for a moment around each.
const TRIED_IN_PASSING: usize = 2;

/// The pause before another marker.
const AGAIN: Duration = Duration::from_millis(50);

impl Coordinator<'_> {
    /// The nodes that can be compared, and those that cannot.
    pub(super) async fn living(&self) -> Result<(Vec<NodeId>, Vec<NotCompared>), VerifyError> {
        let living = self.broker.living_nodes().await?;
        let question = Question::Where {
            until: Sequence(0),
            patience: 0,
        };
        let mut nodes = Vec::new();
        let mut not_compared = Vec::new();
        for (node, answer) in ask_each(&self.broker, &living, &question).await {
            let (reason, as_configured) = match answer {
                Ok(Answer::At {
                    replicate: true, ..
                }) => {
                    nodes.push(node);
                    continue;
                }
                Ok(Answer::At { .. }) => ("applies nothing (replicate = false)".to_owned(), true),
                Ok(Answer::Refused { reason }) => (format!("refuses: {reason}"), false),
                Ok(_) => ("gave another answer".to_owned(), false),
                Err(error) => (error.in_words(), false),
            };
            not_compared.push(NotCompared {
                node: node.0,
                reason,
                as_configured,
            });
        }
        nodes.sort_unstable();
        if nodes.is_empty() {
            let why = not_compared.into_iter().map(|n| (NodeId(n.node), n.reason));
            return Err(VerifyError::Nobody { why: why.collect() });
        }
        if let Some(from) = self.options.repair_from.filter(|f| !nodes.contains(f)) {
            let why = not_compared.into_iter().find(|n| n.node == from.0);
            return Err(VerifyError::UnknownSource {
                from,
                compared: nodes,
                why: why.map(|n| n.reason),
            });
        }
        Ok((nodes, not_compared))
    }

    /// Brings the nodes to one marker; where it stands.
    pub(super) async fn reach(&self, nodes: &[NodeId]) -> Result<(Members, Sequence), VerifyError> {
        let until = Instant::now() + self.options.timeout;
        let mut tried = 0;
        loop {
            let id = rand::random();
            let mut members = Members::new(self.broker.clone(), id, nodes);
            let prepare = Question::Prepare {
                id,
                tables: self.options.tables.clone(),
                calm: tried >= TRIED_IN_PASSING,
            };
            tried += 1;
            members
                .ask_all(&prepare, |a| matches!(a, Answer::Prepared))
                .await;
            let marker = marker::message(&Marker { node: self.me, id });
            let stored = self
                .broker
                .publish(ShardId::ORDER, marker.into(), MARKER_DEADLINE)
                .await;
            let at = match stored {
                Ok(at) => at,
                Err(error) => {
                    members.release().await;
                    return Err(error.into());
                }
            };
            let telling = Telling {
                say: self.say,
                what: format!("waiting for the nodes to fold the stream up to {at}"),
                positions: true,
            };
            let outcomes = members
                .step_all(&Command::Reach, Some(until), &telling)
                .await;
            let missed = outcomes.iter().find_map(|(node, outcome)| match outcome {
                Outcome::Missed { reason } => Some(format!("node {node}: {reason}")),
                _ => None,
            });
            let Some(reason) = missed else {
                if members.nodes().is_empty() {
                    let why = members.lost.into_iter().collect();
                    return Err(VerifyError::Nobody { why });
                }
                return Ok((members, at));
            };
            members.release().await;
            if Instant::now() >= until {
                return Err(VerifyError::NoMarker {
                    after: self.options.timeout,
                    reason,
                });
            }
            (self.say)(format!("trying another marker ({reason})"));
            tokio::time::sleep(AGAIN).await;
        }
    }
}
