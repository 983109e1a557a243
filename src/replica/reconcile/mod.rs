//! Tables whose rows are not certain are brought back to what every rule stands on: the database is the fold up to the position with what is pending on top. Their
//! fold is built elsewhere, in a database of its own; here it is compared with what is there, and every difference that is not pending is logged as if the
//! application had just made it.
//!
//! Invariants:
//! - nothing is applied between the comparison and the last entry, so that both are of one position;
//! - what is on its way from this node is folded too, alone, so that a row that nobody has written to since is not sent again;
//! - the long comparison takes no lock: what differs is looked at once more, under the write lock and with what is pending, in pieces of a few milliseconds;
//! - a table's mark goes with the last of its entries.

mod compare;
mod enter;
pub(super) mod grow;
mod names;
mod usual;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use compare::Difference;
pub use enter::Entered;
pub use grow::{Grown, grow};
pub use names::{name_as_here, names_of};

use super::{Replica, ReplicaError};
use crate::capture::triggers;
use crate::changelog::in_flight::Carrier;
use crate::changelog::pending::Share;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::state::publishers::LastTaken;
use crate::state::unsure::{self, Reason, Unsure};

/// What a replica remembers of tables that are not certain.
#[derive(Debug, Default)]
pub struct UnsureTables {
    /// How many there are, as of the last look.
    count: Arc<AtomicU64>,
    /// Somebody reconciles them.
    watched: bool,
    /// Nothing is applied until that is done.
    waits: bool,
}

impl UnsureTables {
    /// Capture was made current: these marks were there before, and those are now.
    pub(super) fn note(&mut self, before: &[Unsure], now: &[Unsure]) {
        self.count.store(now.len() as u64, Ordering::Release);
        let gap = now
            .iter()
            .any(|u| u.reason == Reason::Gap && !before.contains(u));
        // What comes in would be folded onto rows that only this node has, and they would be lost.
        self.waits |= self.watched && gap;
    }

    /// Whether nothing is to be applied for the moment.
    pub(super) const fn waits(&self) -> bool {
        self.waits
    }
}

/// How much of what is on its way from this node the fold of a comparison contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ahead {
    /// Up to here its batches are folded beyond the position, and nothing of others is.
    pub folded: Option<Carrier>,
    /// The last that was on its way at that time: what is scanned later carries rows as they are.
    pub last: Option<Carrier>,
}

impl Ahead {
    fn share(self, carrier: Option<Carrier>) -> Share {
        match carrier {
            Some(_) if carrier <= self.folded => Share::Contained,
            Some(_) if carrier <= self.last => Share::Unknown,
            _ => Share::Mine,
        }
    }

    /// Whether all is contained that is to be.
    #[must_use]
    pub fn is_complete(self) -> bool {
        self.folded >= self.last
    }
}

impl Replica {
    /// What carries the last of this node's changes that are on their way.
    #[must_use]
    pub fn last_on_its_way(&self) -> Option<Carrier> {
        self.in_flight.last_carrier()
    }

    /// What a batch of this node, which was taken, brings back.
    #[must_use]
    pub fn carrier_of(&self, taken: LastTaken) -> Carrier {
        if self.incarnation == Some(taken.incarnation) {
            Carrier::Batch(taken.batch)
        } else {
            Carrier::Former(taken.sequence)
        }
    }

    /// The tables that are not certain.
    ///
    /// # Errors
    /// SQLite's.
    pub fn unsure(&self) -> Result<Vec<Unsure>, SqliteError> {
        let unsure = if self.publish {
            unsure::read(&self.conn)?
        } else {
            Vec::new()
        };
        self.unsure
            .count
            .store(unsure.len() as u64, Ordering::Release);
        Ok(unsure)
    }

    /// How many tables are not certain, as of the last look: for those who must not wait for the replica.
    #[must_use]
    pub fn unsure_count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.unsure.count)
    }

    /// Somebody reconciles from now on, or does so no more: only then does applying wait for it.
    pub fn watch_unsure(&mut self, watched: bool) {
        self.unsure.watched = watched;
        self.unsure.waits &= watched;
    }

    /// Nothing is applied until this is called again with `false`.
    pub fn pause_applying(&mut self, paused: bool) {
        self.unsure.waits = paused;
    }

    /// Whether applying waits for tables to be reconciled.
    #[must_use]
    pub fn applying_waits(&self) -> bool {
        self.unsure.waits
    }

    /// All rows of these tables become changes of this node, and the tables are certain: for those that nobody else can know. Returns how many rows.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's; nothing is changed then.
    pub fn enter_all_rows(
        &mut self,
        tables: &[Unsure],
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<u64, ReplicaError> {
        let entered = self.write(patience, stop, "commit rows of new tables", |replica| {
            // A table that is captured, and not yet known to be, would be taken for one without rows.
            if connection::schema_version(&replica.conn)? != replica.captured.schema_version {
                return Ok(None);
            }
            let mut rows = 0;
            for unsure in tables {
                rows += replica.enter_whole_table(unsure)?;
            }
            Ok::<_, SqliteError>(Some(rows))
        })?;
        let rows = entered.flatten().ok_or_else(|| self.locked())?;
        self.unsure()?;
        Ok(rows)
    }

    /// Nobody will ever know what was written in these tables without capture: their marks go.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's.
    pub fn give_up_unsure(
        &mut self,
        tables: &[Unsure],
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<(), ReplicaError> {
        let done = self.write(
            patience,
            stop,
            "commit that tables are given up",
            |replica| {
                tables
                    .iter()
                    .try_for_each(|u| unsure::clear(&replica.conn, u))
            },
        )?;
        done.ok_or_else(|| self.locked())?;
        self.unsure()?;
        Ok(())
    }

    /// Inside a write transaction: logs all rows of a table, and takes its mark away.
    pub(super) fn enter_whole_table(&self, unsure: &Unsure) -> Result<u64, SqliteError> {
        let mut rows = 0;
        if let Some(table) = self
            .captured
            .table(&unsure.table)
            .filter(|t| !t.log.is_empty())
        {
            rows = self
                .conn
                .execute(&triggers::log_all_rows(&table.table, table.generation), [])
                .doing_with(|| format!("log the rows of table \"{}\"", unsure.table))?;
        }
        unsure::clear(&self.conn, unsure)?;
        Ok(rows as u64)
    }
}
