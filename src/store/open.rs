//! Which store: by configuration. Nothing is asked of it yet.

use std::path::Path;

use super::error::StoreError;
use super::file::Folder;
use super::nats::ObjectBucket;
use super::retrying::{Limits, Retrying};
use super::{SnapshotStore, retrying};
use crate::config::{SnapshotConfig, SnapshotStore as Kind};
use crate::stream::Broker;

/// What the names of the buckets of the Go program end with.
const BUCKET_SUFFIX: &str = "-snapshot-store";

/// The configured store. `broker` is needed for the NATS store only.
///
/// # Errors
/// [`StoreError::Configuration`], [`StoreError::LeftOut`].
pub fn open(
    config: &SnapshotConfig,
    broker: Option<Broker>,
) -> Result<Box<dyn SnapshotStore>, StoreError> {
    open_with(config, broker, Limits::default())
}

/// As [`open`], with other limits than the usual ones.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    config: &SnapshotConfig,
    broker: Option<Broker>,
    limits: Limits,
) -> Result<Box<dyn SnapshotStore>, StoreError> {
    match config.store {
        Kind::Nats => {
            let broker = broker.ok_or_else(|| StoreError::Configuration {
                key: "snapshot.store",
                problem: "is \"nats\", and there is no connection to NATS".to_owned(),
                remedy: "start nats-server or correct nats.urls",
            })?;
            let bucket = match &*config.nats_bucket {
                "" => format!("{}{BUCKET_SUFFIX}", broker.bucket_prefix()),
                named => named.to_owned(),
            };
            let backend = ObjectBucket::new(broker, bucket, config.nats_replicas);
            Ok(retrying(backend, limits))
        }
        Kind::File if config.file_path.as_os_str().is_empty() => {
            Err(unset("snapshot.file.path", "give the path of a folder"))
        }
        Kind::File => Ok(retrying(Folder::new(Path::new(&config.file_path)), limits)),
        Kind::S3 => s3(config, limits),
        Kind::WebDav => webdav(config, limits),
        Kind::Sftp => sftp(config, limits),
    }
}

fn retrying(backend: impl retrying::Backend + 'static, limits: Limits) -> Box<dyn SnapshotStore> {
    Box::new(Retrying::new(backend, limits))
}

fn unset(key: &'static str, remedy: &'static str) -> StoreError {
    StoreError::Configuration {
        key,
        problem: "is not set".to_owned(),
        remedy,
    }
}

#[cfg(feature = "store-s3")]
fn s3(config: &SnapshotConfig, limits: Limits) -> Result<Box<dyn SnapshotStore>, StoreError> {
    if config.s3.bucket.is_empty() {
        return Err(unset("snapshot.s3.bucket", "give the bucket's name"));
    }
    Ok(retrying(super::s3::Bucket::new(&config.s3), limits))
}

#[cfg(not(feature = "store-s3"))]
fn s3(_: &SnapshotConfig, _: Limits) -> Result<Box<dyn SnapshotStore>, StoreError> {
    Err(StoreError::LeftOut {
        store: "s3",
        feature: "store-s3",
    })
}

#[cfg(feature = "store-webdav")]
fn webdav(config: &SnapshotConfig, limits: Limits) -> Result<Box<dyn SnapshotStore>, StoreError> {
    let collection = super::webdav::Collection::new(&config.webdav_url)?;
    Ok(retrying(collection, limits))
}

#[cfg(not(feature = "store-webdav"))]
fn webdav(_: &SnapshotConfig, _: Limits) -> Result<Box<dyn SnapshotStore>, StoreError> {
    Err(StoreError::LeftOut {
        store: "webdav",
        feature: "store-webdav",
    })
}

#[cfg(feature = "store-sftp")]
fn sftp(config: &SnapshotConfig, limits: Limits) -> Result<Box<dyn SnapshotStore>, StoreError> {
    Ok(retrying(super::sftp::Remote::new(&config.sftp)?, limits))
}

#[cfg(not(feature = "store-sftp"))]
fn sftp(_: &SnapshotConfig, _: Limits) -> Result<Box<dyn SnapshotStore>, StoreError> {
    Err(StoreError::LeftOut {
        store: "sftp",
        feature: "store-sftp",
    })
}
