//! Every moment: this node says where it is, and looks how full the streams are.
//!
//! Invariant: the publisher learns of a soft limit within a second of its being passed, and counts what it sends itself meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change::position::{Sequence, ShardId};
use crate::cluster::announce;
use crate::engine::Engine;
use crate::history::watch::Watch;
use crate::http::status::Component;
use crate::publish::gate::Room;
use crate::stream::{Broker, Kv, KvError, StreamState};

/// The share of `max_bytes`, in percent, above which nothing new is published until a snapshot has made room. The rest is for what is under way and
/// for what the leader must publish before its snapshot counts.
pub const SOFT_LIMIT: u64 = 80;

/// From when a stream or a consumer that stands still makes this node unhealthy: longer than one of them takes to be made anew, or to elect a leader.
pub const STALLED: Duration = Duration::from_secs(6);

/// How often the streams are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the streams of all shards hold.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// By shard, from 1.
    pub states: Vec<StreamState>,
}

impl Streams {
    /// Looks at the streams of shards 1 to `shards`.
    ///
    /// # Errors
    /// The broker's.
    pub async fn look(broker: &Broker, shards: u64) -> Result<Self, crate::stream::StreamError> {
        let mut states = Vec::new();
        for shard in (1..=shards).map(ShardId) {
            states.push(broker.stream_state(shard).await?);
        }
        Ok(Self { states })
    }

    /// What each of them may still take; those without a limit are left out.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room> {
        let room = |(shard, s): (ShardId, &StreamState)| {
            let limit = s.limit?;
            let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            let up_to = |bytes| signed(bytes).saturating_sub(signed(s.bytes));
            Some(Room {
                shard,
                soft: up_to(limit / 100 * SOFT_LIMIT),
                hard: up_to(limit),
                limit,
            })
        };
        let shards = (1..).map(ShardId);
        shards.zip(&self.states).filter_map(room).collect()
    }

    /// Whether room must be made: a soft limit is passed, or a batch waits for so many bytes of one stream (0: none).
    #[must_use]
    pub fn are_tight(&self, wanted: u64) -> bool {
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let tight = |room: &Room| room.soft <= 0 || (wanted > 0 && room.hard <= wanted);
        self.rooms().iter().any(tight)
    }

    /// Bytes that were published behind `position`, as far as the share of messages tells.
    #[must_use]
    pub fn bytes_behind(&self, position: Sequence) -> u64 {
        let Some(order) = self.states.first() else {
            return 0;
        };
        let all: u64 = self.states.iter().map(|s| s.bytes).sum();
        let behind = order.last.0.saturating_sub(position.0).min(order.messages);
        match u128::from(order.messages) {
            0 => 0,
            messages => {
                u64::try_from(u128::from(all) * u128::from(behind) / messages).unwrap_or(u64::MAX)
            }
        }
    }
}

/// The longest pause between announcements after which payload under way is sent again.
#[must_use]
pub fn gap(silent_after: Duration) -> Duration {
    silent_after / 2
}

/// Announces this node for the first time: from now on what it sends is kept for it.
///
/// # Errors
/// The broker's.
pub async fn begin(engine: &Engine, broker: &Broker, kv: &Kv) -> Result<(), KvError> {
    engine
        .gate
        .require_presence(gap(engine.config.replication_log.silent_after));
    announce::say(engine, broker, kv).await
}

/// Runs until it is dropped.
pub async fn run(engine: Arc<Engine>, broker: Broker, kv: Kv) {
    let config = &engine.config.replication_log;
    let mut looking = Looking::default();
    let mut looked: Option<Instant> = None;
    let mut histories = Watch::new(Arc::clone(&engine), broker.clone());
    loop {
        if let Err(error) = announce::say(&engine, &broker, &kv).await {
            tracing::debug!(%error, "this node's position could not be announced");
        }
        if looked.is_none_or(|at| at.elapsed() >= LOOK) {
            looked = Some(Instant::now());
            if let Some(streams) = looking.look(&engine, &broker).await {
                show(&engine, &streams);
            }
            histories.look().await;
        }
        tokio::time::sleep(announce::every(config.silent_after)).await;
    }
}

/// Looks at the streams every moment, and shows in health which of them do not answer.
#[derive(Debug, Default)]
pub struct Looking {
    /// Since when a stream of payload does not answer.
    silent: BTreeMap<u64, Instant>,
}

impl Looking {
    /// Looks; `None` where a stream does not answer. Their sizes are shown in metrics.
    pub async fn look(&mut self, engine: &Engine, broker: &Broker) -> Option<Streams> {
        let mut states = Vec::new();
        let shards = engine.config.replication_log.shards;
        let mut failed = None;
        for shard in (1..=shards).map(ShardId) {
            match broker.stream_state(shard).await {
                Ok(state) => {
                    self.silent.remove(&shard.0);
                    engine.way.reaches(shard, state.last);
                    states.push(state);
                }
                Err(error) if broker.is_connected() => {
                    tracing::debug!(%error, "a stream could not be looked at");
                    self.silent.entry(shard.0).or_insert_with(Instant::now);
                    failed = Some(error);
                }
                Err(_) => {
                    // Nobody can look, and health says so of the broker.
                    self.look_no_further(engine, 1);
                    engine.status.recovered(Component::JetStream);
                    return None;
                }
            }
            // Shard 1 has a consumer; payload of the others is fetched message by message.
            if shard != ShardId::ORDER {
                let silent = self.silent.get(&shard.0);
                let lasts = silent.is_some_and(|since| since.elapsed() >= STALLED);
                let sentence = format!("the stream of shard {shard} does not answer");
                engine.status.set_consumer(shard, lasts.then_some(sentence));
            }
            if failed.is_some() {
                // This node has to announce itself meanwhile, and each answer may take its time not to come.
                self.look_no_further(engine, shard.0);
                break;
            }
        }
        if let Some(error) = failed {
            engine.status.failed(Component::JetStream, error);
            return None;
        }
        engine.status.recovered(Component::JetStream);
        let streams = Streams { states };
        show_sizes(engine, &streams);
        Some(streams)
    }

    /// The streams of the shards after this one are not looked at: since when one of them does not answer is not known any more.
    fn look_no_further(&mut self, engine: &Engine, shard: u64) {
        self.silent.retain(|of, _| *of <= shard);
        for shard in (shard.saturating_add(1)..=engine.config.replication_log.shards).map(ShardId) {
            engine.status.set_unread(shard);
        }
    }
}

/// To gauges and to the publisher.
pub fn show(engine: &Engine, streams: &Streams) {
    show_sizes(engine, streams);
    engine.gate.set_rooms(streams.rooms());
}

fn show_sizes(engine: &Engine, streams: &Streams) {
    for (shard, state) in (1..).map(ShardId).zip(&streams.states) {
        engine.metrics.stream_bytes.set(shard, state.bytes);
        engine
            .metrics
            .stream_limit_bytes
            .set(shard, state.limit.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(messages: u64, last: u64, bytes: u64, limit: Option<u64>) -> StreamState {
        StreamState {
            first: Sequence(last + 1 - messages),
            last: Sequence(last),
            messages,
            bytes,
            created: 1,
            limit,
        }
    }

    #[test]
    fn the_fullest_stream_decides() {
        let streams = |states: Vec<StreamState>| Streams { states };
        assert_eq!(streams(vec![state(1, 1, 50, None)]).rooms(), []);
        let two = streams(vec![
            state(10, 100, 500, Some(1000)),
            state(10, 10, 900, Some(1000)),
        ]);
        let soft: Vec<i64> = two.rooms().iter().map(|r| r.soft).collect();
        assert_eq!(soft, [300, -100]);
        assert!(two.are_tight(0));
        let half = streams(vec![state(10, 100, 500, Some(1000))]);
        assert!(!half.are_tight(0) && !half.are_tight(499) && half.are_tight(500));
        assert_eq!(two.bytes_behind(Sequence(95)), 700);
        assert_eq!(two.bytes_behind(Sequence(10)), 1400);
        assert_eq!(two.bytes_behind(Sequence(100)), 0);
        assert_eq!(
            streams(vec![state(0, 0, 0, None)]).bytes_behind(Sequence(0)),
            0
        );
    }
}
