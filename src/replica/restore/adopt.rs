//! A table that the configuration left out until now, or that is behind, becomes what the cluster has.
//!
//! Invariants: as in every restore, what is pending here stays on top; a row that only this node has stays and is published, for nobody can have deleted it; what
//! this node had in a row that the cluster has too goes to the conflict journal; a table that is behind is not taken to be this node's own where nothing tells what the cluster has.

use std::path::Path;

use super::table::TableRestore;
use super::{RestoreError, RestoreOptions, Restored};
use crate::apply::evaluator::Evaluators;
use crate::apply::rows::LastStatement;
use crate::change::position::Sequence;
use crate::changelog::pending::TablePending;
use crate::codec::commit::TableDefinition;
use crate::replica::Replica;
use crate::sqlite::{connection, introspect};
use crate::state::journal;
use crate::state::unsure::{self, Reason, Unsure};

/// What became of a table that was to be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// It is what the cluster has; so many rows were written, and so many of this node are published.
    Done(u64),
    /// The position or the schema is another than the fold's.
    Moved,
    /// The lock could not be had in time.
    Locked,
    /// It is behind, and the snapshot that the fold was built of does not have it: it stays marked.
    Lacking,
}

impl Replica {
    /// Takes over a table from its fold at a position, in one write transaction. `whole`: the fold began with all that the cluster had in the table, and not with what came later
    /// alone.
    ///
    /// # Errors
    /// See [`RestoreError`]; nothing is changed then.
    pub fn adopt(
        &mut self,
        fold: &Path,
        (at, whole): (Sequence, bool),
        known: &Unsure,
        options: &RestoreOptions<'_>,
    ) -> Result<Adopted, RestoreError> {
        if known.reason == Reason::Behind && !whole {
            return Ok(Adopted::Lacking);
        }
        let from = connection::open_reader(fold)?;
        let theirs = introspect::read_schema(&from)?;
        let adopted = self.write(
            options.patience,
            options.stop,
            "commit a table that is taken over",
            |replica| {
                if replica.position.sequence != at
                    || connection::schema_version(&replica.conn)? != replica.captured.schema_version
                {
                    return Ok(Adopted::Moved);
                }
                let mut out = Restored::default();
                let mut entered = 0;
                if let Some(table) = theirs.table(&known.table) {
                    let definition = TableDefinition::of(table);
                    if let Some(plan) = replica.plan_for(&definition, replica.me)? {
                        let mut pending = TablePending::default();
                        pending.catch_up(&replica.conn, &plan.table)?;
                        TableRestore {
                            conn: &replica.conn,
                            from: &from,
                            theirs: table,
                            plan: &plan,
                            pending: &mut pending,
                            in_flight: &replica.in_flight,
                            me: replica.me,
                            leader: replica.me,
                            at,
                            options,
                            new_history: false,
                            keep_strangers: true,
                            out: &mut out,
                            evaluators: Evaluators::default(),
                            last: LastStatement::default(),
                        }
                        .run()?;
                    }
                    unsure::clear(&replica.conn, known)?;
                } else {
                    entered = replica.enter_whole_table(known)?;
                }
                journal::bound_conflicts(&replica.conn, &replica.journals)?;
                // What was scanned before was scanned of another state.
                replica.foreign = replica.position.sequence.next();
                replica.pending.clear();
                Ok::<_, RestoreError>(Adopted::Done(out.written + out.kept + entered))
            },
        )?;
        self.unsure()?;
        Ok(adopted.unwrap_or(Adopted::Locked))
    }
}
