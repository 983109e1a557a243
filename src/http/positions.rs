//! `GET /position` and `GET /wait`: positions for apps, so that a user can read their own write on another node.
//!
//! Invariants: at most [`WAITING`] requests wait at a time, fewer than there are connections, so that a probe is answered however many
//! wait; none waits longer than [`LONGEST`]; who goes away stops waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::IntGauge;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::runtime::duration;
use crate::telemetry::instrument::QueueGauges;

/// Where everything that the app has committed so far stands.
pub(super) const POSITION_PATH: &str = "/position";
/// Waits for a position.
pub(super) const WAIT_PATH: &str = "/wait";

/// Requests that wait at a time: half of a listener's connections.
const WAITING: usize = 32;
/// The longest wait, half of a connection's lifetime.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a request waits that does not say.
const USUAL: Duration = Duration::from_secs(10);

/// What a request came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PositionAnswer {
    /// The code.
    #[serde(skip)]
    pub code: u16,
    /// The position that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// How far this node has folded the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folded: Option<String>,
    /// Why not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl PositionAnswer {
    /// An answer that says why not.
    #[must_use]
    pub fn error(code: u16, error: impl Into<String>) -> Self {
        Self {
            code,
            position: None,
            folded: None,
            error: Some(error.into()),
        }
    }
}

/// An answer under way.
pub type Answering = Pin<Box<dyn Future<Output = PositionAnswer> + Send>>;

/// Who knows positions.
pub trait Positions: Send + Sync {
    /// Waits until everything that the app has committed by now has come back from the stream.
    fn position(&self, timeout: Duration) -> Answering;
    /// Waits until this node has folded a position.
    fn wait(&self, position: &str, timeout: Duration) -> Answering;
}

/// Where the daemon puts who knows positions, once it is there. Clones share it.
#[derive(Clone)]
pub struct PositionDesk {
    known_by: Arc<OnceLock<Box<dyn Positions>>>,
    waiting: Arc<Semaphore>,
    depth: Option<IntGauge>,
}

/// A request's place among those that wait.
struct Place {
    depth: Option<IntGauge>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, depth: Option<IntGauge>) -> Self {
        if let Some(depth) = &depth {
            depth.inc();
        }
        Self {
            depth,
            _permit: permit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(depth) = &self.depth {
            depth.dec();
        }
    }
}

impl PositionDesk {
    /// A desk whose queue is one of these.
    #[must_use]
    pub fn new(queues: &QueueGauges) -> Self {
        Self {
            known_by: Arc::default(),
            waiting: Arc::new(Semaphore::new(WAITING)),
            depth: queues.queue("position_requests", WAITING).ok(),
        }
    }

    /// From now on requests are answered by `positions`.
    pub fn open(&self, positions: Box<dyn Positions>) {
        // The first one stays: a daemon has one engine.
        let _ = self.known_by.set(positions);
    }

    /// Answers a request for `path`, which is one of ours.
    pub(super) async fn answer(&self, path: &str, query: Option<&str>) -> Response {
        let answer = match self.ask(path, query) {
            Ok((answering, place)) => {
                let answer = answering.await;
                drop(place);
                answer
            }
            Err(refused) => refused,
        };
        let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Structs of texts always have a JSON form.
        let body = serde_json::to_vec(&answer).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (code, kind, body).into_response();
        if code == StatusCode::SERVICE_UNAVAILABLE {
            let second = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }

    fn ask(&self, path: &str, query: Option<&str>) -> Result<(Answering, Place), PositionAnswer> {
        let bad = |text: String| PositionAnswer::error(400, text);
        let (mut position, mut timeout) = (None, USUAL);
        for (key, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match key.as_ref() {
                "position" if path == WAIT_PATH => position = Some(value.into_owned()),
                "timeout" => {
                    timeout = duration::parse(&value)
                        .filter(|t| *t <= LONGEST)
                        .ok_or_else(|| {
                            bad(format!(
                                "timeout is to be a time like 5s or 500ms, {} s at most",
                                LONGEST.as_secs()
                            ))
                        })?;
                }
                _ => {
                    return Err(bad(format!(
                        "{path} takes {}timeout, and nothing else",
                        if path == WAIT_PATH {
                            "position and "
                        } else {
                            ""
                        }
                    )));
                }
            }
        }
        let Some(known_by) = self.known_by.get() else {
            return Err(PositionAnswer::error(
                503,
                "this node is starting: try again in a moment",
            ));
        };
        let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
            return Err(PositionAnswer::error(
                503,
                format!("{WAITING} requests wait already: try again in a moment"),
            ));
        };
        let place = Place::new(permit, self.depth.clone());
        let answering = match position {
            Some(position) => known_by.wait(&position, timeout),
            None if path == WAIT_PATH => {
                return Err(bad(format!(
                    "{WAIT_PATH} needs a position: GET {WAIT_PATH}?position=...&timeout=5s"
                )));
            }
            None => known_by.position(timeout),
        };
        Ok((answering, place))
    }
}
