//! What can go wrong between us and the broker, by kind, so that callers decide by `match` and never by text.
//!
//! Invariant: no variant holds a URL with its user part, a password, a seed or a token.

use std::path::PathBuf;
use std::time::Duration;

use super::refusal::Refusal;
use crate::change::position::{Sequence, ShardId};

/// A request to the broker that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No connection could be made. Trying again may help, unless there is a remedy.
    #[error("Failed to connect to NATS at {servers}: {source}{}", .remedy.map(|r| format!("; {r}")).unwrap_or_default())]
    Connect {
        /// The servers, without the user part of their URLs.
        servers: String,
        /// What the client library says.
        source: async_nats::ConnectError,
        /// What the operator should change, where the server could be reached.
        remedy: Option<&'static str>,
    },
    /// No connection was made in time.
    #[error("Failed to connect to NATS at {servers}: no answer within {after:?}")]
    ConnectTimeout {
        /// The servers, without the user part of their URLs.
        servers: String,
        /// The deadline.
        after: Duration,
    },
    /// A configured URL cannot be used.
    #[error(
        "Failed to connect to NATS: nats.urls names {url}, which is not a server URL ({source}); write it as nats://host:4222"
    )]
    Url {
        /// The URL without its user part.
        url: String,
        /// Why it cannot be used.
        source: std::io::Error,
    },
    /// A file that the connection needs cannot be used.
    #[error("Failed to connect to NATS: {key} {path} cannot be used: {source}", path = path.display())]
    CredentialFile {
        /// The configuration key that names the file.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why; never its content.
        source: std::io::Error,
    },
    /// The connection is down; the client is reconnecting by itself.
    #[error("not connected to NATS ({what})")]
    NotConnected {
        /// What was wanted.
        what: String,
    },
    /// No answer in time.
    #[error("no answer from NATS within {after:?} ({what})")]
    Timeout {
        /// What was wanted.
        what: String,
        /// The deadline.
        after: Duration,
    },
    /// No node hears this subject: the one that should is not connected, or may not subscribe.
    #[error(
        "nobody hears {subject}: the node is not connected to NATS, or its user may not subscribe there"
    )]
    NobodyHears {
        /// The subject.
        subject: String,
    },
    /// JetStream is not there: switched off, still starting, or without a leader.
    #[error(
        "no responders available: JetStream does not answer ({what}); it may be starting, or not be enabled on this server or account"
    )]
    NoJetStream {
        /// What was wanted.
        what: String,
    },
    /// The stream does not exist.
    #[error("stream {stream} does not exist")]
    StreamMissing {
        /// The stream.
        stream: String,
    },
    /// A stream could not be created.
    #[error("Failed to create stream {stream}: {source}")]
    CreateStream {
        /// The stream.
        stream: String,
        /// Why.
        source: Box<StreamError>,
    },
    /// Another stream holds the subject that ours needs.
    #[error(
        "Failed to create stream {stream}: subjects overlap, its subject {subject} belongs to stream {holder}; \
         when nothing needs the old stream any more, remove it with `nats stream rm {holder}`, \
         or give this cluster another nats.subject_prefix"
    )]
    SubjectTaken {
        /// The stream that we wanted.
        stream: String,
        /// The subject.
        subject: String,
        /// The stream that has it.
        holder: String,
    },
    /// The stream begins after the message that was wanted: it has been trimmed, or messages were lost.
    #[error("stream {stream} begins at {first}, after {wanted}, the next message that is needed")]
    Trimmed {
        /// The stream.
        stream: String,
        /// Its first message now.
        first: Sequence,
        /// The message that was wanted.
        wanted: Sequence,
    },
    /// The stream ends before what was already read from it: it was deleted and made anew, or lost its end.
    #[error("stream {stream} ends at {last}, but its messages up to {read} were read before")]
    Shorter {
        /// The stream.
        stream: String,
        /// Its last message now.
        last: Sequence,
        /// The last message that was read.
        read: Sequence,
    },
    /// The stream is not the one that was read from: it was deleted and made anew meanwhile.
    #[error("stream {stream} was deleted and made anew while it was read")]
    Replaced {
        /// The stream.
        stream: String,
    },
    /// JetStream refused.
    #[error("JetStream refused ({what}): {description}")]
    Refused {
        /// What was wanted.
        what: String,
        /// JetStream's error code.
        code: u64,
        /// JetStream's words.
        description: String,
    },
    /// The client library failed.
    #[error("the NATS request failed ({what}): {source}")]
    Request {
        /// What was wanted.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StreamError {
    /// What the server does not let us in for; `None`: it was not reached, or something else went wrong.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Connect { source, .. } => Refusal::of(source),
            _ => None,
        }
    }

    /// Whether the same request may succeed later with nothing changed by an operator.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Connect { remedy, .. } => remedy.is_none(),
            Self::CreateStream { source, .. } => source.is_transient(),
            Self::ConnectTimeout { .. }
            | Self::NotConnected { .. }
            | Self::Timeout { .. }
            | Self::NoJetStream { .. }
            | Self::NobodyHears { .. }
            | Self::Request { .. } => true,
            // 10008: temporarily unavailable; 10005: no suitable peers yet; 10004: incomplete results; 10009: not leader.
            Self::Refused { code, .. } => matches!(*code, 10004 | 10005 | 10008 | 10009),
            Self::Url { .. }
            | Self::CredentialFile { .. }
            | Self::StreamMissing { .. }
            | Self::SubjectTaken { .. }
            | Self::Trimmed { .. }
            | Self::Shorter { .. }
            | Self::Replaced { .. } => false,
        }
    }
}

/// A message that was not acknowledged as stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The connection is down, or broke before the answer. When `maybe_stored`, the message may have been stored all the same.
    #[error("not connected to NATS (publish to shard {shard})")]
    NotConnected {
        /// The shard.
        shard: ShardId,
        /// Whether the message had been handed to the connection.
        maybe_stored: bool,
    },
    /// No answer in time; the message may have been stored all the same.
    #[error("no acknowledgement for shard {shard} within {after:?}")]
    Timeout {
        /// The shard.
        shard: ShardId,
        /// The deadline.
        after: Duration,
    },
    /// The stream, its account or its server has no room. Not stored; try again later.
    #[error("stream {stream} takes no more messages: {description}")]
    StreamFull {
        /// The stream.
        stream: String,
        /// The server's words.
        description: String,
    },
    /// Larger than the server or the stream takes. Not stored; sending it again cannot help.
    #[error(
        "a message of {size} bytes is larger than the {limit} bytes that the server takes for shard {shard}"
    )]
    TooLarge {
        /// The shard.
        shard: ShardId,
        /// The payload's size in bytes.
        size: usize,
        /// The server's limit in bytes.
        limit: usize,
    },
    /// Nothing stores this subject at the moment: no such stream, JetStream starting, or no leader. Not stored.
    #[error("no stream stores the subject {subject}")]
    NoStream {
        /// The subject.
        subject: String,
    },
    /// Stored, but in a stream that is not the shard's: another stream has taken over the subject.
    #[error(
        "a message for stream {expected} was stored in stream {actual}, which holds its subject"
    )]
    WrongStream {
        /// The shard's stream.
        expected: String,
        /// The stream that answered.
        actual: String,
    },
    /// JetStream refused for another reason. Not stored.
    #[error("JetStream refused a message for shard {shard}: {description}")]
    Refused {
        /// The shard.
        shard: ShardId,
        /// JetStream's error code.
        code: u64,
        /// JetStream's words.
        description: String,
    },
    /// The client library failed; the message may have been stored.
    #[error("publishing to shard {shard} failed: {source}")]
    Other {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PublishError {
    /// Whether the message may be in the stream although this is an error.
    #[must_use]
    pub const fn maybe_stored(&self) -> bool {
        match self {
            Self::NotConnected { maybe_stored, .. } => *maybe_stored,
            Self::Timeout { .. } | Self::Other { .. } | Self::WrongStream { .. } => true,
            Self::StreamFull { .. }
            | Self::TooLarge { .. }
            | Self::NoStream { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// A request to a key-value bucket that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The key exists already, or its revision is not the expected one: somebody else was faster.
    #[error("key {key} of bucket {bucket} was changed by somebody else")]
    Conflict {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The key cannot be the name of a key.
    #[error("{key:?} cannot be a key of bucket {bucket}")]
    InvalidKey {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The broker did not do it.
    #[error(transparent)]
    Stream(#[from] StreamError),
}
