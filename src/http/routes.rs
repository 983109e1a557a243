//! The answers: metrics as text, health and positions as JSON. Keys and codes of the health answer are those of the Go
//! program, whose probes keep working; ours follow after them.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::health::{Health, Probe};
use super::positions::{POSITION_PATH, PositionDesk, WAIT_PATH};
use super::status::{Status, judge};
use crate::telemetry::Metrics;

/// Where Prometheus looks.
pub(super) const METRICS_PATH: &str = "/metrics";
/// Whether the process is to be restarted.
pub(super) const LIVE_PATH: &str = "/livez";
/// Whether users are to be sent here.
pub(super) const READY_PATH: &str = "/readyz";

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
    pub(super) ready_lag_messages: u64,
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
        (_, Some(health)) if health.serves(path) => health.answer(path),
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
    /// Whether a path is one of ours.
    fn serves(&self, path: &str) -> bool {
        path == self.path || matches!(path, LIVE_PATH | READY_PATH)
    }

    fn answer(&self, path: &str) -> Response {
        let view = self.status.view();
        let verdict = judge(&view);
        if path == self.path {
            return self.json(verdict.is_healthy(), &Health::of(&view, &verdict));
        }
        let (good, bad, reasons, lag_messages) = if path == READY_PATH {
            let reasons = verdict.not_ready(&view, self.ready_lag_messages);
            ("ready", "not ready", reasons, view.lag_messages)
        } else {
            ("alive", "stuck", verdict.stuck(&view), None)
        };
        let well = reasons.is_empty();
        let probe = Probe {
            status: if well { good } else { bad },
            reasons: &reasons,
            lag_messages,
        };
        self.json(well, &probe)
    }

    fn json(&self, well: bool, body: &impl Serialize) -> Response {
        let code = if well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        match serde_json::to_vec(body) {
            Ok(json) if self.detailed => {
                let kind = [(header::CONTENT_TYPE, "application/json")];
                (code, kind, json).into_response()
            }
            // The code is what probes act on; it is right without a body too.
            _ => code.into_response(),
        }
    }
}
