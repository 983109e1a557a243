//! Folding a batch that was made under a key that the table here had before.
//!
//! - Its rows are looked for by the former key's columns, in one pass over the table for each such batch.
//! - A delete deletes, and cells change, all rows with that former key; a whole row is written under the key here, and the other rows with its former key go: in the batch there was one.
//! - What of ours is pending whole or as deleted stays: our batch comes later and says what the row is. (An update of a former key's columns is pending whole: see
//!   [`crate::capture::CapturedTable::former_key`].)
//! - Cells of columns that are the key here move the row. Where what is pending hides how the fold's row looks, the table is marked as not certain, and is compared with its fold.

use std::sync::Arc;

use super::{Fold, FoldStop, each_row};
use crate::apply::incoming::IncomingBatch;
use crate::apply::plan::Plan;
use crate::apply::{rows, write};
use crate::capture::triggers;
use crate::change::operation::{ColumnMask, Reduced};
use crate::change::value::{OwnedValue, Value};
use crate::changelog::pending::TablePending;
use crate::codec::rows::RowOp;
use crate::sqlite::error::Doing;
use crate::sqlite::ident::quote;
use crate::state::unsure::{self, Reason};

impl Fold<'_, '_> {
    /// Notes the rows here that the batch's rows of one table (by its number) mean, in a temporary table.
    pub(super) fn find_by_former_key(
        &mut self,
        plan: &Plan,
        number: usize,
        batch: &IncomingBatch,
    ) -> Result<(), FoldStop> {
        let Some(former) = &plan.former else {
            return Ok(());
        };
        let conn = self.ctx.conn;
        let doing = || looking(plan);
        let table = &plan.table.table;
        let names: Vec<String> = former
            .columns
            .iter()
            .filter_map(|c| table.columns.get(*c))
            .map(|c| format!("r.{}", quote(&c.name)))
            .collect();
        let (width, keys) = (names.len(), table.key_names());
        let were = list(width, |i| format!("w{i}"));
        conn.execute_batch(&format!(
            "DROP TABLE IF EXISTS temp.__harmonylite__meant; CREATE TEMP TABLE __harmonylite__meant({were});
             DROP TABLE IF EXISTS {0}; CREATE TABLE {0}({were}, {1})",
            found(number),
            list(keys.len(), |i| format!("k{i}")),
        ))
        .doing_with(doing)?;
        let insert = format!(
            "INSERT INTO temp.__harmonylite__meant VALUES({})",
            list(width, |i| format!("?{i}"))
        );
        each_row(batch, &self.record.tables, |table, op, values| {
            if table != number {
                return Ok(());
            }
            let (op, values) = plan.project(op, values);
            rows::execute(conn, &insert, &former_key(plan, op, &values)).doing_with(doing)?;
            Ok(())
        })?;
        let same: Vec<String> = names
            .iter()
            .enumerate()
            .map(|(i, n)| format!("{n} = w{}", i + 1))
            .collect();
        let keys: Vec<String> = keys.iter().map(|k| format!("r.{}", quote(k))).collect();
        // Each once, though the batch may delete a row and write another under the same former key.
        conn.execute_batch(&format!(
            "INSERT INTO {0} SELECT DISTINCT {were}, {1} FROM temp.__harmonylite__meant, main.{2} AS r WHERE {3};
             CREATE INDEX temp.__harmonylite__former{number}_key ON __harmonylite__former{number}({were}); DROP TABLE temp.__harmonylite__meant",
            found(number),
            keys.join(", "),
            quote(&table.name),
            same.join(" AND "),
        ))
        .doing_with(doing)?;
        Ok(())
    }

    /// Forgets them.
    pub(super) fn forget_found(&self, plan: &Plan, number: usize) -> Result<(), FoldStop> {
        let drop = format!("DROP TABLE {}", found(number));
        Ok(self
            .ctx
            .conn
            .execute_batch(&drop)
            .doing_with(|| looking(plan))?)
    }

    /// Folds one row operation.
    pub(super) fn by_former_key(
        &mut self,
        plan: &Arc<Plan>,
        table: usize,
        op: RowOp,
        values: &[Value<'_>],
    ) -> Result<(), FoldStop> {
        let meant = self.meant(plan, table, &former_key(plan, op, values))?;
        match op {
            RowOp::Delete => {
                for key in &meant {
                    self.delete(plan, &lent(key))?;
                }
            }
            RowOp::Whole => {
                let key = rows::key_of(plan, values);
                for other in &meant {
                    let other = lent(other);
                    let stays = self
                        .pending(plan, &other)
                        .is_some_and(|p| matches!(p.all, Reduced::Whole | Reduced::Delete));
                    if !stays && !same_key(plan, &key, &other) {
                        self.remove(plan, &other, true)?;
                    }
                }
                // Without a key nobody can tell which row it is.
                if !key.iter().any(Value::is_null) {
                    self.whole(plan, table, values)?;
                }
            }
            RowOp::Cells(mask) => {
                let cells = values.get(plan.origin.key_len()..).unwrap_or_default();
                let moves = mask
                    .columns()
                    .any(|c| plan.definition.key.contains(&(c as u64)));
                if moves {
                    self.doubt_if_pending(plan)?;
                }
                for key in &meant {
                    let key = lent(key);
                    if moves {
                        self.move_row(plan, table, mask, &key, cells)?;
                    } else {
                        self.cells(plan, mask, &[key.as_slice(), cells].concat())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The keys of the rows here that have this former key.
    fn meant(
        &self,
        plan: &Plan,
        table: usize,
        former: &[Value<'_>],
    ) -> Result<Vec<Vec<OwnedValue>>, FoldStop> {
        let width = plan.table.table.key_len();
        let same = (1..=former.len())
            .map(|i| format!("w{i} IS ?{i}"))
            .collect::<Vec<_>>();
        let sql = format!(
            "SELECT {0} FROM {1} WHERE {2} ORDER BY {0}",
            list(width, |i| format!("k{i}")),
            found(table),
            same.join(" AND ")
        );
        rows::all(self.ctx.conn, &sql, former)
            .doing_with(|| looking(plan))
            .map_err(FoldStop::from)
    }

    /// Cells that change the key here: the row goes, and comes under its new key with all that it has here.
    fn move_row(
        &mut self,
        plan: &Arc<Plan>,
        table: usize,
        mask: ColumnMask,
        key: &[Value<'_>],
        cells: &[Value<'_>],
    ) -> Result<(), FoldStop> {
        let normal = |key: &[Value<'_>]| plan.table.table.normal_key(key.iter().copied());
        let aside = self.aside.remove(&(table, normal(key)));
        let here = match aside {
            Some(here) => Some(here),
            None => rows::read_here(self.ctx.conn, plan, key)?,
        };
        let Some(here) = here else {
            return Ok(());
        };
        let mut row: Vec<Value<'_>> = plan
            .columns
            .iter()
            .filter_map(|c| here.get(*c))
            .map(OwnedValue::as_value)
            .collect();
        for (c, cell) in mask.columns().zip(cells) {
            if let Some(slot) = row.get_mut(c) {
                *slot = *cell;
            }
        }
        let now = rows::key_of(plan, &row);
        if same_key(plan, &now, key) {
            return self.cells(plan, mask, &[key, cells].concat());
        }
        let pending = self.pending(plan, key).map(|p| p.all);
        if matches!(pending, Some(Reduced::Whole | Reduced::Delete)) {
            // It is doubted already.
            return Ok(());
        }
        self.forget(plan, key)?;
        write::delete(self.ctx.conn, plan, key).doing_with(|| super::doing(plan))?;
        if now.iter().any(Value::is_null) {
            return Ok(());
        }
        let taken = rows::read_here(self.ctx.conn, plan, &now)?.is_some();
        if plan.has_more && !taken {
            self.aside.insert((table, normal(&now)), here.clone());
        }
        self.whole(plan, table, &row)?;
        match pending {
            // What I have changed of it goes with it.
            Some(Reduced::Cells(mine)) => self.log_cells(plan, &now, mine),
            _ => Ok(()),
        }
    }

    /// Whether a whole row of the message goes by a delete of ours that is pending under a former key.
    pub(super) fn is_deleted_under_former_key(&self, plan: &Plan, values: &[Value<'_>]) -> bool {
        let name = plan.table.table.name.to_ascii_lowercase();
        let value = |c: usize| plan.value_at(c).and_then(|i| values.get(i)).copied();
        self.ctx
            .pending
            .get(&name)
            .is_some_and(|p| p.is_deleted_under_former_key(&plan.table, value))
    }

    /// Whether a whole row of the message has other values in columns of a former key than the row here.
    pub(super) fn has_moved(&self, plan: &Plan, here: &[OwnedValue], values: &[Value<'_>]) -> bool {
        let offset = rows::offset_here(plan);
        plan.table.former_key.columns().any(|c| {
            match (
                plan.value_at(c).and_then(|i| values.get(i)),
                here.get(c + offset),
            ) {
                (Some(new), Some(old)) => !new.same_bytes(&old.as_value()),
                _ => false,
            }
        })
    }

    /// Logs cells of a row as changed by this node.
    pub(super) fn log_cells(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        mask: ColumnMask,
    ) -> Result<(), FoldStop> {
        let table = &plan.table;
        let mut values = key.to_vec();
        values.push(Value::Integer(mask.0.cast_signed()));
        let log = triggers::log_cells(&table.table, table.generation);
        rows::execute(self.ctx.conn, &log, &values).doing_with(|| super::doing(plan))?;
        let name = table.table.name.to_ascii_lowercase();
        self.ctx
            .pending
            .entry(name)
            .or_default()
            .catch_up(self.ctx.conn, table)?;
        Ok(())
    }

    /// With changes of ours on top it cannot be seen here which row the fold has.
    fn doubt_if_pending(&mut self, plan: &Plan) -> Result<(), FoldStop> {
        let name = &plan.table.table.name;
        let pending = self.ctx.pending.get(&name.to_ascii_lowercase());
        if !plan.table.log.is_empty() && pending.is_some_and(TablePending::has_rows) {
            unsure::mark(self.ctx.conn, name, Reason::Gap)?;
            self.ctx.stats.doubts += 1;
        }
        Ok(())
    }
}

/// The values of the former key in a row of the message.
fn former_key<'v>(plan: &Plan, op: RowOp, values: &[Value<'v>]) -> Vec<Value<'v>> {
    match (op, &plan.former) {
        (RowOp::Whole, Some(former)) => former
            .at
            .iter()
            .filter_map(|i| values.get(*i).copied())
            .collect(),
        _ => values.iter().take(plan.origin.key_len()).copied().collect(),
    }
}

fn same_key(plan: &Plan, a: &[Value<'_>], b: &[Value<'_>]) -> bool {
    let normal = |key: &[Value<'_>]| plan.table.table.normal_key(key.iter().copied());
    normal(a) == normal(b)
}

fn lent(key: &[OwnedValue]) -> Vec<Value<'_>> {
    key.iter().map(OwnedValue::as_value).collect()
}

/// Where the rows are noted that a table's rows mean: its former key, and its key.
fn found(number: usize) -> String {
    format!("temp.__harmonylite__former{number}")
}

fn list(n: usize, name: impl Fn(usize) -> String) -> String {
    (1..=n).map(name).collect::<Vec<_>>().join(", ")
}

fn looking(plan: &Plan) -> String {
    format!(
        "look for rows of table \"{}\" by the key that it had",
        plan.table.table.name
    )
}
