//! The outbound loop: wait for a commit of the app, scan, send, wait for the echo. One batch is in flight; what the app commits meanwhile
//! gathers and makes the next batch larger, so batching adapts to load by itself.
//!
//! Invariants: an acknowledgement is a hint, the echo is the fact; until it comes the same bytes are sent again; nothing here ever gives a change up.
//! The loop runs from the first moment, broker or not, since it also keeps capture current when the schema changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::outbox::Outbox;
use crate::change::position::{Sequence, ShardId};
use crate::changelog::scan::ScanError;
use crate::changelog::watch::Watch;
use crate::codec::batch::{Batch, Limits};
use crate::codec::spool::Spool;
use crate::engine::{EchoWait, Engine};
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

/// The outbound loop.
pub struct PublishLoop {
    engine: Arc<Engine>,
    runtime: Handle,
    reader: Connection,
    watch: Watch,
    /// The app has committed something that no scan has seen.
    unseen: bool,
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
        Ok(Self { watch: Watch::new(&path, interval), engine, runtime, reader, unseen: true })
    }

    /// Runs until a stop is requested and everything is published, or until the stop is forced.
    pub fn run(mut self) {
        let engine = Arc::clone(&self.engine);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            engine.status.progress(Loop::Publish);
            if engine.shutdown.is_forced() {
                break;
            }
            match self.step() {
                Ok(true) => backoff.reset(),
                // Draining: nothing is left.
                Ok(false) if engine.shutdown.is_requested() => break,
                Ok(false) => backoff.reset(),
                Err(e) => self.report(&e, &mut backoff),
            }
        }
        engine.status.ended(Loop::Publish);
    }

    /// One round; `false` if there was nothing to send.
    fn step(&mut self) -> Result<bool, ScanError> {
        let stopping = self.engine.shutdown.is_requested();
        if !self.unseen && !stopping {
            let shutdown = self.engine.shutdown.clone();
            self.unseen = self.watch.wait(&self.reader, Instant::now() + LOOK, &|| shutdown.is_requested())?;
        }
        if !self.unseen && !stopping {
            return Ok(false);
        }
        self.keep_capture_current()?;
        let broker = self.engine.broker().filter(|b| b.is_connected());
        let Some(broker) = broker.filter(|_| !self.engine.is_halted()) else {
            // The change log holds everything until the broker is there.
            if !stopping {
                self.engine.shutdown.wait_timeout(Duration::from_millis(50)).then_some(());
            }
            return Ok(false);
        };
        let Some(batch) = self.scan(&broker)? else {
            self.unseen = false;
            self.engine.status.recovered(Component::Publish);
            return Ok(false);
        };
        self.deliver(&broker, batch);
        Ok(true)
    }

    /// New and altered tables get their triggers at once.
    fn keep_capture_current(&mut self) -> Result<(), SqliteError> {
        let version = connection::schema_version(&self.reader)?;
        let shutdown = self.engine.shutdown.clone();
        let mut replica = self.engine.replica();
        if replica.captured().schema_version != version {
            while !replica.refresh_capture(LOCK_PATIENCE, &|| shutdown.is_forced())? && !shutdown.is_forced() {}
            self.engine.status.set_capture(true, replica.captured().tables.len() as u64);
            self.engine.status.recovered(Component::Capture);
            tracing::info!(tables = replica.captured().tables.len(), "capture is current with the changed schema");
        }
        Ok(())
    }

    fn scan(&mut self, broker: &Broker) -> Result<Option<Batch>, ScanError> {
        let log = &self.engine.config.replication_log;
        let limits = Limits { max_payload: broker.max_payload(), shards: log.shards, compress: log.compress, compress_min_bytes: log.compress_min_bytes };
        let folder = self.engine.config.db_path.parent().filter(|p| !p.as_os_str().is_empty()).map_or_else(|| ".".into(), std::path::Path::to_path_buf);
        let spool = Arc::new(Spool::new(folder));
        // Commits after this are for the next scan: asked before the scan begins its snapshot.
        self.watch.changed(&self.reader)?;
        let started = Instant::now();
        let scanned = {
            let mut replica = self.engine.replica();
            let scanned = replica.scan(&self.reader, limits, &spool)?;
            if replica.needs_tidying() && scanned.batch.is_none() {
                replica.tidy(LOCK_PATIENCE, &|| false)?;
            }
            scanned
        };
        if scanned.log_rows > 0 {
            self.engine.metrics.scan_changes.observe(started.elapsed().as_secs_f64());
        }
        for (table, rows) in &scanned.null_keys {
            tracing::warn!(table, rows, "rows with NULL in their primary key are not replicated: no other node could tell which row is meant");
        }
        Ok(scanned.batch)
    }

    /// Sends a batch until its echo has come. Nothing but a forced stop ends this before.
    fn deliver(&mut self, broker: &Broker, batch: Batch) {
        let engine = Arc::clone(&self.engine);
        let (number, rows, raw) = (batch.record.batch, batch.record.row_count, batch.raw_bytes);
        let mut outbox = Outbox::new(batch);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));
        let started = Instant::now();
        let mut counted = false;
        let mut tries = 0_u64;
        let give_up = || engine.shutdown.is_forced();
        while !give_up() {
            engine.status.progress(Loop::Publish);
            tries += 1;
            if tries > 1 {
                engine.metrics.publish_retries.inc();
            }
            let acknowledged = match self.send(broker, &mut outbox) {
                Ok(at) => {
                    engine.status.recovered(Component::Publish);
                    if !counted {
                        counted = true;
                        engine.metrics.batches_published.inc();
                        engine.metrics.rows_published.inc_by(rows);
                        engine.metrics.published_bytes_raw.inc_by(raw);
                        engine.metrics.published_bytes_sent.inc_by(outbox.sent_bytes());
                        engine.status.published();
                    }
                    backoff.reset();
                    Some(at)
                }
                Err(e) => {
                    engine.status.failed(Component::Publish, &e);
                    if backoff.tries() == 0 {
                        tracing::warn!(batch = number.0, error = %e, "a batch was not acknowledged; it is sent again until it comes back");
                    }
                    None
                }
            };
            // Without an acknowledgement the message may be there all the same: its echo then says so.
            let patience = if acknowledged.is_some() { LOOK } else { backoff.next_wait() };
            loop {
                match engine.wait_echo(number, acknowledged, patience) {
                    EchoWait::Came => {
                        engine.metrics.publish_to_echo.observe(started.elapsed().as_secs_f64());
                        return;
                    }
                    EchoWait::Vanished => {
                        tracing::warn!(batch = number.0, "an acknowledged batch is not in the stream: it is sent again");
                        break;
                    }
                    EchoWait::NotYet if acknowledged.is_none() || give_up() => break,
                    EchoWait::NotYet => {
                        engine.status.progress(Loop::Publish);
                        // The schema may change while the echo waits for just that.
                        if let Err(e) = self.keep_capture_current() {
                            engine.status.failed(Component::Capture, &e);
                        }
                    }
                }
            }
        }
    }

    /// Sends what is missing of the payload, then the commit record. Returns where the record stands.
    fn send(&self, broker: &Broker, outbox: &mut Outbox) -> Result<Sequence, SendError> {
        loop {
            let missing = outbox.missing();
            if missing.is_empty() {
                break;
            }
            for window in missing.chunks(WINDOW) {
                let mut messages = Vec::with_capacity(window.len());
                for &number in window {
                    if let Some((shard, message)) = outbox.piece(number)? {
                        messages.push((number, shard, message));
                    }
                }
                let stored = self.runtime.block_on(async {
                    let mut sending = JoinSet::new();
                    for (number, shard, message) in messages {
                        let broker = broker.clone();
                        sending.spawn(async move { (number, broker.publish(shard, message, ACK_DEADLINE).await) });
                    }
                    sending.join_all().await
                });
                let mut failed = None;
                for (number, result) in stored {
                    match result {
                        Ok(at) => outbox.stored(number, at),
                        Err(e) => failed = Some(e),
                    }
                }
                self.engine.status.progress(Loop::Publish);
                if let Some(e) = failed {
                    return Err(e.into());
                }
            }
        }
        let Some(record) = outbox.commit() else { return Err(SendError::Incomplete) };
        Ok(self.runtime.block_on(broker.publish(ShardId::ORDER, record, ACK_DEADLINE))?)
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
                self.engine.status.failed(Component::Database, error);
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

/// Why a batch was not sent.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("could not read a large batch that was put aside: {0}")]
    Spool(#[from] std::io::Error),
    #[error("the batch's payload is not complete")]
    Incomplete,
}
