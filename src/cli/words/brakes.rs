//! `harmonylite pause`, `resume` and `limit`: holding this node back while its daemon runs.

use std::time::Duration;

use super::{Done, Given, Verb, Word};
use crate::brakes::Part;
use crate::cli::commands::{code, progress};
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::control::cluster::BrakeArguments;
use crate::control::{Request, client};
use crate::engine::Fatal;

/// How long the daemon may take to write one small file.
const DEADLINE: Duration = Duration::from_secs(30);

const EXPECTED: &str = "publish (this node's own changes) or apply (those of other nodes)";

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "pause",
        verb: None,
        operands: "publish|apply",
        options: &[],
        about: "hold this node's changes, or those of others, back until resume",
        more: "The app goes on writing and reading, and nothing is lost: changes wait in the database (publish) or in the\n\
               stream (apply). The pause outlives restarts, and health shows it. Needs the running daemon.",
        parse: |given| {
            given.at_most(1)?;
            brake(given, Some(true), None)
        },
    },
    Verb {
        group: "resume",
        verb: None,
        operands: "publish|apply",
        options: &[],
        about: "end a pause: what has waited goes on at once",
        more: "",
        parse: |given| {
            given.at_most(1)?;
            brake(given, Some(false), None)
        },
    },
    Verb {
        group: "limit",
        verb: None,
        operands: "publish|apply ROWS|off",
        options: &[],
        about: "publish or apply at most so many rows a second on average",
        more: "Transactions stay whole: one that is larger goes as it is, and then the next one waits. The limit outlives\n\
               restarts; off ends it. A stop and a cleanup do not wait for it. Needs the running daemon.",
        parse: |given| {
            given.at_most(2)?;
            let rows: String = given.operand(1, "a number of ROWS, or off", ROWS)?;
            let rows =
                match rows.as_str() {
                    "off" => 0,
                    number => number.parse().ok().filter(|rows| *rows > 0).ok_or(
                        UsageError::BadOperand {
                            what: "the limit",
                            expected: ROWS,
                        },
                    )?,
                };
            brake(given, None, Some(rows))
        },
    },
];

const ROWS: &str = "a number of rows a second from 1, or off";

fn brake(
    given: &Given<'_>,
    paused: Option<bool>,
    rows_per_second: Option<u64>,
) -> Result<Word, UsageError> {
    let word: String = given.operand(0, "publish or apply", EXPECTED)?;
    let part = Part::ALL
        .into_iter()
        .find(|part| part.word() == word)
        .ok_or(UsageError::BadOperand {
            what: "what is to be held back",
            expected: EXPECTED,
        })?;
    Ok(Word::Brake(BrakeArguments {
        part,
        paused,
        rows_per_second,
    }))
}

pub(super) fn run(arguments: BrakeArguments, config: &Config) -> Result<Done, Fatal> {
    let request = Request::Brake(arguments);
    client::request(&config.db_path, request, DEADLINE, progress)
        .map(|answer| Done::ok(answer.message))
        .map_err(|e| Fatal::new(code(&e), e))
}
