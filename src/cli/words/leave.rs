//! `harmonylite leave`: this node publishes what is pending, leaves the cluster, and ends.

use std::time::Duration;

use super::wait::millis;
use super::{Done, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::flags::flag;
use crate::config::Config;
use crate::control::cluster::LeaveArguments;
use crate::control::{Request, client};
use crate::engine::Fatal;

/// How long publishing what is pending may take if nothing else is said.
const USUAL: Duration = Duration::from_secs(60);

/// What the daemon may take beyond that: it ends its work.
const ON_THE_WAY: Duration = Duration::from_secs(60);

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "leave",
    verb: None,
    operands: "",
    options: &[flag(
        "timeout",
        "TIME",
        "how long publishing what is pending may take (60s)",
    )],
    about: "publish what is pending, leave the cluster for good, and stop the daemon",
    more: "Nothing waits for this node any more: no trimming, no wait, no verify. Its database stays as it is; a start\n\
           brings it back. Where not everything can be published, the daemon goes on and this exits with 75. Stop the\n\
           app first. On a node that is gone already, use nodes forget on another one.",
    parse: |given| {
        given.no_operands()?;
        let timeout = given.age("timeout")?.unwrap_or(USUAL);
        Ok(Word::Leave { timeout })
    },
}];

pub(super) fn run(timeout: Duration, config: &Config) -> Result<Done, Fatal> {
    let request = Request::Leave(LeaveArguments {
        timeout_ms: millis(timeout),
    });
    let silence = timeout.saturating_add(ON_THE_WAY);
    client::request(&config.db_path, request, silence, progress)
        .map(|answer| Done::ok(answer.message))
        .map_err(|e| Fatal::new(code(&e), e))
}
