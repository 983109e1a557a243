//! What a broker says about itself and about our account there, for people who look whether it is fit for us.
//!
//! Invariant: everything here only asks; nothing is made or changed.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api;
use super::broker::Broker;
use super::error::StreamError;
use super::setup;
use crate::change::position::ShardId;
use crate::config::ReplicationLogConfig;

/// The server that a client is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its cluster's name; `None`: it stands alone.
    pub cluster: Option<String>,
    /// Servers of that cluster that it tells clients of, itself included; at least 1.
    pub servers: usize,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Whether it is about to shut down.
    pub lame_duck: bool,
}

/// What JetStream grants our account. Limits of -1 are none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Account {
    /// Bytes stored in files.
    #[serde(default)]
    pub storage: u64,
    /// Streams, those behind buckets included.
    #[serde(default)]
    pub streams: i64,
    /// Consumers.
    #[serde(default)]
    pub consumers: i64,
    /// The limits.
    #[serde(default)]
    pub limits: Limits,
    /// By number of copies, where the account's limits are told so.
    #[serde(default)]
    pub tiers: BTreeMap<String, Tier>,
}

/// What an account may have. -1: as much as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes in files.
    pub max_storage: i64,
    /// Streams, those behind buckets included.
    pub max_streams: i64,
    /// Consumers.
    pub max_consumers: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_storage: -1,
            max_streams: -1,
            max_consumers: -1,
        }
    }
}

/// The same for streams of one number of copies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Tier {
    /// Bytes stored in files.
    #[serde(default)]
    pub storage: u64,
    /// Streams.
    #[serde(default)]
    pub streams: i64,
    /// The limits.
    #[serde(default)]
    pub limits: Limits,
}

impl Account {
    /// Bytes that may still be stored in streams of so many copies; `None`: no limit is told.
    #[must_use]
    pub fn room(&self, replicas: usize) -> Option<u64> {
        let (used, limits) = match self.tiers.get(&format!("R{replicas}")) {
            Some(tier) => (tier.storage, &tier.limits),
            None => (self.storage, &self.limits),
        };
        u64::try_from(limits.max_storage)
            .ok()
            .map(|most| most.saturating_sub(used))
    }

    /// Streams that may still be made with so many copies; `None`: no limit is told.
    #[must_use]
    pub fn streams_left(&self, replicas: usize) -> Option<i64> {
        let (used, limits) = match self.tiers.get(&format!("R{replicas}")) {
            Some(tier) => (tier.streams, &tier.limits),
            None => (self.streams, &self.limits),
        };
        (limits.max_streams > 0).then(|| limits.max_streams - used)
    }
}

impl Broker {
    /// The server that this client is connected to; `None` before the first connection.
    #[must_use]
    pub fn server_facts(&self) -> Option<ServerFacts> {
        self.client().try_server_info().map(|info| ServerFacts {
            name: info.server_name,
            version: info.version,
            servers: info.connect_urls.len().max(1),
            cluster: info.cluster.filter(|name| !name.is_empty()),
            max_payload: info.max_payload,
            lame_duck: info.lame_duck_mode,
        })
    }

    /// What JetStream grants this account.
    ///
    /// # Errors
    /// [`StreamError::NoJetStream`], [`StreamError::Refused`] where the account has none, or why there was no answer.
    pub async fn account(&self) -> Result<Account, StreamError> {
        self.require_connection(|| "JetStream's account".to_owned())?;
        api::request(self.context(), "", "INFO".to_owned(), &()).await
    }

    /// In what the shard's stream is not as this configuration would have made it.
    ///
    /// # Errors
    /// [`StreamError::StreamMissing`], or why there was no answer.
    pub async fn stream_differences(
        &self,
        shard: ShardId,
        config: &ReplicationLogConfig,
        drop_oldest: bool,
    ) -> Result<Vec<String>, StreamError> {
        let existing = self.info(&self.stream_name(shard)).await?.config;
        let wanted = self.wanted(shard, config, drop_oldest);
        Ok(setup::differences(&existing, &wanted))
    }

    /// The stream that holds the subject of this shard, whichever it is.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn subject_holder(&self, shard: ShardId) -> Result<Option<String>, StreamError> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
        }
        let subject = self.subject(shard);
        self.require_connection(|| format!("the stream of subject {subject}"))?;
        let asked = serde_json::json!({ "subject": subject });
        let found: Names =
            api::request(self.context(), "", "STREAM.NAMES".to_owned(), &asked).await?;
        Ok(found.streams.unwrap_or_default().into_iter().next())
    }

    /// Whether an object bucket exists.
    ///
    /// # Errors
    /// Why there was no answer.
    pub async fn has_objects(&self, bucket: &str) -> Result<bool, StreamError> {
        match self.info(&format!("OBJ_{bucket}")).await {
            Ok(_) => Ok(true),
            Err(StreamError::StreamMissing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_tier_where_there_is_one() {
        let read = |text: &str| serde_json::from_str::<Account>(text).unwrap();
        let free = read(
            r#"{"memory":0,"storage":7,"streams":2,"limits":{"max_memory":-1,"max_storage":-1,"max_streams":-1}}"#,
        );
        assert_eq!((free.room(1), free.streams_left(1)), (None, None));
        let bound =
            read(r#"{"storage":7,"streams":2,"limits":{"max_storage":10,"max_streams":2}}"#);
        assert_eq!((bound.room(3), bound.streams_left(3)), (Some(3), Some(0)));
        let tiers = read(
            r#"{"storage":7,"limits":{},"tiers":{"R3":{"storage":4,"streams":1,"limits":{"max_storage":5,"max_streams":4}}}}"#,
        );
        assert_eq!((tiers.room(3), tiers.streams_left(3)), (Some(1), Some(3)));
        assert_eq!(tiers.room(1), None);
    }
}
