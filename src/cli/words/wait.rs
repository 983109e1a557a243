//! `harmonylite position` and `harmonylite wait`: reading one's own writes on another node.

use std::time::Duration;

use super::{Done, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::flags::flag;
use crate::config::Config;
use crate::control::{PositionArguments, Request, WaitArguments, client};
use crate::engine::Fatal;

/// What can be asked about positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Where everything that the app has committed so far stands.
    Position {
        /// How long to wait for it to come back.
        timeout: Duration,
    },
    /// Wait until this node has folded a position.
    Here {
        /// The position.
        position: String,
        /// How long.
        timeout: Duration,
    },
    /// Wait until everything that the app has committed so far is on every living node.
    Everywhere {
        /// How long.
        timeout: Duration,
    },
}

/// How long a command waits if nothing else is said: far beyond what a node that runs takes.
const USUAL: Duration = Duration::from_secs(30);

/// What the daemon may take beyond that until it says so.
const ON_THE_WAY: Duration = Duration::from_secs(30);

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "position",
        verb: None,
        operands: "",
        options: &[flag(
            "timeout",
            "TIME",
            "how long to wait for it to come back from the stream (30s)",
        )],
        about: "print where everything that the app has committed so far stands",
        more: "The position can be carried to another node and waited for there:\n  \
               harmonylite wait --position \"$(harmonylite -config a.toml position)\" -config b.toml",
        parse: |given| {
            given.no_operands()?;
            let timeout = given.age("timeout")?.unwrap_or(USUAL);
            Ok(Word::Wait(Wait::Position { timeout }))
        },
    },
    Verb {
        group: "wait",
        verb: None,
        operands: "",
        options: &[
            flag(
                "position",
                "POSITION",
                "wait until this node has folded it, instead of for all nodes",
            ),
            flag("timeout", "TIME", "how long to wait (30s)"),
        ],
        about: "wait until what the app has committed so far is on every living node",
        more: "While it waits it says which node is how far. When the time is up it exits with 75 and names the nodes\n\
               that lack something. With --position it waits for this node alone.",
        parse: |given| {
            given.no_operands()?;
            let timeout = given.age("timeout")?.unwrap_or(USUAL);
            Ok(Word::Wait(match given.text("position")? {
                Some(position) => Wait::Here { position, timeout },
                None => Wait::Everywhere { timeout },
            }))
        },
    },
];

pub(super) fn run(command: Wait, config: &Config) -> Result<Done, Fatal> {
    let (timeout, position) = match command {
        Wait::Position { timeout } => {
            let arguments = PositionArguments {
                timeout_ms: millis(timeout),
            };
            return ask(config, Request::Position(arguments), timeout);
        }
        Wait::Here { position, timeout } => (timeout, Some(position)),
        Wait::Everywhere { timeout } => (timeout, None),
    };
    let arguments = WaitArguments {
        position,
        timeout_ms: millis(timeout),
    };
    ask(config, Request::Wait(arguments), timeout)
}

fn ask(config: &Config, request: Request, timeout: Duration) -> Result<Done, Fatal> {
    let silence = timeout.saturating_add(ON_THE_WAY);
    client::request(&config.db_path, request, silence, progress)
        .map(|answer| Done::ok(answer.message))
        .map_err(|e| Fatal::new(code(&e), e))
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
