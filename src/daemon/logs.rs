//! What health shows of the log, and what the log says of steps that take unusually long.

use std::time::Duration;

use crate::http::status::{Component, Status};
use crate::telemetry::Logging;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Shows, until it is dropped, whether the log file can be written and what the last error was; tells of slow steps.
pub async fn watch(log: Logging, status: Status) {
    loop {
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
