//! The node that is asked to verify: brings all living nodes to one marker, has them examine their snapshots, and compares.
//!
//! Invariant: whatever happens, the nodes are told to let go of their snapshots at the end; and a node that was not compared is named.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::digest::{self, RowHash};
use super::error::VerifyError;
use super::examiner::{HASH_BYTES, MOST_LISTED, MOST_PENDING};
use super::members::{Members, Say, Telling};
use super::report::{NotCompared, Report};
use super::rows::{self, DifferingRow};
use super::schema::{self, Comparable};
use crate::change::position::{NodeId, Sequence};
use crate::engine::Engine;
use crate::peers::protocol::{Command, Outcome, TableFacts};
use crate::stream::Broker;

/// More tables than a schema has that SQLite reads in a bearable time: who names more is no node of ours.
const MOST_TABLES: usize = 100_000;

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
    /// What differs.
    pub(super) found: Found,
}

/// What differs.
#[derive(Default)]
pub(super) struct Found {
    /// The rows that could be listed, by table.
    pub(super) differing: Vec<DifferingTable>,
    /// Rows of all buckets that differ: falls with each round of a repair that mends anything.
    pub(super) suspects: u64,
}

/// What one table came to.
#[derive(Default)]
struct TableCompared {
    /// Its rows.
    rows: u64,
    /// How many may differ.
    suspects: u64,
    /// Those that do, as far as they could be listed.
    differing: DifferingTable,
    /// Whether there are more.
    at_least: bool,
}

/// A table's rows that differ.
#[derive(Default)]
pub(super) struct DifferingTable {
    /// The table.
    pub(super) table: String,
    /// The nodes that listed them.
    pub(super) nodes: Vec<NodeId>,
    /// The rows.
    pub(super) rows: Vec<DifferingRow>,
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
        let (mut report, found) = match compared {
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
            found,
        })
    }

    /// Compares the snapshots.
    async fn examine(
        &self,
        members: &mut Members,
        position: Sequence,
    ) -> Result<(Report, Found), VerifyError> {
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
        let mut found = Found::default();
        for table in common.tables {
            let compared = self.table(members, &table).await;
            report.rows += compared.rows;
            if compared.suspects == 0 {
                continue;
            }
            found.suspects += compared.suspects;
            if compared.differing.rows.is_empty() {
                report.schema.push(format!(
                    "table \"{}\" differs, but in too many rows to list them, or a node has gone that had them",
                    table.name
                ));
            } else {
                let DifferingTable { table, nodes, rows } = &compared.differing;
                let told = rows::report(table, nodes, rows, compared.at_least);
                report.different.push(told);
                found.differing.push(compared.differing);
            }
        }
        report.nodes = members.nodes().iter().map(|n| n.0).collect();
        report.equal = report.schema.is_empty() && report.different.is_empty();
        Ok((report, found))
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
                let facts = facts.entry(node).or_default();
                let empty = tables.is_empty();
                facts.extend(tables);
                if facts.len() > MOST_TABLES {
                    members.lose(node, format!("named more than {MOST_TABLES} tables"));
                    continue;
                }
                // A page without anything would be asked for without end.
                from.extend(next.filter(|_| !empty).map(|next| (node, next)));
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

    /// Compares one table.
    async fn table(&self, members: &mut Members, table: &Comparable) -> TableCompared {
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
            return TableCompared {
                rows: most,
                ..TableCompared::default()
            };
        }
        let listed = rows::listable(&digests, &unequal);
        let at_least = listed.len() < unequal.len();
        let suspects = rows::suspects(&digests, &unequal);
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
        TableCompared {
            rows: most,
            suspects,
            differing: DifferingTable {
                table: table.name.clone(),
                rows: rows::differing(&lists).unwrap_or_default(),
                nodes: lists.into_keys().collect(),
            },
            at_least,
        }
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
                // No honest node lists more, and one that goes on for ever must not fill our memory.
                if list.len() > MOST_LISTED {
                    members.lose(node, format!("listed more than {MOST_LISTED} bytes"));
                    continue;
                }
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
