//! Applying messages: one write transaction for a group of batches, in which data, change log, publishers and position move together.
//!
//! Invariants: the group is bounded in time, so that the app's writers are not held up, but a batch is never split; what is rolled back leaves
//! no trace in memory; a message that cannot be applied now stops the group before it, never behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Replica, ReplicaError};
use crate::apply::fold::{FoldContext, FoldStats, FoldStop, Together, fold};
use crate::apply::incoming::{Body, Incoming, IncomingBatch};
use crate::apply::order::{Verdict, judge_record};
use crate::apply::plan::{Plans, open_gates};
use crate::capture::{CapturedTable, renames};
use crate::change::position::{BatchNumber, Incarnation, Sequence, ShardId};
use crate::changelog::in_flight::Carrier;
use crate::changelog::retire::{Retired, retire};
use crate::codec::commit;
use crate::codec::frame::{Kind, Sealer};
use crate::planted::planted;
use crate::sqlite::connection;
use crate::sqlite::error::Doing;
use crate::state::covered;
use crate::state::publishers::LastTaken;
use crate::state::{journal, node, past, publishers};

/// How a group may be applied.
pub struct ApplyOptions<'a> {
    /// How long the write lock may be held before the group is cut at the next batch.
    pub max_time: Duration,
    /// What carries our changes was waited for in vain: let them vanish if the first message wants that.
    pub given_up: bool,
    /// How long to wait for the lock.
    pub patience: Duration,
    /// Asked while waiting for the lock.
    pub stop: &'a dyn Fn() -> bool,
}

/// Why a group ended before its last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// It did not, or the time was up.
    No,
    /// The database's lock could not be had in time.
    Locked,
    /// The next message waits for a change of the schema here: which, and what to do.
    Schema(String),
    /// The next message was written by a newer program.
    Newer(u8),
    /// The next message would make a change of ours vanish that is in flight: apply it together with what carries that.
    Hold(Carrier),
    /// A batch under this node's id that is not ours: two daemons share an id.
    Doubled(Incarnation),
}

/// What applying a group came to.
#[derive(Debug, Clone)]
pub struct Applied {
    /// How many messages are done with.
    pub consumed: usize,
    /// Why not all.
    pub stopped: Stopped,
    /// Our batches whose echo was among them.
    pub echoes: Vec<BatchNumber>,
    /// Batches that were taken.
    pub batches: u64,
    /// Messages ignored, by verdict.
    pub ignored: HashMap<&'static str, u64>,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Rows and conflicts.
    pub fold: FoldStats,
    /// When each foreign batch that was taken had been scanned, microseconds since 1970.
    pub scanned_at: Vec<u64>,
    /// How long the write lock was held.
    pub held: Duration,
    /// Somebody else has written since the last group.
    pub contended: bool,
}

impl Applied {
    fn new() -> Self {
        Self {
            consumed: 0,
            stopped: Stopped::No,
            echoes: Vec::new(),
            batches: 0,
            ignored: HashMap::new(),
            dead_letters: 0,
            fold: FoldStats::default(),
            scanned_at: Vec::new(),
            held: Duration::ZERO,
            contended: false,
        }
    }
}

/// What became of one batch.
enum Taken {
    /// It cannot be applied now.
    Stopped(Stopped),
    /// It counts; whether folding it changed anything here.
    Folded {
        /// Something changed.
        moved: bool,
    },
}

impl Replica {
    /// Applies messages of the order stream, which must follow the position.
    ///
    /// # Errors
    /// SQLite's and the spool's; nothing is changed then.
    pub fn apply(
        &mut self,
        messages: &[Incoming],
        options: &ApplyOptions<'_>,
    ) -> Result<Applied, ReplicaError> {
        if self.unsure.waits() {
            return Ok(Applied::new());
        }
        // In transactions of its own, which hold the lock for less than one that applies as well; the latter looks again.
        if !self.make_capture_current(options.patience, options.stop)? {
            let mut none = Applied::new();
            none.stopped = Stopped::Locked;
            return Ok(none);
        }
        if self.unsure.waits() {
            return Ok(Applied::new());
        }
        self.look_ahead(messages)?;
        let mut count = messages.len();
        let mut stopped = None;
        // The transaction does not end before it has folded up to here.
        let mut through = Sequence(0);
        loop {
            let wanted = messages.get(..count).unwrap_or(messages);
            let mut applied = Applied::new();
            if !connection::begin_immediate(&self.conn, options.patience, options.stop)? {
                applied.stopped = stopped.unwrap_or(Stopped::Locked);
                return Ok(applied);
            }
            let since = Instant::now();
            let outcome = self.apply_here(wanted, options, through, since, &mut applied);
            applied.held = since.elapsed();
            match outcome {
                Ok(None) => {
                    // What lies behind the point at which an earlier try stopped is still to be reported.
                    if let Some(reason) = stopped.filter(|_| applied.consumed == count) {
                        applied.stopped = reason;
                    }
                    return Ok(applied);
                }
                Ok(Some(reason)) => {
                    connection::rollback(&self.conn);
                    self.reload()?;
                    if let Stopped::Hold(carrier) = &reason
                        && let Some(echo) = self.echo_in(wanted, *carrier)
                    {
                        // What it waits for is here: fold both in one transaction. When that does not do (it may be a copy that does not count),
                        // all that is here.
                        let next = if through == Sequence(0) {
                            echo
                        } else {
                            self.last_echo_in(wanted).max(echo)
                        };
                        if next > through {
                            through = next;
                            continue;
                        }
                    }
                    count = applied.consumed;
                    if count == 0 {
                        let mut none = Applied::new();
                        none.stopped = match (stopped, reason) {
                            // Two of ours that depend on one another: it is the later one that is missing.
                            (Some(Stopped::Hold(a)), Stopped::Hold(b)) => Stopped::Hold(a.max(b)),
                            (_, reason) => reason,
                        };
                        return Ok(none);
                    }
                    stopped = Some(reason);
                }
                Err(e) => {
                    connection::rollback(&self.conn);
                    self.reload()?;
                    return Err(e);
                }
            }
        }
    }

    /// Applies inside the transaction and commits it; `Some` if the message after `applied.consumed` cannot be applied: then nothing is committed.
    fn apply_here(
        &mut self,
        messages: &[Incoming],
        options: &ApplyOptions<'_>,
        through: Sequence,
        since: Instant,
        applied: &mut Applied,
    ) -> Result<Option<Stopped>, ReplicaError> {
        let version = connection::data_version(&self.conn)?;
        // Before the first group it was this node itself, or an app that is gone: who writes now is seen at the next.
        let seen = self.seen_version.replace(version);
        applied.contended = seen.is_some_and(|seen| seen != version);
        if !self.capture_is_current()? {
            self.refresh_capture_here()?;
            if self.unsure.waits() {
                return Ok(Some(Stopped::No));
            }
        }
        self.remove_forgotten()?;
        let mut position = self.position;
        let mut taken: HashMap<_, LastTaken> = HashMap::new();
        let mut foreign = self.foreign;
        let mut together = self.together(messages, through);
        for message in messages {
            let must = message.sequence <= through;
            together.given_up = options.given_up && applied.consumed == 0;
            if applied.consumed > 0 && !must && since.elapsed() >= options.max_time {
                break;
            }
            match &message.body {
                Body::Payload | Body::Marker(_) => {}
                // It is in the dead-letter journal already.
                Body::Newer(_) | Body::Unreadable { .. }
                    if self.skips.contains(message.sequence) => {}
                Body::Newer(version) => return Ok(Some(Stopped::Newer(*version))),
                Body::Unreadable { reason, bytes } => {
                    journal::record_dead_letter(
                        &self.conn,
                        ShardId::ORDER,
                        message.sequence,
                        reason,
                        bytes,
                    )?;
                    applied.dead_letters += 1;
                }
                Body::Batch(batch) => match judge_record(&self.publishers, &batch.record) {
                    Verdict::Take => {
                        let moved =
                            match self.take(batch, message, foreign, &mut together, applied)? {
                                Taken::Stopped(stop) => return Ok(Some(stop)),
                                Taken::Folded { moved } => moved,
                            };
                        // An echo that changed anything (it brought back what another's batch had displaced) is as good as another's: what was
                        // scanned before it was scanned of another state.
                        if (moved && !planted!(SettledTooSoon)) || !self.is_current(batch) {
                            foreign = message.sequence;
                        }
                        let last = LastTaken::of(&batch.record, message.sequence);
                        self.note_covered(batch, message.sequence)?;
                        self.publishers.insert(batch.record.node, last);
                        taken.insert(batch.record.node, last);
                        position.folded = message.sequence;
                        applied.batches += 1;
                    }
                    verdict => {
                        let name = match verdict {
                            Verdict::Duplicate => "duplicate",
                            Verdict::Gap => "gap",
                            Verdict::Stale | Verdict::Take => "stale",
                        };
                        *applied.ignored.entry(name).or_default() += 1;
                    }
                },
            }
            position.sequence = message.sequence;
            position.hash = message.hash;
            applied.consumed += 1;
        }
        if let Some((since, carrier)) = together.relied
            && !came(carrier, applied, position.sequence)
        {
            // It was here, but did not count: what has relied on it must wait.
            applied.consumed = messages.iter().take_while(|m| m.sequence < since).count();
            return Ok(Some(Stopped::Hold(carrier)));
        }
        if !applied.fold.conflicts.is_empty() {
            journal::bound_conflicts(&self.conn, &self.journals)?;
        }
        if applied.dead_letters > 0 {
            journal::bound_dead_letters(&self.conn, &self.journals)?;
        }
        for (node, last) in taken {
            publishers::write(&self.conn, node, last)?;
        }
        node::set_position(&self.conn, position)?;
        past::note(&self.conn, self.position.sequence, position)?;
        let committed = self
            .conn
            .execute_batch("COMMIT")
            .doing("commit what was applied");
        if let Err(e) = committed {
            // It may have been broken off when it had taken effect: what the database says counts, or echoes would be awaited that have come.
            connection::rollback(&self.conn);
            if node::read(&self.conn)?.is_none_or(|s| s.position != position) {
                return Err(e.into());
            }
        }
        self.position = position;
        self.committed = Arc::clone(&self.captured);
        self.in_flight.forgotten.clear();
        self.in_flight.folded(position.sequence);
        self.foreign = foreign;
        if applied.fold.doubts > 0 {
            self.unsure()?;
        }
        if let Some(last) = applied.echoes.iter().max() {
            self.in_flight.echoed(*last);
        }
        Ok(None)
    }

    /// Takes one batch: the echo's covers out of the change log, its rows into the database unless that is known to come to nothing.
    fn take(
        &mut self,
        batch: &IncomingBatch,
        message: &Incoming,
        foreign: Sequence,
        together: &mut Together,
        applied: &mut Applied,
    ) -> Result<Taken, ReplicaError> {
        let record = &batch.record;
        let own = record.node == self.me;
        let current = self.is_current(batch);
        if self.is_doubled(batch) {
            return Ok(Taken::Stopped(Stopped::Doubled(record.incarnation)));
        }
        let skipped = self.skips.contains(message.sequence);
        if let Some(reason) = batch.damage.as_ref().filter(|_| !skipped) {
            let bytes = Sealer::new(false, 0).seal(Kind::Commit, &commit::encode(record));
            journal::record_dead_letter(
                &self.conn,
                ShardId::ORDER,
                message.sequence,
                reason,
                &bytes,
            )?;
            applied.dead_letters += 1;
        }
        // Since it was scanned nothing was taken but batches of this incarnation whose folding changed nothing: the database was exactly the fold up to
        // `base` with these changes on top, so folding it comes to what is there.
        let settled = current && record.base >= foreign;
        // What is void comes with a later batch: here it stays pending.
        let void = self.skips.is_void(message.sequence);
        if own && !void && batch.damage.is_none() && (settled || skipped) {
            self.retire(batch, message.sequence, false)?;
        }
        if current {
            applied.echoes.push(record.batch);
        } else if !own {
            applied.scanned_at.push(record.scanned_at);
        }
        if settled || skipped || batch.damage.is_some() {
            return Ok(Taken::Folded { moved: false });
        }
        // Gates open before the echo takes anything out of the change log, so that a closed one leaves all as it was. What comes to nothing needs no gate: the
        // schema may have changed since it was scanned.
        let plans = match self.plans_of(batch) {
            Ok(plans) => plans,
            Err(reason) => return Ok(Taken::Stopped(Stopped::Schema(reason))),
        };
        if own {
            self.retire(batch, message.sequence, false)?;
            let unique = record.tables.iter().any(|t| !t.uniques.is_empty());
            if planted!(EchoSkipped) || (planted!(EchoSkippedWithoutUnique) && !unique) {
                return Ok(Taken::Folded { moved: false });
            }
        }
        match self.fold_in(batch, &plans, message.sequence, together, &mut applied.fold) {
            Ok(moved) => Ok(Taken::Folded { moved }),
            Err(FoldStop::Hold(carrier)) => Ok(Taken::Stopped(Stopped::Hold(carrier))),
            Err(FoldStop::Closed(reason)) => Ok(Taken::Stopped(Stopped::Schema(reason))),
            Err(FoldStop::Sqlite(e)) => Err(e.into()),
            Err(FoldStop::Spool(e)) => Err(e.into()),
        }
    }

    /// How the rows of a batch are written here; the reason where they cannot be.
    pub(super) fn plans_of(&mut self, batch: &IncomingBatch) -> Result<Plans, String> {
        let own = self.is_current(batch);
        let (filter, conn) = (&self.filter, &self.conn);
        let wanted = |t: &str| filter.wants(conn, t);
        open_gates(&self.captured, &wanted, &mut self.plans, &batch.record, own)
    }

    /// Folds a batch under what is pending here; whether that changed anything in the database.
    pub(super) fn fold_in(
        &mut self,
        batch: &IncomingBatch,
        plans: &Plans,
        at: Sequence,
        together: &mut Together,
        stats: &mut FoldStats,
    ) -> Result<bool, FoldStop> {
        let mut ctx = FoldContext {
            conn: &self.conn,
            in_flight: &self.in_flight,
            pending: &mut self.pending,
            me: self.me,
            at,
            together,
            stats,
        };
        fold(&mut ctx, batch, plans)
    }

    /// What of ours a transaction that folds these messages, at least up to `through`, brings back by itself.
    fn together(&self, messages: &[Incoming], through: Sequence) -> Together {
        let last = messages.last().map_or(Sequence(0), |m| m.sequence);
        let through = through.min(last);
        let batch = messages
            .iter()
            .filter(|m| m.sequence <= through)
            .filter_map(|m| self.own_batch(m))
            .max();
        Together {
            batch,
            through,
            ..Together::default()
        }
    }

    /// The number of the batch of this incarnation that the message is, if it is one.
    fn own_batch(&self, message: &Incoming) -> Option<BatchNumber> {
        match &message.body {
            Body::Batch(batch) if self.is_current(batch) => Some(batch.record.batch),
            _ => None,
        }
    }

    /// Where among these messages the one stands that a carrier is.
    #[must_use]
    pub fn echo_in(&self, messages: &[Incoming], carrier: Carrier) -> Option<Sequence> {
        messages
            .iter()
            .find(|m| match carrier {
                Carrier::Former(at) => m.sequence == at,
                Carrier::Batch(batch) => self.own_batch(m) == Some(batch),
            })
            .map(|m| m.sequence)
    }

    fn last_echo_in(&self, messages: &[Incoming]) -> Sequence {
        messages
            .iter()
            .rev()
            .find(|m| self.own_batch(m).is_some())
            .map_or(Sequence(0), |m| m.sequence)
    }

    /// Whether it bears our id and is not ours, nor of a life before: another daemon publishes under our id.
    fn is_doubled(&self, batch: &IncomingBatch) -> bool {
        batch.record.node == self.me
            && !self.is_current(batch)
            && self
                .incarnation
                .is_some_and(|i| batch.record.incarnation.counter >= i.counter)
    }

    fn is_current(&self, batch: &IncomingBatch) -> bool {
        batch.record.node == self.me
            && self.incarnation.is_some_and(|mine| {
                batch.record.incarnation.counter == mine.counter
                    && (batch.record.incarnation.nonce == mine.nonce || planted!(NonceIgnored))
            })
    }

    /// A snapshot tells the batch's publisher, should it need one, that its change log is contained in it.
    fn note_covered(&self, batch: &IncomingBatch, at: Sequence) -> Result<(), ReplicaError> {
        if batch.damage.is_some() {
            return Ok(());
        }
        let rows = self.covers_of(batch, at)?;
        let tables: Vec<String> = batch.record.tables.iter().map(|t| t.name.clone()).collect();
        let record = &batch.record;
        Ok(covered::note(
            &self.conn,
            record.node,
            at,
            record.base,
            &tables,
            &rows,
        )?)
    }

    /// Our batch is back: what it covers is no longer pending.
    fn retire(
        &mut self,
        batch: &IncomingBatch,
        at: Sequence,
        unfolded: bool,
    ) -> Result<(), ReplicaError> {
        if unfolded || !self.is_kept_ahead(at) {
            self.keep_batch(batch, at, unfolded)?;
        }
        for (place, covers) in self.covers_of(batch, at)?.iter().enumerate() {
            let all_covered = self.is_all_covered(at, place);
            let Some(definition) = batch.record.tables.get(covers.table as usize) else {
                continue;
            };
            let gone;
            let table = match self.captured.table_meant(&definition.name) {
                Some(table) if table.log.is_empty() => continue,
                Some(table) => table,
                // Its log outlives it, and would count as on its way for ever where the table is made again.
                None if self.captured.has_dropped(&definition.name)
                    && renames::has_log(&self.conn, &definition.name)? =>
                {
                    gone = CapturedTable::dropped(&definition.name);
                    &gone
                }
                None => continue,
            };
            let pending = self
                .pending
                .entry(table.table.name.to_ascii_lowercase())
                .or_default();
            match retire(&self.conn, table, covers, all_covered)? {
                Retired::UpTo(id) => pending.done_up_to(id),
                Retired::Some => *pending = Default::default(),
            }
        }
        Ok(())
    }

    /// `replicate = false`: our batches leave the change log, nothing is folded and the position stays.
    ///
    /// # Errors
    /// SQLite's; nothing is changed then.
    pub fn apply_echoes_only(
        &mut self,
        messages: &[Incoming],
        patience: Duration,
        stop: &dyn Fn() -> bool,
    ) -> Result<Applied, ReplicaError> {
        let mut applied = Applied::new();
        // Each in its turn: what follows a lost one every reader ignores, and it is sent again after it.
        let mut awaited = self.in_flight.batches.iter().copied().peekable();
        let mut ours: Vec<(Sequence, &IncomingBatch)> = Vec::new();
        for message in messages {
            let Body::Batch(batch) = &message.body else {
                continue;
            };
            if self.is_current(batch) {
                if awaited.next_if_eq(&batch.record.batch).is_some() {
                    ours.push((message.sequence, batch));
                }
            } else if self.is_doubled(batch) {
                // From here on readers ignore what this life sends: nothing of it is done with.
                applied.stopped = Stopped::Doubled(batch.record.incarnation);
                return Ok(applied);
            }
        }
        if !ours.is_empty() {
            let done = self.write(patience, stop, "commit what was sent", |replica| {
                let mut echoes = Vec::with_capacity(ours.len());
                for (at, batch) in ours {
                    replica.retire(batch, at, true)?;
                    node::set_settled(&replica.conn, at)?;
                    echoes.push(batch.record.batch);
                }
                replica.remove_forgotten()?;
                Ok::<_, ReplicaError>(echoes)
            });
            match done {
                Ok(Some(echoes)) => applied.echoes = echoes,
                Ok(None) => {
                    applied.stopped = Stopped::Locked;
                    return Ok(applied);
                }
                Err(e) => {
                    self.reload()?;
                    return Err(e);
                }
            }
            self.in_flight.forgotten.clear();
            if let Some(last) = applied.echoes.iter().max() {
                self.in_flight.echoed(*last);
            }
        }
        applied.consumed = messages.len();
        Ok(applied)
    }
}

/// Whether what a carrier brings was folded.
fn came(carrier: Carrier, applied: &Applied, position: Sequence) -> bool {
    match carrier {
        Carrier::Former(at) => at <= position,
        Carrier::Batch(batch) => applied.echoes.iter().any(|e| *e >= batch),
    }
}
