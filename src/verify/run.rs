//! The whole command: compare, and with a repair send what differs again and compare anew.
//!
//! Invariant: a repair ends: each round sends again what it found, and one that finds no less than the one before is the last.

use std::sync::Arc;

use tokio::time::Instant;

use super::coordinator::{Compared, Coordinator, DifferingTable, Options};
use super::error::VerifyError;
use super::examiner::MOST_RESENT;
use super::members::Say;
use super::pages::push_key;
use super::report::{Report, Resent, count};
use super::rows::DifferingRow;
use crate::change::position::NodeId;
use crate::engine::Engine;
use crate::peers::protocol::{Command, Outcome};

/// Compares all living nodes.
///
/// # Errors
/// See [`VerifyError`]; what differs, and which node could not be compared, is no error but stands in the report.
pub async fn verify(
    engine: &Arc<Engine>,
    options: &Options,
    say: &Say,
) -> Result<Report, VerifyError> {
    let coordinator = Coordinator::new(engine, options, say)?;
    tokio::select! {
        report = coordinator.run() => report,
        () = engine.shutdown.requested() => Err(VerifyError::Stopping),
    }
}

impl Coordinator<'_> {
    async fn run(&self) -> Result<Report, VerifyError> {
        let mut resent: Vec<Resent> = Vec::new();
        let mut before = u64::MAX;
        loop {
            let mut compared = self.compare().await?;
            compared.report.resent.clone_from(&resent);
            let found = &compared.found;
            let goes_on = !found.differing.is_empty() && found.suspects < before;
            let from = self.options.repair_from.filter(|_| goes_on);
            let Some(from) = from else {
                compared.members.release().await;
                return Ok(compared.report);
            };
            before = found.suspects;
            let sent = self.resend(&mut compared, from).await;
            compared.members.release().await;
            for one in sent? {
                (self.say)(format!(
                    "table {}: {} sent again from node {from}; comparing again",
                    one.table,
                    count(one.rows, "row")
                ));
                match resent.iter_mut().find(|r| r.table == one.table) {
                    Some(known) => known.rows += one.rows,
                    None => resent.push(one),
                }
            }
        }
    }

    /// Has a node send the rows that differ again, and waits until they have come back there.
    async fn resend(
        &self,
        compared: &mut Compared,
        from: NodeId,
    ) -> Result<Vec<Resent>, VerifyError> {
        let telling = self.telling(format!("node {from} sends rows again"));
        let mut left = MOST_RESENT;
        let mut sent = Vec::new();
        let mut commands = Vec::new();
        // A table that the node leaves out is not sent from it.
        let differing = compared.found.differing.iter();
        for DifferingTable { table, rows, .. } in differing.filter(|t| t.nodes.contains(&from)) {
            let rows: Vec<&DifferingRow> = rows.iter().take(left).collect();
            left -= rows.len();
            if rows.is_empty() {
                break;
            }
            for keys in pages(&rows, self.page()) {
                let table = table.clone();
                commands.push(Command::Gather { table, keys });
            }
            sent.push(Resent {
                table: table.clone(),
                rows: rows.len() as u64,
                from: from.0,
            });
        }
        commands.push(Command::Resend);
        for command in commands {
            let step = vec![(from, command)];
            let until = Instant::now() + self.options.timeout;
            let outcomes = compared.members.steps(step, Some(until), &telling).await;
            match outcomes.get(&from) {
                Some(Outcome::Gathered | Outcome::Resent { .. }) => {}
                _ => {
                    let lost = compared.members.lost.get(&from);
                    return Err(VerifyError::NotResent {
                        from,
                        reason: lost
                            .map_or_else(|| "gave another answer".to_owned(), String::clone),
                    });
                }
            }
        }
        Ok(sent)
    }
}

/// Keys in pages that fit a message; a key that does not stands alone.
fn pages(rows: &[&DifferingRow], page: usize) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut now = Vec::new();
    for row in rows {
        if !now.is_empty() && now.len() + row.key_bytes.len() + 4 > page {
            out.push(std::mem::take(&mut now));
        }
        push_key(&mut now, &row.key_bytes);
    }
    out.push(now);
    out
}
