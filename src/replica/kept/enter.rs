//! Where kept batches come from and where they go: noted as they come back, entered in the change log again by a restore onto a snapshot that lacks them.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::Kept;
use super::frame::{self, Frame};
use crate::apply::incoming::IncomingBatch;
use crate::change::history::History;
use crate::change::position::Sequence;
use crate::codec::covers;
use crate::replica::settled::{Deletes, enter_rows, entries};
use crate::replica::{Replica, ReplicaError};
use crate::sqlite::connection;
use crate::state::publishers;

impl Replica {
    /// From now on what comes back of this node's own is kept beside the database until [`Replica::covered_by`] says that a snapshot covers it. At about
    /// `limit` bytes publishing is to wait.
    ///
    /// # Errors
    /// The files'.
    pub fn keep(&mut self, limit: u64) -> Result<(), ReplicaError> {
        let kept = Kept::open(&self.path, limit).map_err(|e| self.not_kept(e))?;
        self.kept = Some(kept);
        Ok(())
    }

    /// This database is of the cluster's history: what is kept of others was entered, or is contained, and the process ended before it was removed.
    ///
    /// # Errors
    /// The files'.
    pub fn keep_this_history(&mut self) -> Result<(), ReplicaError> {
        let history = self.history;
        let kept = self.kept.as_mut().map_or(Ok(()), |k| k.keep_only(history));
        kept.map_err(|e| self.not_kept(e))
    }

    /// For a node that applies nothing: from now on it publishes in this history, though its position is of the one that the database names. What was published
    /// before and `snapshot`, which is of this history, does not contain is pending again. Returns how many changes were entered.
    ///
    /// # Errors
    /// [`ReplicaError::Locked`]; SQLite's and the files'; nothing is changed then.
    pub fn publish_in(
        &mut self,
        history: History,
        snapshot: Option<&Path>,
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<u64, ReplicaError> {
        let mut entered = 0;
        if let Some(snapshot) = snapshot {
            let from = connection::open_reader(snapshot)?;
            let done = self.write(patience, stop, "commit what is pending again", |replica| {
                replica.enter_kept(&from)
            });
            self.pending.clear();
            entered = done?.ok_or_else(|| self.locked())?;
            self.forget_kept();
        }
        self.history = history;
        Ok(entered)
    }

    /// What is kept.
    #[must_use]
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// What was kept survives a loss of power from now on.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync_kept(&mut self) -> Result<(), ReplicaError> {
        let synced = self.kept.as_mut().map_or(Ok(()), Kept::sync);
        synced.map_err(|e| self.not_kept(e))
    }

    /// A verified snapshot of this history covers everything up to `covered`.
    ///
    /// # Errors
    /// The files'.
    pub fn covered_by(&mut self, covered: Sequence) -> Result<(), ReplicaError> {
        let history = self.history;
        let pruned = self
            .kept
            .as_mut()
            .map_or(Ok(()), |k| k.prune(history, covered));
        pruned.map_err(|e| self.not_kept(e))
    }

    fn not_kept(&self, source: std::io::Error) -> ReplicaError {
        ReplicaError::Kept {
            database: self.path.clone(),
            source,
        }
    }

    /// Before the transaction is committed that takes the batch out of the change log.
    pub(in crate::replica) fn keep_batch(
        &mut self,
        batch: &IncomingBatch,
        at: Sequence,
        unfolded: bool,
    ) -> Result<(), ReplicaError> {
        let history = self.history;
        let added = self
            .kept
            .as_mut()
            .map_or(Ok(()), |k| k.add(batch, at, history, unfolded));
        added.map_err(|e| self.not_kept(e))
    }

    /// A restore was committed.
    pub(in crate::replica) fn forget_kept(&mut self) {
        self.forget_ahead();
        if let Some(Err(error)) = self.kept.as_mut().map(Kept::clear) {
            // They are of batches that the database knows as taken no more, or contained: nobody enters them.
            tracing::warn!(%error, "what was kept of published changes could not be removed");
        }
    }

    /// Enters what the snapshot does not contain in the change log again. Only batches that this database has taken: an older file, put back, has not the rows.
    /// Returns how many changes were entered.
    pub(in crate::replica) fn enter_kept(&self, from: &Connection) -> Result<u64, ReplicaError> {
        let Some(kept) = &self.kept else {
            return Ok(0);
        };
        let mut entered = 0;
        for path in kept.paths() {
            let file = File::open(&path).map_err(|e| self.not_kept(e))?;
            let mut reader = BufReader::new(file);
            let mut next = frame::next(&mut reader).map_err(|e| self.not_kept(e))?;
            while let Some((first, _)) = next {
                let here = first.unfolded
                    || publishers::has_taken(
                        &self.conn,
                        first.node,
                        first.incarnation,
                        first.batch,
                    )?;
                let wanted = here
                    && !publishers::has_taken(from, first.node, first.incarnation, first.batch)?;
                next = self.enter_batch_kept(&first, wanted, &mut reader, &mut entered)?;
            }
        }
        Ok(entered)
    }

    /// Enters a batch, if it is wanted; returns the first frame behind it.
    fn enter_batch_kept(
        &self,
        first: &Frame,
        wanted: bool,
        reader: &mut BufReader<File>,
        entered: &mut u64,
    ) -> Result<Option<(Frame, u64)>, ReplicaError> {
        let covered = covers::decode(&first.covers)
            .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()))?;
        let mut tables = entries(
            &self.captured,
            &first.tables,
            &covered,
            Deletes::AsTheRowNow,
        );
        let mut rows = first.rows.clone();
        loop {
            if wanted {
                *entered += enter_rows(&self.conn, &mut tables, &rows, &first.tables)?;
            }
            let next = frame::next(reader).map_err(|e| self.not_kept(e))?;
            match next {
                Some((frame, _)) if frame.continues(first) && frame.covers.is_empty() => {
                    rows = frame.rows;
                }
                other => return Ok(other),
            }
        }
    }
}
