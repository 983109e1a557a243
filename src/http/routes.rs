//! The answers: metrics as text, health and positions as JSON. Keys and codes of the health answer are those of the Go
//! program, whose probes keep working; ours follow after them.

use std::time::SystemTime;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::positions::{POSITION_PATH, PositionDesk, WAIT_PATH};
use super::status::{Component, Status, View, judge};
use crate::brakes::Set;
use crate::telemetry::Metrics;

/// Where Prometheus looks.
pub(super) const METRICS_PATH: &str = "/metrics";

/// What one listener serves. The health path is the operator's choice, so it is compared here rather than
/// parsed as a router's pattern.
#[derive(Clone, Default)]
pub(super) struct Routes {
    pub(super) metrics: Option<Metrics>,
    pub(super) health: Option<HealthRoute>,
    /// Beside health.
    pub(super) positions: Option<PositionDesk>,
}

#[derive(Clone)]
pub(super) struct HealthRoute {
    pub(super) path: String,
    pub(super) detailed: bool,
    pub(super) status: Status,
}

impl Routes {
    pub(super) fn router(self) -> Router {
        Router::new().fallback(answer).with_state(self)
    }
}

async fn answer(State(routes): State<Routes>, request: Request<Body>) -> Response {
    let path = request.uri().path();
    let mut response = match (&routes.metrics, &routes.health) {
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allowed);
            response
        }
        (Some(metrics), _) if path == METRICS_PATH => scrape(metrics),
        (_, Some(health)) if path == health.path => health.answer(),
        _ => match &routes.positions {
            Some(desk) if matches!(path, POSITION_PATH | WAIT_PATH) => {
                desk.answer(path, request.uri().query()).await
            }
            _ => (StatusCode::NOT_FOUND, "not found\n").into_response(),
        },
    };
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be shown");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

impl HealthRoute {
    fn answer(&self) -> Response {
        let view = self.status.view();
        let verdict = judge(&view);
        let code = if verdict.is_healthy() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        if self.detailed {
            match serde_json::to_vec(&Health::of(&view, &verdict)) {
                Ok(json) => {
                    let kind = [(header::CONTENT_TYPE, "application/json")];
                    (code, kind, json).into_response()
                }
                // The code is what probes act on; it is right without a body too.
                Err(_) => code.into_response(),
            }
        } else {
            code.into_response()
        }
    }
}

/// The health answer. The first eleven keys are the Go program's, in its order.
#[derive(Serialize)]
struct Health<'a> {
    status: &'static str,
    node_id: u64,
    uptime_seconds: u64,
    db_connected: bool,
    nats_connected: bool,
    cdc_installed: bool,
    tables_tracked: u64,
    last_replicated_event_timestamp: Option<String>,
    last_published_event_timestamp: Option<String>,
    schema: Schema<'a>,
    version: &'static str,
    reasons: &'a [String],
    warnings: &'a [String],
    publish: bool,
    replicate: bool,
    pending: u64,
    dead_letters: u64,
    apply_paused: Option<&'a str>,
    brakes: &'a Set,
    errors: Vec<Problem<'a>>,
}

#[derive(Serialize)]
struct Schema<'a> {
    hash: &'a str,
    previous_hash: &'a str,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    lacking: Option<&'a str>,
}

#[derive(Serialize)]
struct Problem<'a> {
    component: Component,
    error: &'a str,
    since: Option<String>,
}

impl<'a> Health<'a> {
    fn of(view: &'a View, verdict: &'a super::status::Verdict) -> Self {
        Self {
            status: if verdict.is_healthy() {
                "healthy"
            } else {
                "unhealthy"
            },
            node_id: view.node_id.0,
            uptime_seconds: view.uptime.as_secs(),
            db_connected: view.db_connected,
            nats_connected: view.nats_connected,
            cdc_installed: view.cdc_installed,
            tables_tracked: view.tables_tracked,
            last_replicated_event_timestamp: view.last_replicated.and_then(rfc3339),
            last_published_event_timestamp: view.last_published.and_then(rfc3339),
            schema: Schema {
                hash: &view.schema_hash,
                previous_hash: &view.schema_previous_hash,
                paused: view.schema_paused.is_some(),
                lacking: view.schema_paused.as_deref(),
            },
            version: env!("CARGO_PKG_VERSION"),
            reasons: &verdict.reasons,
            warnings: &verdict.warnings,
            publish: view.publish,
            replicate: view.replicate,
            pending: view.pending,
            dead_letters: view.dead_letters,
            apply_paused: view
                .apply_paused
                .as_deref()
                .or(view.schema_paused.as_deref()),
            brakes: &view.brakes,
            errors: view
                .troubles
                .iter()
                .map(|(component, trouble)| Problem {
                    component: *component,
                    error: &trouble.error,
                    since: rfc3339(trouble.since),
                })
                .collect(),
        }
    }
}

fn rfc3339(at: SystemTime) -> Option<String> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    // Whole milliseconds: finer digits say nothing across machines.
    let nanos = i128::try_from(since.as_millis())
        .ok()?
        .checked_mul(1_000_000)?;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()?
        .format(&Rfc3339)
        .ok()
}
