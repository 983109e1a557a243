//! What `purge` of either journal takes: ids, an age, or all.

use std::time::Duration;

use time::OffsetDateTime;

use super::Given;
use crate::cli::flags::{Flag, flag, switch};
use crate::cli::usage::UsageError;
use crate::journals::Which;
use crate::state::journal::rfc3339;

/// Which entries are to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purge {
    /// All.
    All,
    /// Those that are at least so old.
    Before(Duration),
    /// These.
    These(Vec<i64>),
}

pub(super) const OPTIONS: &[Flag] = &[
    flag("before", "TIME", "older than 90s, 15m, 12h or 30d"),
    switch("all", "everything"),
];

impl Purge {
    /// Reads ids, `--before` or `--all`: one of the three.
    pub(super) fn parse(given: &Given<'_>) -> Result<Self, UsageError> {
        let ids: Vec<i64> = (0..given.operands().len())
            .map(|n| given.operand(n, "an ID", "numbers as the list shows them"))
            .collect::<Result<_, _>>()?;
        match (ids.is_empty(), given.age("before")?, given.switch("all")?) {
            (false, None, false) => Ok(Self::These(ids)),
            (true, Some(age), false) => Ok(Self::Before(age)),
            (true, None, true) => Ok(Self::All),
            _ => Err(UsageError::Combination {
                command: "purge",
                rule: "give one or more IDs, or --before TIME, or --all",
            }),
        }
    }

    /// The same, with the age as a time.
    pub(super) fn which(self) -> Which {
        match self {
            Self::All => Which::All,
            Self::Before(age) => Which::Before(rfc3339(OffsetDateTime::now_utc() - age)),
            Self::These(ids) => Which::These(ids),
        }
    }
}
