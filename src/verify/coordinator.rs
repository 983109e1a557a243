//! The node that is asked to verify: brings all living nodes to one marker, has them examine their snapshots, and compares.
//!
//! Invariant: whatever happens, the nodes are told to let go of their snapshots at the end; and a node that was not compared is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::digest::{self, RowHash};
use super::error::VerifyError;
use super::examiner::{HASH_BYTES, MOST_PENDING};
use super::members::{Members, Say, Telling, ask_each};
use super::report::{NotCompared, Report};
use super::rows::{self, DifferingRow};
use super::schema::{self, Comparable};
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::codec::frame::{Kind, Sealer};
use crate::codec::marker::{self, Marker};
use crate::engine::Engine;
use crate::peers::protocol::{Answer, Command, Outcome, Question, TableFacts};
use crate::stream::Broker;

/// How long the broker may take to store a marker.
const MARKER_DEADLINE: Duration = Duration::from_secs(5);

/// The pause before another marker.
const AGAIN: Duration = Duration::from_millis(50);

/// What is to be compared.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a node may take to fold the stream up to the marker.
    pub timeout: Duration,
    /// SQLite GLOB of the tables; `None`: all.
    pub tables: Option<String>,
    /// Send rows that differ again from this node.
    pub repair_from: Option<NodeId>,
}

/// One comparison that was made, with its snapshots still held.
pub(super) struct Compared {
    pub(super) members: Members,
    pub(super) report: Report,
    /// The rows that differ, by table.
    pub(super) differing: Vec<(String, Vec<DifferingRow>)>,
}

pub(super) struct Coordinator<'a> {
    pub(super) broker: Broker,
    pub(super) me: NodeId,
    pub(super) options: &'a Options,
    pub(super) say: &'a Say,
}

impl<'a> Coordinator<'a> {
    pub(super) fn new(
        engine: &Arc<Engine>,
        options: &'a Options,
        say: &'a Say,
    ) -> Result<Self, VerifyError> {
        Ok(Self {
            broker: engine.broker().ok_or(VerifyError::NotConnected)?,
            me: NodeId(engine.config.node_id),
            options,
            say,
        })
    }

    /// Compares once. The caller releases the members.
    pub(super) async fn compare(&self) -> Result<Compared, VerifyError> {
        let (nodes, mut not_compared) = self.living().await?;
        let (mut members, position) = self.reach(&nodes).await?;
        let compared = self.examine(&mut members, position).await;
        let (mut report, differing) = match compared {
            Ok(compared) => compared,
            Err(error) => {
                members.release().await;
                return Err(error);
            }
        };
        if members.nodes().is_empty() {
            let why = members.lost.into_iter().collect();
            return Err(VerifyError::Nobody { why });
        }
        not_compared.extend(members.lost.iter().map(|(node, reason)| NotCompared {
            node: node.0,
            reason: reason.clone(),
            as_configured: false,
        }));
        not_compared.sort_by_key(|n| n.node);
        report.not_compared = not_compared;
        Ok(Compared {
            members,
            report,
            differing,
        })
    }

    /// The nodes that can be compared, and those that cannot.
    async fn living(&self) -> Result<(Vec<NodeId>, Vec<NotCompared>), VerifyError> {
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
    async fn reach(&self, nodes: &[NodeId]) -> Result<(Members, Sequence), VerifyError> {
        let until = Instant::now() + self.options.timeout;
        loop {
            let id = rand::random();
            let mut members = Members::new(self.broker.clone(), id, nodes);
            let prepare = Question::Prepare {
                id,
                tables: self.options.tables.clone(),
            };
            members
                .ask_all(&prepare, |a| matches!(a, Answer::Prepared))
                .await;
            let stored = self
                .broker
                .publish(ShardId::ORDER, message(self.me, id), MARKER_DEADLINE)
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

    /// Compares the snapshots.
    async fn examine(
        &self,
        members: &mut Members,
        position: Sequence,
    ) -> Result<(Report, Vec<(String, Vec<DifferingRow>)>), VerifyError> {
        let facts = self.tables(members).await;
        let common = schema::compare(&facts);
        let set_apart = self.set_apart(members).await?;
        let mut report = Report {
            position: position.0,
            tables: common.tables.len(),
            set_apart,
            schema: common.differences,
            notes: common.notes,
            ..Report::default()
        };
        let mut differing = Vec::new();
        for table in common.tables {
            let (rows, found) = self.table(members, &table).await;
            report.rows += rows;
            let Some((found, at_least)) = found else {
                continue;
            };
            if found.is_empty() {
                report.schema.push(format!(
                    "table \"{}\" differs, but in too many rows to list them, or a node has gone that had them",
                    table.name
                ));
            } else {
                report
                    .different
                    .push(rows::report(&table.name, &found, at_least));
                differing.push((table.name, found));
            }
        }
        report.nodes = members.nodes().iter().map(|n| n.0).collect();
        report.equal = report.schema.is_empty() && report.different.is_empty();
        Ok((report, differing))
    }

    async fn tables(&self, members: &mut Members) -> BTreeMap<NodeId, Vec<TableFacts>> {
        let telling = self.telling("listing the tables".to_owned());
        let mut facts: BTreeMap<NodeId, Vec<TableFacts>> = BTreeMap::new();
        let mut from: Vec<(NodeId, u64)> = members.nodes().into_iter().map(|n| (n, 0)).collect();
        while !from.is_empty() {
            let commands = from
                .drain(..)
                .map(|(n, from)| (n, Command::Tables { from }));
            let outcomes = members.steps(commands.collect(), None, &telling).await;
            for (node, outcome) in outcomes {
                let Outcome::Tables { tables, next } = outcome else {
                    members.lose(node, "gave another answer".to_owned());
                    continue;
                };
                facts.entry(node).or_default().extend(tables);
                from.extend(next.map(|next| (node, next)));
            }
        }
        // What a node said that has gone since is not held against the others.
        let left = members.nodes();
        facts.retain(|node, _| left.contains(node));
        facts
    }

    /// Leaves out on all nodes what is pending on any; how many rows.
    async fn set_apart(&self, members: &mut Members) -> Result<usize, VerifyError> {
        let telling = self.telling("listing rows with unpublished changes".to_owned());
        let lists = self
            .paged(members, &members.nodes(), &telling, |from| {
                Command::Pending { from }
            })
            .await;
        let mut all: BTreeSet<RowHash> = BTreeSet::new();
        for list in lists.values() {
            let (hashes, _) = list.as_chunks::<HASH_BYTES>();
            all.extend(hashes.iter().map(|h| RowHash::from_le_bytes(*h)));
        }
        if all.len() > MOST_PENDING {
            return Err(VerifyError::TooManyPending {
                rows: all.len(),
                most: MOST_PENDING,
            });
        }
        let bytes: Vec<u8> = all.iter().flat_map(|h| h.to_le_bytes()).collect();
        for page in bytes.chunks(self.page() / HASH_BYTES * HASH_BYTES) {
            let command = Command::SetApart {
                rows: page.to_vec(),
            };
            members.step_all(&command, None, &telling).await;
        }
        Ok(all.len())
    }

    /// Compares one table: its rows, and where it differs the rows that do and whether there are more.
    async fn table(
        &self,
        members: &mut Members,
        table: &Comparable,
    ) -> (u64, Option<(Vec<DifferingRow>, bool)>) {
        let telling = self.telling(format!("reading table {}", table.name));
        let on: Vec<NodeId> = members
            .nodes()
            .into_iter()
            .filter(|n| table.nodes.contains(n))
            .collect();
        let command = Command::Digest {
            table: table.name.clone(),
            columns: table.columns.clone(),
        };
        let commands = on.iter().map(|n| (*n, command.clone())).collect();
        let mut digests = BTreeMap::new();
        let mut most = 0;
        for (node, outcome) in members.steps(commands, None, &telling).await {
            let decoded = match outcome {
                Outcome::Digest { rows, buckets } => digest::decode(&buckets).map(|b| (rows, b)),
                _ => None,
            };
            match decoded {
                Some((rows, buckets)) => {
                    most = most.max(rows);
                    digests.insert(node, buckets);
                }
                None => members.lose(node, "gave another answer".to_owned()),
            }
        }
        let unequal = rows::unequal(&digests);
        if unequal.is_empty() {
            return (most, None);
        }
        let listed = rows::listable(&digests, &unequal);
        let at_least = listed.len() < unequal.len();
        let telling = self.telling(format!(
            "finding the rows of table {} that differ",
            table.name
        ));
        let nodes: Vec<NodeId> = digests.into_keys().collect();
        let lists = self
            .paged(members, &nodes, &telling, |from| Command::Rows {
                table: table.name.clone(),
                columns: table.columns.clone(),
                buckets: listed.clone(),
                from,
            })
            .await;
        let found = rows::differing(&lists).unwrap_or_default();
        (most, Some((found, at_least)))
    }

    /// Whole lists of nodes, page by page. What a node sent that has gone since is left out.
    async fn paged(
        &self,
        members: &mut Members,
        nodes: &[NodeId],
        telling: &Telling<'_>,
        command: impl Fn(u64) -> Command,
    ) -> BTreeMap<NodeId, Vec<u8>> {
        let mut lists: BTreeMap<NodeId, Vec<u8>> = BTreeMap::new();
        let mut from: Vec<(NodeId, u64)> = nodes.iter().map(|n| (*n, 0)).collect();
        while !from.is_empty() {
            let commands = from.drain(..).map(|(n, from)| (n, command(from)));
            let outcomes = members.steps(commands.collect(), None, telling).await;
            for (node, outcome) in outcomes {
                let (Outcome::Pending { rows: page, more } | Outcome::Rows { list: page, more }) =
                    outcome
                else {
                    members.lose(node, "gave another answer".to_owned());
                    continue;
                };
                let list = lists.entry(node).or_default();
                list.extend_from_slice(&page);
                // A page without anything would be asked for without end.
                if more && !page.is_empty() {
                    from.push((node, list.len() as u64));
                }
            }
        }
        let left = members.nodes();
        lists.retain(|node, _| left.contains(node));
        lists
    }

    pub(super) fn telling(&self, what: String) -> Telling<'a> {
        Telling {
            say: self.say,
            what,
            positions: false,
        }
    }

    /// Bytes of a list in one message.
    pub(super) fn page(&self) -> usize {
        (self.broker.max_payload() / 2).max(1024)
    }
}

/// The marker as a message of the order stream.
fn message(node: NodeId, id: u64) -> Bytes {
    let body = marker::encode(&Marker { node, id });
    Sealer::new(false, 0).seal(Kind::Marker, &body).into()
}
