//! Counts rows without their parent after other nodes' changes have come in, and says so when their number changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::sqlite::connection::open_reader;
use crate::sqlite::error::SqliteError;
use crate::sqlite::orphans;

/// Counting reads whole tables: it may take this share of the time.
const SHARE: u32 = 20;

/// Longer than this a count must not take.
const LIMIT: Duration = Duration::from_secs(5);

/// How often it is asked whether anything has come in.
const LOOK: Duration = Duration::from_millis(500);

/// Runs until the daemon is asked to stop.
pub fn run(engine: &Arc<Engine>) {
    let mut seen = None;
    let mut known = 0;
    while !engine.shutdown.is_requested() {
        let applied = engine.metrics.batches_applied.get();
        if seen == Some(applied) {
            let _ = engine.shutdown.wait_timeout(LOOK);
            continue;
        }
        seen = Some(applied);
        let since = Instant::now();
        match count(engine) {
            Ok(Some(n)) => {
                engine
                    .metrics
                    .foreign_key_violations
                    .set(i64::try_from(n).unwrap_or(i64::MAX));
                if n > known {
                    tracing::warn!(
                        rows = n,
                        "rows whose parent another node has deleted, equal on all nodes; PRAGMA foreign_key_check lists them, delete or adopt them on any one node"
                    );
                }
                known = n;
            }
            Ok(None) => {}
            Err(e) => tracing::debug!("{e}"),
        }
        let rest = (since.elapsed() * SHARE).max(engine.settings.now().cleanup_interval);
        let _ = engine.shutdown.wait_timeout(rest);
    }
}

fn count(engine: &Arc<Engine>) -> Result<Option<u64>, SqliteError> {
    let mut reader = open_reader(&engine.config.db_path)?;
    if !orphans::possible(&reader)? {
        return Ok(Some(0));
    }
    let shutdown = engine.shutdown.clone();
    orphans::count(&mut reader, LIMIT, move || shutdown.is_requested())
}
