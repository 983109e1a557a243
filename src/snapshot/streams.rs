//! What trimming asks of the streams: of the broker's, or of the simulation's.
//!
//! Invariant: what is shown are the messages as they are stored, in their order, none left out.

use std::future::Future;
use std::time::Duration;

use super::trim::TrimError;
use crate::change::position::{Sequence, ShardId};
use crate::stream::{Broker, StoredMessage, StreamError, StreamState};

/// How long the next message of a stream that is known to hold it may take.
pub(super) const NEXT: Duration = Duration::from_secs(30);

/// The streams, as far as trimming needs them: the broker's, or the simulation's.
pub trait Streams {
    /// What a stream holds.
    fn state(
        &self,
        shard: ShardId,
    ) -> impl Future<Output = Result<StreamState, StreamError>> + Send;

    /// Shows the messages `first` to `last`, until `show` wants no more.
    fn read(
        &self,
        shard: ShardId,
        first: Sequence,
        last: Sequence,
        show: impl FnMut(&StoredMessage) -> Result<bool, TrimError> + Send,
    ) -> impl Future<Output = Result<(), TrimError>> + Send;

    /// The last message that is older than `age`, where `now` is the server's time in nanoseconds since the Unix epoch.
    fn older_than(
        &self,
        shard: ShardId,
        age: Duration,
        now: u64,
    ) -> impl Future<Output = Result<Option<Sequence>, StreamError>> + Send;

    /// Removes everything up to a message; how many messages went.
    fn purge(
        &self,
        shard: ShardId,
        up_to: Sequence,
    ) -> impl Future<Output = Result<u64, StreamError>> + Send;
}

impl Streams for Broker {
    async fn state(&self, shard: ShardId) -> Result<StreamState, StreamError> {
        self.stream_state(shard).await
    }

    async fn read(
        &self,
        shard: ShardId,
        first: Sequence,
        last: Sequence,
        mut show: impl FnMut(&StoredMessage) -> Result<bool, TrimError> + Send,
    ) -> Result<(), TrimError> {
        let mut reader = self.reader(shard, first);
        let mut at = Sequence(first.0.saturating_sub(1));
        while at < last {
            let message = tokio::time::timeout(NEXT, reader.next())
                .await
                .map_err(|_| TrimError::NotRead {
                    shard,
                    at: at.next(),
                })??;
            at = message.sequence;
            if at > last || !show(&message)? {
                break;
            }
        }
        Ok(())
    }

    async fn older_than(
        &self,
        shard: ShardId,
        age: Duration,
        now: u64,
    ) -> Result<Option<Sequence>, StreamError> {
        Self::older_than(self, shard, age, now).await
    }

    async fn purge(&self, shard: ShardId, up_to: Sequence) -> Result<u64, StreamError> {
        self.purge_up_to(shard, up_to).await
    }
}
