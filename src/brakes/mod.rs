//! What an operator has told this node to hold back: publishing or applying paused, or limited to so many rows a second.
//!
//! ```text
//!   app.db-harmonylite.brakes    JSON, beside the database; there only while something is held back
//! ```
//!
//! Invariants: what the daemon does is what the file says, which is written first, whole and durably; so a pause outlives restarts and crashes until it is
//! ended. A file that does not read stops a start: nobody knows then what was to be held back.

mod file;
mod pace;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

pub use file::BrakesError;
pub use pace::Pace;

/// What can be held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Changes of this node on their way to the stream.
    Publish,
    /// Changes of the stream on their way into this database.
    Apply,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Publish, Self::Apply];

    /// As it is written on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Apply => "apply",
        }
    }

    /// As the subject of a sentence.
    #[must_use]
    pub const fn doing(self) -> &'static str {
        match self {
            Self::Publish => "publishing",
            Self::Apply => "applying",
        }
    }
}

/// How one part is held back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brake {
    /// Since when it is paused, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<String>,
    /// Rows a second, on average; `None`: as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_per_second: Option<NonZeroU64>,
}

impl Brake {
    /// The sentence about a pause, with its remedy.
    #[must_use]
    pub fn pause(&self, part: Part) -> Option<String> {
        self.paused_since.as_ref().map(|since| {
            format!(
                "an operator has paused {} on this node ({since}): harmonylite resume {} ends that",
                part.doing(),
                part.word()
            )
        })
    }

    /// The sentence about a limit.
    #[must_use]
    pub fn limit(&self, part: Part) -> Option<String> {
        self.rows_per_second.map(|rows| {
            format!(
                "an operator has limited {} on this node to {rows} rows a second: harmonylite limit {} off ends that",
                part.doing(),
                part.word()
            )
        })
    }
}

/// How both parts are held back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// Publishing.
    #[serde(default)]
    pub publish: Brake,
    /// Applying.
    #[serde(default)]
    pub apply: Brake,
}

impl Set {
    /// Of one part.
    #[must_use]
    pub const fn of(&self, part: Part) -> &Brake {
        match part {
            Part::Publish => &self.publish,
            Part::Apply => &self.apply,
        }
    }

    /// Of one part, to be changed.
    pub const fn of_mut(&mut self, part: Part) -> &mut Brake {
        match part {
            Part::Publish => &mut self.publish,
            Part::Apply => &mut self.apply,
        }
    }

    /// The sentence about a pause of any part.
    #[must_use]
    pub fn pause(&self) -> Option<String> {
        Part::ALL
            .into_iter()
            .find_map(|part| self.of(part).pause(part))
    }
}

/// The brakes of one database.
#[derive(Debug)]
pub struct Brakes {
    path: PathBuf,
    set: Mutex<Set>,
}

impl Brakes {
    /// Those of this database, as they were left.
    ///
    /// # Errors
    /// [`BrakesError`]: the file does not read.
    pub fn open(database: &Path) -> Result<Self, BrakesError> {
        let path = file::path(database);
        let set = Mutex::new(file::read(&path)?);
        Ok(Self { path, set })
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How they are set now.
    #[must_use]
    pub fn set(&self) -> Set {
        self.lock().clone()
    }

    /// Whether a part is paused.
    #[must_use]
    pub fn is_paused(&self, part: Part) -> bool {
        self.lock().of(part).paused_since.is_some()
    }

    /// Rows a second that a part is limited to.
    #[must_use]
    pub fn limit(&self, part: Part) -> Option<NonZeroU64> {
        self.lock().of(part).rows_per_second
    }

    /// Changes one of them; how they are set then.
    ///
    /// # Errors
    /// [`BrakesError`]: it cannot be kept, and nothing was changed.
    pub fn change(&self, part: Part, change: impl FnOnce(&mut Brake)) -> Result<Set, BrakesError> {
        let mut set = self.lock();
        let mut wanted = set.clone();
        change(wanted.of_mut(part));
        file::write(&self.path, &wanted)?;
        set.clone_from(&wanted);
        Ok(wanted)
    }
}

/// Removes what is kept beside this database.
///
/// # Errors
/// The system's.
pub fn remove(database: &Path) -> Result<(), BrakesError> {
    file::write(&file::path(database), &Set::default())
}

#[cfg(test)]
mod tests;
