//! The bodies of the health answers: keys of the Go program first, then ours.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::status::{Component, Condition, Verdict, View};
use crate::brakes::Set;

/// The health answer. The first eleven keys are the Go program's, in its order.
#[derive(Serialize)]
pub(super) struct Health<'a> {
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
    lag_messages: Option<u64>,
    disk_free_bytes: Option<u64>,
    dead_letters: u64,
    apply_paused: Option<&'a str>,
    brakes: &'a Set,
    errors: Vec<Problem<'a>>,
    components: &'a BTreeMap<String, Condition>,
    loops: BTreeMap<&'static str, Progress>,
    log: Log<'a>,
}

/// What a loop is at. Times are ages, in seconds.
#[derive(Serialize)]
struct Progress {
    /// Null: it waits for something to do.
    step: Option<&'static str>,
    step_seconds: f64,
    /// Since it last went round; null where nobody watches that.
    progress_seconds: Option<f64>,
}

#[derive(Serialize)]
struct Log<'a> {
    errors: u64,
    warnings: u64,
    last_error: Option<LastError<'a>>,
}

#[derive(Serialize)]
struct LastError<'a> {
    message: &'a str,
    at: Option<String>,
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
    pub(super) fn of(view: &'a View, verdict: &'a Verdict) -> Self {
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
            lag_messages: view.lag_messages,
            disk_free_bytes: view.disk.map(|disk| disk.free),
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
            components: &verdict.components,
            loops: view
                .at
                .iter()
                .map(|(of, at)| {
                    let round = view.loops.iter().find(|(l, _)| l.name() == *of);
                    let progress = Progress {
                        step: at.step,
                        step_seconds: tenths(at.since),
                        progress_seconds: round.map(|(_, silent)| tenths(*silent)),
                    };
                    (*of, progress)
                })
                .collect(),
            log: Log {
                errors: view.logged.0,
                warnings: view.logged.1,
                last_error: view.last_error.as_ref().map(|last| LastError {
                    message: &last.message,
                    at: rfc3339(last.at),
                }),
            },
        }
    }
}

/// The answer of a probe that asks one thing.
#[derive(Serialize)]
pub(super) struct Probe<'a> {
    /// The answer.
    pub(super) status: &'static str,
    /// Why not.
    pub(super) reasons: &'a [String],
    /// What it was judged by, where that is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lag_messages: Option<u64>,
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
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
