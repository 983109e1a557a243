//! The way through the stream, measured: a marker goes into the order stream, and each node says when it has folded it.
//!
//! ```text
//!   here ── Await(id) ──▶ every node        core NATS, beforehand
//!   here ── marker id ──▶ order stream ──▶ every node folds it ── Heard ──▶ here
//! ```
//!
//! What is measured is the way of a change without its scan: stored by JetStream, delivered, folded in a write transaction, and the answer's way back. The app's tables are
//! not touched: a marker carries nothing, and every version that knows comparisons passes over it.
//!
//! Invariants: one marker at a time; a node that does not answer holds up no other's measurement; each wait has a deadline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::about::shortened;
use crate::change::position::{NodeId, ShardId};
use crate::codec::marker::{self, Marker};
use crate::engine::Engine;
use crate::peers::ask::ask;
use crate::peers::protocol::{Answer, Question};
use crate::stream::{Broker, KvError, PublishError};

/// Markers that are remembered after they were folded: more than are under way at any time.
const REMEMBERED: usize = 256;

/// How long the broker may take to store a marker.
const STORE: Duration = Duration::from_secs(5);

/// How often progress is told.
const TELL: Duration = Duration::from_secs(2);

/// How long one question waits before it is asked again.
const SLICE: Duration = Duration::from_secs(2);

/// Markers that were folded lately, the last one at the end.
#[derive(Debug)]
pub struct Passed(watch::Sender<VecDeque<u64>>);

impl Default for Passed {
    fn default() -> Self {
        Self(watch::Sender::new(VecDeque::new()))
    }
}

impl Passed {
    /// A marker was folded.
    pub fn note(&self, id: u64) {
        self.0.send_modify(|ids| {
            if ids.len() >= REMEMBERED {
                ids.pop_front();
            }
            ids.push_back(id);
        });
    }

    /// Those that were, and those to come.
    #[must_use]
    pub fn passed(&self) -> watch::Receiver<VecDeque<u64>> {
        self.0.subscribe()
    }
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// Not connected yet.
    #[error("this node is not connected to NATS yet: its log and health say why")]
    NotConnected,
    /// Who is there cannot be seen.
    #[error("could not see which nodes live: {0}")]
    Living(#[from] KvError),
    /// The marker was not stored.
    #[error("the stream does not take a marker: {0}")]
    Publish(#[from] PublishError),
    /// The daemon stops.
    #[error("this node is stopping")]
    Stopping,
}

/// What is to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Markers.
    pub count: u64,
    /// Between them.
    pub interval: Duration,
    /// How long a node may take for one.
    pub timeout: Duration,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The node that measured.
    pub node: u64,
    /// Markers sent.
    pub sent: u64,
    /// The way to each living node, this one included.
    pub nodes: Vec<Way>,
}

/// The way to one node. Milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Way {
    /// Which.
    pub node: u64,
    /// Markers that it has folded in time.
    pub answers: u64,
    /// Those that it has not.
    pub timeouts: u64,
    /// The fastest.
    pub min_ms: Option<f64>,
    /// Half of them were as fast.
    pub p50_ms: Option<f64>,
    /// All but one in a hundred were.
    pub p99_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
    /// Why the last one that was not folded in time was not.
    pub reason: Option<String>,
}

impl Report {
    /// Whether every node has folded every marker in time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.nodes.iter().all(|n| n.timeouts == 0)
    }

    /// A sentence for each node that has not.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let late = self.nodes.iter().filter(|n| n.timeouts > 0);
        late.map(|way| {
            let reason = way.reason.as_deref().unwrap_or("does not answer");
            format!("node {} {reason}", way.node)
        })
        .collect()
    }
}

/// Measures.
///
/// # Errors
/// [`PingError`]; nodes that do not answer are no error.
pub async fn ping(
    engine: &Arc<Engine>,
    options: Options,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<Report, PingError> {
    tokio::select! {
        done = measure(engine, options, say) => done,
        () = engine.shutdown.requested() => Err(PingError::Stopping),
    }
}

async fn measure(
    engine: &Arc<Engine>,
    options: Options,
    say: &(dyn Fn(String) + Send + Sync),
) -> Result<Report, PingError> {
    let broker = engine.broker().ok_or(PingError::NotConnected)?;
    let me = NodeId(engine.config.node_id);
    let mut nodes = broker.living_nodes().await?;
    if !nodes.contains(&me) {
        nodes.push(me);
        nodes.sort_unstable();
    }
    let mut times: BTreeMap<NodeId, (Vec<Duration>, u64, Option<String>)> = BTreeMap::new();
    let (mut sent, mut told) = (0, Instant::now());
    while sent < options.count {
        if sent > 0 {
            tokio::time::sleep(options.interval).await;
        }
        for (node, way) in once(engine, &broker, me, &nodes, options.timeout).await? {
            let (ways, timeouts, reason) = times.entry(node).or_default();
            match way {
                Ok(time) => ways.push(time),
                Err(why) => {
                    *timeouts += 1;
                    *reason = Some(why);
                }
            }
        }
        sent += 1;
        if told.elapsed() >= TELL {
            say(format!("{sent} of {} markers sent", options.count));
            told = Instant::now();
        }
    }
    let way = |(node, (mut ways, timeouts, reason)): (NodeId, (Vec<Duration>, u64, _))| {
        ways.sort_unstable();
        Way {
            node: node.0,
            answers: ways.len() as u64,
            timeouts,
            min_ms: millis(ways.first()),
            p50_ms: millis(percentile(&ways, 50)),
            p99_ms: millis(percentile(&ways, 99)),
            max_ms: millis(ways.last()),
            reason,
        }
    };
    Ok(Report {
        node: me.0,
        sent,
        nodes: times.into_iter().map(way).collect(),
    })
}

/// The value that so many in a hundred are not above.
fn percentile(sorted: &[Duration], percent: usize) -> Option<&Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1))
}

fn millis(time: Option<&Duration>) -> Option<f64> {
    // To the microsecond: finer digits are noise.
    time.map(|t| (t.as_secs_f64() * 1e6).round() / 1e3)
}

/// One marker, and what each node says to it.
async fn once(
    engine: &Arc<Engine>,
    broker: &Broker,
    me: NodeId,
    nodes: &[NodeId],
    timeout: Duration,
) -> Result<Vec<(NodeId, Result<Duration, String>)>, PingError> {
    let id = rand::random();
    let mut passed = engine.markers.passed();
    let replicates = engine.config.replicate;
    let deadline = Instant::now() + timeout;
    let mut asking = JoinSet::new();
    for node in nodes.iter().copied().filter(|n| *n != me) {
        let broker = broker.clone();
        asking.spawn(async move { (node, wait_for(&broker, node, id, deadline).await) });
    }
    let own = async move {
        if !replicates {
            return Err("applies nothing (replicate = false)".to_owned());
        }
        let folded = passed.wait_for(|ids| ids.contains(&id));
        match tokio::time::timeout_at(deadline.into(), folded).await {
            Ok(Ok(_)) => Ok(Instant::now()),
            _ => Err("has not folded it in time".to_owned()),
        }
    };
    asking.spawn(async move { (me, own.await) });
    let marker = marker::message(&Marker { node: me, id });
    let begun = Instant::now();
    broker.publish(ShardId::ORDER, marker.into(), STORE).await?;
    let answers = asking.join_all().await.into_iter();
    Ok(answers
        .map(|(node, at)| {
            let way = at
                .map(|at| at.saturating_duration_since(begun))
                .map_err(
                    |why| match engine.brakes.set().apply.pause(crate::brakes::Part::Apply) {
                        Some(pause) if node == me => format!("{why} ({pause})"),
                        _ => why,
                    },
                );
            (node, way)
        })
        .collect())
}

/// When a node says that it has folded the marker.
async fn wait_for(
    broker: &Broker,
    node: NodeId,
    id: u64,
    deadline: Instant,
) -> Result<Instant, String> {
    let mut why = "does not answer".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(why);
        }
        let patience = left.min(SLICE);
        let question = Question::Await {
            id,
            patience: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        // A node that can answer does so by its patience, or a moment later.
        let asked = tokio::time::timeout(left + SLICE, ask(broker, node, &question, patience));
        match asked.await {
            Ok(Ok(Answer::Heard)) => return Ok(Instant::now()),
            Ok(Ok(Answer::At {
                replicate: false, ..
            })) => return Err("applies nothing (replicate = false)".to_owned()),
            Ok(Ok(Answer::At {
                position, paused, ..
            })) => {
                let paused = paused.map_or_else(String::new, |p| format!(" ({})", shortened(&p)));
                why = format!("has not folded it in time: it is at {position}{paused}");
            }
            Ok(Ok(Answer::Refused { reason })) => {
                return Err(format!("refuses: {}", shortened(&reason)));
            }
            Ok(Ok(_)) => return Err("gave another answer".to_owned()),
            Ok(Err(error)) => {
                why = error.in_words();
                // Who is not connected is asked again, but not in a circle.
                tokio::time::sleep(left.min(Duration::from_millis(100))).await;
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let ms = |n| Duration::from_millis(n);
        let hundred: Vec<Duration> = (1..=100).map(ms).collect();
        assert_eq!(percentile(&hundred, 50), Some(&ms(50)));
        assert_eq!(percentile(&hundred, 99), Some(&ms(99)));
        assert_eq!(percentile(&hundred[..1], 50), Some(&ms(1)));
        assert_eq!(percentile(&hundred[..10], 99), Some(&ms(10)));
        assert_eq!(percentile(&[], 99), None);
    }

    #[tokio::test]
    async fn a_marker_that_has_passed_already_is_known_and_only_so_many_are() {
        let passed = Passed::default();
        passed.note(1);
        let mut seen = passed.passed();
        assert!(seen.wait_for(|ids| ids.contains(&1)).await.is_ok());
        (2..1000).for_each(|id| passed.note(id));
        assert_eq!(seen.borrow().len(), REMEMBERED);
        assert!(seen.borrow().contains(&999) && !seen.borrow().contains(&1));
    }
}
