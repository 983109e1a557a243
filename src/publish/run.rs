//! The outbound loop: wait for a commit of the app, scan, send, wait for the acknowledgement. What the app commits meanwhile gathers and makes the next
//! batch larger, up to a few hundred rows (`changelog::cut`), so batching adapts to load by itself. Acknowledged batches are kept until their echo is folded, which may happen for many at once.
//!
//! Invariants: an acknowledgement is a hint, the echo is the fact; until it comes the same bytes are sent again; nothing here ever gives a change up.
//! The loop runs from the first moment, broker or not, since it also keeps capture current when the schema changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGauge;
use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::flying::FlyingBatches;
use super::gate::{Closed, NoRoom};
use super::outbox::Outbox;
use super::round_trips::RoundTrips;
use super::sampler::Sampler;
use crate::brakes::{Pace, Part};
use crate::capture::Captured;
use crate::change::position::{Sequence, ShardId};
use crate::changelog::commit_points::Noticed;
use crate::changelog::cut::{self, Cutter};
use crate::changelog::in_flight::WINDOW as WINDOW_BATCHES;
use crate::changelog::scan::{ScanError, Scanned};
use crate::changelog::watch::Watch;
use crate::codec::batch::Limits;
use crate::codec::spool::Spool;
use crate::engine::Engine;
use crate::http::status::{Component, Loop};
use crate::runtime::Backoff;
use crate::sqlite::connection;
use crate::sqlite::error::{Fault, SqliteError};
use crate::stream::{Broker, PublishError};

/// Payload messages in flight at once. With half a megabyte each this fills any network and holds 8 MB.
const WINDOW: usize = 16;

/// How long an acknowledgement may take before the message is sent again.
const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// How long the loop sleeps at most before it looks at everything again.
const LOOK: Duration = Duration::from_millis(500);

/// How long we wait for the write lock before letting the other loop have the replica.
const LOCK_PATIENCE: Duration = Duration::from_millis(250);

/// Bytes of batches that are kept until their echo; beyond it the next scan waits.
const KEPT_BYTES: u64 = 8 << 20;

/// How often it is asked whether a comparison still wants publishing to wait.
const CALM_STEP: Duration = Duration::from_millis(5);

/// How often batches in flight are looked at.
const LOOK_AT_FLYING: Duration = Duration::from_millis(50);

/// From how many rows in a batch on there may soon be more than one is to hold.
const MANY: u64 = cut::GOAL_ROWS / 4;

/// Its name in health and in the log.
const LOOP: &str = Loop::Publish.name();

/// The outbound loop.
pub struct PublishLoop {
    engine: Arc<Engine>,
    runtime: Handle,
    reader: Connection,
    watch: Watch,
    /// The app has committed something that no scan has seen.
    unseen: bool,
    /// When the first of that was noticed.
    noticed: Option<Noticed>,
    /// Where long change logs are cut into batches.
    cutter: Cutter,
    /// Notes where that may be.
    sampler: Sampler,
    /// How long the last batches took to be acknowledged.
    round_trips: RoundTrips,
    /// Batches whose echo has not been folded, oldest first.
    flying: FlyingBatches,
    /// Keeps to an operator's limit.
    pace: Pace,
    /// Paces resends.
    resend: Backoff,
    /// How often the connection had been made anew when we last looked.
    reconnects: u64,
    /// What health shows of capture.
    shown: Option<Arc<Captured>>,
    /// Batches in flight, and their bytes, for metrics.
    depth: Option<(IntGauge, IntGauge)>,
}

impl PublishLoop {
    /// A loop over the engine's database.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new(engine: Arc<Engine>, runtime: Handle) -> Result<Self, SqliteError> {
        let path = engine.config.db_path.clone();
        let reader = connection::open_reader(&path)?;
        let interval = Some(engine.config.polling_interval).filter(|i| !i.is_zero());
        let queues = &engine.metrics.queues;
        let batches = queues.queue("in_flight", WINDOW_BATCHES).ok();
        let bytes = queues.queue("in_flight_bytes", usize::try_from(KEPT_BYTES).unwrap_or(0));
        let cutter = Cutter::default();
        Ok(Self {
            sampler: Sampler::new(&path, cutter.points())?,
            cutter,
            round_trips: RoundTrips::default(),
            depth: batches.zip(bytes.ok()),
            watch: Watch::new(&path, interval),
            engine,
            runtime,
            reader,
            unseen: true,
            noticed: None,
            flying: FlyingBatches::default(),
            pace: Pace::default(),
            resend: Backoff::new(Duration::from_millis(50), Duration::from_secs(3)),
            reconnects: 0,
            shown: None,
        })
    }

    /// Runs until a stop is requested and everything is published, or until the stop is forced.
    pub fn run(mut self) {
        let engine = Arc::clone(&self.engine);
        // The kernel may end a sleep 50 µs late by default, longer than the pauses between the looks for a commit.
        let _ = nix::sys::prctl::set_timerslack(1_000);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        let mut draining = false;
        while !engine.shutdown.is_forced() {
            engine.status.progress(Loop::Publish);
            // Asked before the round: one that began earlier may have missed the app's last commit, or the broker.
            if engine.shutdown.is_requested() && !draining {
                draining = true;
                self.unseen = true;
            }
            match self.step() {
                Ok(true) => backoff.reset(),
                // Draining: nothing is left.
                Ok(false) if draining && self.flying.is_empty() => break,
                Ok(false) => backoff.reset(),
                Err(e) => self.report(&e, &mut backoff),
            }
            self.show_in_flight();
        }
        engine.status.ended(Loop::Publish);
    }

    /// One round; `false` if there was nothing to send.
    fn step(&mut self) -> Result<bool, ScanError> {
        let stopping = self.engine.shutdown.is_requested();
        self.land();
        if !self.unseen {
            let shutdown = self.engine.shutdown.clone();
            let wait = if self.flying.is_empty() && !stopping {
                LOOK
            } else {
                LOOK_AT_FLYING
            };
            self.unseen = self.watch.wait(&self.reader, Instant::now() + wait, &|| {
                shutdown.is_requested() != stopping
            })?;
        }
        if self.unseen {
            self.noticed.get_or_insert_with(Noticed::now);
            let _step = self.engine.status.step(LOOP, "capture");
            self.keep_capture_current()?;
        }
        let broker = self
            .engine
            .broker()
            .filter(|b| b.is_connected() && !self.engine.is_halted());
        let Some(broker) = broker else {
            self.sampler.want(self.shown.as_ref());
            // The change log holds everything until the broker is there.
            std::thread::sleep(LOOK_AT_FLYING);
            if stopping {
                self.flying.clear();
            }
            return Ok(false);
        };
        let reconnects = broker.reconnects();
        if std::mem::replace(&mut self.reconnects, reconnects) != reconnects {
            self.flying.doubt();
        }
        if !self.resend_lost(&broker) {
            return Ok(true);
        }
        let full = self.flying.len() >= WINDOW_BATCHES || self.flying.raw_bytes() > KEPT_BYTES;
        if !self.unseen || full {
            self.sampler
                .want(self.shown.as_ref().filter(|_| self.unseen));
            if let Some(first) = self.flying.first().filter(|_| self.unseen) {
                // An echo makes room; while applying is paused none comes.
                let _ = self.engine.wait_echo(first, LOOK_AT_FLYING);
            }
            return Ok(self.unseen);
        }
        if self.is_braked(stopping) {
            return Ok(false);
        }
        if !stopping && self.engine.comparisons.want_calm() {
            std::thread::sleep(CALM_STEP);
            return Ok(false);
        }
        if let Some(closed) = self.engine.gate.closed() {
            self.hold_back(closed);
            return Ok(false);
        }
        self.engine.metrics.publish_held_back.set(0);
        // What is committed from here on may be for the next batch.
        let (before, now) = (self.noticed, Noticed::now());
        let scanned = {
            let _step = self.engine.status.step(LOOP, "scan");
            self.scan(&broker)?
        };
        let busy = scanned.cut.is_some() || scanned.log_rows >= MANY;
        self.sampler.want(self.shown.as_ref().filter(|_| busy));
        let rest = scanned.cut.map(|cut| cut.noticed);
        let Some(mut batch) = scanned.batch else {
            self.unseen = rest.is_some();
            self.noticed = rest;
            self.engine.status.recovered(Component::Publish);
            return Ok(self.unseen);
        };
        self.engine.sending(batch.record.batch);
        self.pace.spend(batch.record.row_count, Instant::now());
        self.noticed = Some(rest.unwrap_or(now));
        let since = before.unwrap_or(now).not_before(self.engine.way.settled());
        // It may have waited for the broker: the others are to see for how long.
        batch.record.scanned_at = batch.record.scanned_at.min(since.micros);
        self.flying.push(batch, since.at);
        self.resend_lost(&broker);
        Ok(true)
    }

    /// An operator has told this node to publish nothing new, or no more than so many rows a second. A stop does not wait for a limit.
    fn is_braked(&mut self, stopping: bool) -> bool {
        let brakes = &self.engine.brakes;
        let paused = brakes.is_paused(Part::Publish);
        let now = Instant::now();
        let next = self.pace.next(brakes.limit(Part::Publish), now);
        let until = match next.filter(|_| !stopping) {
            Some(next) => next.min(now + LOOK_AT_FLYING),
            None if paused => now + LOOK_AT_FLYING,
            None => return false,
        };
        self.sampler.want(self.shown.as_ref());
        self.engine.metrics.publish_held_back.set(1);
        // What held it back before may be over; a trouble would be shown as one that lasts.
        self.engine.status.recovered(Component::Publish);
        std::thread::sleep(until - now);
        true
    }

    /// The change log holds what is new until a snapshot has made room.
    fn hold_back(&mut self, closed: Closed) {
        self.sampler.want(self.shown.as_ref());
        let engine = &self.engine;
        if engine.metrics.publish_held_back.get() == 0 {
            engine.metrics.publish_held_back.set(1);
            tracing::warn!("nothing new is published: {}", closed.words());
        }
        engine.status.failed(Component::Publish, closed.words());
        std::thread::sleep(LOOK_AT_FLYING);
    }

    /// Batches whose echo was folded are done with.
    fn land(&mut self) {
        let (echoed, passed) = self.engine.landed();
        if let Some(lost) = self.flying.land(echoed, passed) {
            tracing::warn!(
                batch = lost.0,
                "an acknowledged batch is not in the stream: it is sent again"
            );
        }
    }

    /// Sends, in order, what is not acknowledged; `false` if it is not to be had now: then nothing new is begun.
    fn resend_lost(&mut self, broker: &Broker) -> bool {
        let engine = Arc::clone(&self.engine);
        while let Some(flying) = self.flying.unacknowledged() {
            let number = flying.number();
            let _step = engine.status.step(LOOP, "send");
            let begun = Instant::now();
            let sent = send(&self.runtime, &engine, broker, &mut flying.outbox);
            if matches!(sent, Ok(_) | Err(SendError::Publish(_)))
                && std::mem::replace(&mut flying.sent, true)
            {
                engine.metrics.resends.inc();
            }
            match sent {
                Ok(at) => {
                    flying.acknowledged = Some(at);
                    self.round_trips.note(begun.elapsed());
                    self.resend.reset();
                    engine.status.recovered(Component::Publish);
                    if !std::mem::replace(&mut flying.counted, true) {
                        let batch = flying.outbox.batch();
                        engine.gate.spend(&flying.outbox.shares());
                        engine.metrics.batches_published.inc();
                        engine
                            .metrics
                            .parts_published
                            .inc_by(flying.outbox.parts() as u64);
                        engine
                            .metrics
                            .commit_to_publish
                            .observe(flying.since.elapsed().as_secs_f64());
                        engine.metrics.rows_published.inc_by(batch.record.row_count);
                        engine.metrics.published_bytes_raw.inc_by(batch.raw_bytes);
                        engine
                            .metrics
                            .published_bytes_sent
                            .inc_by(flying.outbox.sent_bytes());
                        engine.status.published();
                        tracing::debug!(
                            batch = number.0,
                            shard = ShardId::ORDER.0,
                            seq = at.0,
                            rows = batch.record.row_count,
                            bytes = flying.outbox.sent_bytes(),
                            duration = begun.elapsed().as_secs_f64(),
                            "published a batch"
                        );
                    }
                }
                Err(e) => {
                    engine.metrics.publish_retries.inc();
                    engine.status.failed(Component::Publish, &e);
                    if self.resend.tries() == 0 {
                        tracing::warn!(batch = number.0, error = %e, "a batch was not acknowledged; it is sent again until it comes back");
                    }
                    // Without an acknowledgement it may be there all the same: its echo then says so.
                    let _ = engine.wait_echo(number, self.resend.next_wait());
                    return false;
                }
            }
        }
        true
    }

    /// How much is on its way, and since when.
    fn show_in_flight(&self) {
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        if let Some((batches, bytes)) = &self.depth {
            batches.set(number(self.flying.len() as u64));
            bytes.set(number(self.flying.raw_bytes()));
        }
        let noticed = self.noticed.map(|n| n.at);
        self.engine
            .way
            .set_unconfirmed_since(self.flying.since().or(noticed));
    }

    /// New and altered tables get their triggers at once.
    fn keep_capture_current(&mut self) -> Result<(), SqliteError> {
        let version = connection::schema_version(&self.reader)?;
        let shutdown = self.engine.shutdown.clone();
        loop {
            // Taken anew for each try, so that the other loop and a stop get their turn while an app holds the lock.
            let mut replica = self.engine.replica();
            if replica.captured().schema_version == version {
                // The other loop may have been the one to notice.
                let captured = Arc::clone(replica.captured());
                drop(replica);
                self.engine.status.recovered(Component::Capture);
                self.show(&captured);
                return Ok(());
            }
            if !replica.refresh_capture(LOCK_PATIENCE, &|| shutdown.is_requested())? {
                if shutdown.is_requested() {
                    return Ok(());
                }
                // Waiting for the application is no standstill, however long a migration takes.
                let status = &self.engine.status;
                status.progress(Loop::Publish);
                status.failed(
                    Component::Capture,
                    "the database is locked by another process",
                );
                continue;
            }
            let captured = Arc::clone(replica.captured());
            drop(replica);
            self.show(&captured);
            self.engine.status.recovered(Component::Capture);
            tracing::info!(
                tables = captured.tables.len(),
                "capture is current with the changed schema"
            );
            return Ok(());
        }
    }

    /// Health shows what is captured.
    fn show(&mut self, captured: &Arc<Captured>) {
        if self
            .shown
            .as_ref()
            .is_some_and(|s| Arc::ptr_eq(s, captured))
        {
            return;
        }
        let status = &self.engine.status;
        status.set_capture(self.engine.config.publish, captured.tables.len() as u64);
        status.set_schema(&captured.schema_hash());
        self.shown = Some(Arc::clone(captured));
    }

    fn scan(&mut self, broker: &Broker) -> Result<Scanned, ScanError> {
        let log = &self.engine.settings.now().replication_log;
        let limits = Limits {
            max_payload: broker.max_payload(),
            shards: log.shards,
            compress: log.compress,
            compress_min_bytes: log.compress_min_bytes,
        };
        let folder = self.engine.config.folder().to_owned();
        let spool = Arc::new(Spool::new(folder));
        // Commits after this are for the next scan: asked before the scan begins its snapshot.
        self.watch.changed(&self.reader)?;
        self.cutter.set_goal(self.round_trips.goal());
        let started = Instant::now();
        let scanned = {
            let mut replica = self.engine.replica();
            let scanned = replica.scan(&self.reader, limits, &spool, &mut self.cutter)?;
            if replica.needs_tidying() && scanned.batch.is_none() {
                replica.tidy(LOCK_PATIENCE, &|| false)?;
            }
            scanned
        };
        if scanned.log_rows > 0 {
            self.engine
                .metrics
                .scan_changes
                .observe(started.elapsed().as_secs_f64());
        }
        for (table, rows) in &scanned.null_keys {
            tracing::warn!(
                table,
                rows,
                "rows with NULL in their primary key are not replicated: no other node could tell which row is meant"
            );
        }
        Ok(scanned)
    }

    fn report(&mut self, error: &ScanError, backoff: &mut Backoff) {
        match error {
            // Capture is made current at the next step.
            ScanError::SchemaChanged => {
                self.unseen = true;
                return;
            }
            ScanError::Sqlite(e) if matches!(e.fault(), Fault::Busy | Fault::Schema) => {}
            _ => {
                if backoff.tries() == 0 {
                    let remedy = match error {
                        ScanError::Sqlite(e) => e.remedy().unwrap_or_default(),
                        ScanError::SchemaChanged | ScanError::State(_) | ScanError::Spool(_) => "",
                    };
                    tracing::error!(error = %error, remedy, "could not read the changes of the database; trying again");
                }
                self.engine.status.failed(Component::Publish, error);
            }
        }
        self.unseen = true;
        if self.engine.shutdown.is_requested() {
            std::thread::sleep(backoff.next_wait().min(Duration::from_millis(200)));
        } else {
            let _ = self.engine.shutdown.wait_timeout(backoff.next_wait());
        }
    }
}

/// Sends what is missing of a batch's payload, then its commit record. Returns where the record stands.
fn send(
    runtime: &Handle,
    engine: &Engine,
    broker: &Broker,
    outbox: &mut Outbox,
) -> Result<Sequence, SendError> {
    // The leader keeps payload for nodes that it knows to be there.
    let missing = outbox.missing();
    if !missing.is_empty() && !engine.gate.is_present(Instant::now()) {
        return Err(SendError::Unannounced);
    }
    if outbox.since().is_none() {
        engine.gate.ask(&outbox.shares())?;
    }
    for window in missing.chunks(WINDOW) {
        let mut messages = Vec::with_capacity(window.len());
        for &number in window {
            if let Some((shard, message)) = outbox.piece(number)? {
                messages.push((number, shard, message));
            }
        }
        let sent = Instant::now();
        let stored = runtime.block_on(async {
            let mut sending = JoinSet::new();
            for (number, shard, message) in messages {
                let broker = broker.clone();
                sending.spawn(async move {
                    (number, broker.publish(shard, message, ACK_DEADLINE).await)
                });
            }
            sending.join_all().await
        });
        let mut failed = None;
        for (number, result) in stored {
            match result {
                Ok(at) => outbox.stored(number, at, sent),
                Err(e) => failed = Some(e),
            }
        }
        engine.status.progress(Loop::Publish);
        if let Some(e) = failed {
            return Err(e.into());
        }
    }
    if outbox
        .since()
        .is_some_and(|since| !engine.gate.keeps(since, Instant::now()))
    {
        outbox.renew();
        return Err(SendError::Silent);
    }
    let Some(record) = outbox.commit() else {
        return Err(SendError::Incomplete);
    };
    Ok(runtime.block_on(broker.publish(ShardId::ORDER, record, ACK_DEADLINE))?)
}

/// Why a batch was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("could not read a large batch that was put aside: {0}")]
    Spool(#[from] std::io::Error),
    #[error("the batch's payload is not complete")]
    Incomplete,
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error("this node has not announced itself to the others yet")]
    Unannounced,
    #[error(
        "this node could not announce itself for long, and payload sent before may have been trimmed"
    )]
    Silent,
}
