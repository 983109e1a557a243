//! Reading an object of a bucket, chunk by chunk.
//!
//! Invariants: chunks come in order and without a gap, or reading ends with an error; a few MiB are in flight at most; an object
//! that is replaced meanwhile is noticed.

use std::time::Duration;

use async_nats::jetstream::consumer::pull;
use bytes::Bytes;
use futures_util::TryStreamExt;
use tokio::sync::watch;

use super::broker::broken;
use super::connect::Link;
use super::error::StreamError;
use super::objects::Objects;

/// After this long without a chunk a reader asks whether its object was replaced meanwhile: its chunks are gone then.
const REPLACED_CHECK: Duration = Duration::from_secs(2);

/// Reads an object from its start to its end.
pub struct ObjectReader {
    pub(super) bucket: Objects,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) size: u64,
    pub(super) left: u64,
    pub(super) chunks: Option<pull::Stream>,
    pub(super) link: (watch::Receiver<Link>, Link),
    /// The chunk before, by the server's count.
    pub(super) last: u64,
}

impl ObjectReader {
    /// The object's size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes; `None` at the end, when all was there.
    ///
    /// # Errors
    /// Why the broker did not do it; [`StreamError::Request`] also when the object was replaced or removed meanwhile.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        let Self {
            bucket,
            name,
            version,
            left,
            chunks: Some(chunks),
            link: (link, in_use),
            last,
            ..
        } = self
        else {
            return Ok(None);
        };
        let what = || bucket.what("read", name);
        while *left > 0 {
            let next = tokio::time::timeout(REPLACED_CHECK, chunks.try_next());
            let next = tokio::select! {
                biased;
                // What the server had sent is lost with the connection.
                () = broken(link, *in_use) => return Err(StreamError::NotConnected { what: what() }),
                next = next => next,
            };
            match next {
                Ok(Ok(Some(message))) => {
                    let place = message.info().map_err(|source| StreamError::Request {
                        what: what(),
                        source,
                    })?;
                    if place.consumer_sequence != *last + 1 {
                        return Err(bucket.failed(what(), Gap));
                    }
                    *last = place.consumer_sequence;
                    let chunk = message.message.payload;
                    *left = left.saturating_sub(chunk.len() as u64);
                    return Ok(Some(chunk));
                }
                Ok(Ok(None)) => return Err(bucket.failed(what(), Changed)),
                Ok(Err(error)) => return Err(bucket.failed(what(), error)),
                Err(_) => bucket.still_there(what, name, version).await?,
            }
        }
        Ok(None)
    }
}

/// A chunk did not come.
#[derive(Debug, thiserror::Error)]
#[error("a chunk was lost on the way")]
struct Gap;

/// An object went away while it was read.
#[derive(Debug, thiserror::Error)]
#[error("the object was replaced or removed while it was read")]
pub(super) struct Changed;
