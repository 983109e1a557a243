//! `harmonylite verify`: whether all living nodes hold the same.

use std::time::Duration;

use super::wait::millis;
use super::{Done, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::exit::ExitCode;
use crate::cli::flags::{flag, switch};
use crate::cli::table::escaped;
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::control::{Request, VerifyArguments, client};
use crate::engine::Fatal;
use crate::verify::Report;

/// What is to be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// How long a node may take to fold the stream up to the marker.
    pub timeout: Duration,
    /// SQLite GLOB of the tables.
    pub tables: Option<String>,
    /// The node that what differs is sent again from.
    pub repair_from: Option<u64>,
    /// As JSON.
    pub json: bool,
}

/// How long nodes may take if nothing else is said: a node that is minutes behind is named, not waited for.
const USUAL: Duration = Duration::from_secs(60);

/// How long the daemon may say nothing beyond that: it tells how far it is every second.
const SILENCE: Duration = Duration::from_secs(60);

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "verify",
    verb: None,
    operands: "",
    options: &[
        flag("table", "GLOB", "only tables whose name fits"),
        flag(
            "timeout",
            "TIME",
            "how long a node may take to get to the position (60s)",
        ),
        switch(
            "repair",
            "send the rows that differ again, from the node that --from names",
        ),
        flag("from", "NODE_ID", "the node whose rows are right"),
        switch("json", "for programs"),
    ],
    about: "compare all tables on all living nodes at one position of the stream",
    more: "The apps may go on writing. Exit code 0: equal; 1: different; 75: equal, but a node could not be compared.",
    parse: |given| {
        given.no_operands()?;
        let repair = given.switch("repair")?;
        let from = given.parsed("from", "the node id of a living node")?;
        if repair != from.is_some() {
            return Err(UsageError::Combination {
                command: "verify",
                rule: "--repair and --from NODE_ID go together: name the node whose rows are right",
            });
        }
        Ok(Word::Verify(Verify {
            timeout: given.age("timeout")?.unwrap_or(USUAL),
            tables: given.text("table")?,
            repair_from: from,
            json: given.switch("json")?,
        }))
    },
}];

pub(super) fn run(command: Verify, config: &Config) -> Result<Done, Fatal> {
    let arguments = VerifyArguments {
        timeout_ms: millis(command.timeout),
        tables: command.tables,
        repair_from: command.repair_from,
    };
    let silence = command.timeout.saturating_add(SILENCE);
    let request = Request::Verify(arguments);
    let answer = client::request(&config.db_path, request, silence, progress)
        .map_err(|e| Fatal::new(code(&e), e))?;
    let report: Report =
        serde_json::from_value(answer.result.unwrap_or_default()).map_err(|_| {
            Fatal::new(
                ExitCode::Failed,
                "the daemon's report is not understood: use the same version as the daemon's",
            )
        })?;
    let code = match (report.equal, report.is_incomplete()) {
        (false, _) => ExitCode::Failed,
        (true, true) => ExitCode::TempFail,
        (true, false) => ExitCode::Ok,
    };
    let done = if command.json {
        Done::json(&report)
    } else {
        // Names and keys come from databases.
        let lines: Vec<String> = report.text().lines().map(escaped).collect();
        Done::ok(lines.join("\n"))
    };
    Ok(Done { code, ..done })
}
