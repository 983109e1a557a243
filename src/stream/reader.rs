//! Reading one stream in order and without end.
//!
//! ```text
//!   next() ─▶ session? ──no──▶ open: look at the stream, make a consumer behind `delivered`
//!               │ yes                    │ fails: trouble in health, again after a while, for ever
//!               ▼                        │ stream trimmed, shorter, replaced: a typed error to the caller
//!        message, or the session is over ┘
//! ```
//!
//! Invariants: each message is returned once, in stream order; `delivered` moves in the same poll that returns a message, so
//! dropping the future of `next` loses nothing; whatever the broker loses on our side (consumer, pull request, connection) is
//! made anew, whatever it loses of the stream is an error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::broker::{Broker, StoredMessage, StreamState};
use super::error::StreamError;
use super::health::ReaderHealth;
use super::session::{Event, Session};
use crate::change::position::{Sequence, ShardId};

/// First wait before another session is opened after one that brought nothing.
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Longest such wait: it bounds how late a reader notices that a stream is back.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long opening waits for the connection before it looks again; any bound will do, the connection announces itself.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);

/// A session of an idle stream that lasted this long did its work: the next one needs no wait.
const LONG_LIVED: Duration = Duration::from_secs(10);

type Opening = BoxFuture<'static, Result<(Session, StreamState), StreamError>>;

/// Reads one shard's stream; made by [`Broker::reader`].
pub struct LogReader {
    broker: Broker,
    stream: String,
    delivered: Sequence,
    /// When the stream was made that we read.
    created: Option<u64>,
    /// A message that does not follow `delivered`, and was found to be the next one all the same.
    after_gap: Option<Sequence>,
    session: Option<Session>,
    opening: Option<Opening>,
    opened: bool,
    /// Sessions in a row that brought nothing, and failures to open one.
    fruitless: u32,
    opened_at: Instant,
    health: Arc<ReaderHealth>,
}

impl LogReader {
    pub(super) fn new(broker: Broker, shard: ShardId, from: Sequence) -> Self {
        let delivered = Sequence(from.0.saturating_sub(1));
        Self {
            stream: broker.stream_name(shard),
            broker,
            delivered,
            created: None,
            after_gap: None,
            session: None,
            opening: None,
            opened: false,
            fruitless: 0,
            opened_at: Instant::now(),
            health: Arc::new(ReaderHealth::new(delivered)),
        }
    }

    /// The stream that is read.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// How the reader is doing; lives on its own, for whoever shows it.
    #[must_use]
    pub fn health(&self) -> Arc<ReaderHealth> {
        Arc::clone(&self.health)
    }

    /// Messages that the stream holds beyond the last one delivered, as of the last look.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.health.behind()
    }

    /// The next message, however long it takes. Cancel-safe. A missing stream or connection is no error: see
    /// [`ReaderSnapshot::trouble`](super::ReaderSnapshot::trouble).
    ///
    /// A message that was removed from the middle of the stream is passed over, with a warning; the caller sees it in the
    /// sequences.
    ///
    /// # Errors
    /// [`StreamError::Trimmed`], [`StreamError::Shorter`] or [`StreamError::Replaced`]: reading cannot go on from
    /// here. Calling again looks again.
    pub async fn next(&mut self) -> Result<StoredMessage, StreamError> {
        self.health.waits();
        loop {
            let Some(session) = &mut self.session else {
                self.open().await?;
                continue;
            };
            match session.event(&self.health).await {
                Event::Message(message) => {
                    let sequence = message.stored.sequence;
                    if sequence != self.delivered.next() && self.after_gap != Some(sequence) {
                        self.unexpected(sequence);
                        continue;
                    }
                    self.fruitless = 0;
                    self.delivered = sequence;
                    let last = Sequence(sequence.0 + message.pending);
                    self.health.message(sequence, last, Instant::now());
                    return Ok(message.stored);
                }
                Event::Over { reason, stalled } => {
                    if self.opened_at.elapsed() > LONG_LIVED {
                        self.fruitless = 0;
                    }
                    if stalled {
                        self.health.stalled();
                        tracing::warn!(stream = %self.stream, seq = self.delivered.0, "{reason}, starting over");
                    } else {
                        tracing::debug!(stream = %self.stream, seq = self.delivered.0, "a consumer is over: {reason}");
                    }
                    self.session = None;
                }
                Event::Broken(error) => {
                    self.session = None;
                    self.health.trouble(Some(error.to_string()));
                    return Err(error);
                }
            }
        }
    }

    /// The next message if it has arrived already. `None`: nothing yet.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn try_next(&mut self) -> Option<Result<StoredMessage, StreamError>> {
        self.next().now_or_never()
    }

    /// A message that does not follow the last one. Opening looks whether the stream begins behind the last one (which is
    /// an error); otherwise messages were removed from its middle, and the same one comes again.
    fn unexpected(&mut self, sequence: Sequence) {
        self.session = None;
        if sequence > self.delivered {
            tracing::warn!(
                stream = %self.stream, seq = self.delivered.0, next = sequence.0,
                "messages are missing from the stream"
            );
            self.after_gap = Some(sequence);
        }
    }

    async fn open(&mut self) -> Result<(), StreamError> {
        let opening = self.opening.get_or_insert_with(|| {
            open(
                self.broker.clone(),
                self.stream.clone(),
                self.delivered,
                self.created,
                wait_before(self.fruitless),
            )
            .boxed()
        });
        let result = opening.await;
        self.opening = None;
        match result {
            Ok((session, state)) => {
                self.fruitless = self.fruitless.saturating_add(1);
                self.created = Some(state.created);
                self.health.looked(state.last);
                if self.opened {
                    self.health.recreated();
                }
                self.opened = true;
                if self.health.trouble(None) {
                    tracing::info!(stream = %self.stream, seq = self.delivered.0, "reading again");
                }
                self.opened_at = Instant::now();
                self.session = Some(session);
                Ok(())
            }
            Err(
                error @ (StreamError::Trimmed { .. }
                | StreamError::Shorter { .. }
                | StreamError::Replaced { .. }),
            ) => {
                self.health.trouble(Some(error.to_string()));
                Err(error)
            }
            Err(error) => {
                self.fruitless = self.fruitless.saturating_add(1);
                if self.health.trouble(Some(error.to_string())) {
                    tracing::warn!(stream = %self.stream, seq = self.delivered.0, %error, "cannot read, trying on");
                }
                Ok(())
            }
        }
    }
}

async fn open(
    broker: Broker,
    stream: String,
    delivered: Sequence,
    created: Option<u64>,
    wait: Duration,
) -> Result<(Session, StreamState), StreamError> {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    let mut link = broker.on_reconnect();
    let connected = link.wait_for(|link| link.connected);
    let _ = tokio::time::timeout(CONNECTION_WAIT, connected).await;
    Session::open(broker, stream, delivered, created).await
}

/// The wait before a session is opened: none for the first, and for the one after a session that brought a message.
fn wait_before(fruitless: u32) -> Duration {
    match fruitless {
        0 => Duration::ZERO,
        more => FIRST_WAIT
            .saturating_mul(1 << (more - 1).min(10))
            .min(LONGEST_WAIT),
    }
}
