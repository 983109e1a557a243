//! The NATS object store: the store that every node can reach already.
//!
//! Invariant: the bucket is made when something is first stored; until then it is empty, not missing.

use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::Entry;
use super::error::Fault;
use super::key::Key;
use super::meter::Meter;
use super::retrying::Backend;
use super::sink::Sink;
use super::source::Source;
use crate::stream::{Broker, Objects, StreamError};

pub(super) struct ObjectBucket {
    broker: Broker,
    bucket: String,
    replicas: usize,
    objects: OnceCell<Objects>,
}

impl ObjectBucket {
    pub(super) fn new(broker: Broker, bucket: String, replicas: usize) -> Self {
        Self {
            broker,
            bucket,
            replicas,
            objects: OnceCell::new(),
        }
    }

    async fn objects(&self) -> Result<&Objects, Fault> {
        self.objects
            .get_or_try_init(|| self.broker.object_bucket(&self.bucket, self.replicas))
            .await
            .map_err(|error| self.fault(error))
    }

    fn fault(&self, error: StreamError) -> Fault {
        let remedy = match &error {
            // "Store failed", limits of stream, account and server.
            StreamError::Refused {
                code: 10077 | 10002 | 10023 | 10047,
                ..
            } => "give JetStream more room: max_file_store of the servers, or the account's limits"
                .to_owned(),
            StreamError::Refused { code: 10074, .. } => format!(
                "snapshot.nats.replicas = {} needs as many servers with JetStream",
                self.replicas
            ),
            StreamError::StreamMissing { .. } => {
                format!(
                    "the bucket {} was removed: start harmonylite again",
                    self.bucket
                )
            }
            _ if error.is_transient() => return Fault::passing(error),
            _ => "check the NATS servers and this user's permissions for JetStream".to_owned(),
        };
        Fault::permanent(error, remedy)
    }
}

#[async_trait]
impl Backend for ObjectBucket {
    fn name(&self) -> String {
        format!("NATS object bucket {}", self.bucket)
    }

    async fn put(&self, key: &Key, source: &Source) -> Result<(), Fault> {
        let objects = self.objects().await?;
        objects
            .put(key.as_str(), &mut source.whole())
            .await
            .map_err(|error| self.fault(error))
    }

    async fn get(&self, key: &Key, sink: &mut Sink) -> Result<(), Fault> {
        let objects = self.objects().await?;
        let fault = |error| self.fault(error);
        let found = objects.get(key.as_str()).await.map_err(fault)?;
        let mut object = found.ok_or(Fault::Missing)?;
        sink.expect(object.size());
        while let Some(piece) = object.next().await.map_err(fault)? {
            sink.write(&piece).await?;
        }
        Ok(())
    }

    async fn list(&self, _: &Meter) -> Result<Vec<Entry>, Fault> {
        let listed = self.objects().await?.list().await;
        let entries = listed.map_err(|error| self.fault(error))?;
        let entry = |object: crate::stream::ObjectEntry| {
            Some(Entry {
                key: Key::new(object.name).ok()?,
                size: object.size,
                modified: object.modified,
            })
        };
        Ok(entries.into_iter().filter_map(entry).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Fault> {
        let removed = self.objects().await?.delete(key.as_str()).await;
        removed.map_err(|error| self.fault(error))
    }

    async fn sweep(&self, before: SystemTime, _: &Meter) -> Result<usize, Fault> {
        let swept = self.objects().await?.sweep(before).await;
        swept.map_err(|error| self.fault(error))
    }
}
