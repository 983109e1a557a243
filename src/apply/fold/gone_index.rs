//! Displacing by a UNIQUE index that was here and has been dropped, while others still write under it: the fold goes by the index, so the rows that it would find are looked for without it.
//!
//! Invariants: what is pending of columns under it is logged whole first, since cells could not tell what displaces what; a row of ours that is pending whole stays, for our batch,
//! which comes later and was not made under the index, puts it back everywhere.

use super::{Fold, FoldStop, each_row};
use crate::apply::incoming::IncomingBatch;
use crate::apply::plan::Plan;
use crate::apply::rows;
use crate::capture::{layout, triggers};
use crate::change::operation::{ChangeKind, ColumnMask, Reduced};
use crate::change::table::UniqueIndex;
use crate::change::value::{OwnedValue, Value};
use crate::codec::rows::RowOp;
use crate::sqlite::error::Doing;
use crate::sqlite::ident::quote;

/// How the columns begin that hold what a row is on an index: no column of the application is called so.
const TERM: &str = "__harmonylite__t";

/// Keys that are read at once.
const PIECE: i64 = 1000;

impl Fold<'_, '_> {
    /// Removes the rows that the batch's rows of one table (by its number) displace on indexes that are gone here. What is to be remembered lies in temporary tables, so that
    /// memory grows neither with the batch nor with what it displaces.
    pub(super) fn displace_by_gone(
        &mut self,
        plan: &Plan,
        number: usize,
        batch: &IncomingBatch,
    ) -> Result<(), FoldStop> {
        self.log_whole(plan)?;
        self.note_whole_rows(plan, number, batch)?;
        for (i, index) in plan.gone_uniques.iter().enumerate() {
            self.find_colliding(plan, i, index)?;
            let mut behind = 0;
            loop {
                // No statement may still be reading when rows are removed: a trigger may roll back a savepoint.
                let found = self.colliding_behind(plan, behind)?;
                let Some((last, _)) = found.last() else {
                    break;
                };
                behind = *last;
                for (_, key) in &found {
                    let key: Vec<Value<'_>> = key.iter().map(OwnedValue::as_value).collect();
                    let pending = self.pending(plan, &key).map(|p| p.all);
                    if !matches!(pending, Some(Reduced::Whole | Reduced::Delete))
                        && !self.is_rewritten(plan, &key)?
                    {
                        self.remove(plan, &key, true)?;
                    }
                }
            }
        }
        let mut drop = "DROP TABLE temp.__harmonylite__rewritten; DROP TABLE IF EXISTS temp.__harmonylite__colliding;".to_owned();
        for i in 0..plan.gone_uniques.len() {
            drop.push_str(&format!("DROP TABLE temp.__harmonylite__terms{i};"));
        }
        let dropped = self.ctx.conn.execute_batch(&drop);
        Ok(dropped.doing_with(|| looking(plan))?)
    }

    /// Notes what the batch's whole rows are on each index, and which they are.
    fn note_whole_rows(
        &mut self,
        plan: &Plan,
        number: usize,
        batch: &IncomingBatch,
    ) -> Result<(), FoldStop> {
        let doing = || looking(plan);
        let conn = self.ctx.conn;
        let evaluators = &mut self.evaluators;
        let mut make = "DROP TABLE IF EXISTS temp.__harmonylite__rewritten; CREATE TEMP TABLE __harmonylite__rewritten(key PRIMARY KEY) WITHOUT ROWID;".to_owned();
        let mut inserts = Vec::new();
        for (i, index) in plan.gone_uniques.iter().enumerate() {
            let width = index.terms.len();
            make.push_str(&format!(
                "DROP TABLE IF EXISTS temp.__harmonylite__terms{i}; CREATE TEMP TABLE __harmonylite__terms{i}({});",
                numbered(TERM, width)
            ));
            inserts.push(format!(
                "INSERT INTO temp.__harmonylite__terms{i} VALUES({})",
                numbered("?", width)
            ));
        }
        conn.execute_batch(&make).doing_with(doing)?;
        each_row(batch, &self.record.tables, |table, op, values| {
            if table != number || op != RowOp::Whole {
                return Ok(());
            }
            let (_, values) = plan.project(op, values);
            let key = plan.table.table.normal_key(rows::key_of(plan, &values));
            conn.prepare_cached("INSERT OR IGNORE INTO temp.__harmonylite__rewritten VALUES(?1)")
                .and_then(|mut s| s.execute([&key[..]]))
                .doing_with(doing)?;
            for (index, insert) in plan.gone_uniques.iter().zip(&inserts) {
                let terms = evaluators.terms(conn, plan, index, &values)?;
                let terms: Option<Vec<Value<'_>>> = terms
                    .as_ref()
                    .map(|terms| terms.iter().map(OwnedValue::as_value).collect());
                // What is NULL there collides with nothing.
                if let Some(terms) = terms.filter(|t| !t.iter().any(Value::is_null)) {
                    rows::execute(conn, insert, &terms).doing_with(doing)?;
                }
            }
            Ok(())
        })
    }

    /// Whether the batch rewrites a row.
    fn is_rewritten(&self, plan: &Plan, key: &[Value<'_>]) -> Result<bool, FoldStop> {
        let key = plan.table.table.normal_key(key.iter().copied());
        let found = self
            .ctx
            .conn
            .prepare_cached("SELECT 1 FROM temp.__harmonylite__rewritten WHERE key = ?1")
            .and_then(|mut s| s.exists([&key[..]]));
        Ok(found.doing_with(|| looking(plan))?)
    }

    /// Updates of columns under these indexes that are pending as cells become pending whole.
    fn log_whole(&mut self, plan: &Plan) -> Result<(), FoldStop> {
        let table = &plan.table;
        let name = table.table.name.to_ascii_lowercase();
        let columns = plan
            .gone_uniques
            .iter()
            .flat_map(|u| u.columns(&table.table))
            .filter(|c| *c < ColumnMask::MAX_COLUMNS)
            .fold(ColumnMask::default(), ColumnMask::with);
        let pending = self.ctx.pending.entry(name).or_default();
        let ids = pending.cells_alone(columns);
        if ids.is_empty() {
            return Ok(());
        }
        let doing = || format!("read what is pending of table \"{}\"", table.table.name);
        let keys = layout::key_columns(&table.table);
        let sql = format!(
            "SELECT id, {} FROM {} WHERE id = ?1",
            keys.join(", "),
            table.log
        );
        let insert = triggers::log_change(&table.table, ChangeKind::Rewritten, table.generation);
        for id in ids {
            let found = rows::keys(self.ctx.conn, &sql, id, keys.len()).doing_with(doing)?;
            for (_, key) in &found {
                let key: Vec<Value<'_>> = key.iter().map(OwnedValue::as_value).collect();
                if rows::read_here(self.ctx.conn, plan, &key)?.is_some() {
                    rows::execute(self.ctx.conn, &insert, &key).doing_with(doing)?;
                }
            }
        }
        let name = table.table.name.to_ascii_lowercase();
        let pending = self.ctx.pending.entry(name).or_default();
        pending.catch_up(self.ctx.conn, table)?;
        Ok(())
    }

    /// Finds the rows here that have the same terms as one of the batch's: one pass over the table, however many there are.
    fn find_colliding(
        &self,
        plan: &Plan,
        number: usize,
        index: &UniqueIndex,
    ) -> Result<(), FoldStop> {
        let table = &plan.table.table;
        // Names of the index's text mean the table's columns: nothing else here has such names.
        let same: Vec<String> = index
            .terms
            .iter()
            .enumerate()
            .map(|(i, t)| format!("{} COLLATE {} = {TERM}{}", t.sql, t.collation, i + 1))
            .collect();
        let keys: Vec<String> = table.key_names().iter().map(|k| quote(k)).collect();
        let held = index
            .predicate
            .as_ref()
            .map_or_else(String::new, |p| format!("({p}) AND "));
        let sql = format!(
            "DROP TABLE IF EXISTS temp.__harmonylite__colliding; CREATE TEMP TABLE __harmonylite__colliding({});
             INSERT INTO temp.__harmonylite__colliding SELECT {} FROM main.{} WHERE {held}EXISTS(SELECT 1 FROM temp.__harmonylite__terms{number} WHERE {})",
            numbered("k", keys.len()),
            keys.join(", "),
            quote(&table.name),
            same.join(" AND ")
        );
        let found = self.ctx.conn.execute_batch(&sql);
        Ok(found.doing_with(|| looking(plan))?)
    }

    fn colliding_behind(
        &self,
        plan: &Plan,
        place: i64,
    ) -> Result<Vec<(i64, Vec<OwnedValue>)>, FoldStop> {
        let sql = format!(
            "SELECT rowid, * FROM temp.__harmonylite__colliding WHERE rowid > ?1 ORDER BY rowid LIMIT {PIECE}"
        );
        let found = rows::keys(self.ctx.conn, &sql, place, plan.table.table.key_len());
        Ok(found.doing_with(|| looking(plan))?)
    }
}

fn looking(plan: &Plan) -> String {
    format!(
        "look for rows of table \"{}\" in the way",
        plan.table.table.name
    )
}

/// `p1, p2, …`
fn numbered(prefix: &str, n: usize) -> String {
    let names: Vec<String> = (1..=n).map(|i| format!("{prefix}{i}")).collect();
    names.join(", ")
}
