//! Rows that meet others on UNIQUE indexes here that their batch was not made under.
//!
//! The node that made the batch has no such index (yet, or no more), so the fold has both rows. This node cannot hold them both: the one that the stream put there before is
//! deleted, as a change of this node's own, which all nodes get. First the whole batch is put in place, for its rows may only have changed places.

use std::sync::Arc;

use super::displace::{Indexes, Spare};
use super::{Fold, FoldStop, doing, refused};
use crate::apply::plan::Plan;
use crate::apply::{rows, write};
use crate::change::value::{OwnedValue, Value};
use crate::sqlite::error::{Doing, Fault, fault_of};

/// A row that could not be written in its turn.
pub(super) struct Late {
    plan: Arc<Plan>,
    key: Vec<OwnedValue>,
    write: Write,
}

enum Write {
    /// Columns of the message, and their values.
    Cells(Vec<usize>, Vec<OwnedValue>),
    /// The row's values, and the row here where it stepped aside.
    Whole(Vec<OwnedValue>, Option<Vec<OwnedValue>>),
}

impl Late {
    /// Cells; what follows their values is left out.
    pub(super) fn cells(
        plan: &Arc<Plan>,
        columns: Vec<usize>,
        values: &[Value<'_>],
        key: &[Value<'_>],
    ) -> Self {
        let values = owned(values.get(..columns.len()).unwrap_or_default());
        Self {
            plan: Arc::clone(plan),
            key: owned(key),
            write: Write::Cells(columns, values),
        }
    }

    /// A whole row.
    pub(super) fn whole(
        plan: &Arc<Plan>,
        values: &[Value<'_>],
        aside: Option<&[OwnedValue]>,
        key: &[Value<'_>],
    ) -> Self {
        Self {
            plan: Arc::clone(plan),
            key: owned(key),
            write: Write::Whole(owned(values), aside.map(<[OwnedValue]>::to_vec)),
        }
    }
}

fn owned(values: &[Value<'_>]) -> Vec<OwnedValue> {
    values.iter().map(Value::to_owned).collect()
}

fn lent(values: &[OwnedValue]) -> Vec<Value<'_>> {
    values.iter().map(OwnedValue::as_value).collect()
}

impl Fold<'_, '_> {
    /// Puts those rows in place, in the batch's order.
    pub(super) fn place_late(&mut self) -> Result<(), FoldStop> {
        let mut rows = Vec::new();
        for late in std::mem::take(&mut self.late) {
            if let Some(row) = self.take_out(late)? {
                rows.push(row);
            }
        }
        for (plan, key, here, values) in &rows {
            let (key, values) = (lent(key), lent(values));
            let here = here.as_deref();
            match self.write(plan, &key, &values, here) {
                Err(e) if fault_of(&e) == Fault::Unique => {}
                done => {
                    done.map_err(|e| refused(plan, e))?;
                    continue;
                }
            }
            self.displace(plan, &key, &values, Spare::Nothing, Indexes::All)?;
            self.write(plan, &key, &values, here)
                .map_err(|e| refused(plan, e))?;
        }
        Ok(())
    }

    /// Takes the row out until its turn, so that it stands in nobody's way with its former values. Nothing where cells have no row to be of any more.
    fn take_out(&mut self, late: Late) -> Result<Option<Row>, FoldStop> {
        let Late { plan, key, write } = late;
        let lent_key = lent(&key);
        let here = rows::read_here(self.ctx.conn, &plan, &lent_key)?;
        let (here, values) = match (write, here) {
            (Write::Cells(..), None) => return Ok(None),
            (Write::Cells(columns, cells), Some(here)) => {
                let offset = rows::offset_here(&plan);
                let mut values: Vec<OwnedValue> = here.iter().take(offset).cloned().collect();
                for (i, place) in plan.columns.iter().enumerate() {
                    let cell = columns.iter().position(|c| *c == i);
                    let value = match cell {
                        Some(n) => cells.get(n),
                        None => here.get(place + offset),
                    };
                    values.extend(value.cloned());
                }
                (Some(here), values)
            }
            (Write::Whole(values, aside), here) => (here.or(aside), values),
        };
        write::delete(self.ctx.conn, &plan, &lent_key).doing_with(|| doing(&plan))?;
        Ok(Some((plan, key, here, values)))
    }
}

/// A row to be placed: its key, the row here if it was, and its values in the message's order.
type Row = (
    Arc<Plan>,
    Vec<OwnedValue>,
    Option<Vec<OwnedValue>>,
    Vec<OwnedValue>,
);
