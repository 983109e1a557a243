//! Doing things to the broker behind the nodes' backs, as an operator or another program would.

use async_nats::jetstream::{self, Context};
use futures_util::TryStreamExt as _;
use tokio::runtime::Runtime;

/// A client that is no node.
pub struct Outsider {
    runtime: Runtime,
    context: Context,
}

impl Outsider {
    /// Connects.
    pub fn new(url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let client = runtime.block_on(async_nats::connect(url)).unwrap();
        let context = {
            let _inside = runtime.enter();
            jetstream::new(client)
        };
        Self { runtime, context }
    }

    /// Publishes bytes; returns the sequence that they got.
    pub fn publish(&self, subject: &str, bytes: &[u8]) -> u64 {
        self.runtime.block_on(async {
            self.context
                .publish(subject.to_owned(), bytes.to_vec().into())
                .await
                .unwrap()
                .await
                .unwrap()
                .sequence
        })
    }

    /// Writes a key of a KV bucket.
    pub fn put(&self, bucket: &str, key: &str, value: &str) {
        self.runtime.block_on(async {
            let bucket = self.context.get_key_value(bucket).await.unwrap();
            bucket.put(key, value.to_owned().into()).await.unwrap();
        });
    }

    /// What stands under a key of a KV bucket.
    pub fn value(&self, bucket: &str, key: &str) -> String {
        let value = self.runtime.block_on(async {
            let bucket = self.context.get_key_value(bucket).await.unwrap();
            bucket.get(key).await.unwrap().unwrap_or_default()
        });
        String::from_utf8(value.to_vec()).unwrap()
    }

    /// The bytes of a message.
    pub fn message(&self, stream: &str, sequence: u64) -> Vec<u8> {
        self.runtime.block_on(async {
            self.context
                .get_stream(stream)
                .await
                .unwrap()
                .get_raw_message(sequence)
                .await
                .unwrap()
                .payload
                .to_vec()
        })
    }

    /// The first sequence that a stream holds.
    pub fn first(&self, stream: &str) -> u64 {
        self.runtime.block_on(async {
            let mut stream = self.context.get_stream(stream).await.unwrap();
            stream.info().await.unwrap().state.first_sequence
        })
    }

    /// Deletes all consumers of a stream; returns how many there were.
    pub fn delete_consumers(&self, stream: &str) -> usize {
        self.runtime.block_on(async {
            let stream = self.context.get_stream(stream).await.unwrap();
            let names: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
            for name in &names {
                stream.delete_consumer(name).await.unwrap();
            }
            names.len()
        })
    }

    /// Removes a message.
    pub fn remove(&self, stream: &str, sequence: u64) {
        self.runtime.block_on(async {
            self.context
                .get_stream(stream)
                .await
                .unwrap()
                .delete_message(sequence)
                .await
                .unwrap()
        });
    }

    /// Deletes a stream with all that is in it.
    pub fn delete_stream(&self, name: &str) {
        let deleted = self
            .runtime
            .block_on(async { self.context.delete_stream(name).await.unwrap() });
        assert!(deleted.success);
    }

    /// The last sequence that a stream holds.
    pub fn last(&self, stream: &str) -> u64 {
        self.runtime.block_on(async {
            let mut stream = self.context.get_stream(stream).await.unwrap();
            stream.info().await.unwrap().state.last_sequence
        })
    }

    /// Makes a stream that holds a subject.
    pub fn create_stream(&self, name: &str, subject: &str) {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            ..Default::default()
        };
        self.runtime
            .block_on(async { self.context.create_stream(config).await.unwrap() });
    }
}
