//! What can be wrong with a command line, one sentence each.
//!
//! Invariant: no sentence repeats the value of a flag, since URLs may hold logins.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::flags::{self, Flag};
use crate::config::{AddressProblem, UrlProblem, nearest};

/// Why a command line was not understood: one sentence, for exit code 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// No such flag.
    #[error("-{flag} is not a known flag; {}", did_you_mean(*nearest))]
    UnknownFlag {
        /// As written, without its dash and value.
        flag: String,
        /// The known flag most like it.
        nearest: Option<&'static str>,
    },
    /// A word that is no command.
    #[error("{word} is not a known command; {remedy}")]
    UnknownWord {
        /// As written, or what it seems to be where it may hold a login.
        word: String,
        /// What to write instead.
        remedy: String,
    },
    /// A command that lacks one of its words or values.
    #[error("{command} needs {what}; write harmonylite {usage}")]
    MissingOperand {
        /// The command.
        command: String,
        /// What is lacking.
        what: &'static str,
        /// The whole command.
        usage: String,
    },
    /// A value that stands by itself and is none of what the command takes.
    #[error("{what} cannot be read; write {expected}")]
    BadOperand {
        /// Which value, in words.
        what: &'static str,
        /// What belongs there, as an example.
        expected: &'static str,
    },
    /// Options that a command takes only one of, or only together with another.
    #[error("{command}: {rule}")]
    Combination {
        /// The command.
        command: &'static str,
        /// What to give.
        rule: &'static str,
    },
    /// A word that belongs to no flag.
    #[error("{argument} is not expected here; flags begin with a dash, see harmonylite -help")]
    UnexpectedArgument {
        /// As written, or what it seems to be where it may hold a login.
        argument: String,
    },
    /// A flag without the value that it needs.
    #[error("-{flag} needs a value; write -{flag} {placeholder}")]
    MissingValue {
        /// The flag, without its dash.
        flag: &'static str,
        /// What belongs there.
        placeholder: &'static str,
    },
    /// A value that is none of what the flag takes.
    #[error("-{flag} has an unusable value; write {expected}")]
    BadValue {
        /// The flag, without its dash.
        flag: &'static str,
        /// What belongs there, as an example.
        expected: &'static str,
    },
    /// An address that cannot be listened on.
    #[error("-{flag} is no address: {problem}; write -{flag} HOST:PORT")]
    BadAddress {
        /// The flag, without its dash.
        flag: &'static str,
        /// What is wrong with it.
        #[source]
        problem: AddressProblem,
    },
    /// A peer's URL that cannot be used.
    #[error("-{flag}: URL {entry} cannot be used: {problem}; write {example}")]
    BadUrl {
        /// The flag, without its dash.
        flag: &'static str,
        /// Which of the list (from 1).
        entry: usize,
        /// What is wrong with it.
        #[source]
        problem: UrlProblem,
        /// A right one.
        example: &'static str,
    },
    /// Two commands at once.
    #[error("{first} and {second} cannot be used together; give one of them")]
    Conflict {
        /// One of them, as it is written.
        first: String,
        /// Another.
        second: String,
    },
    /// Refused for a reason that has no sentence of its own.
    #[error("the command line cannot be read ({0}); see harmonylite -help")]
    Other(String),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "see harmonylite -help for all flags".to_owned(),
        |flag| format!("did you mean -{flag}?"),
    )
}

/// A word as it may be repeated: what may hold a login is not.
pub(super) fn shown(word: &str) -> String {
    if word.contains(['@', '=']) {
        "a URL or value without its flag".to_owned()
    } else {
        format!("{:?}", word.chars().take(64).collect::<String>())
    }
}

/// Clap's refusal in our words, which never repeat a value. `options`: those of the word.
pub(super) fn refusal(error: &clap::Error, options: &'static [Flag]) -> UsageError {
    let known = || flags::FLAGS.iter().chain(options);
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => return UsageError::Other(error.kind().to_string()),
    };
    let name = argument
        .trim_start_matches('-')
        .split(['=', ' ', '['])
        .next()
        .unwrap_or_default();
    if error.kind() == ErrorKind::UnknownArgument {
        return if argument.starts_with('-') {
            UsageError::UnknownFlag {
                flag: name.to_owned(),
                nearest: nearest(name, known().map(|flag| flag.name)),
            }
        } else {
            UsageError::UnexpectedArgument {
                argument: shown(argument),
            }
        };
    }
    match known().find(|flag| flag.name == name) {
        Some(flag) => UsageError::MissingValue {
            flag: flag.name,
            placeholder: flag.value.unwrap_or("=true"),
        },
        None => UsageError::Other(error.kind().to_string()),
    }
}
