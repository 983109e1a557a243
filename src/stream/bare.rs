//! A stream with nothing of HarmonyLite in it: what `harmonylite bench` measures the least possible delay with.
//!
//! Invariants: a message goes out as any application of async-nats sends it and comes back through its ordered consumer; every request has a deadline.

use std::time::Duration;

use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::{Context, stream};
use futures_util::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::api::API_DEADLINE;
use super::error::StreamError;

/// Its name, and its subject.
const NAME: &str = "harmonylite-bench-bare";

/// A stream of a benchmark's own server.
pub struct BareStream {
    runtime: Runtime,
    context: Context,
    stream: stream::Stream,
}

/// Whoever receives from it.
pub struct Receiving(JoinHandle<()>);

impl Receiving {
    /// No more.
    pub fn end(self) {
        self.0.abort();
    }
}

impl BareStream {
    /// Connects and makes it.
    ///
    /// # Errors
    /// [`StreamError::Request`], [`StreamError::Timeout`].
    pub fn create(url: &str) -> Result<Self, StreamError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(failed("a runtime"))?;
        let config = stream::Config {
            name: NAME.to_owned(),
            subjects: vec![NAME.to_owned()],
            ..Default::default()
        };
        let (context, stream) = runtime.block_on(in_time("a stream", async {
            let client = async_nats::connect(url)
                .await
                .map_err(failed("a connection"))?;
            let context = ContextBuilder::new().timeout(API_DEADLINE).build(client);
            let stream = context.create_stream(config).await;
            let stream = stream.map_err(failed("a stream"))?;
            Ok((context, stream))
        }))?;
        Ok(Self {
            runtime,
            context,
            stream,
        })
    }

    /// Sends a message and waits for its acknowledgement.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn publish(&self, payload: Vec<u8>) -> Result<(), StreamError> {
        let sent = async {
            let sent = self.context.publish(NAME, payload.into()).await;
            let acknowledged = sent.map_err(failed("a message"))?.await;
            acknowledged.map_err(failed("an acknowledgement"))?;
            Ok(())
        };
        self.runtime.block_on(in_time("an acknowledgement", sent))
    }

    /// Hands each message to `take`, on the runtime, until it says that it wants no more.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn receive(
        &self,
        mut take: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> Result<Receiving, StreamError> {
        let mut messages = self.runtime.block_on(in_time("a consumer", async {
            let consumer = self.stream.create_consumer(OrderedConfig::default()).await;
            let consumer = consumer.map_err(failed("a consumer"))?;
            consumer.messages().await.map_err(failed("a consumer"))
        }))?;
        Ok(Receiving(self.runtime.spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                if !take(&message.payload) {
                    return;
                }
            }
        })))
    }

    /// Removes it.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn remove(self) -> Result<(), StreamError> {
        let removed = async {
            let removed = self.context.delete_stream(NAME).await;
            removed.map_err(failed("the end of a stream"))?;
            Ok(())
        };
        self.runtime
            .block_on(in_time("the end of a stream", removed))
    }
}

async fn in_time<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    /// A server that was asked for much before takes a while.
    const DEADLINE: Duration = Duration::from_secs(20);
    let late = |_| StreamError::Timeout {
        what: what.to_owned(),
        after: DEADLINE,
    };
    tokio::time::timeout(DEADLINE, work).await.map_err(late)?
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> StreamError {
    move |source| StreamError::Request {
        what: what.to_owned(),
        source: Box::new(source),
    }
}
