//! One ephemeral pull consumer and the subscription that it delivers to.
//!
//! Invariants: what is under way between server and caller is bounded in messages (`2 * BATCH`) and in bytes (a few times
//! `pull_bytes`), so the client never has to drop any; what the caller has not taken counts as under way. A session that has lost
//! anything is over, and never repaired: its reader makes another one behind the last message that it delivered.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::stream::Info;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::time::Instant;

use super::api;
use super::broker::{Broker, StreamState};
use super::continuity::check;
use super::delivery::{self, Delivered, Delivery};
use super::error::StreamError;
use super::health::ReaderHealth;
use crate::change::position::Sequence;

/// Messages asked for by one pull request. Two are kept open, so that one is being served while the next is on its way; at
/// 500,000 small messages a second one lasts 8 ms, many round trips.
const BATCH: usize = 4096;

/// Bytes asked for by one pull request, unless the server takes larger messages. It bounds what is held for a caller that is
/// slower than the broker.
const PULL_BYTES: usize = 2 << 20;

/// What the server counts for a message besides its payload: subject, reply subject and headers.
const MESSAGE_OVERHEAD: usize = 64 << 10;

/// How long a pull request stays open. Each costs one small message in that time.
const PULL_EXPIRES: Duration = Duration::from_secs(30);

/// How often the server says that an idle pull request is alive. Each costs one small message.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Silence after which a session is given up: three heartbeats in a row, with slack for a busy machine.
const SILENCE: Duration = Duration::from_millis(3500);

/// How long a session is idle before the stream is asked whether it really holds nothing more, and between such questions.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// The server removes a consumer that nobody pulls from for this long: what a killed daemon leaves behind, and also what a reader
/// loses that pauses for longer (it makes another).
const INACTIVE: Duration = Duration::from_secs(120);

/// What happened in a session.
#[derive(Debug)]
pub(super) enum Event {
    /// The next message.
    Message(Delivered),
    /// The session is over; another one goes on from the last message delivered.
    Over {
        /// Why, for the log.
        reason: String,
        /// Whether the stream holds messages that the session did not deliver.
        stalled: bool,
    },
    /// The stream is not what it was.
    Broken(StreamError),
}

pub(super) struct Session {
    broker: Broker,
    stream: String,
    subscriber: Subscriber,
    inbox: String,
    next_subject: String,
    generation: u64,
    link: tokio::sync::watch::Receiver<super::Link>,
    created: u64,
    pull_bytes: usize,
    /// Messages that open pull requests may still bring, those in our buffer included.
    under_way: usize,
    /// Messages that the consumer has sent and we have taken.
    taken: u64,
    delivered: Sequence,
    heard: Instant,
    looked: Instant,
    look: Option<BoxFuture<'static, Result<Info, StreamError>>>,
    /// The stream held more than was delivered when it was last asked.
    suspect: bool,
}

#[derive(Serialize)]
struct CreateRequest<'a> {
    stream_name: &'a str,
    config: ConsumerConfig<'a>,
}

#[derive(Serialize)]
struct ConsumerConfig<'a> {
    name: &'a str,
    deliver_policy: &'static str,
    opt_start_seq: u64,
    ack_policy: &'static str,
    replay_policy: &'static str,
    inactive_threshold: u128,
    num_replicas: usize,
    mem_storage: bool,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    max_bytes: usize,
    expires: u128,
    idle_heartbeat: u128,
}

impl Session {
    /// Looks at the stream, and makes a consumer that begins behind `delivered`. `created` is when the stream was made
    /// that has been read so far, if any has.
    pub(super) async fn open(
        broker: Broker,
        stream: String,
        delivered: Sequence,
        created: Option<u64>,
    ) -> Result<(Self, StreamState), StreamError> {
        let mut link = broker.on_reconnect();
        let generation = link.borrow_and_update().generation;
        let state = StreamState::from(&broker.info(&stream).await?);
        check(&stream, &state, delivered, created)?;

        let client = broker.client();
        let inbox = client.new_inbox();
        // The last token of an inbox is unique, which is all that a consumer's name has to be.
        let name = inbox.rsplit('.').next().unwrap_or(&inbox).to_owned();
        let subscriber =
            client
                .subscribe(inbox.clone())
                .await
                .map_err(|source| StreamError::Request {
                    what: format!("subscription for a consumer of stream {stream}"),
                    source: Box::new(source),
                })?;
        let request = CreateRequest {
            stream_name: &stream,
            config: ConsumerConfig {
                name: &name,
                deliver_policy: "by_start_sequence",
                opt_start_seq: delivered.next().0,
                ack_policy: "none",
                replay_policy: "instant",
                inactive_threshold: INACTIVE.as_nanos(),
                num_replicas: 1,
                mem_storage: true,
            },
        };
        let subject = format!("CONSUMER.CREATE.{stream}.{name}");
        api::request::<_, serde::de::IgnoredAny>(broker.context(), &stream, subject, &request)
            .await?;
        let now = Instant::now();
        let session = Self {
            next_subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            pull_bytes: PULL_BYTES.max(client.max_payload() + MESSAGE_OVERHEAD),
            broker,
            stream,
            subscriber,
            inbox,
            generation,
            link,
            created: state.created,
            under_way: 0,
            taken: 0,
            delivered,
            heard: now,
            looked: now,
            look: None,
            suspect: false,
        };
        Ok((session, state))
    }

    /// The next event. Cancel-safe: an event that has been taken is returned in the same poll.
    pub(super) async fn event(&mut self, health: &ReaderHealth) -> Event {
        loop {
            while self.under_way <= BATCH {
                if let Err(over) = self.pull().await {
                    return over;
                }
            }
            // Without a timer as long as there is something to take: this is what bounds the throughput.
            let arrived = match self.subscriber.next().now_or_never() {
                Some(arrived) => arrived,
                None => match self.wait(health).await {
                    Ok(arrived) => arrived,
                    Err(Some(event)) => return event,
                    Err(None) => continue,
                },
            };
            let Some(message) = arrived else {
                return over("its subscription ended");
            };
            self.heard = Instant::now();
            health.heard(self.heard.into_std());
            match delivery::read(message) {
                Delivery::Message(delivered) => {
                    self.under_way = self.under_way.saturating_sub(1);
                    self.taken += 1;
                    self.suspect = false;
                    if delivered.consumer_sequence != self.taken {
                        return over("messages went missing on the way");
                    }
                    self.delivered = delivered.stored.sequence;
                    self.looked = self.heard;
                    return Event::Message(delivered);
                }
                Delivery::Heartbeat { sent } => {
                    // Deliveries and heartbeats share one path, so this one cannot overtake a message.
                    if sent > self.taken {
                        return over("messages went missing on the way");
                    }
                }
                Delivery::PullEnded {
                    unsent,
                    out_of_bytes,
                } => {
                    let unsent = unsent.unwrap_or(self.under_way);
                    if out_of_bytes && unsent >= BATCH {
                        // Not one message fitted: the server takes larger messages than it did when we asked.
                        self.pull_bytes = self.pull_bytes.saturating_mul(2);
                    }
                    self.under_way = self.under_way.saturating_sub(unsent);
                }
                Delivery::ConsumerLost(reason) => return over(&reason),
            }
        }
    }

    /// Waits for something to arrive. `Err(None)`: nothing to tell, go on.
    async fn wait(
        &mut self,
        health: &ReaderHealth,
    ) -> Result<Option<async_nats::Message>, Option<Event>> {
        let (looking, generation) = (self.look.is_some(), self.generation);
        let look_at = if looking {
            self.heard + SILENCE
        } else {
            (self.looked + LOOK_EVERY).min(self.heard + SILENCE)
        };
        let look = self.look.as_mut();
        let answer = tokio::select! {
            biased;
            arrived = self.subscriber.next() => return Ok(arrived),
            changed = self.link.wait_for(|link| !link.connected || link.generation != generation) => {
                drop(changed);
                return Err(Some(over("the connection to NATS broke")));
            }
            answer = async {
                match look {
                    Some(look) => look.await,
                    None => std::future::pending().await,
                }
            } => Some(answer),
            () = tokio::time::sleep_until(look_at) => None,
        };
        if let Some(answer) = answer {
            return Err(self.looked(answer, health));
        }
        if Instant::now() >= self.heard + SILENCE {
            return Err(Some(over("its heartbeats stayed away")));
        }
        let (broker, stream) = (self.broker.clone(), self.stream.clone());
        self.look = Some(async move { broker.info(&stream).await }.boxed());
        Err(None)
    }

    /// What the stream said when it was asked because nothing came.
    fn looked(&mut self, info: Result<Info, StreamError>, health: &ReaderHealth) -> Option<Event> {
        self.look = None;
        self.looked = Instant::now();
        let state = match info {
            Ok(info) => StreamState::from(&info),
            Err(StreamError::StreamMissing { .. }) => return Some(over("the stream is gone")),
            // Heartbeats decide whether the session lives; the next look may be answered.
            Err(_) => return None,
        };
        health.looked(state.last);
        if let Err(error) = check(&self.stream, &state, self.delivered, Some(self.created)) {
            return Some(Event::Broken(error));
        }
        // Twice in a row, for the first time the messages may just have been on their way.
        if state.last > self.delivered && state.messages > 0 {
            if self.suspect {
                return Some(Event::Over {
                    reason: "the stream holds messages and none came".to_owned(),
                    stalled: true,
                });
            }
            self.suspect = true;
        } else {
            self.suspect = false;
        }
        None
    }

    async fn pull(&mut self) -> Result<(), Event> {
        let request = PullRequest {
            batch: BATCH,
            max_bytes: self.pull_bytes,
            expires: PULL_EXPIRES.as_nanos(),
            idle_heartbeat: HEARTBEAT.as_nanos(),
        };
        let payload = serde_json::to_vec(&request).map_err(|error| over(&error.to_string()))?;
        self.broker
            .client()
            .publish_with_reply(
                self.next_subject.clone(),
                self.inbox.clone(),
                payload.into(),
            )
            .await
            .map_err(|error| over(&error.to_string()))?;
        self.under_way += BATCH;
        Ok(())
    }
}

fn over(reason: &str) -> Event {
    Event::Over {
        reason: reason.to_owned(),
        stalled: false,
    }
}
