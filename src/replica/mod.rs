//! A node's own side of replication: its database with capture, what is pending and in flight, and how far the stream is folded. The engine
//! from change log to fold is plain synchronous code over SQLite: the daemon's two loops and the simulation drive the same functions.
//!
//! Invariants: one owner of the write connection; a scan and an application of messages never overlap; memory of the database (publishers,
//! position) is what the last committed transaction says.

pub mod absent;
mod ahead;
pub mod base;
pub mod copy;
mod current;
pub mod filter;
pub mod group;
pub mod kept;
pub mod left;
pub mod lifecycle;
pub mod measured;
pub mod operator;
pub mod reconcile;
pub mod resend;
pub mod restore;
pub mod settled;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use crate::apply::plan::Plan;
use crate::capture::Captured;
use crate::change::history::History;
use crate::change::operation::ChangeKind;
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::changelog::cut::Cutter;
use crate::changelog::in_flight::InFlight;
use crate::changelog::pending::TablePending;
use crate::changelog::scan::{self, Publisher, ScanError, Scanned};
use crate::codec::batch::{BatchWriter, Limits};
use crate::codec::spool::Spool;
use crate::config::JournalsConfig;
use crate::sqlite::checkpoints::Checkpoints;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::{concerns, connection};
use crate::state::node::{self, Position};
use crate::state::past;
use crate::state::publishers::{self, Publishers};
use crate::state::skips::Skips;
use crate::state::{StateError, ddl};
use filter::TableFilter;
use kept::Kept;
use reconcile::UnsureTables;

/// Why a replica cannot be opened or kept.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The state tables cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// The spool failed.
    #[error("could not read a large batch that was put aside: {0}")]
    Spool(#[from] std::io::Error),
    /// What was published cannot be noted beside the database.
    #[error(
        "could not keep what was published, in files {}.kept-*: {source}", database.display()
    )]
    Kept {
        /// The database.
        database: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody holds the database's lock for longer than we would wait.
    #[error("the database {} is locked by another process", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
    },
}

/// A node's database and what replication keeps of it in memory.
pub struct Replica {
    /// Where checkpoints are left to a thread; it ends before the connection is closed.
    checkpoints: Option<Checkpoints>,
    pub(crate) conn: Connection,
    path: PathBuf,
    pub(crate) me: NodeId,
    database_id: String,
    pub(crate) filter: TableFilter,
    /// Triggers that the operator has named to fire; `None`: none fires at all.
    fire_triggers: Option<Vec<String>>,
    publish: bool,
    /// What the configuration says; capture goes on until what is pending has been published.
    publish_wanted: bool,
    pub(crate) captured: Arc<Captured>,
    /// What was found out about a large batch before the write lock was taken.
    ahead: Option<ahead::LookedAhead>,
    /// What makes the next change of the schema cheap.
    current: current::Current,
    /// What was captured as of the last transaction that was committed.
    pub(crate) committed: Arc<Captured>,
    /// The database was opened: a table that appears from now on has all its rows sent.
    pub(crate) opened: bool,
    pub(crate) in_flight: InFlight,
    pub(crate) pending: HashMap<String, TablePending>,
    pub(crate) plans: Vec<Arc<Plan>>,
    pub(crate) publishers: Publishers,
    pub(crate) position: Position,
    /// The history that it is of.
    pub(crate) history: History,
    /// What was published, until a snapshot covers it; `None` where no snapshots are taken.
    pub(crate) kept: Option<Kept>,
    /// The last batch that was folded into the database: those that came to nothing do not count.
    pub(crate) foreign: Sequence,
    pub(crate) incarnation: Option<Incarnation>,
    next_batch: BatchNumber,
    /// What an operator has told this node to skip.
    pub(crate) skips: Skips,
    /// How much the journals keep.
    pub(crate) journals: JournalsConfig,
    /// SQLite's data version when the last group was applied, if one was.
    pub(crate) seen_version: Option<i64>,
    /// What is known of tables that are not certain.
    pub(crate) unsure: UnsureTables,
    /// What waited at the last look.
    measured: Option<measured::LastLook>,
}

impl Replica {
    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.me
    }

    /// The random identity of this database.
    #[must_use]
    pub fn database_id(&self) -> &str {
        &self.database_id
    }

    /// The database's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How far the order stream is folded.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The history that the position is of.
    #[must_use]
    pub fn history(&self) -> History {
        self.history
    }

    /// Fingerprints of messages that were folded, latest first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn past(&self) -> Result<Vec<(Sequence, u64)>, SqliteError> {
        past::read(&self.conn)
    }

    /// Leaves checkpoints of the write-ahead log to a thread from now on: no transaction waits for the disk.
    ///
    /// # Errors
    /// SQLite's; transactions do their own then.
    pub fn checkpoint_beside(&mut self) -> Result<(), SqliteError> {
        self.checkpoints = Some(Checkpoints::beside(&mut self.conn, &self.path)?);
        Ok(())
    }

    /// The write connection, for its owner: progress handlers, reads of our own tables. Whoever writes by it does so outside of what the
    /// replica remembers.
    pub fn writer(&mut self) -> &mut Connection {
        &mut self.conn
    }

    /// What is captured.
    #[must_use]
    pub fn captured(&self) -> &Arc<Captured> {
        &self.captured
    }

    /// The last batch taken from each publisher.
    #[must_use]
    pub fn publishers(&self) -> &Publishers {
        &self.publishers
    }

    /// The last batch whose echo is awaited.
    #[must_use]
    pub fn batch_in_flight(&self) -> Option<BatchNumber> {
        self.in_flight.last()
    }

    /// The incarnation, once begun.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// Builds the next batch, if anything is new and not too many are in flight. Batches must reach the stream in the order of their numbers. `cutter` is the same one at
    /// each scan.
    ///
    /// # Errors
    /// [`ScanError::SchemaChanged`]: call [`Replica::refresh_capture`] and scan again.
    pub fn scan(
        &mut self,
        reader: &Connection,
        limits: Limits,
        spool: &Arc<Spool>,
        cutter: &mut Cutter,
    ) -> Result<Scanned, ScanError> {
        let Some(incarnation) = self.incarnation.filter(|_| self.publish) else {
            return Ok(Scanned::default());
        };
        let publisher = Publisher {
            node: self.me,
            incarnation,
            batch: self.next_batch,
        };
        let scanned = scan::scan(
            reader,
            &self.captured,
            &mut self.in_flight,
            publisher,
            BatchWriter::new(limits, Arc::clone(spool)),
            cutter,
        )?;
        if scanned.batch.is_some() {
            self.next_batch = self.next_batch.next();
        }
        Ok(scanned)
    }

    /// Runs `body` in one write transaction of its own; `None` if the lock could not be had in time. What is known of capture is of what was committed,
    /// also where `body` or the commit fails.
    pub(crate) fn write<T, E: From<SqliteError>>(
        &mut self,
        patience: Duration,
        stop: &dyn Fn() -> bool,
        committing: &str,
        body: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        if !connection::begin_immediate(&self.conn, patience, stop)? {
            return Ok(None);
        }
        let done = body(self).and_then(|value| {
            self.conn.execute_batch("COMMIT").doing(committing)?;
            Ok(value)
        });
        if done.is_ok() {
            self.committed = Arc::clone(&self.captured);
        } else {
            connection::rollback(&self.conn);
            self.captured = Arc::clone(&self.committed);
        }
        done.map(Some)
    }

    pub(crate) fn locked(&self) -> ReplicaError {
        ReplicaError::Locked {
            path: self.path.clone(),
        }
    }

    /// What of the database works with a limit: its settings, and rows that stay here.
    ///
    /// # Errors
    /// SQLite's.
    pub fn concerns(&mut self) -> Result<Vec<String>, SqliteError> {
        let mut out = concerns::settings(&self.conn, connection::is_wal(&self.conn)?)?;
        let tables = self.captured.tables.iter().map(|t| &t.table);
        out.append(&mut concerns::null_keys(&mut self.conn, tables)?);
        Ok(out)
    }

    /// How many captured changes have not come back as an echo.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pending_changes(&self) -> Result<u64, SqliteError> {
        Ok(self.pending_by_table()?.iter().map(|(_, n)| n).sum())
    }

    /// How many captured changes have not come back as an echo, by table; tables without any are left out.
    ///
    /// # Errors
    /// SQLite's.
    pub fn pending_by_table(&self) -> Result<Vec<(String, u64)>, SqliteError> {
        let mut out = Vec::new();
        for table in self.captured.tables.iter().filter(|t| !t.log.is_empty()) {
            let sql = format!(
                "SELECT count(*) FROM {} WHERE type <> {}",
                table.log,
                ChangeKind::Done.code()
            );
            let n: i64 = self
                .conn
                .prepare_cached(&sql)
                .and_then(|mut s| s.query_row([], |r| r.get(0)))
                .doing("count the pending changes")?;
            if n > 0 {
                out.push((table.table.name.clone(), n.cast_unsigned()));
            }
        }
        Ok(out)
    }

    /// The application's triggers that have failed for what other nodes have changed: how many, and what people should know.
    #[must_use]
    pub fn failing_triggers(&self) -> Option<(usize, String)> {
        let mut failing = self
            .captured
            .triggers
            .iter()
            .filter_map(|copy| Some((copy, copy.failures()?)));
        let (copy, (rows, why)) = failing.next()?;
        let sentence = format!(
            "trigger \"{}\" on \"{}\" failed for {rows} rows of other nodes, which were written without it: {why}",
            copy.name, copy.table
        );
        Some((1 + failing.count(), sentence))
    }

    /// The cluster that this database is part of.
    ///
    /// # Errors
    /// SQLite's.
    pub fn cluster(&self) -> Result<Option<String>, SqliteError> {
        node::cluster(&self.conn)
    }

    /// Makes the database part of a cluster, if it is not yet.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's.
    pub fn set_cluster(
        &mut self,
        id: &str,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ReplicaError> {
        if self.cluster()?.as_deref() == Some(id) {
            return Ok(());
        }
        if !connection::begin_immediate(&self.conn, patience, stop)? {
            return Err(ReplicaError::Locked {
                path: self.path.clone(),
            });
        }
        let done = node::set_cluster(&self.conn, id).and_then(|()| {
            self.conn
                .execute_batch("COMMIT")
                .doing("commit the cluster's id")
        });
        if done.is_err() {
            connection::rollback(&self.conn);
        }
        Ok(done?)
    }

    /// Memory of what a transaction did that was rolled back.
    pub(crate) fn reload(&mut self) -> Result<(), ReplicaError> {
        self.pending.clear();
        self.plans.clear();
        self.captured = Arc::clone(&self.committed);
        self.publishers = publishers::read(&self.conn)?;
        if let Some(state) = node::read(&self.conn)? {
            self.position = state.position;
        }
        Ok(())
    }

    /// Whether state of ours is in the database at all.
    ///
    /// # Errors
    /// SQLite's.
    pub fn has_state(conn: &Connection) -> Result<bool, StateError> {
        Ok(ddl::stored_format(conn)?.is_some())
    }
}
