//! What this node shows of each other one in its metrics: position, lag, pending changes, when it was last heard of.
//!
//! Invariants: it is what was announced, so a scrape asks nobody; at most `SHOWN` nodes have series, those that were heard of last; who has left or was
//! forgotten has none; the position of a node that stands in another history means nothing here, and is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::change::position::{NodeId, Sequence, ShardId};
use crate::engine::Engine;
use crate::snapshot::presence::Announced;
use crate::stream::Broker;

/// Nodes that have series of their own.
const SHOWN: usize = 256;

/// Messages that are looked up in one round, where it is not known since when a node waits for one.
const LOOKED_UP: usize = 4;

/// How long one of them may take to come: questions to the other nodes wait meanwhile.
const LOOKUP: Duration = Duration::from_millis(500);

/// Who is shown, with the shards of which a position is.
#[derive(Debug, Default)]
pub struct Shown(BTreeMap<NodeId, BTreeSet<ShardId>>);

impl Shown {
    /// Shows what the others have said, and nothing of those who are there no more. `me`: what this node has said. `now`: the server's time.
    pub async fn show(
        &mut self,
        engine: &Engine,
        broker: &Broker,
        me: Option<&Announced>,
        others: &[Announced],
        now: u64,
    ) {
        let mut latest: Vec<&Announced> = others.iter().collect();
        latest.sort_unstable_by_key(|a| std::cmp::Reverse(a.at));
        latest.truncate(SHOWN);
        let ends = engine.way.ends();
        let end = engine.way.end();
        let mut there = BTreeMap::new();
        let mut lookups = LOOKED_UP;
        for a in latest {
            engine.way.timeline.note_time(a.at);
            let history = me.is_none_or(|me| me.present.history == a.present.history);
            let offsets = offsets(a, history);
            self.numbers(engine, a, &offsets, &ends, now);
            let position = offsets.get(&ShardId::ORDER).copied();
            let waits = match position.zip(end) {
                Some((position, end)) => since(engine, broker, position, end, &mut lookups).await,
                None => None,
            };
            lag(engine, a.node, &offsets, &ends, waits);
            there.insert(a.node, offsets.into_keys().collect());
        }
        let gone = std::mem::replace(&mut self.0, there);
        for (node, shards) in gone {
            self.withdraw(engine, node, &shards);
        }
    }

    /// Nobody is shown any more.
    pub fn clear(&mut self, engine: &Engine) {
        for (node, shards) in std::mem::take(&mut self.0) {
            self.withdraw(engine, node, &shards);
        }
    }

    fn numbers(
        &self,
        engine: &Engine,
        a: &Announced,
        offsets: &BTreeMap<ShardId, Sequence>,
        ends: &BTreeMap<u64, Sequence>,
        now: u64,
    ) {
        let m = &engine.metrics;
        let age = Duration::from_nanos(now.saturating_sub(a.at));
        m.peer_last_seen_seconds.set(a.node, age.as_secs_f64());
        if let Some(about) = &a.about {
            let pending = i32::try_from(about.pending).map_or(f64::from(i32::MAX), f64::from);
            m.peer_pending.set(a.node, pending);
        }
        for (shard, at) in offsets {
            m.peer_position.set_shard(a.node, *shard, at.0);
            if let Some(end) = ends.get(&shard.0) {
                let behind = end.0.saturating_sub(at.0);
                m.peer_lag_messages.set_shard(a.node, *shard, behind);
            }
        }
    }

    /// Takes away what is not shown of a node any more.
    fn withdraw(&self, engine: &Engine, node: NodeId, shards: &BTreeSet<ShardId>) {
        let m = &engine.metrics;
        let still = self.0.get(&node);
        for shard in shards {
            if still.is_none_or(|still| !still.contains(shard)) {
                m.peer_position.remove(node, Some(*shard));
                m.peer_lag_messages.remove(node, Some(*shard));
                m.peer_lag_seconds.remove(node, Some(*shard));
            }
        }
        if still.is_none() {
            for gauge in [&m.peer_pending, &m.peer_last_seen_seconds] {
                gauge.remove(node, None);
            }
        }
    }
}

/// How long the first message behind this position has been in the order stream; `None`: it is not known yet.
async fn since(
    engine: &Engine,
    broker: &Broker,
    position: Sequence,
    end: Sequence,
    lookups: &mut usize,
) -> Option<Duration> {
    if position >= end {
        return Some(Duration::ZERO);
    }
    let waits = engine.way.timeline.waits(position);
    if waits.is_some() || *lookups == 0 {
        return waits;
    }
    *lookups -= 1;
    if let Ok(Some(m)) = broker.fetch(ShardId::ORDER, position.next(), LOOKUP).await {
        engine
            .way
            .timeline
            .note_fetched(m.sequence, m.timestamp_nanos);
    }
    engine.way.timeline.waits(position)
}

/// Shows since when a node waits, by shard. Payload is seen with the record that names it, so it waits for as long as the first of those.
fn lag(
    engine: &Engine,
    node: NodeId,
    offsets: &BTreeMap<ShardId, Sequence>,
    ends: &BTreeMap<u64, Sequence>,
    waits: Option<Duration>,
) {
    let gauge = &engine.metrics.peer_lag_seconds;
    for (shard, at) in offsets {
        let lacks = ends
            .get(&shard.0)
            .map(|end| *shard == ShardId::ORDER || at < end);
        match (lacks, waits) {
            (Some(true), Some(waits)) => gauge.set_seconds(node, *shard, waits),
            (Some(false), Some(_)) => gauge.set_seconds(node, *shard, Duration::ZERO),
            _ => gauge.remove(node, Some(*shard)),
        }
    }
}

/// Where a node is, by shard. `history`: whether its positions mean anything here.
fn offsets(a: &Announced, history: bool) -> BTreeMap<ShardId, Sequence> {
    let mut offsets = BTreeMap::new();
    if !history {
        return offsets;
    }
    offsets.extend(a.present.position.map(|at| (ShardId::ORDER, at)));
    if let Some(about) = &a.about {
        let own = about.offsets.iter();
        // What a node says of itself is believed as far as it costs nothing.
        let own = own.filter(|(shard, _)| (2..=about.shards).contains(*shard));
        offsets.extend(
            own.take(SHARDS)
                .map(|(shard, at)| (ShardId(*shard), Sequence(*at))),
        );
    }
    offsets
}

/// Shards of a node that are shown beside the order stream.
const SHARDS: usize = 15;
