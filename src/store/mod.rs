//! Where snapshots are kept: one trait, five stores, one file each.
//!
//! ```text
//!   open(config) ──▶ Retrying<Backend> ──▶ file │ nats │ s3 │ webdav │ sftp
//!                     tries, deadlines      one try each
//! ```
//!
//! Invariants, the same for all stores and held by one suite of tests (`tests/stores.rs`):
//! - An object is visible whole or not at all; storing it anew replaces it at once, and until then the old one stays
//!   (a WebDAV server may delete it a moment before: RFC 4918, 9.9.3).
//! - A download is as long as the store says, or it is an error and nothing of it stays.
//! - Memory is a few MiB, whatever the size of the object. No wait is without a bound.
//! - No secret is in a name, a log line or an error. A server's host key or certificate is always checked.
//! - Passing faults are tried again here; what comes out is for the caller to schedule, or for a person to mend.

mod digest;
mod error;
mod file;
#[cfg(feature = "store-sftp")]
mod host_key;
mod key;
mod meter;
mod nats;
mod open;
mod retrying;
#[cfg(feature = "store-s3")]
mod s3;
#[cfg(feature = "store-s3")]
mod s3_client;
#[cfg(feature = "store-sftp")]
mod sftp;
#[cfg(feature = "store-sftp")]
mod sftp_login;
mod sink;
mod source;
#[cfg(feature = "store-webdav")]
mod webdav;
mod written;

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{Cause, StoreError};
pub use key::{InvalidKey, Key};
pub use meter::Progress;
pub use open::{open, open_with};
pub use retrying::Limits;

/// The largest object that is read and written in memory, in bytes: manifests have a few KiB.
pub const MAX_SMALL: usize = 1024 * 1024;

/// What a server is asked to copy by itself at most, in bytes: a matter of seconds, in which it shows no sign of life.
#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
const MOST_IN_A_COPY: u64 = 1024 * 1024 * 1024;

/// An object in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock; `None` where the store does not say. For people and housekeeping only.
    pub modified: Option<SystemTime>,
}

/// What an object contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its length in bytes.
    pub len: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
}

/// A place for snapshots. All methods try again on passing faults, a bounded number of times; dropping the future stops it.
#[async_trait]
pub trait SnapshotStore: Send + Sync + Debug {
    /// Kind and place, for people; without secrets.
    fn name(&self) -> &str;

    /// Stores the file `source`, which must not change meanwhile, under `key`, replacing what is there. Returns what was sent.
    /// Never the app's live database: reading it by hand would drop SQLite's locks.
    ///
    /// # Errors
    /// [`StoreError::Passing`], [`StoreError::Permanent`]; what was stored before is untouched.
    async fn put(
        &self,
        key: &Key,
        source: &Path,
        progress: &Progress,
    ) -> Result<Content, StoreError>;

    /// Stores what is stored under `from` under `to` too, replacing what is there, without sending it again. `false` where that was not
    /// done, because the store has no way to or it failed: storing it from the file will do then, or say what is wrong.
    async fn duplicate(&self, from: &Key, to: &Key) -> bool;

    /// Fetches the object into the file `to`, which appears when it is whole, replacing what is there. Returns what came.
    /// Never onto the app's live database. No more than `most` bytes are written, whatever the store sends.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::TooLong`], [`StoreError::Passing`], [`StoreError::Permanent`]; `to` is untouched.
    async fn get(
        &self,
        key: &Key,
        to: &Path,
        most: u64,
        progress: &Progress,
    ) -> Result<Content, StoreError>;

    /// Reads the object back, and keeps nothing of it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    async fn read_back(&self, key: &Key) -> Result<Content, StoreError>;

    /// Stores at most [`MAX_SMALL`] bytes under `key`, replacing what is there.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    async fn put_small(&self, key: &Key, bytes: Bytes) -> Result<(), StoreError>;

    /// The object's bytes, at most [`MAX_SMALL`]; `None` when there is no such object.
    ///
    /// # Errors
    /// [`StoreError::Passing`], [`StoreError::Permanent`], also when it is larger.
    async fn get_small(&self, key: &Key) -> Result<Option<Bytes>, StoreError>;

    /// The objects by rising key. What is stored there under names that are no [`Key`]s is left out.
    ///
    /// # Errors
    /// [`StoreError::Passing`], [`StoreError::Permanent`].
    async fn list(&self) -> Result<Vec<Entry>, StoreError>;

    /// Removes the object; fine when there is none.
    ///
    /// # Errors
    /// [`StoreError::Passing`], [`StoreError::Permanent`].
    async fn delete(&self, key: &Key) -> Result<(), StoreError>;

    /// Removes what is left of uploads that were cut off (a daemon killed half way) and began more than `older_than` ago: choose it
    /// longer than any upload takes. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Passing`], [`StoreError::Permanent`].
    async fn sweep(&self, older_than: Duration) -> Result<usize, StoreError>;
}
