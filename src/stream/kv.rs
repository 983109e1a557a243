//! Key-value buckets with compare-and-set.
//!
//! Invariants: a write that expected something else is a [`KvError::Conflict`] and changed nothing; every call has a deadline.
//! A read may come from a replica that is a moment behind, so decisions rest on compare-and-set, never on a read alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::jetstream::context::KeyValueErrorKind;
use async_nats::jetstream::kv::{self, CreateErrorKind, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, StorageType};
use bytes::Bytes;
use futures_util::{Future, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::api::{self, API_DEADLINE};
use super::broker::{Broker, nanos};
use super::error::{KvError, StreamError};

/// What a bucket of any NATS client has unless its values expire sooner.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Values that are read at a time where all are read.
const READS: usize = 16;

#[derive(Serialize)]
struct SubjectsRequest<'a> {
    subjects_filter: &'a str,
    offset: usize,
}

/// What a stream says of its subjects, a page at a time.
#[derive(Deserialize)]
struct Subjects {
    state: SubjectsState,
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct SubjectsState {
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvEntry {
    /// The value.
    pub value: Bytes,
    /// Rises with every write to the bucket; what compare-and-set compares.
    pub revision: u64,
    /// When it was written, in nanoseconds since the Unix epoch, by the server's clock: compare it with another entry's only.
    pub created: u64,
}

/// A bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kv {
    broker: Broker,
    store: Store,
}

impl Broker {
    /// Opens the bucket, made first if it does not exist: one value per key, kept for `max_age` (`None`: for ever) in `replicas`
    /// copies. The settings of an existing bucket stay.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn kv_bucket(
        &self,
        name: &str,
        max_age: Option<Duration>,
        replicas: usize,
    ) -> Result<Kv, KvError> {
        let what = || format!("bucket {name}");
        self.require_connection(what)?;
        let open = self.context().get_key_value(name);
        let missing = match bounded(what, open).await? {
            Ok(store) => return Ok(self.kv(store)),
            Err(error) if error.kind() == KeyValueErrorKind::GetBucket => error,
            Err(error) => return Err(failed(what(), error)),
        };
        tracing::debug!(bucket = name, %missing, "making a bucket");
        self.create_bucket(name, max_age.unwrap_or_default(), replicas)
            .await?;
        match bounded(what, self.context().get_key_value(name)).await? {
            Ok(store) => Ok(self.kv(store)),
            Err(error) => Err(failed(what(), error)),
        }
    }

    /// Opens the bucket if it exists.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn existing_bucket(&self, name: &str) -> Result<Option<Kv>, KvError> {
        let what = || format!("bucket {name}");
        self.require_connection(what)?;
        let stream = format!("STREAM.INFO.KV_{name}");
        match api::request::<_, Info>(self.context(), name, stream, &()).await {
            Ok(_) => {}
            Err(StreamError::StreamMissing { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match bounded(what, self.context().get_key_value(name)).await? {
            Ok(store) => Ok(Some(self.kv(store))),
            Err(error) => Err(failed(what(), error)),
        }
    }

    /// Makes the stream that a bucket is. The library's own way asks for the account first, in a form that servers before
    /// 2.10 do not answer.
    async fn create_bucket(
        &self,
        name: &str,
        max_age: Duration,
        replicas: usize,
    ) -> Result<(), StreamError> {
        let stream = format!("KV_{name}");
        let config = Config {
            name: stream.clone(),
            subjects: vec![format!("$KV.{name}.>")],
            max_messages_per_subject: 1,
            max_messages: -1,
            max_bytes: -1,
            max_message_size: -1,
            max_consumers: -1,
            max_age,
            // The server refuses a window longer than the age.
            duplicate_window: match max_age {
                Duration::ZERO => DUPLICATE_WINDOW,
                age => age.min(DUPLICATE_WINDOW),
            },
            storage: StorageType::File,
            num_replicas: replicas,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            ..Config::default()
        };
        let subject = format!("STREAM.CREATE.{stream}");
        match api::request::<_, Info>(self.context(), &stream, subject, &config).await {
            Ok(_)
            // Another node was faster, with settings of its own.
            | Err(StreamError::Refused {
                code: api::STREAM_NAME_EXISTS,
                ..
            }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn kv(&self, store: Store) -> Kv {
        Kv {
            broker: self.clone(),
            store,
        }
    }
}

impl Kv {
    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.store.name
    }

    /// The key's value; `None` when it has none.
    ///
    /// # Errors
    /// [`KvError::InvalidKey`] or [`KvError::Stream`].
    pub async fn get(&self, key: &str) -> Result<Option<KvEntry>, KvError> {
        let what = || self.what("read", key);
        self.broker.require_connection(what)?;
        match bounded(what, self.store.entry(key)).await? {
            Ok(Some(entry)) if entry.operation == Operation::Put => Ok(Some(KvEntry {
                value: entry.value,
                revision: entry.revision,
                created: nanos(entry.created),
            })),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == kv::EntryErrorKind::InvalidKey => Err(self.invalid(key)),
            Err(error) => Err(failed(what(), error)),
        }
    }

    /// Sets the key's value, whatever it was. Returns its revision.
    ///
    /// # Errors
    /// [`KvError::InvalidKey`] or [`KvError::Stream`].
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, KvError> {
        let what = || self.what("write", key);
        self.broker.require_connection(what)?;
        match bounded(what, self.store.put(key, value)).await? {
            Ok(revision) => Ok(revision),
            Err(error) if error.kind() == kv::PutErrorKind::InvalidKey => Err(self.invalid(key)),
            Err(error) => Err(failed(what(), error)),
        }
    }

    /// Sets the value of a key that has none. Returns its revision.
    ///
    /// # Errors
    /// [`KvError::Conflict`] when it has one, [`KvError::InvalidKey`], or [`KvError::Stream`].
    pub async fn create(&self, key: &str, value: Bytes) -> Result<u64, KvError> {
        let what = || self.what("create", key);
        self.broker.require_connection(what)?;
        match bounded(what, self.store.create(key, value)).await? {
            Ok(revision) => Ok(revision),
            Err(error) => Err(match error.kind() {
                CreateErrorKind::AlreadyExists => self.conflict(key),
                CreateErrorKind::InvalidKey => self.invalid(key),
                _ => failed(what(), error),
            }),
        }
    }

    /// Sets the key's value if its revision is `expected`. Returns the new revision.
    ///
    /// # Errors
    /// [`KvError::Conflict`], [`KvError::InvalidKey`], or [`KvError::Stream`].
    pub async fn update(&self, key: &str, value: Bytes, expected: u64) -> Result<u64, KvError> {
        let what = || self.what("update", key);
        self.broker.require_connection(what)?;
        match bounded(what, self.store.update(key, value, expected)).await? {
            Ok(revision) => Ok(revision),
            Err(error) => Err(self.changed(key, what(), error)),
        }
    }

    /// Removes the key's value if its revision is `expected`.
    ///
    /// # Errors
    /// [`KvError::Conflict`], [`KvError::InvalidKey`], or [`KvError::Stream`].
    pub async fn delete_expecting(&self, key: &str, expected: u64) -> Result<(), KvError> {
        let what = || self.what("delete", key);
        self.broker.require_connection(what)?;
        bounded(what, self.store.delete_expect_revision(key, Some(expected)))
            .await?
            .map_err(|error| self.changed(key, what(), error))
    }

    /// Removes the key's value, whatever it was, and what came before it.
    ///
    /// # Errors
    /// [`KvError::InvalidKey`] or [`KvError::Stream`].
    pub async fn purge(&self, key: &str) -> Result<(), KvError> {
        let what = || self.what("purge", key);
        self.broker.require_connection(what)?;
        bounded(what, self.store.purge(key))
            .await?
            .map_err(|error| self.changed(key, what(), error))
    }

    /// The keys that have a value, sorted.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn keys(&self) -> Result<Vec<String>, KvError> {
        Ok(self.entries().await?.into_keys().collect())
    }

    /// All keys that have a value, with their values as they were at some moment after the call.
    ///
    /// A key that has a value all the while is among them however often it is written meanwhile. The library's own list lacks it
    /// then: it reads the bucket message by message, and a write removes the message that was about to be read.
    ///
    /// # Errors
    /// [`KvError::Stream`].
    pub async fn entries(&self) -> Result<BTreeMap<String, KvEntry>, KvError> {
        let mut reading = futures_util::stream::iter(self.written().await?)
            .map(|key| async move { self.get(&key).await.map(|entry| Some((key, entry?))) })
            .buffered(READS);
        let mut entries = BTreeMap::new();
        while let Some(entry) = reading.try_next().await? {
            entries.extend(entry);
        }
        Ok(entries)
    }

    /// The keys that were ever written and of which anything is left, be it the mark of a removal: the server counts them at one moment.
    async fn written(&self) -> Result<BTreeSet<String>, KvError> {
        self.broker.require_connection(|| self.what("list", "*"))?;
        let bucket = self.bucket();
        let (stream, prefix) = (format!("KV_{bucket}"), format!("$KV.{bucket}."));
        let filter = format!("{prefix}>");
        let mut keys = BTreeSet::new();
        let mut offset = 0;
        loop {
            let asked = SubjectsRequest {
                subjects_filter: &filter,
                offset,
            };
            let subject = format!("STREAM.INFO.{stream}");
            let info: Subjects =
                api::request(self.broker.context(), &stream, subject, &asked).await?;
            let page = info.state.subjects.unwrap_or_default();
            offset += page.len();
            let done = page.is_empty() || offset >= info.total;
            keys.extend(
                page.into_keys()
                    .filter_map(|s| Some(s.strip_prefix(&prefix)?.to_owned())),
            );
            if done {
                return Ok(keys);
            }
        }
    }

    fn what(&self, verb: &str, key: &str) -> String {
        format!("{verb} key {key} of bucket {}", self.store.name)
    }

    fn changed(&self, key: &str, what: String, error: kv::UpdateError) -> KvError {
        match error.kind() {
            UpdateErrorKind::WrongLastRevision => self.conflict(key),
            UpdateErrorKind::InvalidKey => self.invalid(key),
            UpdateErrorKind::TimedOut | UpdateErrorKind::Other => failed(what, error),
        }
    }

    fn conflict(&self, key: &str) -> KvError {
        KvError::Conflict {
            bucket: self.store.name.clone(),
            key: key.to_owned(),
        }
    }

    fn invalid(&self, key: &str) -> KvError {
        KvError::InvalidKey {
            bucket: self.store.name.clone(),
            key: key.to_owned(),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn boxed(error: impl std::error::Error + Send + Sync + 'static) -> BoxError {
    Box::new(error)
}

fn failed(what: String, error: impl std::error::Error + Send + Sync + 'static) -> KvError {
    KvError::Stream(StreamError::Request {
        what,
        source: boxed(error),
    })
}

/// A call of the library takes several requests at most; each has the API's deadline, and this is a bound for all.
async fn bounded<T>(
    what: impl Fn() -> String,
    call: impl Future<Output = T>,
) -> Result<T, KvError> {
    let deadline = API_DEADLINE * 2;
    tokio::time::timeout(deadline, call).await.map_err(|_| {
        KvError::Stream(StreamError::Timeout {
            what: what(),
            after: deadline,
        })
    })
}
