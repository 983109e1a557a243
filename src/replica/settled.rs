//! `replicate = false` and back. While nothing is applied, own batches that come back leave the change log, though they are not folded: what they carry lies on
//! an older fold than the stream's. When the node applies again, these changes are entered in the change log again, with the ids and stamps that the batches
//! cover, so that the database is, as ever, the fold up to the position with what is pending on top: the app does not see its older values, and an
//! own earlier write takes nothing from an own later one.
//!
//! Invariant: only batches up to the place that is noted in the database are entered again: an older file, put back, knows less and enters less.

use std::time::Duration;

use rusqlite::Connection;

use super::{Replica, ReplicaError};
use crate::apply::incoming::IncomingBatch;
use crate::apply::order;
use crate::capture::{Captured, CapturedTable, layout};
use crate::change::operation::{ChangeKind, ColumnMask};
use crate::change::position::Sequence;
use crate::change::value::Value;
use crate::codec::commit::TableDefinition;
use crate::codec::covers::TableCovers;
use crate::codec::rows::{RowOp, RowReader};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::state::node;

impl Replica {
    /// Enters what was settled without being folded in the change log again. `own`: the batches under our id behind the position, in stream order. Call it
    /// before anything is applied or scanned. Returns how many changes were entered.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's and the spool's; nothing is changed then.
    pub fn enter_settled(
        &mut self,
        own: &[(Sequence, IncomingBatch)],
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<u64, ReplicaError> {
        let settled = node::settled(&self.conn)?;
        if settled <= self.position.sequence {
            return Ok(0);
        }
        let entered = self.write(patience, stop, "commit what is pending again", |replica| {
            let entered = replica.enter(own, settled)?;
            node::set_settled(&replica.conn, Sequence(0))?;
            Ok::<_, ReplicaError>(entered)
        });
        self.pending.clear();
        entered?.ok_or_else(|| self.locked())
    }

    fn enter(
        &self,
        own: &[(Sequence, IncomingBatch)],
        settled: Sequence,
    ) -> Result<u64, ReplicaError> {
        let mut seen = self.publishers.clone();
        let mut entered = 0;
        for (at, batch) in own.iter().filter(|(at, _)| *at <= settled) {
            if order::admit(&mut seen, &batch.record, *at) && batch.damage.is_none() {
                entered += self.enter_batch(batch)?;
            }
        }
        Ok(entered)
    }

    /// One change-log row for each of the batch's rows; which of the covered ids it gets does not matter, since all of them leave the log together.
    fn enter_batch(&self, batch: &IncomingBatch) -> Result<u64, ReplicaError> {
        let record = &batch.record;
        let covered = batch.covered()?;
        let mut tables = entries(&self.captured, &record.tables, &covered, Deletes::AsDeletes);
        let mut entered = 0;
        batch.each_section::<ReplicaError>(|bytes| {
            entered += enter_rows(&self.conn, &mut tables, bytes, &record.tables)?;
            Ok(())
        })?;
        Ok(entered)
    }
}

/// A batch's tables as they are entered here; `None` for those that are not captured.
pub(super) fn entries<'a>(
    captured: &'a Captured,
    tables: &'a [TableDefinition],
    covered: &'a [TableCovers],
    deletes: Deletes,
) -> Vec<Option<Entry<'a>>> {
    tables
        .iter()
        .enumerate()
        .map(|(index, definition)| {
            // What was changed under a former key is not entered again: see docs/schema-changes.md, Limits.
            let table = captured
                .table_meant(&definition.name)
                .filter(|t| !t.log.is_empty() && !t.formerly.had_key(definition.key_names()))?;
            let covers = covered.iter().find(|c| c.table as usize == index)?;
            Some(Entry::new(table, definition, covers, deletes))
        })
        .collect()
}

/// Enters the rows of one section. Returns how many changes were entered.
pub(super) fn enter_rows(
    conn: &Connection,
    tables: &mut [Option<Entry<'_>>],
    bytes: &[u8],
    definitions: &[TableDefinition],
) -> Result<u64, ReplicaError> {
    let mut entered = 0;
    let mut reader = RowReader::new(bytes, definitions);
    let mut values = Vec::new();
    while let Some((table, op)) = reader
        .next(&mut values)
        .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()))?
    {
        if let Some(Some(entry)) = tables.get_mut(table as usize) {
            entered += entry.enter(conn, op, &values)?;
        }
    }
    Ok(entered)
}

/// How a delete is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletes {
    /// As such.
    AsDeletes,
    /// As the row that is here now, or as a delete where there is none: the scan finds out.
    AsTheRowNow,
}

/// The change log of one of a batch's tables.
pub(super) struct Entry<'a> {
    deletes: Deletes,
    table: &'a CapturedTable,
    definition: &'a TableDefinition,
    free: Box<dyn Iterator<Item = (i64, u32)> + 'a>,
    insert: String,
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        table: &'a CapturedTable,
        definition: &'a TableDefinition,
        covers: &'a TableCovers,
        deletes: Deletes,
    ) -> Self {
        let keys = table.table.key_names();
        let names: Vec<String> = keys.iter().map(|k| quote(&layout::key_column(k))).collect();
        let params: Vec<String> = (6..6 + keys.len()).map(|i| format!("?{i}")).collect();
        // Only over a row that is done with: one that lives is another change that has the same id.
        let sets: Vec<String> = names
            .iter()
            .map(|n| format!("{n} = excluded.{n}"))
            .collect();
        let insert = format!(
            "INSERT INTO {}(id, type, mask, generation, stamp, {}) VALUES(?1, ?2, ?3, ?4, ?5, {})
             ON CONFLICT(id) DO UPDATE SET type = excluded.type, mask = excluded.mask, generation = excluded.generation, stamp = excluded.stamp, {}
             WHERE type = {}",
            table.log,
            names.join(", "),
            params.join(", "),
            sets.join(", "),
            ChangeKind::Done.code()
        );
        Self {
            deletes,
            table,
            definition,
            free: Box::new(covers.rows()),
            insert,
        }
    }

    pub(super) fn enter(
        &mut self,
        conn: &Connection,
        op: RowOp,
        values: &[Value<'_>],
    ) -> Result<u64, SqliteError> {
        let (kind, mask) = match op {
            RowOp::Delete if self.deletes == Deletes::AsDeletes => {
                (ChangeKind::Delete, ColumnMask::default())
            }
            RowOp::Delete | RowOp::Whole => (ChangeKind::Rewritten, ColumnMask::default()),
            RowOp::Cells(mask) => (ChangeKind::Cells, self.mask_here(mask)),
        };
        let key = self.definition.key_of(op, values);
        // A table that has another key now.
        if key.len() != self.table.table.key_len() {
            return Ok(0);
        }
        // Ids that live are taken: by a change of another stamp, or by an earlier batch that has covered them as well.
        for (id, stamp) in self.free.by_ref() {
            let mut all = vec![
                Value::Integer(id),
                Value::Integer(kind.code()),
                Value::Integer(mask.0.cast_signed()),
                Value::Integer(self.table.generation),
                Value::Integer(i64::from(stamp)),
            ];
            all.extend(key.iter().copied());
            let entered = conn
                .prepare_cached(&self.insert)
                .and_then(|mut s| s.execute(rusqlite::params_from_iter(all)))
                .doing_with(|| {
                    format!(
                        "enter changes of table \"{}\" in its change log again",
                        self.table.table.name
                    )
                })?;
            if entered > 0 {
                return Ok(1);
            }
        }
        Ok(0)
    }

    /// The message's columns as columns here.
    fn mask_here(&self, mask: ColumnMask) -> ColumnMask {
        let here = mask.columns().filter_map(|c| {
            let name = self.definition.columns.get(c)?;
            let here = &self.table.table;
            here.column(name)
                .or_else(|| here.column(self.table.formerly.column(name)??))
        });
        ColumnMask(here.fold(0, |bits, c| bits | 1 << c.min(63)))
    }
}
