//! A row that stands in the way of another on a UNIQUE index: who yields, and what becomes of what was pending of it.

use super::together::Parked;
use super::{Fold, FoldStop, doing};
use crate::apply::plan::Plan;
use crate::apply::{rows, write};
use crate::capture::triggers;
use crate::change::key::KeyBytes;
use crate::change::operation::{ChangeKind, ColumnMask, Reduced};
use crate::change::table::UniqueIndex;
use crate::change::value::{OwnedValue, Value};
use crate::changelog::in_flight::Carrier;
use crate::changelog::pending::PendingRow;
use crate::changelog::retire;
use crate::planted::planted;
use crate::sqlite::error::Doing;
use crate::state::journal::{self, Conflict};

/// Which of the rows in the way stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    Nothing,
    PendingWhole,
}

/// Which of the UNIQUE indexes here count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Indexes {
    /// Those that the batch was made under: what they displace is the fold.
    Named,
    /// All: what the others displace, this node deletes.
    All,
}

impl Fold<'_, '_> {
    /// Removes the other rows that a row collides with on UNIQUE indexes, but for those that it spares.
    ///
    /// An echo whose row we have changed since leaves our pending whole rows alone: the app has handed the value on from one to the other, our later
    /// batches overwrite both, and what a row that will be overwritten holds in the fold until then is nobody's business.
    pub(super) fn displace(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        values: &[Value<'_>],
        spare: Spare,
        indexes: Indexes,
    ) -> Result<(), FoldStop> {
        let table = &plan.table.table;
        for (i, index) in table.uniques.iter().enumerate() {
            let named = plan.is_named(i);
            if !named && indexes == Indexes::Named {
                continue;
            }
            let terms = self.evaluators.terms(self.ctx.conn, plan, index, values)?;
            let Some(terms) = terms else { continue };
            // They are no part of the fold, and go only for a row that is really written.
            let keyless = if spare == Spare::PendingWhole || planted!(KeylessStays) {
                Vec::new()
            } else {
                rows::take_keyless(self.ctx.conn, plan, index, &terms)?
            };
            for lost in keyless {
                for (column, value) in table.columns.iter().zip(&lost) {
                    self.record(&Conflict {
                        table: &table.name,
                        key: "NULL",
                        column: &column.name,
                        losing_value: value.as_value(),
                        losing_node: Some(self.ctx.me),
                        winning_node: self.record.node,
                        position: self.ctx.at,
                        reason: "unique-collision",
                    })?;
                }
            }
            for other in rows::colliding(self.ctx.conn, table, index, &terms, key)? {
                let other: Vec<Value<'_>> = other.iter().map(OwnedValue::as_value).collect();
                let pending = self.pending(plan, &other).map(|p| p.all);
                if spare == Spare::PendingWhole
                    && pending == Some(Reduced::Whole)
                    && !planted!(GivesWayToItself)
                {
                    continue;
                }
                if self.give_back(plan, index, &terms, key, &other)? {
                    continue;
                }
                self.remove(plan, &other, named)?;
            }
        }
        Ok(())
    }

    /// A row that the app has changed and nobody has sent yet stands in the way with a value that it had not before: it gets that back, if it
    /// is free. A local write like one of the app's: the change log knows the row, and the scan reads it as it is then.
    fn give_back(
        &mut self,
        plan: &Plan,
        index: &UniqueIndex,
        terms: &[OwnedValue],
        incoming: &[Value<'_>],
        key: &[Value<'_>],
    ) -> Result<bool, FoldStop> {
        let Some(former) = &plan.table.former else {
            return Ok(false);
        };
        let unsent = self.pending(plan, key).and_then(|p| p.unsent);
        if unsent != Some(Reduced::Whole) {
            return Ok(false);
        }
        let conn = self.ctx.conn;
        let name = plan.table.table.name.to_ascii_lowercase();
        let changes = self.ctx.pending.get(&name).map_or_else(Vec::new, |p| {
            p.unsent_changes(&plan.table, key, self.ctx.in_flight)
        });
        let Some(values) = rows::former_values(conn, former, &changes)? else {
            return Ok(false);
        };
        let Some(here) = rows::read_here(conn, plan, key)? else {
            return Ok(false);
        };
        let offset = rows::offset_here(plan);
        let wanted = index.columns(&plan.table.table);
        let back: Vec<(usize, Value<'_>)> = former
            .columns
            .iter()
            .zip(&values)
            .filter(|(c, v)| {
                wanted.contains(c)
                    && here
                        .get(**c + offset)
                        .is_some_and(|now| !now.as_value().same_bytes(&v.as_value()))
            })
            .map(|(c, v)| (*c, v.as_value()))
            .collect();
        if back.is_empty() || !write::try_update(conn, plan, key, &back)? {
            return Ok(false);
        }
        if rows::colliding(conn, &plan.table.table, index, terms, incoming)?
            .iter()
            .any(|other| {
                let other = other.iter().map(OwnedValue::as_value);
                plan.table.table.normal_key(other)
                    == plan.table.table.normal_key(key.iter().copied())
            })
        {
            // It would have collided with that as well.
            let now: Vec<(usize, Value<'_>)> = back
                .iter()
                .filter_map(|(c, _)| Some((*c, here.get(c + offset)?.as_value())))
                .collect();
            write::try_update(conn, plan, key, &now)?;
            return Ok(false);
        }
        let lost = |c| back.iter().any(|(b, _)| *b == c);
        self.journal_values(
            plan,
            key,
            &here,
            &lost,
            Some(self.ctx.me),
            "unique-collision",
        )?;
        self.ctx.stats.given_back += 1;
        Ok(true)
    }

    /// Removes a row that another displaces. `fold`: on all nodes alike. Else it is this node's doing, and what the fold has must be sent as deleted.
    pub(super) fn remove(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        fold: bool,
    ) -> Result<(), FoldStop> {
        let mut in_fold = true;
        match self.pending(plan, key) {
            // Not sent yet: it is given up. Its change-log row stays, and the scan, finding the row gone, sends a delete.
            Some(PendingRow {
                unsent: Some(Reduced::Whole),
                ..
            }) => {
                in_fold = false;
                self.journal_mine(plan, key, None, "unique-collision")?;
                #[cfg(feature = "planted-bugs")]
                if planted!(GivenUpUnsaid) {
                    let table = &plan.table;
                    let name = table.table.name.to_ascii_lowercase();
                    if let Some(pending) = self.ctx.pending.remove(&name) {
                        for id in pending.all_changes(table, key) {
                            retire::remove(self.ctx.conn, table, id)?;
                        }
                    }
                    self.ctx
                        .pending
                        .entry(name)
                        .or_default()
                        .catch_up(self.ctx.conn, table)?;
                }
            }
            Some(
                p @ PendingRow {
                    all: Reduced::Cells(_),
                    ..
                },
            ) => {
                self.hold_if(p.in_flight)?;
                self.journal_mine(plan, key, None, "unique-collision")?;
                self.forget(plan, key)?;
            }
            // In flight: its echo brings it back. The cells that were changed since it brings back only in the same transaction.
            Some(p) => {
                in_fold = false;
                self.hold_if(p.in_flight)?;
                if let Some(Reduced::Cells(mask)) = p.unsent {
                    self.park(plan, key, mask)?;
                }
            }
            None => self.journal_row(plan, key, None, None, "unique-collision")?,
        }
        write::delete(self.ctx.conn, plan, key).doing_with(|| doing(plan))?;
        if in_fold && !fold {
            self.log_deleted(plan, key)?;
        }
        Ok(())
    }

    /// A change of this node like one of the application's: it is pending, and will be sent.
    fn log_deleted(&mut self, plan: &Plan, key: &[Value<'_>]) -> Result<(), FoldStop> {
        let table = &plan.table;
        let log = triggers::log_change(&table.table, ChangeKind::Delete, table.generation);
        rows::execute(self.ctx.conn, &log, key).doing_with(|| doing(plan))?;
        self.ctx.stats.deleted_here += 1;
        let name = table.table.name.to_ascii_lowercase();
        self.ctx
            .pending
            .entry(name)
            .or_default()
            .catch_up(self.ctx.conn, table)?;
        Ok(())
    }

    /// Keeps a row with cells that no batch carries, until its echo in this transaction.
    fn park(&mut self, plan: &Plan, key: &[Value<'_>], unsent: ColumnMask) -> Result<(), FoldStop> {
        let Some(row) = rows::read_here(self.ctx.conn, plan, key)? else {
            return Ok(());
        };
        let first = journal::next_conflict(self.ctx.conn)?;
        self.journal_mine(plan, key, Some(unsent), "unique-collision")?;
        let journaled = first..journal::next_conflict(self.ctx.conn)?;
        let parked = Parked { row, journaled };
        self.ctx.together.parked.insert(parking(plan, key), parked);
        Ok(())
    }

    /// The row that was kept, if it was: it is back, and nothing of it is lost.
    pub(super) fn unpark(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
    ) -> Result<Option<Vec<OwnedValue>>, FoldStop> {
        if self.ctx.together.parked.is_empty() || planted!(ParkedIsLost) {
            return Ok(None);
        }
        let Some(parked) = self.ctx.together.parked.remove(&parking(plan, key)) else {
            return Ok(None);
        };
        let lost = journal::remove_conflicts(self.ctx.conn, parked.journaled)?;
        if let Some(n) = self.ctx.stats.conflicts.get_mut("unique-collision") {
            *n = n.saturating_sub(lost);
        }
        Ok(Some(parked.row))
    }

    pub(super) fn hold_if(&mut self, in_flight: Option<Carrier>) -> Result<(), FoldStop> {
        match in_flight {
            Some(carrier)
                if !self.ctx.together.has(carrier, self.ctx.at) && !planted!(NothingHeld) =>
            {
                Err(FoldStop::Hold(carrier))
            }
            _ => Ok(()),
        }
    }

    /// The pending cells of a row that goes are forgotten: no batch is to carry what has no row to be of.
    pub(super) fn forget(&mut self, plan: &Plan, key: &[Value<'_>]) -> Result<(), FoldStop> {
        let table = &plan.table;
        if planted!(NotForgotten) {
            return Ok(());
        }
        if let Some(pending) = self
            .ctx
            .pending
            .get_mut(&table.table.name.to_ascii_lowercase())
        {
            for id in pending.cell_changes(table, key) {
                retire::remove(self.ctx.conn, table, id)?;
            }
            pending.forget_cells(table, key);
        }
        Ok(())
    }
}

fn parking(plan: &Plan, key: &[Value<'_>]) -> (String, KeyBytes) {
    let table = &plan.table.table;
    (
        table.name.to_ascii_lowercase(),
        table.normal_key(key.iter().copied()),
    )
}
