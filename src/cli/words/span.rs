//! `harmonylite skip` and `harmonylite replay`: what an operator does by hand with messages of the stream.

use std::time::Duration;

use super::{Done, Given, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::control::client;
use crate::control::{Request, Span};
use crate::engine::Fatal;

/// How long the daemon may say nothing: a large replay commits in one transaction.
const DEADLINE: Duration = Duration::from_secs(300);

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "skip",
        verb: None,
        operands: "SHARD RANGE",
        options: &[],
        about: "go on without the rows of messages that stop this node",
        more: "RANGE is N or N-M, ahead of this node's position. The messages go to the dead-letter journal. This node\n\
               then lacks what they wrote: run harmonylite verify afterwards. Needs the running daemon.",
        parse: |given| Ok(Word::Skip(span(given)?)),
    },
    Verb {
        group: "replay",
        verb: None,
        operands: "SHARD RANGE",
        options: &[],
        about: "fold messages again that this node has folded already",
        more: "RANGE is N, N-M, or N- for all from N to the present, which is the safe form: where the range ends earlier,\n\
               what was written to the same rows after it may be overwritten on this node. Needs the running daemon.",
        parse: |given| Ok(Word::Replay(span(given)?)),
    },
];

fn span(given: &Given<'_>) -> Result<Span, UsageError> {
    const EXPECTED: &str = "N, N-M or N-, the messages' numbers";
    given.at_most(2)?;
    let shard = given.operand(
        0,
        "a SHARD",
        "the shard's number; commit records stand in shard 1",
    )?;
    let text: String = given.operand(1, "a RANGE", EXPECTED)?;
    let bad = UsageError::BadOperand {
        what: "the RANGE",
        expected: EXPECTED,
    };
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse::<u64>().ok().filter(|n| *n > 0),
        false => None,
    };
    let (first, last) = match text.split_once('-') {
        None => (number(&text), Some(number(&text))),
        Some((first, "")) => (number(first), None),
        Some((first, last)) => (number(first), Some(number(last))),
    };
    match (first, last) {
        (Some(first), None) => Ok(Span {
            shard,
            first,
            last: None,
        }),
        (Some(first), Some(Some(last))) if last >= first => Ok(Span {
            shard,
            first,
            last: Some(last),
        }),
        _ => Err(bad),
    }
}

pub(super) fn run(request: Request, config: &Config) -> Result<Done, Fatal> {
    let answer = client::request(&config.db_path, request, DEADLINE, progress);
    answer
        .map(|a| Done::ok(a.message))
        .map_err(|e| Fatal::new(code(&e), e))
}
