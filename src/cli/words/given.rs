//! What was given behind the words, read as what it stands for.
//!
//! Invariant: no error repeats a value, since values may be the user's data.

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::ArgMatches;

use super::Verb;
use crate::cli::args::{given, is_on};
use crate::cli::flags::OPERANDS;
use crate::cli::usage::{UsageError, shown};
use crate::runtime::duration;

/// A word's options and operands.
pub struct Given<'m> {
    pub(in crate::cli) verb: &'static Verb,
    pub(in crate::cli) matches: &'m ArgMatches,
}

impl Given<'_> {
    /// Whether a switch is on.
    ///
    /// # Errors
    /// A value other than `true` or `false`.
    pub fn switch(&self, flag: &'static str) -> Result<bool, UsageError> {
        is_on(self.matches, flag)
    }

    /// The value of an option as text.
    ///
    /// # Errors
    /// Text that is not UTF-8.
    pub fn text(&self, flag: &'static str) -> Result<Option<String>, UsageError> {
        let value = given(self.matches, flag);
        value
            .map(|v| {
                v.to_str().map(str::to_owned).ok_or(UsageError::BadValue {
                    flag,
                    expected: "text in UTF-8",
                })
            })
            .transpose()
    }

    /// The value of an option as a number or anything else that is read from text.
    ///
    /// # Errors
    /// Text that does not read, with `expected`.
    pub fn parsed<T: FromStr>(
        &self,
        flag: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, UsageError> {
        let text = self.text(flag)?;
        text.map(|t| {
            t.parse()
                .map_err(|_| UsageError::BadValue { flag, expected })
        })
        .transpose()
    }

    /// The value of an option as a length of time: `90s`, `15m`, `12h`, `30d`.
    ///
    /// # Errors
    /// Any other text.
    pub fn age(&self, flag: &'static str) -> Result<Option<Duration>, UsageError> {
        let text = self.text(flag)?;
        text.map(|t| {
            duration::parse_age(&t).ok_or(UsageError::BadValue {
                flag,
                expected: "a time such as 90s, 15m, 12h or 30d",
            })
        })
        .transpose()
    }

    /// What stands by itself.
    pub fn operands(&self) -> Vec<OsString> {
        let values = self.matches.get_many::<OsString>(OPERANDS);
        values.into_iter().flatten().cloned().collect()
    }

    /// That nothing stands by itself.
    ///
    /// # Errors
    /// The first thing that does.
    pub fn no_operands(&self) -> Result<(), UsageError> {
        self.at_most(0)
    }

    /// That at most so many things stand by themselves.
    ///
    /// # Errors
    /// The first thing that is one too many.
    pub fn at_most(&self, count: usize) -> Result<(), UsageError> {
        match self.operands().get(count) {
            None => Ok(()),
            Some(extra) => Err(UsageError::UnexpectedArgument {
                argument: shown(&extra.to_string_lossy()),
            }),
        }
    }

    /// The operand at this place, read from text; `what` names it.
    ///
    /// # Errors
    /// None there, or one that does not read.
    pub fn operand<T: FromStr>(
        &self,
        at: usize,
        what: &'static str,
        expected: &'static str,
    ) -> Result<T, UsageError> {
        let operands = self.operands();
        let Some(value) = operands.get(at) else {
            return Err(UsageError::MissingOperand {
                command: self.verb.name(),
                what,
                usage: self.verb.usage(),
            });
        };
        let parsed = value.to_str().and_then(|text| text.parse().ok());
        parsed.ok_or(UsageError::BadOperand { what, expected })
    }
}
