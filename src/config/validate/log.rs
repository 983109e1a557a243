//! `[replication_log]` and `[replication]`.

use super::checker::{Checker, YEAR_MS};
use crate::config::file::{Replication, ReplicationLog};
use crate::config::names::glob_problem;
use crate::config::{FaultKind, ReplicationConfig, ReplicationLogConfig};

/// What JetStream accepts.
pub(super) const REPLICAS: std::ops::RangeInclusive<i64> = 1..=5;
/// Each shard is a stream with files of its own on every broker and a reader on every node.
const SHARDS_MOST: i64 = 1024;
/// Nodes announce themselves each second at most, and half of the time without news is the least that must pass between.
const SILENT_LEAST_MS: i64 = 5000;
/// Room for what goes out while a snapshot is taken.
const KEPT_LEAST: i64 = 1 << 20;
/// The smallest stream that holds a few messages of the default `max_payload` (1 MiB).
const MAX_BYTES_LEAST: i64 = 4 << 20;

pub(super) fn replication_log(
    check: &mut Checker<'_>,
    file: ReplicationLog,
    config: &mut ReplicationLogConfig,
) {
    let ReplicationLog {
        shards,
        max_entries,
        max_bytes,
        max_age,
        silent_after,
        kept_max_bytes,
        replicas,
        compress,
        compress_min_bytes,
        update_existing,
    } = file;
    check.number(
        "replication_log.shards",
        shards,
        1..=SHARDS_MOST,
        &mut config.shards,
    );
    check.number(
        "replication_log.max_entries",
        max_entries,
        0..=i64::MAX,
        &mut config.max_entries,
    );
    check.number(
        "replication_log.max_bytes",
        max_bytes,
        MAX_BYTES_LEAST..=i64::MAX,
        &mut config.max_bytes,
    );
    check.millis(
        "replication_log.max_age",
        max_age,
        0..=YEAR_MS,
        &mut config.max_age,
    );
    check.millis(
        "replication_log.silent_after",
        silent_after,
        SILENT_LEAST_MS..=YEAR_MS,
        &mut config.silent_after,
    );
    check.number(
        "replication_log.kept_max_bytes",
        kept_max_bytes,
        KEPT_LEAST..=i64::MAX,
        &mut config.kept_max_bytes,
    );
    check.number(
        "replication_log.replicas",
        replicas,
        REPLICAS,
        &mut config.replicas,
    );
    check.set(compress, &mut config.compress);
    check.number(
        "replication_log.compress_min_bytes",
        compress_min_bytes,
        0..=i64::from(u32::MAX),
        &mut config.compress_min_bytes,
    );
    check.set(update_existing, &mut config.update_existing);
}

pub(super) fn replication(
    check: &mut Checker<'_>,
    file: Replication,
    config: &mut ReplicationConfig,
) {
    let Replication {
        include,
        exclude,
        fire_triggers,
    } = file;
    globs(check, "replication.include", include, &mut config.include);
    globs(check, "replication.exclude", exclude, &mut config.exclude);
    let key = "replication.fire_triggers";
    if let Some(names) = fire_triggers {
        if names.iter().any(String::is_empty) {
            let rule = "give the names of triggers of the database";
            let value = String::new();
            check.fault(key, FaultKind::Name { value, rule });
        }
        config.fire_triggers = names;
    }
}

fn globs(
    check: &mut Checker<'_>,
    key: &str,
    patterns: Option<Vec<String>>,
    target: &mut Vec<String>,
) {
    let Some(patterns) = patterns else { return };
    for pattern in &patterns {
        if let Some(problem) = glob_problem(pattern) {
            let pattern = pattern.clone();
            check.fault(key, FaultKind::Glob { pattern, problem });
        }
    }
    *target = patterns;
}
