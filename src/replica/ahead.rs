//! What can be done for a large batch before the write lock is taken: for a single transaction of hundreds of thousands of rows the application would wait for it.
//!
//! Invariants: nothing here decides anything: a batch of which was looked at may still come to nothing, or wait, and what was noted beside the database then does no harm. What was seen
//! of a change log holds for the transaction that follows at once: rows are added behind the newest one only, and nobody else takes any away.

use std::sync::Arc;

use super::{Replica, ReplicaError};
use crate::apply::incoming::{Body, Incoming, IncomingBatch};
use crate::change::position::Sequence;
use crate::changelog::retire::{covers_all, newest};
use crate::codec::covers::TableCovers;

/// A batch of fewer rows is decoded when its turn comes.
const LARGE: u64 = 10_000;

/// What is known of a large batch.
pub(super) struct LookedAhead {
    at: Sequence,
    covers: Arc<Vec<TableCovers>>,
    /// It is noted among what was published.
    kept: bool,
    /// Places in `covers` of which the change log holds nothing else up to the last one.
    all_covered: Vec<usize>,
}

impl Replica {
    /// Looks at the first large batch among these messages.
    pub(super) fn look_ahead(&mut self, messages: &[Incoming]) -> Result<(), ReplicaError> {
        let large = messages.iter().find_map(|m| match &m.body {
            Body::Batch(b) if b.record.row_count >= LARGE && b.damage.is_none() => {
                Some((m.sequence, b))
            }
            _ => None,
        });
        let Some((at, batch)) = large else {
            self.ahead = None;
            return Ok(());
        };
        let mut ahead = match self.ahead.take().filter(|a| a.at == at) {
            Some(ahead) => ahead,
            None => LookedAhead {
                at,
                covers: Arc::new(batch.covered()?),
                kept: false,
                all_covered: Vec::new(),
            },
        };
        ahead.all_covered.clear();
        if batch.record.node == self.me && !self.skips.is_void(at) {
            if !ahead.kept {
                self.keep_batch(batch, at, false)?;
                ahead.kept = true;
            }
            for (place, covers) in ahead.covers.iter().enumerate() {
                let definition = batch.record.tables.get(covers.table as usize);
                let table = definition.and_then(|d| self.captured.table_meant(&d.name));
                if let Some(table) = table.filter(|t| !t.log.is_empty())
                    && let Some(last) = covers.last()
                    // What is logged from now on stands behind the newest.
                    && newest(&self.conn, table)?.is_some_and(|id| id >= last)
                    && covers_all(&self.conn, table, covers, last)?
                {
                    ahead.all_covered.push(place);
                }
            }
        }
        self.ahead = Some(ahead);
        Ok(())
    }

    /// What was noted beside the database is there no more.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead = None;
    }

    /// The change-log rows that a batch covers.
    pub(super) fn covers_of(
        &self,
        batch: &IncomingBatch,
        at: Sequence,
    ) -> std::io::Result<Arc<Vec<TableCovers>>> {
        match self.ahead.as_ref().filter(|a| a.at == at) {
            Some(ahead) => Ok(Arc::clone(&ahead.covers)),
            None => batch.covered().map(Arc::new),
        }
    }

    /// Whether a batch was noted among what was published.
    pub(super) fn is_kept_ahead(&self, at: Sequence) -> bool {
        self.ahead.as_ref().is_some_and(|a| a.at == at && a.kept)
    }

    /// Whether a change log was seen to hold nothing but what the batch covers at this place.
    pub(super) fn is_all_covered(&self, at: Sequence, place: usize) -> bool {
        self.ahead
            .as_ref()
            .is_some_and(|a| a.at == at && a.all_covered.contains(&place))
    }
}
