//! Object-store buckets: large objects in chunks, as the NATS tools know them.
//!
//! Invariants: an object is visible when its metadata message is stored, after all of its chunks, so whole or not at all; what is
//! read is as long as the metadata says. An upload that is cut off leaves chunks that no metadata names;
//! [`Objects::sweep`] removes them. The library waits for each chunk's acknowledgement, which bounds memory and time.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use async_nats::Request;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::object_store::{
    Config, DeleteErrorKind, InfoErrorKind, ObjectMetadata, ObjectStore,
};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::StorageType;
use futures_util::{Future, TryStreamExt};
use tokio::io::AsyncRead;

use super::api::API_DEADLINE;
use super::broker::{Broker, broken};
use super::error::StreamError;
use super::object_reader::{Changed, ObjectReader};

/// Well below the server's default `max_payload` of 1 MiB, and few enough messages for a large object.
const CHUNK: usize = 256 * 1024;

/// Chunks that are asked for before they are needed: a few MiB, enough for a fast line.
const CHUNKS_AHEAD: usize = 16;

/// When the server forgets a reader that is gone.
const READER_GONE: Duration = Duration::from_secs(60);

/// An object-store bucket. Cheap to clone.
#[derive(Clone)]
pub struct Objects {
    broker: Broker,
    bucket: String,
    store: ObjectStore,
}

/// An object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, by the clock of whoever did.
    pub modified: Option<SystemTime>,
}

impl Broker {
    /// Opens the object-store bucket, made first if it does not exist, in `replicas` copies. The settings of an existing one stay.
    ///
    /// # Errors
    /// Why the broker did not do it.
    pub async fn object_bucket(
        &self,
        bucket: &str,
        replicas: usize,
    ) -> Result<Objects, StreamError> {
        let what = || format!("object bucket {bucket}");
        self.require_connection(what)?;
        let stream = format!("OBJ_{bucket}");
        let store = match self.info(&stream).await {
            Ok(_) => bounded(what, self.context().get_object_store(bucket)).await?,
            Err(StreamError::StreamMissing { .. }) => {
                let config = Config {
                    bucket: bucket.to_owned(),
                    storage: StorageType::File,
                    num_replicas: replicas,
                    ..Config::default()
                };
                bounded(what, self.context().create_object_store(config)).await?
            }
            Err(error) => return Err(error),
        };
        Ok(Objects {
            broker: self.clone(),
            bucket: bucket.to_owned(),
            store,
        })
    }
}

impl Objects {
    /// Stores what `reader` gives under `name`, replacing what is there.
    ///
    /// # Errors
    /// Why the broker or the reader did not do it.
    pub async fn put(
        &self,
        name: &str,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), StreamError> {
        let what = || self.what("store", name);
        self.broker.require_connection(what)?;
        let metadata = ObjectMetadata {
            name: name.to_owned(),
            chunk_size: Some(CHUNK.min(self.broker.max_payload())),
            ..ObjectMetadata::default()
        };
        let (mut link, in_use) = self.broker.link_in_use();
        let stored = tokio::select! {
            biased;
            stored = self.store.put(metadata, reader) => stored,
            // The chunk under way is lost, and its acknowledgement would be waited for in vain.
            () = broken(&mut link, in_use) => return Err(StreamError::NotConnected { what: what() }),
        };
        let Err(error) = stored else {
            return Ok(());
        };
        match self.refusal(what).await {
            Err(refused @ StreamError::Refused { .. }) => Err(refused),
            _ => Err(self.failed(what(), error)),
        }
    }

    /// Why chunks are not stored, where JetStream says so: the library drops the code of its answer. Stores a chunk and
    /// removes it.
    async fn refusal(&self, what: impl Fn() -> String) -> Result<(), StreamError> {
        self.broker.require_connection(&what)?;
        let chunk = vec![0; CHUNK.min(self.broker.max_payload())];
        let subject = format!("$O.{}.C.probe", self.bucket);
        let request = Request::new()
            .payload(chunk.into())
            .timeout(Some(API_DEADLINE));
        let send = self.broker.client().send_request(subject.clone(), request);
        let answer = bounded(&what, send).await?;
        match serde_json::from_slice::<Response<PublishAck>>(&answer.payload) {
            Ok(Response::Err { error }) => Err(StreamError::Refused {
                what: what(),
                code: error.error_code().0,
                description: error.to_string(),
            }),
            Ok(Response::Ok(_)) => {
                let stream = format!("OBJ_{}", self.bucket);
                let stream = bounded(&what, self.broker.context().get_stream(&stream)).await?;
                bounded(what, stream.purge().filter(&subject).into_future()).await?;
                Ok(())
            }
            Err(source) => Err(StreamError::Request {
                what: what(),
                source: boxed(source),
            }),
        }
    }

    /// Opens an object; `None` when there is none of that name.
    ///
    /// # Errors
    /// Why the broker did not do it.
    pub async fn get(&self, name: &str) -> Result<Option<ObjectReader>, StreamError> {
        let what = || self.what("read", name);
        self.broker.require_connection(what)?;
        let info = match timed(what, self.store.info(name)).await? {
            Ok(info) if !info.deleted => info,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == InfoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed(what(), error)),
        };
        let size = info.size as u64;
        let chunks = match size {
            0 => None,
            _ => Some(self.chunks(what, &info.nuid).await?),
        };
        Ok(Some(ObjectReader {
            bucket: self.clone(),
            name: name.to_owned(),
            version: info.nuid,
            size,
            left: size,
            chunks,
            link: self.broker.link_in_use(),
            last: 0,
        }))
    }

    /// The chunks of one version of an object, asked for a few at a time: the library's own reader lets the server push tens of
    /// MiB ahead.
    async fn chunks(
        &self,
        what: impl Fn() -> String,
        version: &str,
    ) -> Result<pull::Stream, StreamError> {
        let stream = format!("OBJ_{}", self.bucket);
        let stream = bounded(&what, self.broker.context().get_stream(&stream)).await?;
        let config = pull::Config {
            filter_subject: format!("$O.{}.C.{version}", self.bucket),
            ack_policy: AckPolicy::None,
            inactive_threshold: READER_GONE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = bounded(&what, stream.create_consumer(config)).await?;
        let chunks = consumer.stream().max_messages_per_batch(CHUNKS_AHEAD);
        bounded(what, chunks.messages()).await
    }

    /// The objects, in no order.
    ///
    /// # Errors
    /// Why the broker did not do it.
    pub async fn list(&self) -> Result<Vec<ObjectEntry>, StreamError> {
        let what = || self.what("list", "*");
        let found = self.infos(what).await?;
        let entry = |info: async_nats::jetstream::object_store::ObjectInfo| ObjectEntry {
            name: info.name,
            size: info.size as u64,
            modified: info.modified.map(SystemTime::from),
        };
        Ok(found.into_iter().map(entry).collect())
    }

    async fn infos(
        &self,
        what: impl Fn() -> String,
    ) -> Result<Vec<async_nats::jetstream::object_store::ObjectInfo>, StreamError> {
        self.broker.require_connection(&what)?;
        let list = async {
            let list = self.store.list().await.map_err(boxed)?;
            list.try_collect::<Vec<_>>().await.map_err(boxed)
        };
        timed(&what, list)
            .await?
            .map_err(|source| StreamError::Request {
                what: what(),
                source,
            })
    }

    /// Removes an object; fine when there is none.
    ///
    /// # Errors
    /// Why the broker did not do it.
    pub async fn delete(&self, name: &str) -> Result<(), StreamError> {
        let what = || self.what("remove", name);
        self.broker.require_connection(what)?;
        match timed(what, self.store.delete(name)).await? {
            Err(error) if error.kind() != DeleteErrorKind::NotFound => {
                Err(self.failed(what(), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the chunks that no object names and that were stored before `before`. Returns of how many uploads.
    ///
    /// # Errors
    /// Why the broker did not do it.
    pub async fn sweep(&self, before: SystemTime) -> Result<usize, StreamError> {
        let what = || self.what("sweep", "*");
        let prefix = format!("$O.{}.C.", self.bucket);
        let subjects = self.chunk_subjects(what, format!("{prefix}>")).await?;
        // Asked after the chunks, so that an upload that ends in between is named.
        let named: HashSet<String> = self
            .infos(what)
            .await?
            .into_iter()
            .map(|info| format!("{prefix}{}", info.nuid))
            .collect();
        let stream = format!("OBJ_{}", self.bucket);
        let stream = bounded(what, self.broker.context().get_stream(&stream)).await?;
        let mut count = 0;
        for subject in subjects.difference(&named) {
            let last = bounded(what, stream.get_last_raw_message_by_subject(subject)).await?;
            if SystemTime::from(last.time) < before {
                bounded(what, stream.purge().filter(subject).into_future()).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    async fn chunk_subjects(
        &self,
        what: impl Fn() -> String,
        filter: String,
    ) -> Result<HashSet<String>, StreamError> {
        self.broker.require_connection(&what)?;
        let stream = format!("OBJ_{}", self.bucket);
        let stream = bounded(&what, self.broker.context().get_stream(&stream)).await?;
        let list = async {
            let info = stream.info_with_subjects(filter).await.map_err(boxed)?;
            let subjects = info.map_ok(|(subject, _)| subject).try_collect();
            subjects.await.map_err(boxed)
        };
        timed(&what, list)
            .await?
            .map_err(|source| StreamError::Request {
                what: what(),
                source,
            })
    }

    /// Chunks do not come: an outage ends, but what was replaced never comes.
    pub(super) async fn still_there(
        &self,
        what: impl Fn() -> String,
        name: &str,
        version: &str,
    ) -> Result<(), StreamError> {
        self.broker.require_connection(&what)?;
        match timed(&what, self.store.info(name)).await? {
            Ok(now) if now.nuid == version && !now.deleted => Ok(()),
            Ok(_) => Err(self.failed(what(), Changed)),
            Err(error) if error.kind() == InfoErrorKind::NotFound => {
                Err(self.failed(what(), Changed))
            }
            Err(error) => Err(self.failed(what(), error)),
        }
    }

    pub(super) fn what(&self, verb: &str, name: &str) -> String {
        format!("{verb} object {name} of bucket {}", self.bucket)
    }

    pub(super) fn failed(
        &self,
        what: String,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> StreamError {
        if self.broker.is_connected() {
            let source = boxed(error);
            StreamError::Request { what, source }
        } else {
            StreamError::NotConnected { what }
        }
    }
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects")
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> BoxError {
    Box::new(error)
}

/// A call of the library takes several requests at most; each has the API's deadline, and this is a bound for all.
async fn timed<T>(
    what: impl Fn() -> String,
    call: impl Future<Output = T>,
) -> Result<T, StreamError> {
    let deadline = API_DEADLINE * 2;
    tokio::time::timeout(deadline, call)
        .await
        .map_err(|_| StreamError::Timeout {
            what: what(),
            after: deadline,
        })
}

async fn bounded<T, E: std::error::Error + Send + Sync + 'static>(
    what: impl Fn() -> String,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, StreamError> {
    timed(&what, call)
        .await?
        .map_err(|error| StreamError::Request {
            what: what(),
            source: boxed(error),
        })
}
