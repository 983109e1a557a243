//! A stream as an operator wants to see it: what it holds, of when, and on which servers.
//!
//! Invariant: all times are the servers', so that an age is the difference of two of them.

use async_nats::jetstream::stream::Info;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::api;
use super::broker::{Broker, StreamState, nanos};
use super::error::StreamError;
use crate::change::position::ShardId;

/// A stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// What it holds.
    pub state: StreamState,
    /// When the first message was stored, in nanoseconds since the Unix epoch; 0: there is none.
    pub oldest: u64,
    /// When the last message was stored; 0: there never was one.
    pub newest: u64,
    /// The server's time as it answered; `None`: one before 2.10 does not say.
    pub now: Option<u64>,
    /// Copies that JetStream is told to keep.
    pub replicas: usize,
    /// The server that leads it; `None`: a server alone, or nobody leads at the moment.
    pub leader: Option<String>,
    /// Servers with a copy that is offline.
    pub offline: Vec<String>,
    /// Servers with a copy that is behind.
    pub behind: Vec<String>,
}

/// Where a client is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The server's name.
    pub server: String,
    /// The client's address, as the server sees it.
    pub address: String,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    info: Info,
    #[serde(default)]
    ts: Option<String>,
}

impl Broker {
    /// The shard's stream, as its leader says.
    ///
    /// # Errors
    /// [`StreamError::StreamMissing`], [`StreamError::NotConnected`], or why the broker did not answer.
    pub async fn overview(&self, shard: ShardId) -> Result<Overview, StreamError> {
        let stream = self.stream_name(shard);
        self.require_connection(|| format!("state of stream {stream}"))?;
        let subject = format!("STREAM.INFO.{stream}");
        let Answer { info, ts } = api::request(self.context(), &stream, subject, &()).await?;
        let cluster = info.cluster.clone().unwrap_or_default();
        let names = |wanted: &dyn Fn(bool, bool) -> bool| {
            let copies = cluster.replicas.iter();
            copies
                .filter(|c| wanted(c.current, c.offline))
                .map(|c| c.name.clone())
                .collect::<Vec<_>>()
        };
        Ok(Overview {
            state: StreamState::from(&info),
            oldest: match info.state.messages {
                0 => 0,
                _ => nanos(info.state.first_timestamp),
            },
            newest: nanos(info.state.last_timestamp),
            now: ts
                .and_then(|ts| OffsetDateTime::parse(&ts, &Rfc3339).ok())
                .map(nanos),
            replicas: info.config.num_replicas,
            offline: names(&|_, offline| offline),
            behind: names(&|current, offline| !current && !offline),
            leader: cluster.leader,
        })
    }

    /// Where this client is connected; `None` before the first connection.
    #[must_use]
    pub fn connected(&self) -> Option<Connected> {
        self.client().try_server_info().map(|info| Connected {
            server: info.server_name,
            address: info.client_ip,
        })
    }
}
