//! The connected client: publish to a shard, fetch one message, ask for a stream's state.
//!
//! Invariants: `publish` returns `Ok` only for a message that the expected stream says it has stored; `fetch` returns `None`
//! only when the stream's leader says so; every call ends by its deadline, or at once when the connection breaks.

use std::sync::Arc;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::connection::State;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{Client, Request};
use bytes::Bytes;
use tokio::sync::watch;

use super::api::{self, API_DEADLINE};
use super::connect::{self, Link};
use super::error::{PublishError, StreamError};
use super::reader::LogReader;
use crate::change::position::{NodeId, Sequence, ShardId};
use crate::config::NatsConfig;

/// How long a replica may take for a message before the leader is asked: many round trips, and the leader is always right.
const DIRECT_GET_DEADLINE: Duration = Duration::from_secs(1);

/// A message as the stream keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Where it stands in its stream.
    pub sequence: Sequence,
    /// Its bytes.
    pub payload: Bytes,
    /// When the stream stored it, in nanoseconds since the Unix epoch, by the server's clock. For lag metrics only.
    pub timestamp_nanos: u64,
}

/// What a stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// The first message; one above `last` when there is none.
    pub first: Sequence,
    /// The last message ever stored; 0 when there never was one.
    pub last: Sequence,
    /// Messages held.
    pub messages: u64,
    /// Bytes held, with the server's overhead per message.
    pub bytes: u64,
    /// When the stream was made, in nanoseconds since the Unix epoch: tells a stream from one made anew under its name.
    pub created: u64,
    /// Bytes that it may hold; `None`: no limit.
    pub limit: Option<u64>,
}

impl From<&Info> for StreamState {
    fn from(info: &Info) -> Self {
        Self {
            // An empty new stream says 0.
            first: Sequence(info.state.first_sequence.max(1)),
            last: Sequence(info.state.last_sequence),
            messages: info.state.messages,
            bytes: info.state.bytes,
            created: nanos(info.created),
            limit: u64::try_from(info.config.max_bytes).ok().filter(|b| *b > 0),
        }
    }
}

pub(super) fn nanos(time: time::OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)
}

/// A connection to NATS with JetStream. Cheap to clone; all clones share the connection.
#[derive(Clone, Debug)]
pub struct Broker {
    client: Client,
    context: Context,
    link: watch::Receiver<Link>,
    names: Arc<Names>,
}

#[derive(Debug)]
struct Names {
    stream_prefix: String,
    subject_prefix: String,
}

impl Broker {
    /// Connects to the first of `urls` that answers, in one try of at most five seconds. From then on the client reconnects by
    /// itself, for ever. `urls` is the managed server's, or `config.urls`.
    ///
    /// # Errors
    /// [`StreamError::Connect`], [`StreamError::ConnectTimeout`], [`StreamError::Url`] or [`StreamError::CredentialFile`].
    pub async fn connect(
        config: &NatsConfig,
        urls: &[String],
        node: NodeId,
    ) -> Result<Self, StreamError> {
        let (client, link) = connect::connect(config, urls, node).await?;
        let context = ContextBuilder::new()
            .timeout(API_DEADLINE)
            .build(client.clone());
        Ok(Self {
            client,
            context,
            link,
            names: Arc::new(Names {
                stream_prefix: config.stream_prefix.clone(),
                subject_prefix: config.subject_prefix.clone(),
            }),
        })
    }

    /// Whether there is a connection at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Changes at each disconnect and reconnect.
    #[must_use]
    pub fn on_reconnect(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// How often the connection was made again.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.link.borrow().generation.saturating_sub(1)
    }

    /// The largest message that the server takes, in bytes.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// The version that the connected server reports; `None` before the first connection.
    #[must_use]
    pub fn server_version(&self) -> Option<String> {
        self.client.try_server_info().map(|info| info.version)
    }

    /// The shard's stream.
    #[must_use]
    pub fn stream_name(&self, shard: ShardId) -> String {
        format!("{}-{shard}", self.names.stream_prefix)
    }

    /// The shard's subject.
    #[must_use]
    pub fn subject(&self, shard: ShardId) -> String {
        format!("{}-{shard}", self.names.subject_prefix)
    }

    /// The prefix that the names of all our buckets share with the streams.
    #[must_use]
    pub fn bucket_prefix(&self) -> &str {
        &self.names.stream_prefix
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn context(&self) -> &Context {
        &self.context
    }

    /// Stores a message in the shard's stream. Ready when the stream has acknowledged it. Many may be in flight, and then stand
    /// in the stream in any order: what must come later is published after the answer for what must come before.
    ///
    /// # Errors
    /// See [`PublishError`]; [`PublishError::maybe_stored`] says whether the message may be in the stream all the same.
    pub async fn publish(
        &self,
        shard: ShardId,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Sequence, PublishError> {
        let (size, limit) = (payload.len(), self.max_payload());
        if size > limit {
            return Err(PublishError::TooLarge { shard, size, limit });
        }
        // While disconnected the client would keep the message for later; the caller keeps it better.
        let mut link = self.link.clone();
        let sent_over = *link.borrow_and_update();
        if !self.is_connected() {
            return Err(PublishError::NotConnected {
                shard,
                maybe_stored: false,
            });
        }
        let request = Request::new().payload(payload).timeout(Some(deadline));
        let answer = tokio::select! {
            biased;
            answer = self.client.send_request(self.subject(shard), request) => answer,
            () = broken(&mut link, sent_over) => {
                return Err(PublishError::NotConnected { shard, maybe_stored: true });
            }
        };
        let message = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => PublishError::NoStream {
                subject: self.subject(shard),
            },
            RequestErrorKind::TimedOut => PublishError::Timeout {
                shard,
                after: deadline,
            },
            RequestErrorKind::MaxPayloadExceeded => PublishError::TooLarge {
                shard,
                size,
                limit: self.max_payload(),
            },
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => PublishError::Other {
                shard,
                source: Box::new(error),
            },
        })?;
        self.acknowledged(shard, size, &message.payload)
    }

    fn acknowledged(
        &self,
        shard: ShardId,
        size: usize,
        answer: &[u8],
    ) -> Result<Sequence, PublishError> {
        let expected = self.stream_name(shard);
        match serde_json::from_slice::<Response<PublishAck>>(answer) {
            Ok(Response::Ok(ack)) if ack.stream == expected => Ok(Sequence(ack.sequence)),
            Ok(Response::Ok(ack)) => Err(PublishError::WrongStream {
                expected,
                actual: ack.stream,
            }),
            Ok(Response::Err { error }) => {
                let description = error.to_string();
                Err(match error.error_code() {
                    // "Store failed" is what a stream that discards new messages answers at its limit, and what a full disk gives.
                    ErrorCode::STREAM_STORE_FAILED
                    | ErrorCode::STORAGE_RESOURCES_EXCEEDED
                    | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                    | ErrorCode::INSUFFICIENT_RESOURCES => PublishError::StreamFull {
                        stream: expected,
                        description,
                    },
                    ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => PublishError::TooLarge {
                        shard,
                        size,
                        limit: self.max_payload(),
                    },
                    ErrorCode::STREAM_NOT_FOUND => PublishError::NoStream {
                        subject: self.subject(shard),
                    },
                    ErrorCode(code) => PublishError::Refused {
                        shard,
                        code,
                        description,
                    },
                })
            }
            Err(source) => Err(PublishError::Other {
                shard,
                source: Box::new(source),
            }),
        }
    }

    /// What the shard's stream holds, as its leader says.
    ///
    /// # Errors
    /// [`StreamError::StreamMissing`], [`StreamError::NotConnected`], or why the broker did not answer.
    pub async fn stream_state(&self, shard: ShardId) -> Result<StreamState, StreamError> {
        self.info(&self.stream_name(shard))
            .await
            .map(|info| StreamState::from(&info))
    }

    pub(super) async fn info(&self, stream: &str) -> Result<Info, StreamError> {
        self.require_connection(|| format!("state of stream {stream}"))?;
        api::request(&self.context, stream, format!("STREAM.INFO.{stream}"), &()).await
    }

    /// One message by its sequence; `None` when the stream does not hold it.
    ///
    /// # Errors
    /// [`StreamError::StreamMissing`], [`StreamError::Timeout`], or why the broker did not answer.
    pub async fn fetch(
        &self,
        shard: ShardId,
        sequence: Sequence,
        deadline: Duration,
    ) -> Result<Option<StoredMessage>, StreamError> {
        let name = self.stream_name(shard);
        let what = || format!("message {sequence} of stream {name}");
        self.require_connection(what)?;
        tokio::time::timeout(deadline, self.fetch_from(&name, sequence, deadline, what))
            .await
            .map_err(|_| StreamError::Timeout {
                what: what(),
                after: deadline,
            })?
    }

    async fn fetch_from(
        &self,
        name: &str,
        sequence: Sequence,
        deadline: Duration,
        what: impl Fn() -> String,
    ) -> Result<Option<StoredMessage>, StreamError> {
        let request_error = |error| StreamError::Request {
            what: what(),
            source: Box::new(error),
        };
        let mut context = self.context.clone();
        context.set_timeout(DIRECT_GET_DEADLINE.min(deadline / 2));
        let any_replica = context
            .get_stream_no_info(name)
            .await
            .map_err(request_error)?;
        match any_replica.direct_get(sequence.0).await {
            Ok(message) => return Ok(Some(stored(message))),
            // A replica answers that may not have got the message yet; a stream that somebody else made may not allow
            // this at all, and an old server does not answer then. The leader knows.
            Err(error) => tracing::trace!(%error, "{}: asking the leader", what()),
        }
        context.set_timeout(deadline);
        let leader = context
            .get_stream_no_info(name)
            .await
            .map_err(request_error)?;
        match leader.get_raw_message(sequence.0).await {
            Ok(message) => Ok(Some(stored(message))),
            Err(error) => absent(name, what(), error),
        }
    }

    /// Reads the shard's stream from `from` on, in order and without end. Nothing is asked of the broker yet, and the
    /// stream need not exist yet.
    #[must_use]
    pub fn reader(&self, shard: ShardId, from: Sequence) -> LogReader {
        LogReader::new(self.clone(), shard, from)
    }

    /// The connection's state, and what it is now.
    pub(super) fn link_in_use(&self) -> (watch::Receiver<Link>, Link) {
        let mut link = self.link.clone();
        let now = *link.borrow_and_update();
        (link, now)
    }

    pub(super) fn require_connection(&self, what: impl Fn() -> String) -> Result<(), StreamError> {
        if self.is_connected() {
            Ok(())
        } else {
            Err(StreamError::NotConnected { what: what() })
        }
    }
}

fn stored(message: StreamMessage) -> StoredMessage {
    StoredMessage {
        sequence: Sequence(message.sequence),
        payload: message.payload,
        timestamp_nanos: nanos(message.time),
    }
}

/// What it means that the leader did not give a message.
fn absent(
    stream: &str,
    what: String,
    error: async_nats::jetstream::stream::RawMessageError,
) -> Result<Option<StoredMessage>, StreamError> {
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => Ok(None),
        RawMessageErrorKind::JetStream(refusal)
            if refusal.error_code().0 == api::STREAM_NOT_FOUND =>
        {
            Err(StreamError::StreamMissing {
                stream: stream.to_owned(),
            })
        }
        _ => Err(StreamError::Request {
            what,
            source: Box::new(error),
        }),
    }
}

/// Ready when the connection is no longer the one that was in use.
pub(super) async fn broken(link: &mut watch::Receiver<Link>, in_use: Link) {
    let gone = link.wait_for(|link| !link.connected || link.generation != in_use.generation);
    if gone.await.is_err() {
        // The client is gone with its event task; its request fails by itself.
        std::future::pending::<()>().await;
    }
}
