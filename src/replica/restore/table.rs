//! One table of a restore: the difference between it and the snapshot's, under what is pending here.
//!
//! First every row here is looked up in the snapshot: what is gone there goes, and so does, for the moment, what would stand in another's way on a UNIQUE
//! index. Then every row of the snapshot is looked up here, and written where it is missing or another. Memory does not grow with the table: what is to be
//! remembered lies in temporary tables.

use rusqlite::Connection;

use super::{RestoreError, RestoreOptions, Restored};
use crate::apply::evaluator::Evaluators;
use crate::apply::plan::Plan;
use crate::apply::rows::LastStatement;
use crate::apply::{rows, write};
use crate::capture::triggers;
use crate::change::literal::sql_literals;
use crate::change::operation::{ChangeKind, ColumnMask, Reduced};
use crate::change::position::{NodeId, Sequence};
use crate::change::table::Table;
use crate::change::value::{OwnedValue, Value};
use crate::changelog::in_flight::InFlight;
use crate::changelog::pending::TablePending;
use crate::changelog::retire;
use crate::planted::planted;
use crate::sqlite::error::{Doing, Fault, SqliteError, fault_of};
use crate::sqlite::ident::quote;
use crate::sqlite::row_sql;
use crate::sqlite::value::from_sql;
use crate::state::journal::{self, Conflict};

/// Rows between two questions whether to stop.
const STEP: u64 = 1000;

pub struct TableRestore<'a> {
    pub conn: &'a Connection,
    pub from: &'a Connection,
    /// The table in the snapshot.
    pub theirs: &'a Table,
    pub plan: &'a Plan,
    pub pending: &'a mut TablePending,
    pub in_flight: &'a InFlight,
    pub me: NodeId,
    pub leader: NodeId,
    pub at: Sequence,
    pub options: &'a RestoreOptions<'a>,
    /// The snapshot is of another history than this database.
    pub new_history: bool,
    /// Rows that the snapshot does not have stay, and become this node's changes; those that differ are journaled.
    pub keep_strangers: bool,
    pub out: &'a mut Restored,
    pub evaluators: Evaluators,
    pub last: LastStatement<'a>,
}

/// What is pending of a row, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mine {
    Nothing,
    Cells(ColumnMask),
    Row,
}

impl TableRestore<'_> {
    pub fn run(mut self) -> Result<(), RestoreError> {
        self.conn
            .execute_batch(&format!(
                "DROP TABLE IF EXISTS temp.__harmonylite__gone; DROP TABLE IF EXISTS temp.__harmonylite__aside;
                 CREATE TEMP TABLE __harmonylite__gone({});
                 CREATE TEMP TABLE __harmonylite__aside(key, c INTEGER, v, PRIMARY KEY(key, c)) WITHOUT ROWID;",
                numbered("k", self.plan.table.table.key_len())
            ))
            .doing_with(|| self.doing())?;
        self.look_at_ours()?;
        self.remove_gone()?;
        self.write_theirs()?;
        self.conn
            .execute_batch(
                "DROP TABLE temp.__harmonylite__gone; DROP TABLE temp.__harmonylite__aside;",
            )
            .doing_with(|| self.doing())?;
        Ok(())
    }

    fn doing(&self) -> String {
        format!(
            "restore table \"{}\" from the snapshot",
            self.plan.table.table.name
        )
    }

    fn mine(&self, key: &[Value<'_>]) -> Mine {
        match self.pending.row(&self.plan.table, key, self.in_flight) {
            None => Mine::Nothing,
            Some(_) if planted!(PendingNotRestored) => Mine::Nothing,
            Some(p) => match p.all {
                Reduced::Cells(mask) => Mine::Cells(mask),
                Reduced::Whole | Reduced::Delete => Mine::Row,
            },
        }
    }

    /// Notes which rows here go, at least for the moment.
    fn look_at_ours(&mut self) -> Result<(), RestoreError> {
        let ours = &self.plan.table.table;
        let doing = self.doing();
        let names = row_sql::whole_names(ours);
        let offset = rows::offset_here(self.plan);
        let (conn, from) = (self.conn, self.from);
        let mut scan = conn
            .prepare(&format!(
                "SELECT {} FROM main.{}",
                names.join(", "),
                quote(&ours.name)
            ))
            .doing(&doing)?;
        let mut there = from
            .prepare(&row_sql::select_whole(self.theirs))
            .doing(&doing)?;
        let mut gone = conn
            .prepare(&format!(
                "INSERT INTO temp.__harmonylite__gone VALUES({})",
                numbered("?", ours.key_len())
            ))
            .doing(&doing)?;
        let uniques = if self.plan.has_uniques() {
            ours.unique_columns()
        } else {
            Vec::new()
        };
        let mut found = scan.query([]).doing(&doing)?;
        let mut seen: u64 = 0;
        while let Some(row) = found.next().doing(&doing)? {
            seen += 1;
            self.step(seen)?;
            let here: Vec<Value<'_>> = (0..names.len())
                .map(|i| row.get_ref(i).map(from_sql))
                .collect::<Result<_, _>>()
                .doing(&doing)?;
            let key = row_sql::key_in(ours, &here);
            if key.iter().any(Value::is_null) {
                continue;
            }
            let mine = self.mine(&key);
            if mine == Mine::Row {
                self.out.kept += 1;
                continue;
            }
            let mut matching = there
                .query(rusqlite::params_from_iter(key.iter()))
                .doing(&doing)?;
            let goes = match matching.next().doing(&doing)? {
                None if self.keep_strangers || (self.new_history && mine != Mine::Nothing) => {
                    // It may have been lost, not deleted, or nobody has heard of it: in doubt it is sent as it is here.
                    self.log(&key, ChangeKind::Rewritten)?;
                    self.out.kept += 1;
                    false
                }
                None => {
                    if let Mine::Cells(mask) = mine {
                        self.forget(&key, &here, mask)?;
                    }
                    self.out.removed += 1;
                    true
                }
                Some(theirs) => {
                    let mut moves = false;
                    for &c in &uniques {
                        let (Some(i), Some(now)) = (self.plan.value_at(c), here.get(c + offset))
                        else {
                            continue;
                        };
                        moves |= !from_sql(theirs.get_ref(i).doing(&doing)?).same_bytes(now);
                    }
                    if moves {
                        self.put_aside(&key, &here, mine)?;
                    }
                    moves
                }
            };
            if goes {
                gone.execute(rusqlite::params_from_iter(key.iter()))
                    .doing(&doing)?;
            }
        }
        Ok(())
    }

    /// Keeps what the snapshot does not have of a row that is taken out for the moment: pending cells, and columns of ours alone.
    fn put_aside(
        &self,
        key: &[Value<'_>],
        here: &[Value<'_>],
        mine: Mine,
    ) -> Result<(), SqliteError> {
        let ours = &self.plan.table.table;
        let offset = rows::offset_here(self.plan);
        let name = ours.normal_key(key.iter().copied());
        let mut insert = self
            .conn
            .prepare_cached("INSERT INTO temp.__harmonylite__aside VALUES(?1, ?2, ?3)")
            .doing_with(|| self.doing())?;
        for c in 0..ours.columns.len() {
            let pending = matches!(mine, Mine::Cells(mask) if mask.has(c));
            if (pending || !self.plan.columns.contains(&c))
                && let Some(value) = here.get(c + offset)
            {
                insert
                    .execute(rusqlite::params![&name[..], column(c), value])
                    .doing_with(|| self.doing())?;
            }
        }
        Ok(())
    }

    /// Removes the rows that go, piece by piece: where a trigger has a row ignored, a savepoint is rolled back, and SQLite ends every statement then that is still reading.
    fn remove_gone(&mut self) -> Result<(), RestoreError> {
        let doing = self.doing();
        let width = self.plan.table.table.key_len();
        let next = format!(
            "SELECT rowid, * FROM temp.__harmonylite__gone WHERE rowid > ?1 ORDER BY rowid LIMIT {STEP}"
        );
        let mut behind = 0;
        loop {
            let piece = rows::keys(self.conn, &next, behind, width).doing(&doing)?;
            let Some((last, _)) = piece.last() else {
                return Ok(());
            };
            behind = *last;
            for (_, key) in &piece {
                let key: Vec<Value<'_>> = key.iter().map(OwnedValue::as_value).collect();
                write::delete(self.conn, self.plan, &key).doing(&doing)?;
            }
        }
    }

    fn write_theirs(&mut self) -> Result<(), RestoreError> {
        let doing = self.doing();
        let names = row_sql::whole_names(self.theirs);
        let from = self.from;
        let mut scan = from
            .prepare(&format!(
                "SELECT {} FROM {}",
                names.join(", "),
                quote(&self.theirs.name)
            ))
            .doing(&doing)?;
        let mut found = scan.query([]).doing(&doing)?;
        let mut seen: u64 = 0;
        while let Some(row) = found.next().doing(&doing)? {
            seen += 1;
            self.step(seen)?;
            let theirs: Vec<Value<'_>> = (0..names.len())
                .map(|i| row.get_ref(i).map(from_sql))
                .collect::<Result<_, _>>()
                .doing(&doing)?;
            let key: Vec<Value<'_>> = rows::key_of(self.plan, &theirs).to_vec();
            if key.iter().any(Value::is_null) {
                continue;
            }
            let mine = self.mine(&key);
            if mine != Mine::Row {
                self.write_one(&key, &theirs, mine)?;
            }
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        key: &[Value<'_>],
        theirs: &[Value<'_>],
        mine: Mine,
    ) -> Result<(), RestoreError> {
        let plan = self.plan;
        let offset = rows::offset_here(plan);
        let aside = self.aside(key)?;
        let mut merged: Vec<OwnedValue> = Vec::new();
        if let Mine::Cells(mask) = mine {
            let here = rows::read_here(self.conn, plan, key)?;
            merged = theirs.iter().map(Value::to_owned).collect();
            for c in mask.columns() {
                let kept = aside
                    .iter()
                    .find(|(column, _)| *column == c)
                    .map(|(_, v)| v.clone())
                    .or_else(|| here.as_ref()?.get(c + offset).cloned());
                if let (Some(i), Some(kept)) = (plan.value_at(c), kept)
                    && let Some(slot) = merged.get_mut(i)
                {
                    *slot = kept;
                }
            }
        }
        let values: Vec<Value<'_>> = if merged.is_empty() {
            theirs.to_vec()
        } else {
            merged.iter().map(OwnedValue::as_value).collect()
        };
        if rows::has_row(self.conn, plan, key, &values)? {
            return Ok(());
        }
        if self.keep_strangers {
            self.journal_stranger(key, &values)?;
        }
        let mut wrote = write::whole(self.conn, &mut self.last, plan, key, &values);
        if wrote.as_ref().is_err_and(|e| fault_of(e) == Fault::Unique)
            && self.clear_keyless(&values)?
        {
            wrote = write::whole(self.conn, &mut self.last, plan, key, &values);
        }
        match wrote {
            Ok(()) => self.out.written += 1,
            Err(e) if fault_of(&e) == Fault::Unique => return self.lose(key, theirs, mine),
            Err(e) => return Err(e).doing_with(|| self.doing())?,
        }
        // Columns that the snapshot does not know.
        let own: Vec<(usize, Value<'_>)> = aside
            .iter()
            .filter(|(c, _)| !plan.columns.contains(c))
            .map(|(c, v)| (*c, v.as_value()))
            .collect();
        if !own.is_empty() {
            write::try_update(self.conn, plan, key, &own)?;
        }
        Ok(())
    }

    /// What a row here was that becomes the snapshot's, though nobody has changed it since.
    fn journal_stranger(&self, key: &[Value<'_>], values: &[Value<'_>]) -> Result<(), SqliteError> {
        let Some(here) = rows::read_here(self.conn, self.plan, key)? else {
            return Ok(());
        };
        let offset = rows::offset_here(self.plan);
        let literals = sql_literals(key);
        for (c, column) in self.plan.table.table.columns.iter().enumerate() {
            let theirs = self.plan.value_at(c).and_then(|i| values.get(i));
            if let (Some(mine), Some(theirs)) = (here.get(c + offset), theirs)
                && !mine.as_value().same_bytes(theirs)
            {
                self.journal_as(
                    &literals,
                    &column.name,
                    mine.as_value(),
                    self.me,
                    "insert-collision",
                )?;
            }
        }
        Ok(())
    }

    /// Rows without a key are on no node's account, and make way. Whether there were any.
    fn clear_keyless(&mut self, values: &[Value<'_>]) -> Result<bool, SqliteError> {
        let table = &self.plan.table.table;
        let mut any = false;
        for index in &table.uniques {
            let terms = self.evaluators.terms(self.conn, self.plan, index, values)?;
            if let Some(terms) = terms {
                any |= !rows::take_keyless(self.conn, self.plan, index, &terms)?.is_empty();
            }
        }
        Ok(any)
    }

    fn aside(&self, key: &[Value<'_>]) -> Result<Vec<(usize, OwnedValue)>, SqliteError> {
        let name = self.plan.table.table.normal_key(key.iter().copied());
        let mut stmt = self
            .conn
            .prepare_cached("SELECT c, v FROM temp.__harmonylite__aside WHERE key = ?1")
            .doing_with(|| self.doing())?;
        stmt.query_map([&name[..]], |r| {
            let c: i64 = r.get(0)?;
            let c = usize::try_from(c).unwrap_or_default();
            Ok((c, from_sql(r.get_ref(1)?).to_owned()))
        })
        .and_then(Iterator::collect)
        .doing_with(|| self.doing())
    }

    /// A row of the snapshot that a pending whole row of ours displaces: our batch, which comes behind the snapshot, will say so too.
    fn lose(
        &mut self,
        key: &[Value<'_>],
        theirs: &[Value<'_>],
        mine: Mine,
    ) -> Result<(), RestoreError> {
        let table = &self.plan.table;
        let doing = self.doing();
        let literals = sql_literals(key);
        let offset = theirs.len() - self.plan.definition.columns.len();
        for (column, value) in self
            .plan
            .definition
            .columns
            .iter()
            .zip(theirs.get(offset..).unwrap_or_default())
        {
            self.journal(&literals, column, *value, self.leader)?;
        }
        if mine != Mine::Nothing {
            for id in self.pending.cell_changes(table, key) {
                retire::remove(self.conn, table, id)?;
            }
            self.pending.forget_cells(table, key);
        }
        write::delete(self.conn, self.plan, key).doing(&doing)?;
        if !planted!(LoserNotLogged) {
            self.log(key, ChangeKind::Delete)?;
        }
        self.out.removed += 1;
        Ok(())
    }

    /// Logs a row as changed by this node.
    fn log(&self, key: &[Value<'_>], kind: ChangeKind) -> Result<(), SqliteError> {
        let table = &self.plan.table;
        if !table.log.is_empty() {
            let log = triggers::log_change(&table.table, kind, table.generation);
            rows::execute(self.conn, &log, key).doing_with(|| self.doing())?;
        }
        Ok(())
    }

    /// Pending cells of a row that the snapshot does not have.
    fn forget(
        &mut self,
        key: &[Value<'_>],
        here: &[Value<'_>],
        mask: ColumnMask,
    ) -> Result<(), RestoreError> {
        let table = &self.plan.table;
        let offset = rows::offset_here(self.plan);
        let literals = sql_literals(key);
        for c in mask.columns() {
            if let (Some(column), Some(value)) = (table.table.columns.get(c), here.get(c + offset))
            {
                self.journal(&literals, &column.name, *value, self.me)?;
            }
        }
        if planted!(RestoreForgetsNoCells) {
            return Ok(());
        }
        for id in self.pending.cell_changes(table, key) {
            retire::remove(self.conn, table, id)?;
        }
        self.pending.forget_cells(table, key);
        Ok(())
    }

    fn journal(
        &self,
        key: &str,
        column: &str,
        value: Value<'_>,
        loser: NodeId,
    ) -> Result<(), SqliteError> {
        let reason = if loser == self.me {
            "deleted-elsewhere"
        } else {
            "unique-collision"
        };
        self.journal_as(key, column, value, loser, reason)
    }

    fn journal_as(
        &self,
        key: &str,
        column: &str,
        value: Value<'_>,
        loser: NodeId,
        reason: &'static str,
    ) -> Result<(), SqliteError> {
        journal::record_conflict(
            self.conn,
            &Conflict {
                table: &self.plan.table.table.name,
                key,
                column,
                losing_value: value,
                losing_node: Some(loser),
                winning_node: if loser == self.me {
                    self.leader
                } else {
                    self.me
                },
                position: self.at,
                reason,
            },
        )
    }

    fn step(&self, seen: u64) -> Result<(), RestoreError> {
        if seen.is_multiple_of(STEP) {
            (self.options.progress)(STEP);
            if (self.options.stop)() {
                return Err(RestoreError::Stopped);
            }
        }
        Ok(())
    }
}

/// A column's position as SQLite stores it: tables have some thousands at most.
fn column(c: usize) -> i64 {
    i64::try_from(c).unwrap_or(i64::MAX)
}

/// `p1, p2, …`
fn numbered(prefix: &str, n: usize) -> String {
    let names: Vec<String> = (1..=n).map(|i| format!("{prefix}{i}")).collect();
    names.join(", ")
}
