//! Removing the oldest messages of a stream, and when a message was stored.
//!
//! Invariant: only ever everything up to a sequence, so that a stream stays one piece from its first message on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::api;
use super::broker::Broker;
use super::error::StreamError;
use crate::change::position::{Sequence, ShardId};

#[derive(Serialize)]
struct Purge {
    /// Up to this one, exclusive.
    seq: u64,
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}

impl Broker {
    /// Removes the shard's messages up to and with `up_to`. Returns how many went.
    ///
    /// # Errors
    /// [`StreamError::StreamMissing`], or why the broker did not do it: it may have, all the same.
    pub async fn purge_up_to(&self, shard: ShardId, up_to: Sequence) -> Result<u64, StreamError> {
        let stream = self.stream_name(shard);
        self.require_connection(|| format!("purge of stream {stream}"))?;
        let subject = format!("STREAM.PURGE.{stream}");
        let request = Purge {
            seq: up_to.next().0,
        };
        let answer: Purged = api::request(self.context(), &stream, subject, &request).await?;
        Ok(answer.purged)
    }

    /// The last message that was stored at least `age` before `now` (nanoseconds since the Unix epoch, by the server's clock); `None` where there is
    /// none. What was removed from the middle counts as young.
    ///
    /// # Errors
    /// The broker's.
    pub async fn older_than(
        &self,
        shard: ShardId,
        age: Duration,
        now: u64,
    ) -> Result<Option<Sequence>, StreamError> {
        const DEADLINE: Duration = Duration::from_secs(5);
        let state = self.stream_state(shard).await?;
        let limit = now.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        // Everything up to `old` is old enough, from `young` on nothing is.
        let (mut old, mut young) = (state.first.0.saturating_sub(1), state.last.next().0);
        while young - old > 1 {
            let middle = old + (young - old) / 2;
            let message = self.fetch(shard, Sequence(middle), DEADLINE).await?;
            if message.is_some_and(|m| m.timestamp_nanos <= limit) {
                old = middle;
            } else {
                young = middle;
            }
        }
        Ok((old >= state.first.0).then_some(Sequence(old)))
    }
}
