//! From what a file and the flags say to a checked [`Config`]: ranges, names, URLs, files, and what excludes what.
//!
//! Invariants: everything is checked and every fault kept, none hides another; nothing is bound, opened for
//! writing or asked over the network. A value at fault leaves the default in place, so that later checks go on.

mod checker;
mod journals;
mod listeners;
mod log;
mod logging;
mod nats;
mod root;
mod snapshot;

use super::file::FileConfig;
use super::outside::Outside;
use super::parse::Source;
use super::{Config, Fault, Overrides};
use checker::Checker;

/// What came of it.
pub(super) struct Filled {
    /// Every fault.
    pub(super) faults: Vec<Fault>,
    /// Sentences to log at start.
    pub(super) notices: Vec<String>,
    /// Keys whose secrets stand in the file itself.
    pub(super) secrets: Vec<String>,
}

/// Fills `config`, which holds the defaults, with what `file` and `overrides` say.
pub(super) fn fill(
    config: &mut Config,
    file: FileConfig,
    overrides: &Overrides,
    source: &Source,
    outside: &Outside,
) -> Filled {
    let mut check = Checker::new(source, outside);
    let FileConfig {
        db_path,
        seq_map_path,
        node_id,
        publish,
        replicate,
        scan_max_changes,
        cleanup_interval,
        sleep_timeout,
        polling_interval,
        replication_log,
        replication,
        journals,
        snapshot,
        nats,
        logging,
        prometheus,
        health_check,
    } = file;
    root::paths(&mut check, db_path, seq_map_path, overrides, config);
    root::node_id(&mut check, node_id, overrides, config);
    check.set(publish, &mut config.publish);
    check.set(replicate, &mut config.replicate);
    check.number(
        "scan_max_changes",
        scan_max_changes,
        // Past a million rows a step no longer bounds anything.
        1..=1_000_000,
        &mut config.scan_max_changes,
    );
    check.millis(
        "cleanup_interval",
        cleanup_interval,
        100..=checker::DAY_MS,
        &mut config.cleanup_interval,
    );
    check.millis(
        "sleep_timeout",
        sleep_timeout,
        0..=checker::YEAR_MS,
        &mut config.sleep_timeout,
    );
    check.millis(
        "polling_interval",
        polling_interval,
        0..=checker::DAY_MS,
        &mut config.polling_interval,
    );
    log::replication_log(&mut check, replication_log, &mut config.replication_log);
    log::replication(&mut check, replication, &mut config.replication);
    journals::journals(&mut check, journals, &mut config.journals);
    snapshot::snapshot(&mut check, snapshot, &mut config.snapshot);
    snapshot::beside_database(&mut check, &config.snapshot, &config.db_path);
    nats::nats(&mut check, nats, overrides, &mut config.nats);
    logging::logging(&mut check, logging, config);
    listeners::prometheus(&mut check, prometheus, &mut config.prometheus);
    listeners::health_check(&mut check, health_check, &mut config.health_check);
    listeners::collisions(&mut check, config);
    Filled {
        faults: check.faults,
        notices: check.notices,
        secrets: check.secrets,
    }
}
