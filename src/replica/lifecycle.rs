//! Beginning and end: opening the database, taking up an incarnation, reading ahead, tidying, and removing all traces.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::current::Current;
use super::filter::TableFilter;
use super::reconcile::UnsureTables;
use super::{Replica, ReplicaError, absent};
use crate::apply::incoming::IncomingBatch;
use crate::apply::order;
use crate::capture::{Captured, CapturedTable, forget_names, remove, renames};
use crate::change::history::History;
use crate::change::position::{BatchNumber, Incarnation, NodeId, Sequence};
use crate::changelog::in_flight::InFlight;
use crate::changelog::retire;
use crate::config::{Config, JournalsConfig};
use crate::planted::planted;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::node;
use crate::state::publishers::Publishers;
use crate::state::skips::Skips;
use crate::state::{covered, ddl, journal, publishers};

/// What to open.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// This node.
    pub node_id: NodeId,
    /// Capture and publish.
    pub publish: bool,
    /// Globs of tables to replicate.
    pub include: Vec<String>,
    /// Globs of tables to leave out.
    pub exclude: Vec<String>,
    /// Triggers of the application that are named to fire; `None`: none fires at all, named or not.
    pub fire_triggers: Option<Vec<String>>,
}

impl OpenOptions {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            node_id: NodeId(config.node_id),
            publish: config.publish,
            include: config.replication.include.clone(),
            exclude: config.replication.exclude.clone(),
            fire_triggers: Some(config.replication.fire_triggers.clone()),
        }
    }
}

impl Replica {
    /// Opens the database, brings our state in it up to date and installs capture, all in one transaction. Needs no network: changes are
    /// captured from here on, whatever the broker does.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`] when `patience` ran out or `stop` said so: try again. State of a newer program, a damaged or read-only file.
    pub fn open(
        path: &Path,
        options: &OpenOptions,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ReplicaError> {
        Self::open_on(
            connection::open_writer(path)?,
            path,
            options,
            patience,
            stop,
        )
    }

    /// Opens a file that is to become a snapshot: what is deleted in it meanwhile is overwritten.
    ///
    /// # Errors
    /// As [`Replica::open`].
    pub fn open_copy(
        path: &Path,
        options: &OpenOptions,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ReplicaError> {
        let conn = connection::open_writer(path)?;
        connection::overwrite_deleted(&conn)?;
        Self::open_on(conn, path, options, patience, stop)
    }

    fn open_on(
        conn: rusqlite::Connection,
        path: &Path,
        options: &OpenOptions,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Self, ReplicaError> {
        let mut replica = Self {
            checkpoints: None,
            conn,
            path: path.to_owned(),
            me: options.node_id,
            database_id: String::new(),
            filter: TableFilter::new(&options.include, &options.exclude),
            fire_triggers: options.fire_triggers.clone(),
            publish: options.publish,
            publish_wanted: options.publish,
            captured: Arc::new(Captured::default()),
            ahead: None,
            current: Current::default(),
            committed: Arc::new(Captured::default()),
            opened: false,
            in_flight: InFlight::default(),
            pending: HashMap::new(),
            plans: Vec::new(),
            publishers: Publishers::new(),
            position: node::Position::default(),
            history: History::FIRST,
            kept: None,
            foreign: Sequence(0),
            incarnation: None,
            next_batch: BatchNumber(1),
            skips: Skips::default(),
            journals: JournalsConfig::default(),
            seen_version: None,
            unsure: UnsureTables::default(),
            measured: None,
        };
        replica
            .write(
                patience,
                stop,
                "commit the replication state",
                Self::open_here,
            )?
            .ok_or_else(|| replica.locked())?;
        replica.opened = true;
        Ok(replica)
    }

    fn open_here(&mut self) -> Result<(), ReplicaError> {
        if remove::go_program_was_here(&self.conn)? {
            let objects = remove::remove_go_program(&self.conn)?;
            tracing::warn!(
                objects,
                "what the Go HarmonyLite left in this database is removed; rows that it had not published count as they stand here"
            );
        }
        ddl::migrate(&self.conn)?;
        let fresh = format!("{:032x}", rand::random::<u128>());
        let before = node::read(&self.conn)?;
        let placed = before.as_ref().is_some_and(|s| s.database_id.is_empty());
        let uncaptured = before.is_some() && !placed && !self.was_captured()?;
        match before {
            None if self.take_up_state()? => {}
            None => node::create(&self.conn, self.me, &fresh)?,
            Some(state) if placed => {
                // Where a snapshot is folded on, it is nobody's.
                if self.me != NodeId(0) {
                    tracing::info!(
                        position = state.position.sequence.0, taken_by = %state.node_id,
                        "this database is a snapshot that was put in place: this node goes on from its position"
                    );
                }
                if self.me != NodeId(0) {
                    // It goes on without what it holds for others: nobody would fold it on here.
                    absent::remove(&self.conn)?;
                    forget_names(&self.conn)?;
                }
                node::rename(&self.conn, self.me, &fresh)?;
            }
            Some(state) if state.node_id != self.me => {
                // Node 0 is nobody: a database of ours, to be thrown away.
                if self.me != NodeId(0) {
                    tracing::warn!(
                        was = %state.node_id, now = %self.me,
                        "this database was node {}'s: it goes on as node {}, from the position that it has folded, and takes changes that were not published yet as its own",
                        state.node_id, self.me
                    );
                }
                node::rename(&self.conn, self.me, &fresh)?;
                node::set_incarnation(&self.conn, Incarnation::default())?;
                Skips::forget(&self.conn)?;
            }
            Some(_) => {}
        }
        let position = node::read(&self.conn)?.map_or(Sequence(0), |s| s.position.sequence);
        let unfolded = node::settled(&self.conn)? > position;
        if !self.publish && (unfolded || self.log_is_pending()?) {
            tracing::warn!(
                "publish is false, but changes of before are not published yet: they are first, and capture ends then"
            );
            self.publish = true;
        }
        self.refresh_capture_here()?;
        if self.publish && uncaptured && !self.captured.tables.is_empty() {
            tracing::warn!(
                "capture begins in a database that this node ran with before, without capture: {}",
                if node::cluster(&self.conn)?.is_some() {
                    "what was written here meanwhile is looked for"
                } else {
                    "what was written here meanwhile is not known, and stays here; harmonylite verify --repair --from NODE_ID with the id of this node sends it"
                }
            );
        }
        self.publishers = publishers::read(&self.conn)?;
        if let Some(state) = node::read(&self.conn)? {
            self.position = state.position;
            self.history = state.history;
            self.database_id = state.database_id;
        }
        self.skips = Skips::read(&self.conn, self.position.sequence)?;
        Ok(())
    }

    /// Takes note of a batch of ours that stands in the stream ahead of our position: what it covers is in flight, not to be sent again. `seen` is
    /// what was taken of each publisher up to there.
    ///
    /// # Errors
    /// The spool's.
    pub fn read_ahead(
        &mut self,
        seen: &mut Publishers,
        batch: &IncomingBatch,
        at: Sequence,
    ) -> std::io::Result<()> {
        let record = &batch.record;
        if planted!(NoReadAhead) || !order::admit(seen, record, at) {
            return Ok(());
        }
        if record.node == self.me && batch.damage.is_none() && !self.skips.is_void(at) {
            for covers in batch.covered()? {
                if let Some(table) = record.tables.get(covers.table as usize) {
                    // A table that was renamed since has taken its change log along.
                    let meant = self.captured.table_meant(&table.name);
                    let name = meant.map_or(&table.name, |t| &t.table.name);
                    for (id, stamp) in covers.rows() {
                        self.in_flight.add_ahead(name, id, stamp, at);
                    }
                }
            }
        }
        Ok(())
    }

    /// The highest incarnation that this database knows of.
    ///
    /// # Errors
    /// SQLite's.
    pub fn stored_incarnation(&self) -> Result<u64, ReplicaError> {
        let own = node::read(&self.conn)?.map_or(0, |s| s.incarnation.counter);
        Ok(own.max(
            self.publishers
                .get(&self.me)
                .map_or(0, |l| l.incarnation.counter),
        ))
    }

    /// Takes up an incarnation, which must be above all that were ever seen of this node, and remembers it durably before it is used.
    /// Call [`Replica::read_ahead`] for all of the stream afterwards, before scanning.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's.
    pub fn begin_incarnation(
        &mut self,
        incarnation: Incarnation,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ReplicaError> {
        // An older file that a power loss leaves must not hold a lower one than the stream has seen.
        self.conn
            .execute_batch("PRAGMA synchronous = FULL")
            .doing("set synchronous = FULL")?;
        let written = self.write(
            patience,
            stop,
            "commit this node's incarnation",
            |replica| Ok::<_, ReplicaError>(node::set_incarnation(&replica.conn, incarnation)?),
        );
        if connection::is_wal(&self.conn)? {
            self.conn
                .execute_batch("PRAGMA synchronous = NORMAL")
                .doing("set synchronous = NORMAL")?;
        }
        written?.ok_or_else(|| self.locked())?;
        self.in_flight.reset();
        self.pending.clear();
        self.incarnation = Some(incarnation);
        self.foreign = self.position.folded;
        self.next_batch = BatchNumber(1);
        Ok(())
    }

    /// Removes what is due for removal without waiting for messages: change-log rows whose cells were forgotten, old journal entries. `Ok(false)`: the lock
    /// could not be had in time.
    ///
    /// # Errors
    /// SQLite's.
    pub fn tidy(
        &mut self,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<bool, SqliteError> {
        let published = self.publish;
        let done = self.write(patience, stop, "commit tidying", |replica| {
            replica.remove_forgotten()?;
            replica.end_capture_when_empty()?;
            journal::tidy(&replica.conn, &replica.journals)?;
            Skips::tidy(&replica.conn, replica.position.sequence)?;
            publishers::tidy(&replica.conn)?;
            covered::tidy(&replica.conn)
        });
        match &done {
            Ok(Some(())) => self.in_flight.forgotten.clear(),
            Ok(None) => {}
            Err(_) => self.publish = published,
        }
        done.map(|done| done.is_some())
    }

    /// Whether the view over all change logs shows anything.
    fn log_is_pending(&self) -> Result<bool, SqliteError> {
        let view = crate::capture::layout::GLOBAL_VIEW;
        let there: bool = self
            .conn
            .query_row(
                "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'view' AND name = ?1)",
                [view],
                |r| r.get(0),
            )
            .doing("look for the change logs")?;
        if !there {
            return Ok(false);
        }
        self.conn
            .query_row(&format!("SELECT EXISTS(SELECT 1 FROM {view})"), [], |r| {
                r.get(0)
            })
            .doing("read the change logs")
    }

    /// Inside a write transaction: `publish = false` takes effect once nothing is pending any more.
    fn end_capture_when_empty(&mut self) -> Result<(), SqliteError> {
        if self.publish
            && !self.publish_wanted
            && self.in_flight.batches.is_empty()
            && node::settled(&self.conn)? <= self.position.sequence
            && !self.log_is_pending()?
        {
            self.publish = false;
            self.refresh_capture_here()?;
            tracing::info!(
                "everything of before is published; nothing is captured any more, as publish = false says"
            );
        }
        Ok(())
    }

    /// Inside a write transaction: change-log rows of cells that were forgotten at a scan. The caller clears the list after the commit.
    pub(crate) fn remove_forgotten(&mut self) -> Result<(), SqliteError> {
        for (name, id) in &self.in_flight.forgotten {
            if let Some(table) = self.captured.table(name) {
                retire::remove(&self.conn, table, *id)?;
            } else if self.captured.has_dropped(name) && renames::has_log(&self.conn, name)? {
                // Its log outlives it, and would count as pending for ever where the table is made again.
                retire::remove(&self.conn, &CapturedTable::dropped(name), *id)?;
            }
            // Its entry, if it was read already, must go too.
            self.pending.remove(&name.to_ascii_lowercase());
        }
        Ok(())
    }

    /// Whether [`Replica::tidy`] has anything pressing to do.
    #[must_use]
    pub fn needs_tidying(&self) -> bool {
        !self.in_flight.forgotten.is_empty()
    }

    /// Removes everything of ours from the database. Returns how many objects went, or `None` if the lock could not be had in time.
    ///
    /// # Errors
    /// SQLite's.
    pub fn remove_everything(
        &mut self,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<usize>, SqliteError> {
        self.write(patience, stop, "commit the removal", |replica| {
            remove::remove_all(&replica.conn)
        })
    }
}
