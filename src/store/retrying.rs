//! Tries and deadlines around a backend, the same for all.
//!
//! Invariants: every request ends: a try when nothing moves for [`Limits::stall`], the whole after [`Limits::tries`]; only
//! passing faults are tried again; dropping the future ends all of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use super::digest::InOrder;
use super::error::{Fault, StoreError, local};
use super::key::Key;
use super::meter::{Meter, Progress, watched};
use super::sink::{Kept, Sink};
use super::source::{PIECE, Source};
use super::{Content, Entry, MAX_SMALL, SnapshotStore};
use crate::runtime::backoff::Backoff;

/// How long and how often a store is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tries of one request; at least one is made.
    pub tries: u32,
    /// The first wait between tries.
    pub first_wait: Duration,
    /// The longest wait between tries.
    pub longest_wait: Duration,
    /// A try ends when nothing has moved for this long, or for twice as long at the latest.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // With the waits below about half a minute of trying: longer than a server's restart. Whoever takes snapshots comes
            // again later anyway, and whoever restores tries for ever, saying so.
            tries: 8,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(10),
            // S3 and WebDAV servers work for a while on a large object after its last byte, before they answer.
            stall: Duration::from_secs(60),
        }
    }
}

/// One kind of store, one try at a time. Names that begin with a dot are not objects.
#[async_trait]
pub(super) trait Backend: Send + Sync {
    /// For people, without secrets: kind and place.
    fn name(&self) -> String;
    /// Stores the object, visible whole or not at all.
    async fn put(&self, key: &Key, source: &Source) -> Result<(), Fault>;
    /// Stores the object under another name too, without its bytes going through here; `false` where there is no way to.
    async fn duplicate(&self, _from: &Key, _to: &Key, _meter: &Meter) -> Result<bool, Fault> {
        Ok(false)
    }
    /// Fetches the object; says its length first where the store does.
    async fn get(&self, key: &Key, sink: &mut Sink) -> Result<(), Fault>;
    /// The objects.
    async fn list(&self, meter: &Meter) -> Result<Vec<Entry>, Fault>;
    /// Removes the object, which may be gone already.
    async fn delete(&self, key: &Key) -> Result<(), Fault>;
    /// Removes what uploads left that were cut off before `before`. Returns how many.
    async fn sweep(&self, before: SystemTime, meter: &Meter) -> Result<usize, Fault>;
}

/// A backend with tries and deadlines.
pub(super) struct Retrying<B> {
    backend: B,
    name: Arc<str>,
    limits: Limits,
}

impl<B: Backend> Retrying<B> {
    pub(super) fn new(backend: B, limits: Limits) -> Self {
        let name = backend.name().into();
        Self {
            backend,
            name,
            limits,
        }
    }

    fn tries<'a>(&'a self, what: String, key: &'a str) -> Tries<'a> {
        let Limits {
            first_wait,
            longest_wait,
            ..
        } = self.limits;
        Tries {
            store: &self.name,
            what,
            key,
            left: self.limits.tries,
            waits: Backoff::new(first_wait, longest_wait),
        }
    }

    async fn upload(
        &self,
        key: &Key,
        progress: &Progress,
        source: impl Fn(Meter) -> Source + Send + Sync,
        len: u64,
    ) -> Result<u64, StoreError> {
        let mut tries = self.tries(format!("storing {key}"), key.as_str());
        loop {
            let meter = Meter::new(progress.clone(), len);
            let source = source(meter.clone());
            let put = self.backend.put(key, &source);
            match watched(&meter, self.limits.stall, put).await {
                Ok(()) => return Ok(len),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    async fn download(
        &self,
        key: &Key,
        progress: &Progress,
        sink: impl Fn(Meter) -> Result<Sink, Fault> + Send + Sync,
    ) -> Result<Kept, StoreError> {
        let mut tries = self.tries(format!("fetching {key}"), key.as_str());
        loop {
            let meter = Meter::new(progress.clone(), 0);
            let get = async {
                let mut sink = sink(meter.clone())?;
                self.backend.get(key, &mut sink).await?;
                sink.finish().await
            };
            match watched(&meter, self.limits.stall, get).await {
                Ok(done) => return Ok(done),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }
}

#[async_trait]
impl<B: Backend> SnapshotStore for Retrying<B> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn put(
        &self,
        key: &Key,
        source: &Path,
        progress: &Progress,
    ) -> Result<Content, StoreError> {
        let named = |fault: Fault| fault.named(&self.name, &format!("storing {key}"), key.as_str());
        let len = Source::measure(source).await.map_err(named)?;
        let digest = InOrder::default();
        let file = |meter| Source::file(source, len, meter, digest.clone());
        self.upload(key, progress, file, len).await?;
        let sha256 = match digest.finish(len) {
            Some(sha256) => sha256,
            None => hash(source, len).await.map_err(named)?,
        };
        Ok(Content { len, sha256 })
    }

    async fn duplicate(&self, from: &Key, to: &Key) -> bool {
        let meter = Meter::default();
        let copy = self.backend.duplicate(from, to, &meter);
        match watched(&meter, self.limits.stall, copy).await {
            Ok(done) => done,
            Err(fault) => {
                let error = fault.named(&self.name, "copying", from.as_str());
                tracing::debug!(%error, "it is sent a second time");
                false
            }
        }
    }

    async fn get(
        &self,
        key: &Key,
        to: &Path,
        most: u64,
        progress: &Progress,
    ) -> Result<Content, StoreError> {
        let file = |meter| Sink::file(to, most, meter);
        let Kept { len, sha256, .. } = self.download(key, progress, file).await?;
        Ok(Content { len, sha256 })
    }

    async fn read_back(&self, key: &Key) -> Result<Content, StoreError> {
        let hash = |meter| Ok(Sink::hash(meter));
        let Kept { len, sha256, .. } = self.download(key, &Progress::none(), hash).await?;
        Ok(Content { len, sha256 })
    }

    async fn put_small(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError> {
        if bytes.len() > MAX_SMALL {
            let len = bytes.len();
            let fault = Fault::permanent(
                format!("it has {len} bytes, more than {MAX_SMALL}"),
                "store it from a file",
            );
            return Err(fault.named(&self.name, &format!("storing {key}"), key.as_str()));
        }
        let len = bytes.len() as u64;
        let memory = |meter| Source::memory(bytes.clone(), meter);
        self.upload(key, &Progress::none(), memory, len).await?;
        Ok(())
    }

    async fn get_small(&self, key: &Key) -> Result<Option<Bytes>, StoreError> {
        let memory = |meter| Ok(Sink::memory(MAX_SMALL, meter));
        match self.download(key, &Progress::none(), memory).await {
            Ok(kept) => Ok(Some(kept.bytes)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let mut tries = self.tries("listing".to_owned(), "list");
        loop {
            let meter = Meter::default();
            match watched(&meter, self.limits.stall, self.backend.list(&meter)).await {
                Ok(mut entries) => {
                    entries.sort_by(|a, b| a.key.cmp(&b.key));
                    return Ok(entries);
                }
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let mut tries = self.tries(format!("removing {key}"), key.as_str());
        loop {
            let meter = Meter::default();
            match watched(&meter, self.limits.stall, self.backend.delete(key)).await {
                Ok(()) | Err(Fault::Missing) => return Ok(()),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    async fn sweep(&self, older_than: Duration) -> Result<usize, StoreError> {
        let before = SystemTime::now()
            .checked_sub(older_than)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let what = "removing what was left of uploads that were cut off";
        let mut tries = self.tries(what.to_owned(), "upload");
        loop {
            let meter = Meter::default();
            let sweep = self.backend.sweep(before, &meter);
            match watched(&meter, self.limits.stall, sweep).await {
                Ok(count) => return Ok(count),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }
}

impl<B: Backend> std::fmt::Debug for Retrying<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SnapshotStore({})", self.name)
    }
}

/// The hash of a file of which a backend has read parts only, or not in order.
async fn hash(path: &Path, len: u64) -> Result<String, Fault> {
    let digest = InOrder::default();
    let mut reader = Source::file(path, len, Meter::default(), digest.clone()).whole();
    let mut piece = vec![0; PIECE];
    while reader.read(&mut piece).await.map_err(|e| local(e, path))? > 0 {}
    digest
        .finish(len)
        .ok_or_else(|| Fault::passing("the file changed while it was read"))
}

/// The tries of one request.
struct Tries<'a> {
    store: &'a Arc<str>,
    what: String,
    key: &'a str,
    left: u32,
    waits: Backoff,
}

impl Tries<'_> {
    /// Ready when it is time for the next try.
    async fn again(&mut self, fault: Fault) -> Result<(), StoreError> {
        self.left = self.left.saturating_sub(1);
        match fault {
            Fault::Passing(source) if self.left > 0 => {
                let wait = self.waits.next_wait();
                tracing::warn!(
                    store = &**self.store,
                    error = %source,
                    tries_left = self.left,
                    wait_seconds = wait.as_secs_f64(),
                    "{} failed, trying again",
                    self.what
                );
                tokio::time::sleep(wait).await;
                Ok(())
            }
            fault => Err(fault.named(self.store, &self.what, self.key)),
        }
    }
}
