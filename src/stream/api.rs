//! One JetStream API request and what its failure means.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::StreamError;

/// Deadline of a JetStream API request. A server that recovers a large store, or a cluster that elects a leader, takes a few
/// seconds; later than that it is better to say so and try again.
pub(super) const API_DEADLINE: Duration = Duration::from_secs(5);

/// JetStream's "stream not found".
pub(super) const STREAM_NOT_FOUND: u64 = 10059;
/// JetStream's "subjects overlap with an existing stream".
pub(super) const SUBJECT_OVERLAP: u64 = 10065;
/// JetStream's "stream name already in use".
pub(super) const STREAM_NAME_EXISTS: u64 = 10058;

/// Sends `payload` to the API subject `subject` (without its prefix). `stream` names the stream in errors.
pub(super) async fn request<P, T>(
    context: &Context,
    stream: &str,
    subject: String,
    payload: &P,
) -> Result<T, StreamError>
where
    P: Serialize + ?Sized + Sync,
    T: DeserializeOwned,
{
    let what = subject.clone();
    match context.request::<_, _, Response<T>>(subject, payload).await {
        Ok(Response::Ok(value)) => Ok(value),
        Ok(Response::Err { error }) => Err(refused(stream, what, &error)),
        Err(error) => Err(match error.kind() {
            RequestErrorKind::NoResponders => StreamError::NoJetStream { what },
            RequestErrorKind::TimedOut => StreamError::Timeout {
                what,
                after: API_DEADLINE,
            },
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => StreamError::Request {
                what,
                source: Box::new(error),
            },
        }),
    }
}

/// What JetStream's own error means.
fn refused(stream: &str, what: String, error: &async_nats::jetstream::Error) -> StreamError {
    let code = error.error_code().0;
    if code == STREAM_NOT_FOUND {
        return StreamError::StreamMissing {
            stream: stream.to_owned(),
        };
    }
    StreamError::Refused {
        what,
        code,
        description: error.to_string(),
    }
}
