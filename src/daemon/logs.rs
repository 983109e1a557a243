//! What health and metrics show of the log, and what the log says of steps that take unusually long.

use std::time::Duration;

use crate::http::status::{Component, Status};
use crate::telemetry::Logging;
use crate::telemetry::instrument::ReasonCounter;
use crate::telemetry::metrics::Metrics;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Shows, until it is dropped, whether the log file can be written and what the last error was; tells of slow steps.
pub async fn watch(log: Logging, status: Status, metrics: Metrics) {
    loop {
        let lines = log.line_counts();
        rise(&metrics.log_lines_written, &lines.written);
        rise(&metrics.log_lines_dropped, &lines.dropped);
        rise(&metrics.log_write_failures, &lines.failures);
        match log.fault() {
            Some(fault) => status.failed(Component::Logs, fault),
            None => status.recovered(Component::Logs),
        }
        for slow in status.slow_steps() {
            tracing::warn!(
                r#loop = slow.of,
                step = slow.step,
                duration = slow.so_far.as_secs_f64(),
                "a step takes unusually long"
            );
        }
        status.set_logged(log.counts(), log.last_error());
        tokio::time::sleep(LOOK).await;
    }
}

/// Brings counters up to numbers that only rise.
fn rise(counter: &ReasonCounter, to: &[(&'static str, u64)]) {
    for (reason, n) in to {
        counter.inc_by(reason, n.saturating_sub(counter.get(reason)));
    }
}
