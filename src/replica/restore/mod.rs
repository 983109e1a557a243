//! Restoring from a snapshot, on the live database, in one transaction: afterwards the database is what the snapshot is, with this node's own pending
//! changes on top, and the position is the snapshot's.
//!
//! Invariants:
//! - whoever reads sees the state before or the state after, never one between;
//! - what is pending here stays: a whole row or a delete as it is, cells on the snapshot's row if there is one (else they are forgotten, as an
//!   update of a row that does not exist is nothing everywhere);
//! - a pending whole row wins against a row of the snapshot on a UNIQUE index, since our batch comes behind the snapshot's position; the row that loses
//!   is logged as deleted by us, for the app may move ours away before the scan;
//! - what the snapshot contains of our own change log is not pending any more;
//! - what it does not contain of what this node has published and folded (see [`super::kept`]) is pending again. Onto the base of a new history, this holds for rows
//!   too that it lacks and that this node has changed: the cluster may have lost the row rather than deleted it;
//! - a schema that differs so that something would be lost stops it before anything is written.

mod adopt;
mod fill;
mod table;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::{Replica, ReplicaError, absent};
use crate::apply::evaluator::Evaluators;
use crate::apply::plan::{Fit, Gate, Plan, gate};
use crate::apply::rows::LastStatement;
use crate::capture::triggers;
use crate::change::position::{NodeId, Sequence};
use crate::change::table::Table;
use crate::changelog::pending::TablePending;
use crate::changelog::retire::retire;
use crate::codec::commit::TableDefinition;
use crate::planted::planted;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::introspect::{self, OWN_PREFIX};
use crate::state::skips::Skips;
use crate::state::unsure::{self, Reason};
use crate::state::{StateError, covered, node, past, publishers};
pub use adopt::Adopted;

/// How to restore.
pub struct RestoreOptions<'a> {
    /// The cluster that the snapshot is of.
    pub cluster: &'a str,
    /// The rows here are news to the cluster: they are logged as this node's own before.
    pub keep_ours: bool,
    /// How long to wait for the write lock.
    pub patience: Duration,
    /// Asked now and then; what was begun is rolled back then.
    pub stop: &'a dyn Fn() -> bool,
    /// Told now and then how many rows were compared.
    pub progress: &'a dyn Fn(u64),
}

/// Why nothing was restored; nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot and this database differ in schema: what to do.
    #[error("the snapshot cannot be restored here yet: {0}")]
    Schema(String),
    /// The file is no snapshot.
    #[error("{path} is no snapshot: {why}")]
    NoSnapshot {
        /// The file.
        path: String,
        /// What is missing in it.
        why: String,
    },
    /// Asked to stop.
    #[error("stopped while restoring from a snapshot; nothing was changed")]
    Stopped,
    /// SQLite failed, or the lock could not be had.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<SqliteError> for RestoreError {
    fn from(e: SqliteError) -> Self {
        Self::Replica(e.into())
    }
}

impl From<StateError> for RestoreError {
    fn from(e: StateError) -> Self {
        Self::Replica(e.into())
    }
}

/// What restoring came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restored {
    /// Where the node stands now.
    pub position: node::Position,
    /// Rows that were written because they were missing or others.
    pub written: u64,
    /// Rows that were removed because the snapshot has them not.
    pub removed: u64,
    /// Rows that were left as they are because changes of this node are pending.
    pub kept: u64,
    /// The database was empty, and was filled with schema and rows.
    pub filled: bool,
    /// Changes of this node that had come back from the stream and that the snapshot does not contain: they are pending again.
    pub entered: u64,
}

/// An empty database keeps the encoding that it was made with, and SQLite fills none from one of another.
fn same_encoding(conn: &Connection, from: &Connection) -> Result<(), RestoreError> {
    let (here, there) = (connection::encoding(conn)?, connection::encoding(from)?);
    if here == there {
        return Ok(());
    }
    Err(RestoreError::Schema(format!(
        "this database is empty and encoded in {here}, the snapshot in {there}: stop the daemon, make the database anew with PRAGMA encoding = '{there}' and start again"
    )))
}

impl Replica {
    /// Whether the database holds no table, view or trigger of an application.
    ///
    /// # Errors
    /// SQLite's.
    pub fn is_empty(&self) -> Result<bool, SqliteError> {
        has_nothing_of_the_app(&self.conn)
    }

    /// Restores. The incarnation has ended then: begin a new one before anything else. The snapshot's file is this node's own: what it holds of tables that its
    /// taker did not have comes to light in it where they are here.
    ///
    /// # Errors
    /// See [`RestoreError`]; nothing is changed then.
    pub fn restore(
        &mut self,
        snapshot: &Path,
        options: &RestoreOptions<'_>,
    ) -> Result<Restored, RestoreError> {
        let held = self.bring_back_ours(snapshot)?;
        let from = connection::open_reader(snapshot)?;
        let state = node::read(&from)?.ok_or_else(|| RestoreError::NoSnapshot {
            path: snapshot.display().to_string(),
            why: "it holds no replication state".to_owned(),
        })?;
        if has_nothing_of_the_app(&self.conn)? {
            same_encoding(&self.conn, &from)?;
            fill::attach(&self.conn, snapshot)?;
            fill::pass_by(&mut self.conn, snapshot);
        }
        let restored = self.restore_locked(&from, &state, &held, options);
        fill::detach(&mut self.conn);
        if restored.is_err() {
            connection::rollback(&self.conn);
            self.reload()?;
        }
        restored
    }

    /// Tables that are here and that the snapshot's taker did not have come back under their names in the file. Returns which.
    fn bring_back_ours(&self, snapshot: &Path) -> Result<Vec<String>, SqliteError> {
        let mut held = absent::list(&connection::open_reader(snapshot)?)?;
        held.retain(|name| self.captured.table(name).is_some());
        if !held.is_empty() {
            let snapshot = connection::open_writer(snapshot)?;
            for name in &held {
                absent::bring_back(&snapshot, name, name)?;
            }
        }
        Ok(held)
    }

    fn restore_locked(
        &mut self,
        from: &Connection,
        state: &node::NodeState,
        held: &[String],
        options: &RestoreOptions<'_>,
    ) -> Result<Restored, RestoreError> {
        if !connection::begin_immediate(&self.conn, options.patience, options.stop)? {
            return Err(RestoreError::Replica(ReplicaError::Locked {
                path: self.path.clone(),
            }));
        }
        let mut out = Restored::default();
        if has_nothing_of_the_app(&self.conn)? && fill::is_attached(&self.conn)? {
            fill::fill(&self.conn)?;
            out.filled = true;
        }
        self.refresh_capture_as(out.filled)?;
        if options.keep_ours {
            self.log_all_rows()?;
        }
        out.entered = self.enter_kept(from)?;
        self.enter_new_tables(out.filled)?;
        self.retire_contained(from)?;
        let new_history = state.history != self.history;
        let theirs = introspect::read_schema(from)?;
        let mut skipped = Vec::new();
        if !out.filled {
            // Triggers that fire here may read other tables.
            let mut tables: Vec<&Table> = theirs.tables.iter().collect();
            tables.sort_by_key(|t| self.captured.table(&t.name).map_or(0, |here| here.turn));
            for table in tables {
                let plan = match self.plan_for(&TableDefinition::of(table), state.node_id) {
                    // Nobody could make it fit: it is as old as the nodes that had it first.
                    Err(RestoreError::Schema(why)) if held.contains(&table.name) => {
                        tracing::warn!(table = table.name, "a table stays as it is here: {why}");
                        skipped.push(table.name.clone());
                        continue;
                    }
                    plan => plan?,
                };
                let Some(plan) = plan else {
                    continue;
                };
                let mut pending = TablePending::default();
                pending.catch_up(&self.conn, &plan.table)?;
                table::TableRestore {
                    conn: &self.conn,
                    from,
                    theirs: table,
                    plan: &plan,
                    pending: &mut pending,
                    in_flight: &self.in_flight,
                    me: self.me,
                    leader: state.node_id,
                    at: state.position.sequence,
                    options,
                    new_history,
                    keep_strangers: false,
                    out: &mut out,
                    evaluators: Evaluators::default(),
                    last: LastStatement::default(),
                }
                .run()?;
            }
        }
        // They become what the fold has when they are compared with it.
        for table in &skipped {
            unsure::mark(&self.conn, table, Reason::Behind)?;
        }
        for known in unsure::read(&self.conn)? {
            if skipped.contains(&known.table) {
                continue;
            }
            // What was written in it without capture is not here any more.
            if out.filled || theirs.table(&known.table).is_some() {
                unsure::clear(&self.conn, &known)?;
            }
        }
        publishers::replace(&self.conn, from)?;
        covered::replace(&self.conn, from)?;
        past::replace(&self.conn, from)?;
        Skips::replace_void(&self.conn, from)?;
        if new_history {
            // Numbers of the history before say nothing in this one.
            Skips::forget(&self.conn)?;
            node::set_settled(&self.conn, Sequence(0))?;
            node::set_history(&self.conn, state.history)?;
        }
        node::set_position(&self.conn, state.position)?;
        node::set_cluster(&self.conn, options.cluster)?;
        self.conn
            .execute_batch("COMMIT")
            .doing("commit what was restored")?;
        self.committed = Arc::clone(&self.captured);
        self.in_flight.reset();
        self.incarnation = None;
        self.reload()?;
        self.history = state.history;
        self.skips = Skips::read(&self.conn, self.position.sequence)?;
        self.foreign = self.position.folded;
        self.forget_kept();
        out.position = self.position;
        Ok(out)
    }

    /// The plan for writing a table of the snapshot; `None` for one that is not replicated here.
    fn plan_for(
        &self,
        definition: &TableDefinition,
        leader: NodeId,
    ) -> Result<Option<Arc<Plan>>, RestoreError> {
        let (filter, conn) = (&self.filter, &self.conn);
        match gate(
            &self.captured,
            &|t| filter.wants(conn, t),
            definition,
            leader,
            Fit::Exact,
        ) {
            Gate::Open(plan) => Ok(Some(plan)),
            Gate::Excluded => Ok(None),
            Gate::Closed(reason) => Err(RestoreError::Schema(reason)),
        }
    }

    /// Rows of tables that have just appeared here are this node's own, as others of it are.
    fn enter_new_tables(&self, filled: bool) -> Result<(), SqliteError> {
        for new in unsure::read(&self.conn)? {
            if new.reason == Reason::New && !filled {
                self.enter_whole_table(&new)?;
            }
        }
        Ok(())
    }

    /// All rows here become changes of this node.
    fn log_all_rows(&self) -> Result<(), SqliteError> {
        for table in self.captured.tables.iter().filter(|t| !t.log.is_empty()) {
            self.conn
                .execute_batch(&triggers::log_all_rows(&table.table, table.generation))
                .doing("log the rows of a database that joins")?;
        }
        Ok(())
    }

    /// What batches of ours up to the snapshot's position have covered is contained in it.
    fn retire_contained(&mut self, from: &Connection) -> Result<(), RestoreError> {
        if planted!(CoveredForgotten) {
            return Ok(());
        }
        let (conn, captured) = (&self.conn, &self.captured);
        covered::each::<RestoreError>(from, self.me, |what| {
            for rows in &what.rows {
                let table = what
                    .tables
                    .get(rows.table as usize)
                    .and_then(|t| captured.table_meant(t))
                    .filter(|t| !t.log.is_empty());
                if let Some(table) = table {
                    retire(conn, table, rows, false)?;
                }
            }
            Ok(())
        })
    }
}

fn has_nothing_of_the_app(conn: &Connection) -> Result<bool, SqliteError> {
    conn.query_row(
        "SELECT NOT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE lower(substr(name, 1, length(?1))) <> ?1 AND lower(substr(name, 1, 7)) <> 'sqlite_')",
        [OWN_PREFIX],
        |r| r.get(0),
    )
    .doing("look for tables of the application")
}
