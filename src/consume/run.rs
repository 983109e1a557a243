//! The inbound loop: takes what the intake has ready, applies it in groups, and tells the publisher what came back.
//!
//! Invariants: a message leaves the queue only when its group is committed; nothing ends this loop but the end of the daemon: a locked
//! database, a full disk, a schema that is behind are waited for, visibly.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::braking::Braking;
use super::intake::{QUEUE, Waiting};
use super::lock_sharing::LockSharing;
use super::markers;
use crate::apply::incoming::{Body, Incoming};
use crate::change::position::{Sequence, ShardId};
use crate::changelog::in_flight::Carrier;
use crate::cli::exit::ExitCode;
use crate::codec::sequence_map::{self, SequenceMap};
use crate::codec::spool;
use crate::engine::Engine;
use crate::http::status::{Component, Loop};
use crate::replica::group::{Applied, ApplyOptions, Stopped};
use crate::replica::{Replica, ReplicaError};
use crate::runtime::Backoff;
use crate::sqlite::connection;
use crate::sqlite::error::Fault;

/// How long we wait for the write lock before letting the other loop have the replica.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);

/// How long a batch that would make our own flicker is held back for our echo.
const HOLD_BATCH: Duration = Duration::from_secs(2);

/// Messages applied in one call at most.
const GROUP: usize = 1024;

/// Messages gathered at most while one that carries our own changes is waited for, to be applied together with those before it.
const GROUP_HELD: usize = 4 * GROUP;

/// How often a batch that is held back is looked at.
const HOLD_STEP: Duration = Duration::from_millis(5);

/// How long our own echoes may wait to be folded together, or with what comes from others, how many, and of how many rows: each transaction takes the write lock for a
/// moment that the app may want, and one that falls between what an app's transaction reads and what it writes costs it a `database is locked`.
const ECHO_REST: Duration = Duration::from_millis(250);
const ECHO_REST_AWAITED: Duration = Duration::from_millis(20);
const ECHOES: usize = 64;
const ECHO_ROWS: u64 = 4096;

/// How often is looked whether somebody waits for them.
const ECHO_LOOK: Duration = Duration::from_millis(10);

/// How long pieces alone may wait for company before they move the position.
const IDLE: Duration = Duration::from_millis(500);

/// How often the sequence map and the gauges are brought up to date.
const MIRROR: Duration = Duration::from_secs(1);

/// How often a paused node looks whether its schema has changed.
const LOOK_AT_SCHEMA: Duration = Duration::from_millis(100);

/// Its name in health and in the log.
const LOOP: &str = Loop::Consume.name();

/// From when it is told that another process holds the database: longer than an app's transaction lasts.
const LOCKED: Duration = Duration::from_secs(5);

/// The inbound loop.
pub struct ConsumeLoop {
    engine: Arc<Engine>,
    runtime: Handle,
    inbox: mpsc::Receiver<Waiting>,
    /// Opened messages, and what holds their bytes in the queue.
    messages: Vec<Incoming>,
    permits: Vec<tokio::sync::OwnedSemaphorePermit>,
    /// What the first message waits for, and since when.
    holding: Option<(Carrier, Instant)>,
    /// Everything up to this was waited for in vain: until it comes, nothing more is held back for it.
    given_up: Option<Carrier>,
    /// When the oldest message that waits came.
    since: Option<Instant>,
    /// Leaves the write lock to the app in between.
    lock: LockSharing,
    mirrored: Option<(Instant, Sequence)>,
    /// What an operator holds back.
    braking: Braking,
    /// Since when the database has been locked by others, and whether that was told.
    locked: Option<(Instant, bool)>,
    tidied: Instant,
    backoff: Backoff,
}

impl ConsumeLoop {
    /// A loop over what the intake sends.
    #[must_use]
    pub fn new(engine: Arc<Engine>, runtime: Handle, inbox: mpsc::Receiver<Waiting>) -> Self {
        Self {
            braking: Braking::new(Arc::clone(&engine)),
            engine,
            runtime,
            inbox,
            messages: Vec::new(),
            permits: Vec::new(),
            holding: None,
            given_up: None,
            since: None,
            lock: LockSharing::default(),
            mirrored: None,
            locked: None,
            tidied: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(2)),
        }
    }

    /// Runs until `finished` says that nothing more is wanted.
    pub fn run(mut self, finished: &dyn Fn() -> bool) {
        let depth = self.engine.metrics.queues.queue("apply", QUEUE).ok();
        while !finished() {
            self.engine.status.progress(Loop::Consume);
            self.mirror(false);
            {
                let _step = self.engine.status.step(LOOP, "tidy");
                self.tidy();
            }
            if let Some(depth) = &depth {
                depth
                    .set(i64::try_from(self.messages.len() + self.inbox.len()).unwrap_or(i64::MAX));
            }
            if self.braking.is_on() || !self.receive() {
                continue;
            }
            let status = self.engine.status.clone();
            let _step = status.step(LOOP, "apply");
            self.apply();
        }
        self.mirror(true);
        self.engine.status.ended(Loop::Consume);
    }

    /// Gathers messages; `false` if there is nothing to be applied yet.
    fn receive(&mut self) -> bool {
        while self.messages.len() < self.most() {
            match self.inbox.try_recv() {
                Ok(w) => self.push(w),
                Err(_) => break,
            }
        }
        let now = Instant::now();
        let due = self.due(now);
        if due.is_some_and(|due| due <= now) {
            return true;
        }
        let longest = if self.rests() { ECHO_LOOK } else { IDLE };
        let until = due.map_or(now + longest, |due| due.min(now + longest));
        if self.messages.len() >= self.most() {
            std::thread::sleep(until - now);
            return false;
        }
        match self
            .runtime
            .block_on(async { tokio::time::timeout_at(until.into(), self.inbox.recv()).await })
        {
            Ok(Some(w)) => self.push(w),
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => {}
        }
        false
    }

    /// When what waits is to be applied.
    fn due(&self, now: Instant) -> Option<Instant> {
        let first = self.since?;
        let others = self.has_others();
        if self.engine.shutdown.is_requested() {
            return Some(now);
        }
        let rows = self.own_rows();
        let full = self.messages.len() >= ECHOES || rows >= ECHO_ROWS;
        let due = if self.holding.is_some() || others || full {
            now
        } else if rows > 0 && self.engine.echoes_are_awaited() {
            first + ECHO_REST_AWAITED
        } else if rows > 0 {
            first + ECHO_REST
        } else {
            first + IDLE
        };
        let limited = self.braking.next(now).filter(|_| others);
        Some(self.lock.not_before(due).max(limited.unwrap_or(due)))
    }

    /// Whether anything waits but our own batches.
    fn has_others(&self) -> bool {
        let me = self.engine.config.node_id;
        self.messages.iter().any(|m| match &m.body {
            Body::Batch(b) => b.record.node.0 != me,
            Body::Payload => false,
            Body::Marker(_) | Body::Unreadable { .. } | Body::Newer(_) => true,
        })
    }

    /// How many rows our own batches carry that wait.
    fn own_rows(&self) -> u64 {
        let rows = |m: &Incoming| match &m.body {
            Body::Batch(b) => b.record.row_count.max(1),
            _ => 0,
        };
        self.messages.iter().map(rows).sum()
    }

    /// Whether what waits is our own batches, whose time has not come.
    fn rests(&self) -> bool {
        self.own_rows() > 0 && self.messages.len() < self.most()
    }

    fn push(&mut self, waiting: Waiting) {
        let (message, permit) = waiting.into_parts();
        if let Body::Batch(b) = &message.body
            && b.record.node.0 == self.engine.config.node_id
        {
            self.engine.arrived(b.record.batch);
        }
        tracing::trace!(
            shard = ShardId::ORDER.0,
            seq = message.sequence.0,
            "a message came"
        );
        self.since.get_or_insert_with(Instant::now);
        self.messages.push(message);
        self.permits.push(permit);
    }

    fn apply(&mut self) {
        let engine = Arc::clone(&self.engine);
        let shutdown = engine.shutdown.clone();
        let stop = move || shutdown.is_forced();
        let mut given_up = false;
        if let Some((carrier, since)) = self.holding {
            given_up = self.in_vain(carrier, since);
            if !given_up && !self.has_come(carrier) {
                self.lock.leave_for(HOLD_STEP);
                return;
            }
        }
        let options = ApplyOptions {
            max_time: self.lock.hold(self.has_others()),
            given_up,
            patience: LOCK_PATIENCE,
            stop: &stop,
        };
        let result = if engine.config.replicate {
            // Before the replica is held: choosing looks at it.
            let group = self.group(given_up);
            let mut replica = engine.replica();
            if replica.applying_waits() {
                drop(replica);
                self.lock.leave_for(HOLD_STEP);
                return;
            }
            replica.apply(group, &options)
        } else {
            engine
                .replica()
                .apply_echoes_only(&self.messages, LOCK_PATIENCE, &stop)
        };
        match result {
            Ok(applied) => self.applied(&applied),
            Err(e) => self.failed(&e),
        }
    }

    /// The messages that may be folded together: up to a marker that a comparison awaits, unless what is waited for stands behind it.
    fn group(&self, given_up: bool) -> &[Incoming] {
        let group = self
            .braking
            .within(markers::up_to_marker(&self.engine, &self.messages));
        match self.holding {
            Some((carrier, _)) if !given_up && !self.is_in(group, carrier) => &self.messages,
            _ => group,
        }
    }

    /// Whether what is waited for is here.
    fn has_come(&self, carrier: Carrier) -> bool {
        self.is_in(&self.messages, carrier)
    }

    /// Whether what is waited for is among these messages.
    fn is_in(&self, messages: &[Incoming], carrier: Carrier) -> bool {
        self.engine.replica().echo_in(messages, carrier).is_some()
    }

    /// Whether others' changes have waited long enough for it: it may never come.
    fn in_vain(&mut self, carrier: Carrier, since: Instant) -> bool {
        let landed = self.engine.landed().0;
        self.given_up = self.given_up.filter(|g| match g {
            Carrier::Batch(batch) => *batch > landed,
            Carrier::Former(_) => true,
        });
        if self.given_up.is_some_and(|g| carrier <= g) || self.engine.shutdown.is_requested() {
            return true;
        }
        let full = self.messages.len() >= self.most() && !self.has_come(carrier);
        if !full && since.elapsed() < HOLD_BATCH {
            return false;
        }
        self.engine.metrics.holds_given_up.inc();
        self.given_up = Some(carrier);
        true
    }

    /// How many messages are gathered: more, where one of them is waited for.
    fn most(&self) -> usize {
        if self.holding.is_some() {
            GROUP_HELD
        } else {
            GROUP
        }
    }

    fn applied(&mut self, applied: &Applied) {
        let engine = Arc::clone(&self.engine);
        let passed = applied
            .consumed
            .checked_sub(1)
            .and_then(|i| self.messages.get(i))
            .map(|m| m.sequence);
        let done = applied.consumed.min(self.messages.len());
        markers::folded(&engine, self.messages.get(..done).unwrap_or_default());
        self.messages.drain(..done);
        self.permits
            .drain(..applied.consumed.min(self.permits.len()));
        self.since = (!self.messages.is_empty()).then(Instant::now);
        self.lock.held(applied.held, applied.contended);
        if !applied.scanned_at.is_empty() {
            self.braking.spend(applied.fold.rows);
        }
        if applied.stopped != Stopped::Locked {
            self.locked = None;
        }
        if let Some(passed) = passed {
            tracing::debug!(
                shard = ShardId::ORDER.0,
                seq = passed.0,
                messages = done,
                own = applied.echoes.len(),
                rows = applied.fold.rows,
                duration = applied.held.as_secs_f64(),
                "folded messages"
            );
            engine.echo(&applied.echoes, passed);
            self.measure(applied);
            engine.status.recovered(Component::Database);
            engine.status.recovered(Component::Apply);
            self.backoff.reset();
        }
        match applied.stopped {
            Stopped::Hold(carrier) if self.holding.is_none_or(|(c, _)| c != carrier) => {
                self.holding = Some((carrier, Instant::now()));
            }
            Stopped::Hold(_) | Stopped::Locked => {}
            _ => self.holding = None,
        }
        let paused = match &applied.stopped {
            Stopped::No => None,
            Stopped::Locked => {
                let (since, told) = self.locked.get_or_insert((Instant::now(), false));
                // An application may write for a while without anything being wrong.
                if since.elapsed() >= LOCKED {
                    engine.status.failed(
                        Component::Apply,
                        "the database is locked by another process",
                    );
                }
                if since.elapsed() >= LOCKED && !std::mem::replace(told, true) {
                    tracing::warn!(
                        duration = since.elapsed().as_secs_f64(),
                        "database is locked by another process: changes of other nodes wait for it; end the transaction that is open there"
                    );
                }
                return;
            }
            Stopped::Hold(_) => {
                self.lock.leave_for(HOLD_STEP);
                return;
            }
            Stopped::Schema(reason) => Some((
                format!("waiting for a change of the schema here: {reason}"),
                "schema",
            )),
            Stopped::Newer(version) => Some((
                format!(
                    "a message has format version {version}, which this program does not know: upgrade harmonylite on this node"
                ),
                "format",
            )),
            Stopped::Doubled(incarnation) => {
                let text = format!(
                    "another daemon publishes under this node's id {} (incarnation {incarnation}): give each node its own node_id; stopping",
                    engine.config.node_id
                );
                engine.fail(ExitCode::TempFail, text);
                return;
            }
        };
        engine
            .metrics
            .schema_mismatch_paused
            .set(i64::from(matches!(applied.stopped, Stopped::Schema(_))));
        engine
            .metrics
            .apply_paused
            .set(paused.as_ref().map(|(_, kind)| *kind));
        engine.status.set_schema_paused(match &applied.stopped {
            Stopped::Schema(reason) => Some(reason.clone()),
            _ => None,
        });
        if let Some((reason, _)) = paused {
            if self.backoff.tries() == 0 {
                tracing::error!(
                    position = engine.replica().position().sequence.0,
                    "applying is paused, {reason}; it goes on by itself then"
                );
            }
            engine.status.set_apply_paused(Some(reason));
            let _ = self.backoff.next_wait();
            self.wait_for_schema();
        } else if !engine.is_halted() {
            engine.status.set_apply_paused(None);
        }
    }

    /// Until the schema changes, an operator steps in, a message comes that may matter to shutdown, or a while has passed.
    fn wait_for_schema(&self) {
        const AT_LONGEST: Duration = Duration::from_secs(5);
        let Ok(reader) = connection::open_reader(&self.engine.config.db_path) else {
            return;
        };
        let before = self.engine.replica().captured().schema_version;
        let prompts = self.engine.prompts();
        let since = Instant::now();
        while since.elapsed() < AT_LONGEST && !self.engine.shutdown.is_requested() {
            self.engine.status.progress(Loop::Consume);
            // An operator has told this node what to skip.
            if self.engine.prompts() != prompts {
                return;
            }
            // The publishing loop may have taken the new schema into account already.
            let now = connection::schema_version(&reader).unwrap_or(before);
            if now != before || self.engine.replica().captured().schema_version != before {
                tracing::debug!("the schema has changed: what waits for it is tried again");
                return;
            }
            let _ = self.engine.shutdown.wait_timeout(LOOK_AT_SCHEMA);
        }
    }

    fn failed(&mut self, error: &ReplicaError) {
        let busy = matches!(error, ReplicaError::Sqlite(e) if matches!(e.fault(), Fault::Busy | Fault::Schema));
        self.engine.status.failed(Component::Database, error);
        if !busy && self.backoff.tries() == 0 {
            let remedy = match error {
                ReplicaError::Sqlite(e) => e.remedy().unwrap_or_default(),
                _ => "",
            };
            tracing::error!(error = %error, remedy, "could not apply changes; trying again, nothing is lost");
        }
        let wait = self.backoff.next_wait();
        if self.engine.shutdown.is_requested() {
            std::thread::sleep(wait.min(Duration::from_millis(100)));
        } else {
            let _ = self.engine.shutdown.wait_timeout(wait);
        }
    }

    fn measure(&self, applied: &Applied) {
        let m = &self.engine.metrics;
        let foreign = applied.scanned_at.len() as u64;
        m.batches_applied.inc_by(foreign);
        m.echoes.inc_by(applied.echoes.len() as u64);
        if foreign > 0 {
            m.rows_applied.inc_by(applied.fold.rows);
            self.engine.status.replicated();
        }
        m.apply_transaction.observe(applied.held.as_secs_f64());
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX));
        for at in &applied.scanned_at {
            m.commit_to_applied
                .observe(Duration::from_micros(now.saturating_sub(*at)).as_secs_f64());
        }
        for (reason, n) in &applied.ignored {
            match *reason {
                "duplicate" => m.ignored_duplicate.inc_by(*n),
                "gap" => m.ignored_gap.inc_by(*n),
                _ => m.ignored_stale_incarnation.inc_by(*n),
            }
        }
        for (reason, n) in &applied.fold.conflicts {
            m.conflicts.inc_by(reason, *n);
        }
        if applied.dead_letters > 0 {
            tracing::error!(
                messages = applied.dead_letters,
                "messages that no node can read went to the dead-letter journal: harmonylite dead-letters list shows them"
            );
            let letters = self.engine.replica().dead_letters();
            self.engine
                .set_dead_letters(letters.unwrap_or(applied.dead_letters));
        }
    }

    /// Brings the sequence map and the slow gauges up to date.
    fn mirror(&mut self, now: bool) {
        if !now && self.mirrored.is_some_and(|(at, _)| at.elapsed() < MIRROR) {
            return;
        }
        let (position, map) = {
            let mut replica = self.engine.replica();
            self.look_at_kept(&mut replica);
            self.look_at_triggers(&replica);
            let position = replica.position().sequence;
            let map = SequenceMap {
                version: sequence_map::VERSION,
                node_id: replica.node_id().to_string(),
                database_id: replica.database_id().to_owned(),
                sequences: [(ShardId::ORDER.0, position)].into(),
            };
            (position, map)
        };
        if self.mirrored.is_none_or(|(_, written)| written != position)
            && let Err(e) = sequence_map::write(&self.engine.config.seq_map_path, &map)
        {
            tracing::warn!(error = %e, "the sequence map is not up to date; the positions in the database are");
        }
        self.mirrored = Some((Instant::now(), position));
    }

    /// What is kept is on the disk at most a second after it was published, and holds publishing up at its bound.
    fn look_at_kept(&self, replica: &mut Replica) {
        if let Err(e) = replica.sync_kept() {
            tracing::warn!(error = %e, "what is kept of published changes may not survive a loss of power");
        }
        let m = &self.engine.metrics;
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        m.history.set(number(replica.history().number));
        m.spool_bytes.set(number(spool::on_disk()));
        if let Some(kept) = replica.kept() {
            m.kept_bytes.set(number(kept.bytes()));
            m.kept_batches.set(number(kept.batches()));
            let limit = self.engine.config.replication_log.kept_max_bytes;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            if let Ok(depth) = m.queues.queue("kept_bytes", limit) {
                depth.set(number(kept.bytes()));
            }
            self.engine.gate.set_keeps_all(kept.is_full());
        }
    }

    fn look_at_triggers(&self, replica: &Replica) {
        let failing = replica.failing_triggers();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let m = &self.engine.metrics;
        m.app_triggers
            .set(number(replica.captured().triggers.len()));
        m.app_triggers_failing
            .set(number(failing.as_ref().map_or(0, |(count, _)| *count)));
        self.engine
            .status
            .set_triggers(failing.map(|(_, sentence)| sentence));
    }

    fn tidy(&mut self) {
        let settings = self.engine.settings.now();
        if self.tidied.elapsed() < settings.cleanup_interval {
            return;
        }
        self.tidied = Instant::now();
        let mut replica = self.engine.replica();
        replica.keep_journals(settings.journals.clone());
        if let Err(e) = replica.tidy(LOCK_PATIENCE, &|| false) {
            tracing::debug!(error = %e, "could not tidy; trying again later");
        }
    }
}
