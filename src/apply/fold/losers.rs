//! What lost goes to the conflict journal (P8).

use super::{Fold, FoldStop};
use crate::apply::plan::Plan;
use crate::apply::rows;
use crate::change::literal::sql_literals;
use crate::change::operation::ColumnMask;
use crate::change::position::NodeId;
use crate::change::value::{OwnedValue, Value};
use crate::state::journal::{self, Conflict};

/// Two nodes have inserted different rows under one key.
pub(super) const INSERT_COLLISION: &str = "insert-collision";

impl Fold<'_, '_> {
    /// Journals values of this node that lose to the batch.
    pub(super) fn journal_mine(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        mask: Option<ColumnMask>,
        reason: &'static str,
    ) -> Result<(), FoldStop> {
        self.journal_row(plan, key, mask, Some(self.ctx.me), reason)
    }

    pub(super) fn journal_row(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        mask: Option<ColumnMask>,
        of: Option<NodeId>,
        reason: &'static str,
    ) -> Result<(), FoldStop> {
        let Some(here) = rows::read_here(self.ctx.conn, plan, key)? else {
            return Ok(());
        };
        let lost = |c| mask.is_none_or(|m| m.has(c));
        self.journal_values(plan, key, &here, &lost, of, reason)
    }

    pub(super) fn journal_values(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        here: &[OwnedValue],
        lost: &dyn Fn(usize) -> bool,
        of: Option<NodeId>,
        reason: &'static str,
    ) -> Result<(), FoldStop> {
        let offset = rows::offset_here(plan);
        let literals = sql_literals(key);
        for (i, column) in plan
            .table
            .table
            .columns
            .iter()
            .enumerate()
            .filter(|(i, _)| lost(*i))
        {
            let Some(value) = here.get(i + offset) else {
                continue;
            };
            self.record(&Conflict {
                table: &plan.table.table.name,
                key: &literals,
                column: &column.name,
                losing_value: value.as_value(),
                losing_node: of,
                winning_node: self.record.node,
                position: self.ctx.at,
                reason,
            })?;
        }
        Ok(())
    }

    /// Journals values of the batch that lose to what is pending here. A value that is the same here has lost nothing; of a row that lost its key
    /// all is kept, since it can only come back whole.
    pub(super) fn journal_theirs(
        &mut self,
        plan: &Plan,
        key: &[Value<'_>],
        columns: &[usize],
        values: &[Value<'_>],
        reason: &'static str,
    ) -> Result<(), FoldStop> {
        if self.is_echo() || columns.is_empty() {
            return Ok(());
        }
        let literals = sql_literals(key);
        for (column, value) in columns.iter().zip(values) {
            let Some(name) = plan.definition.columns.get(*column) else {
                continue;
            };
            let same = reason != INSERT_COLLISION
                && rows::has_cells(self.ctx.conn, plan, key, &[*column], &[*value])?;
            if same {
                continue;
            }
            self.record(&Conflict {
                table: &plan.definition.name,
                key: &literals,
                column: name,
                losing_value: *value,
                losing_node: Some(self.record.node),
                winning_node: self.ctx.me,
                position: self.ctx.at,
                reason,
            })?;
        }
        Ok(())
    }

    pub(super) fn record(&mut self, conflict: &Conflict<'_>) -> Result<(), FoldStop> {
        *self.ctx.stats.conflicts.entry(conflict.reason).or_default() += 1;
        Ok(journal::record_conflict(self.ctx.conn, conflict)?)
    }
}
