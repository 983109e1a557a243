//! What an operator asks of a node by hand: messages to be skipped, messages to be folded again, journals of another size.
//!
//! Invariants: each is one transaction; the position never moves here; what is pending stays on top, as in every fold.

use std::time::Duration;

use super::{Replica, ReplicaError};
use crate::apply::fold::{FoldStats, FoldStop, Together};
use crate::apply::incoming::{Body, Incoming};
use crate::change::position::{Sequence, ShardId};
use crate::config::JournalsConfig;
use crate::sqlite::error::SqliteError;
use crate::state::journal;
use crate::state::skips::Skips;

/// Why a message is in the dead-letter journal that an operator has skipped.
pub const SKIPPED: &str = "skipped by the operator";

/// Why an operator's wish was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The range begins behind the position.
    #[error(
        "message {first} is not ahead of this node's position {position}: its turn has passed, and replay folds it again"
    )]
    Behind {
        /// Where the range begins.
        first: Sequence,
        /// How far this node is.
        position: Sequence,
    },
    /// A message cannot be folded here.
    #[error("message {at} cannot be folded again: {reason}; nothing was changed")]
    Unfoldable {
        /// The message.
        at: Sequence,
        /// Why.
        reason: String,
    },
    /// Changes of this node are on their way that a row which comes and goes meanwhile could displace for good.
    #[error(
        "changes of table \"{table}\", which has UNIQUE indexes, are not published yet: wait until harmonylite_pending_publish is 0, or pause the app, and try again; nothing was changed"
    )]
    Pending {
        /// A table that has such changes.
        table: String,
    },
    /// An update of this node's would go with its row, which was deleted and made anew meanwhile.
    #[error(
        "an update of table \"{table}\" is not published yet whose row was deleted and made anew since, so that it would be lost: wait until harmonylite_pending_publish is 0, and try again; nothing was changed"
    )]
    Lost {
        /// The table.
        table: String,
    },
    /// The database.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<SqliteError> for OperatorError {
    fn from(error: SqliteError) -> Self {
        Self::Replica(error.into())
    }
}

/// What folding again came to.
#[derive(Debug, Clone, Default)]
pub struct Replayed {
    /// Batches folded.
    pub batches: u64,
    /// Batches that cannot be read on any node, and were left out as they were the first time.
    pub damaged: u64,
    /// Rows and conflicts.
    pub stats: FoldStats,
}

impl Replica {
    /// How much the journals keep from now on.
    pub fn keep_journals(&mut self, limits: JournalsConfig) {
        self.journals = limits;
    }

    /// Entries of the dead-letter journal.
    ///
    /// # Errors
    /// SQLite's.
    pub fn dead_letters(&self) -> Result<u64, SqliteError> {
        journal::dead_letters(&self.conn)
    }

    /// Whether an operator has told this node to skip a message.
    #[must_use]
    pub fn skips(&self, message: Sequence) -> bool {
        self.skips.contains(message)
    }

    /// Notes a range of the order stream that is not to be folded here, and journals its messages: `letters` are those that are more than a piece of
    /// payload.
    ///
    /// # Errors
    /// [`OperatorError::Behind`]; nothing is changed then.
    pub fn skip(
        &mut self,
        first: Sequence,
        last: Sequence,
        letters: &[(Sequence, bytes::Bytes)],
        patience: Duration,
    ) -> Result<(), OperatorError> {
        if first <= self.position.sequence {
            return Err(OperatorError::Behind {
                first,
                position: self.position.sequence,
            });
        }
        self.in_write_transaction(patience, |replica| {
            Skips::add(&replica.conn, first, last)?;
            for (at, bytes) in letters {
                journal::record_dead_letter(&replica.conn, ShardId::ORDER, *at, SKIPPED, bytes)?;
            }
            journal::bound_dead_letters(&replica.conn, &replica.journals)?;
            Ok(())
        })?;
        self.skips = Skips::read(&self.conn, self.position.sequence)?;
        Ok(())
    }

    /// Folds batches once more, in the order in which they come, all in one transaction: no reader sees anything in between. `next` gives one message after
    /// the other, each with its payload; `progress` is called after each. `to_the_end`: they reach up to the position, so what they wrote is what is there.
    ///
    /// On the way rows stand that were removed or changed later, and displace what holds their UNIQUE values now. What has been folded comes back with its
    /// own batch, since it got the value after they had lost it. What is not in the stream yet would not, so there must be nothing of the kind; nor
    /// pending cells of a row that goes on the way and comes back.
    ///
    /// # Errors
    /// [`OperatorError::Unfoldable`] for the first that does not fit the schema here, [`OperatorError::Pending`], [`OperatorError::Lost`]; nothing is
    /// changed then.
    pub fn replay(
        &mut self,
        patience: Duration,
        to_the_end: bool,
        mut next: impl FnMut() -> std::io::Result<Option<Incoming>>,
        mut progress: impl FnMut(Sequence),
    ) -> Result<Replayed, OperatorError> {
        let done = self.in_write_transaction(patience, |replica| {
            if !replica.capture_is_current()? {
                replica.refresh_capture_here()?;
            }
            replica.nothing_to_displace()?;
            let journaled = journal::last_conflict(&replica.conn)?;
            let mut done = Replayed::default();
            // One transaction: what goes with one batch and comes back with a later one is never seen gone, and what is in flight comes back with its echo.
            let mut together = Together {
                given_up: true,
                ..Together::default()
            };
            while let Some(message) = next().map_err(ReplicaError::from)? {
                replica.fold_again(&message, &mut together, &mut done)?;
                progress(message.sequence);
            }
            if let Some(table) = journal::deleted_since(&replica.conn, journaled, replica.me)? {
                return Err(OperatorError::Lost { table });
            }
            if !done.stats.conflicts.is_empty() {
                if to_the_end {
                    journal::forget_folded_since(&replica.conn, journaled)?;
                }
                journal::bound_conflicts(&replica.conn, &replica.journals)?;
            }
            Ok(done)
        })?;
        // What is in flight was scanned of the state before: its echo is to be folded, not taken as settled.
        self.foreign = self.position.sequence.next();
        Ok(done)
    }

    /// That no row that is pending here stands under a UNIQUE index.
    fn nothing_to_displace(&self) -> Result<(), OperatorError> {
        let pending = self.pending_by_table()?;
        let table = pending.into_iter().map(|(name, _)| name).find(|name| {
            let table = self.captured.table(name);
            table.is_some_and(|t| !t.table.uniques.is_empty())
        });
        table.map_or(Ok(()), |table| Err(OperatorError::Pending { table }))
    }

    fn fold_again(
        &mut self,
        message: &Incoming,
        together: &mut Together,
        done: &mut Replayed,
    ) -> Result<(), OperatorError> {
        let unfoldable = |reason: String| OperatorError::Unfoldable {
            at: message.sequence,
            reason,
        };
        let batch = match &message.body {
            Body::Batch(batch) => batch,
            Body::Newer(version) => {
                return Err(unfoldable(format!(
                    "it has format version {version}, which this program does not know"
                )));
            }
            Body::Payload | Body::Marker(_) | Body::Unreadable { .. } => return Ok(()),
        };
        if batch.damage.is_some() {
            done.damaged += 1;
            return Ok(());
        }
        let plans = self.plans_of(batch).map_err(unfoldable)?;
        match self.fold_in(batch, &plans, message.sequence, together, &mut done.stats) {
            Ok(_) => {
                done.batches += 1;
                Ok(())
            }
            Err(FoldStop::Hold(_)) => {
                Err(unfoldable("it waits for this node's own batch".to_owned()))
            }
            Err(FoldStop::Closed(reason)) => Err(unfoldable(reason)),
            Err(FoldStop::Sqlite(e)) => Err(e.into()),
            Err(FoldStop::Spool(e)) => Err(ReplicaError::from(e).into()),
        }
    }

    fn in_write_transaction<T>(
        &mut self,
        patience: Duration,
        body: impl FnOnce(&mut Self) -> Result<T, OperatorError>,
    ) -> Result<T, OperatorError> {
        let done = self.write(
            patience,
            &|| false,
            "commit what the operator asked for",
            body,
        );
        if done.is_err() {
            self.reload()?;
        }
        done?.ok_or_else(|| self.locked().into())
    }
}
