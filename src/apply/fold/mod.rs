//! Folding one batch under what is pending here.
//!
//! - Deletes come first; a whole row that meets another row on a UNIQUE index removes that row (journaled), unless the same batch rewrites it.
//! - Against a pending whole row or delete the row is left as it is, but what an incoming whole row displaces goes all the same; against pending
//!   cells, those columns stay mine, and a delete or a displacement makes them forgotten.
//! - What has not reached the stream yields to what has: a pending whole row that is displaced before it was sent gets the UNIQUE values back that it
//!   had before, where they are free, else it is given up (the scan finds it gone and sends a delete); one in flight comes back with its echo,
//!   on every node alike.
//! - A UNIQUE index that the batch was not made under displaces nothing in the fold. Where this node has one all the same, what stands in a row's way when the whole batch is
//!   in place is deleted as if the application had done it: logged, journaled, and sent to all (`late`).
//! - What is in flight and would vanish until its echo holds the batch back instead, for a bounded time, unless that echo is folded in the same
//!   transaction (no flicker).

mod displace;
mod gone_index;
mod late;
mod losers;
mod rekeyed;
mod together;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rusqlite::Connection;

use super::evaluator::Evaluators;
use super::incoming::IncomingBatch;
use super::plan::{Plan, Plans};
use super::{rows, write};
use crate::change::key::KeyBytes;
use crate::change::operation::{ColumnMask, Reduced};
use crate::change::position::{NodeId, Sequence};
use crate::change::value::{OwnedValue, Value};
use crate::changelog::in_flight::{Carrier, InFlight};
use crate::changelog::pending::{PendingRow, TablePending};
use crate::codec::commit::{CommitRecord, TableDefinition};
use crate::codec::rows::{RowOp, RowReader};
use crate::planted::planted;
use crate::sqlite::error::{Doing, Fault, SqliteError, fault_of};
use displace::{Indexes, Spare};
use late::Late;
pub use together::Together;

/// Why a batch was not folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldStop {
    /// Something of ours in flight would vanish until what carries it is folded: wait for that.
    #[error("waiting for this node's own batch")]
    Hold(Carrier),
    /// Not until the schema here is another: why, and what to do.
    #[error("{0}")]
    Closed(String),
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The spool failed.
    #[error("could not read a large batch that was put aside: {0}")]
    Spool(#[from] std::io::Error),
}

/// What folding needs beside the batch.
pub struct FoldContext<'a> {
    /// The write connection, inside a transaction.
    pub conn: &'a Connection,
    /// What a batch of ours carries.
    pub in_flight: &'a InFlight,
    /// What is pending, by table in lower case.
    pub pending: &'a mut HashMap<String, TablePending>,
    /// This node.
    pub me: NodeId,
    /// Where the batch stands.
    pub at: Sequence,
    /// What of ours may vanish because its echo is folded in the same transaction.
    pub together: &'a mut Together,
    /// Counters.
    pub stats: &'a mut FoldStats,
}

/// What folding came to.
#[derive(Debug, Default, Clone)]
pub struct FoldStats {
    /// Row operations.
    pub rows: u64,
    /// Values and rows that were journaled, by reason.
    pub conflicts: HashMap<&'static str, u64>,
    /// Rows that got back the UNIQUE values that they had before.
    pub given_back: u64,
    /// Rows that this node has deleted because they stood in another's way on a UNIQUE index that the batch was not made under.
    pub deleted_here: u64,
    /// Tables that were marked as not certain, since what is pending hid which rows a batch under a former key meant.
    pub doubts: u64,
}

/// Folds a batch; whether that changed anything in the database.
///
/// # Errors
/// See [`FoldStop`]; the transaction must then be rolled back.
pub fn fold(
    ctx: &mut FoldContext<'_>,
    batch: &IncomingBatch,
    plans: &Plans,
) -> Result<bool, FoldStop> {
    let record = &batch.record;
    for plan in plans.iter().flatten() {
        let table = &plan.table;
        ctx.pending
            .entry(table.table.name.to_ascii_lowercase())
            .or_default()
            .catch_up(ctx.conn, table)?;
        if let Some(notes) = &table.notes {
            // No transaction of the app is under way, so what notes there are have served their turn.
            ctx.conn
                .prepare_cached(&format!("DELETE FROM {notes}"))
                .and_then(|mut s| s.execute([]))
                .doing_with(|| format!("clear the notes of table \"{}\"", table.table.name))?;
        }
    }
    let conn = ctx.conn;
    let before = conn.total_changes();
    let mut fold = Fold {
        ctx,
        record,
        evaluators: Evaluators::default(),
        last: rows::LastStatement::default(),
        aside: HashMap::new(),
        late: Vec::new(),
    };
    let rekeyed = || {
        plans
            .iter()
            .enumerate()
            .filter_map(|(n, p)| p.as_ref().filter(|p| p.former.is_some()).map(|p| (n, p)))
    };
    for (n, plan) in rekeyed() {
        fold.find_by_former_key(plan, n, batch)?;
    }
    if plans.iter().flatten().any(|p| p.has_uniques()) && !planted!(NobodyStepsAside) {
        each_row(batch, &record.tables, |table, op, values| {
            match plans.get(table).and_then(Option::as_ref) {
                Some(plan) if op == RowOp::Whole && plan.has_uniques() => {
                    let (_, values) = plan.project(op, values);
                    fold.step_aside(plan, table, &values)
                }
                _ => Ok(()),
            }
        })?;
    }
    for (n, plan) in plans.iter().enumerate() {
        let Some(plan) = plan.as_ref().filter(|p| !p.gone_uniques.is_empty()) else {
            continue;
        };
        fold.displace_by_gone(plan, n, batch)?;
    }
    for pass in passes(plans) {
        each_row(batch, &record.tables, |table, op, values| {
            let Some(plan) = plans.get(table).and_then(Option::as_ref) else {
                return Ok(());
            };
            if pass.is_some_and(|(deletes, turn)| {
                (op == RowOp::Delete) != deletes || plan.table.turn != turn
            }) {
                return Ok(());
            }
            fold.ctx.stats.rows += 1;
            let (op, values) = plan.project(op, values);
            if plan.former.is_some() {
                return fold.by_former_key(plan, table, op, &values);
            }
            match op {
                RowOp::Delete => fold.delete(plan, &values),
                RowOp::Whole => fold.whole(plan, table, &values),
                RowOp::Cells(mask) => fold.cells(plan, mask, &values),
            }
        })?;
    }
    fold.place_late()?;
    for (n, plan) in rekeyed() {
        fold.forget_found(plan, n)?;
    }
    Ok(conn.total_changes() != before)
}

/// The order of a batch's tables, which the fold does not depend on, where triggers that fire here read some of them: first deletes, of the last tables first,
/// then all else. Each pass is for deletes or for all else of the tables whose turn it is; none: one pass for everything.
fn passes(plans: &Plans) -> Vec<Option<(bool, usize)>> {
    let turns: BTreeSet<usize> = plans.iter().flatten().map(|p| p.table.turn).collect();
    if turns.len() < 2 {
        return vec![None];
    }
    let deletes = turns.iter().rev().map(|turn| Some((true, *turn)));
    let others = turns.iter().map(|turn| Some((false, *turn)));
    deletes.chain(others).collect()
}

fn each_row(
    batch: &IncomingBatch,
    tables: &[TableDefinition],
    mut each: impl FnMut(usize, RowOp, &[Value<'_>]) -> Result<(), FoldStop>,
) -> Result<(), FoldStop> {
    batch.each_section::<FoldStop>(|bytes| {
        let mut reader = RowReader::new(bytes, tables);
        let mut values = Vec::new();
        // Checked when the message was opened: what does not decode would not be here.
        while let Some((table, op)) = reader
            .next(&mut values)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()))?
        {
            each(table as usize, op, &values)?;
        }
        Ok(())
    })
}

struct Fold<'a, 'c> {
    ctx: &'a mut FoldContext<'c>,
    record: &'a CommitRecord,
    evaluators: Evaluators,
    last: rows::LastStatement<'c>,
    /// Rows that stepped aside, as they were here: by table and key.
    aside: HashMap<(usize, KeyBytes), Vec<OwnedValue>>,
    /// Rows that must wait until the rest of the batch is in place.
    late: Vec<Late>,
}

impl Fold<'_, '_> {
    fn is_echo(&self) -> bool {
        self.record.node == self.ctx.me
    }

    fn pending(&self, plan: &Plan, key: &[Value<'_>]) -> Option<PendingRow> {
        let table = &plan.table;
        self.ctx
            .pending
            .get(&table.table.name.to_ascii_lowercase())?
            .row(table, key, self.ctx.in_flight)
    }

    /// A row that this batch rewrites must not count as standing in the way of another of its rows: if its UNIQUE columns change, it is taken
    /// out until its turn.
    fn step_aside(
        &mut self,
        plan: &Plan,
        table: usize,
        values: &[Value<'_>],
    ) -> Result<(), FoldStop> {
        let key = rows::key_of(plan, values);
        if matches!(
            self.pending(plan, &key),
            Some(PendingRow {
                all: Reduced::Whole | Reduced::Delete,
                ..
            })
        ) {
            return Ok(());
        }
        let Some(here) = rows::read_here(self.ctx.conn, plan, &key)? else {
            return Ok(());
        };
        let offset = rows::offset_here(plan);
        let stays = plan.table.table.unique_columns().into_iter().all(|c| {
            match (
                plan.value_at(c).and_then(|i| values.get(i)),
                here.get(c + offset),
            ) {
                (Some(new), Some(old)) => new.same_bytes(&old.as_value()),
                _ => true,
            }
        });
        if stays {
            return Ok(());
        }
        write::delete(self.ctx.conn, plan, &key).doing_with(|| doing(plan))?;
        self.aside.insert(
            (table, plan.table.table.normal_key(key.iter().copied())),
            here,
        );
        Ok(())
    }

    fn delete(&mut self, plan: &Plan, key: &[Value<'_>]) -> Result<(), FoldStop> {
        match self.pending(plan, key) {
            Some(PendingRow {
                all: Reduced::Whole | Reduced::Delete,
                ..
            }) => return Ok(()),
            Some(
                p @ PendingRow {
                    all: Reduced::Cells(mask),
                    ..
                },
            ) => {
                self.hold_if(p.in_flight)?;
                self.journal_mine(plan, key, Some(mask), "deleted-elsewhere")?;
                self.forget(plan, key)?;
            }
            None => {}
        }
        write::delete(self.ctx.conn, plan, key).doing_with(|| doing(plan))?;
        Ok(())
    }

    fn cells(
        &mut self,
        plan: &Arc<Plan>,
        mask: ColumnMask,
        values: &[Value<'_>],
    ) -> Result<(), FoldStop> {
        let (key, cells) = values
            .split_at_checked(plan.definition.key_len())
            .unwrap_or((values, &[]));
        let mut columns: Vec<usize> = mask.columns().collect();
        let mut cells: Vec<Value<'_>> = cells.to_vec();
        match self.pending(plan, key) {
            Some(PendingRow {
                all: Reduced::Whole | Reduced::Delete,
                ..
            }) => {
                return self.journal_theirs(plan, key, &columns, &cells, "overwritten-here");
            }
            Some(PendingRow {
                all: Reduced::Cells(mine),
                ..
            }) => {
                let is_mine = |c: usize| {
                    !planted!(CellsNotKept)
                        && plan.columns.get(c).is_some_and(|here| mine.has(*here))
                };
                let lost: (Vec<usize>, Vec<Value<'_>>) = columns
                    .iter()
                    .zip(&cells)
                    .filter(|(c, _)| is_mine(**c))
                    .map(|(c, v)| (*c, *v))
                    .unzip();
                self.journal_theirs(plan, key, &lost.0, &lost.1, "updated-here")?;
                (columns, cells) = columns
                    .iter()
                    .zip(&cells)
                    .filter(|(c, _)| !is_mine(**c))
                    .map(|(c, v)| (*c, *v))
                    .unzip();
            }
            None => {}
        }
        if columns.is_empty()
            || (self.is_echo() && rows::has_cells(self.ctx.conn, plan, key, &columns, &cells)?)
        {
            return Ok(());
        }
        match write::cells(self.ctx.conn, plan, key, &columns, &cells) {
            Err(e) if plan.has_extra_uniques() && fault_of(&e) == Fault::Unique => {
                self.late.push(Late::cells(plan, columns, &cells, key));
                Ok(())
            }
            done => done.doing_with(|| doing(plan)).map_err(FoldStop::from),
        }
    }

    fn whole(
        &mut self,
        plan: &Arc<Plan>,
        table: usize,
        values: &[Value<'_>],
    ) -> Result<(), FoldStop> {
        let key = rows::key_of(plan, values);
        let mut moved = None;
        let mut aside = if self.aside.is_empty() {
            None
        } else {
            self.aside
                .remove(&(table, plan.table.table.normal_key(key.iter().copied())))
        };
        let mut merged: Vec<OwnedValue> = Vec::new();
        let mut values = values.to_vec();
        match self.pending(plan, &key) {
            Some(PendingRow {
                all: Reduced::Whole | Reduced::Delete,
                inserted,
                ..
            }) => {
                let columns: Vec<usize> = (0..plan.definition.columns.len()).collect();
                let from = values.len() - columns.len();
                if !rows::has_row(self.ctx.conn, plan, &key, &values)? {
                    self.journal_theirs(
                        plan,
                        &key,
                        &columns,
                        values.get(from..).unwrap_or_default(),
                        if inserted {
                            losers::INSERT_COLLISION
                        } else {
                            "overwritten-here"
                        },
                    )?;
                }
                if planted!(SideEffectsSkipped) {
                    return Ok(());
                }
                // Others that are pending whole stay: their own batch, which comes later in the stream, overwrites whatever becomes of them there,
                // and here nothing is put in their way.
                return self.displace(plan, &key, &values, Spare::PendingWhole, Indexes::Named);
            }
            Some(PendingRow {
                all: Reduced::Cells(mine),
                in_flight,
                ..
            }) => {
                if aside.is_none() && self.is_echo() {
                    aside = self.unpark(plan, &key)?;
                }
                let here = match &aside {
                    Some(here) => Some(here.clone()),
                    None => rows::read_here(self.ctx.conn, plan, &key)?,
                };
                if let Some(here) = here {
                    let offset = rows::offset_here(plan);
                    // What is on its way under the former key would not find it any more.
                    moved = in_flight
                        .filter(|_| self.has_moved(plan, &here, &values))
                        .map(|_| mine);
                    let kept: Vec<(usize, OwnedValue)> = mine
                        .columns()
                        .filter_map(|c| Some((plan.value_at(c)?, here.get(c + offset)?.clone())))
                        .collect();
                    let lost: Vec<usize> = kept
                        .iter()
                        .map(|(i, _)| i - usize::from(plan.definition.key.is_empty()))
                        .collect();
                    let theirs: Vec<Value<'_>> = kept
                        .iter()
                        .filter_map(|(i, _)| values.get(*i).copied())
                        .collect();
                    self.journal_theirs(plan, &key, &lost, &theirs, "updated-here")?;
                    merged = values.iter().map(Value::to_owned).collect();
                    for (i, v) in kept {
                        if let Some(slot) = merged.get_mut(i) {
                            *slot = v;
                        }
                    }
                }
            }
            // It goes by a delete of ours that is pending under a former key, with what was here of it under another one.
            None if self.is_deleted_under_former_key(plan, &values) => {
                write::delete(self.ctx.conn, plan, &key).doing_with(|| doing(plan))?;
                return self.displace(plan, &key, &values, Spare::PendingWhole, Indexes::Named);
            }
            None => {}
        }
        if !merged.is_empty() {
            values = merged.iter().map(OwnedValue::as_value).collect();
        }
        if self.is_echo() && rows::has_row(self.ctx.conn, plan, &key, &values)? {
            return Ok(());
        }
        // The columns that the message lacks stay what they were.
        self.put(
            plan,
            &key,
            &values,
            aside.filter(|_| plan.has_more).as_deref(),
        )?;
        moved.map_or(Ok(()), |mine| self.log_cells(plan, &key, mine))
    }

    /// Writes a row. `aside`: as in [`Fold::put`].
    fn write(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        values: &[Value<'_>],
        aside: Option<&[OwnedValue]>,
    ) -> rusqlite::Result<()> {
        let conn = self.ctx.conn;
        match aside {
            Some(here) => write::put_back(conn, plan, here, values),
            None => write::whole(conn, &mut self.last, plan, key, values),
        }
    }

    /// Writes a row, removing what stands in its way. `aside`: the row as it was, where it stepped aside and has columns of its own.
    fn put(
        &mut self,
        plan: &Arc<Plan>,
        key: &[Value<'_>],
        values: &[Value<'_>],
        aside: Option<&[OwnedValue]>,
    ) -> Result<(), FoldStop> {
        match self.write(plan, key, values, aside) {
            Ok(()) => return Ok(()),
            Err(e) if plan.has_uniques() && fault_of(&e) == Fault::Unique => {}
            Err(e) => return Err(refused(plan, e)),
        }
        self.displace(plan, key, values, Spare::Nothing, Indexes::Named)?;
        match self.write(plan, key, values, aside) {
            Ok(()) => Ok(()),
            Err(e) if plan.has_extra_uniques() && fault_of(&e) == Fault::Unique => {
                self.late.push(Late::whole(plan, values, aside, key));
                Ok(())
            }
            Err(e) => Err(refused(plan, e)),
        }
    }
}

fn doing(plan: &Plan) -> String {
    format!("write a row of table \"{}\"", plan.table.table.name)
}

/// A row that the table here does not take: its schema is not the origin's.
fn refused(plan: &Plan, error: rusqlite::Error) -> FoldStop {
    match &error {
        rusqlite::Error::SqliteFailure(e, message)
            if e.code == rusqlite::ErrorCode::ConstraintViolation =>
        {
            FoldStop::Closed(format!(
                "table \"{}\" here refuses a row that another node has ({}): make its definition equal to that node's; a UNIQUE index that refuses it can be dropped here, and created again when no rows collide",
                plan.table.table.name,
                message.as_deref().unwrap_or("constraint failed")
            ))
        }
        _ => FoldStop::Sqlite(SqliteError {
            doing: format!("could not {}", doing(plan)),
            source: error,
        }),
    }
}
