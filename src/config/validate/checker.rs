//! The checks that many keys share. Each takes a key's path, what the file says, and where the value goes.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::parse::Source;
use crate::config::{Fault, FaultKind, ListenAddress, Origin};

/// Bound of intervals that something waits for: past a day a value is a slip of the unit.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Bound of ages.
pub(super) const YEAR_MS: i64 = 366 * DAY_MS;

/// Gathers faults.
pub(super) struct Checker<'s> {
    pub(super) source: &'s Source,
    pub(super) faults: Vec<Fault>,
}

impl<'s> Checker<'s> {
    pub(super) fn new(source: &'s Source) -> Self {
        Self {
            source,
            faults: Vec::new(),
        }
    }

    /// Notes that `key` is at fault.
    pub(super) fn fault(&mut self, key: &str, kind: FaultKind) {
        self.fault_at(self.source.origin(key), kind);
    }

    pub(super) fn fault_at(&mut self, origin: Origin, kind: FaultKind) {
        self.faults.push(Fault { origin, kind });
    }

    /// Takes a value that needs no check.
    pub(super) fn set<T>(&self, value: Option<T>, target: &mut T) {
        if let Some(value) = value {
            *target = value;
        }
    }

    /// Takes a number within `range`.
    pub(super) fn number<T: TryFrom<i64>>(
        &mut self,
        key: &str,
        value: Option<i64>,
        range: RangeInclusive<i64>,
        target: &mut T,
    ) {
        let Some(value) = value else { return };
        let (least, most) = range.into_inner();
        match T::try_from(value) {
            Ok(fits) if (least..=most).contains(&value) => *target = fits,
            _ => {
                let value = i128::from(value);
                self.fault(key, FaultKind::OutOfRange { value, least, most });
            }
        }
    }

    /// Takes a number of milliseconds within `range`.
    pub(super) fn millis(
        &mut self,
        key: &str,
        value: Option<i64>,
        range: RangeInclusive<i64>,
        target: &mut Duration,
    ) {
        let mut millis = 0;
        if value.is_some() {
            let faults = self.faults.len();
            self.number(key, value, range, &mut millis);
            if self.faults.len() == faults {
                *target = Duration::from_millis(millis);
            }
        }
    }

    /// Takes one of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &str,
        value: Option<String>,
        words: &[(&str, T)],
        allowed: &'static str,
        target: &mut T,
    ) {
        let Some(value) = value else { return };
        match words.iter().find(|(word, _)| *word == value) {
            Some((_, meaning)) => *target = *meaning,
            None => self.fault(key, FaultKind::NotAllowed { value, allowed }),
        }
    }

    /// Takes a name that `is_right` accepts.
    pub(super) fn name(
        &mut self,
        key: &str,
        value: Option<String>,
        is_right: fn(&str) -> bool,
        rule: &'static str,
        target: &mut String,
    ) {
        match value {
            Some(value) if is_right(&value) => *target = value,
            Some(value) => self.fault(key, FaultKind::Name { value, rule }),
            None => {}
        }
    }

    /// Takes an address to listen on.
    pub(super) fn address(&mut self, key: &str, value: Option<String>, target: &mut String) {
        let Some(value) = value else { return };
        match ListenAddress::parse(&value) {
            Ok(_) => *target = value,
            Err(problem) => self.fault(key, FaultKind::Address { value, problem }),
        }
    }

    /// Takes the path of a file that we must be able to read.
    pub(super) fn readable(
        &mut self,
        key: &str,
        value: Option<String>,
        target: &mut Option<PathBuf>,
    ) {
        let Some(path) = given(value).map(PathBuf::from) else {
            return;
        };
        match open_as_file(&path) {
            Ok(()) => *target = Some(path),
            Err(source) => self.fault(key, FaultKind::Unreadable { path, source }),
        }
    }

    /// Checks that `folder` is there.
    pub(super) fn folder(&mut self, origin: Origin, folder: &Path) {
        let (problem, source) = match fs::metadata(folder) {
            Ok(found) if found.is_dir() => return,
            Ok(_) => ("is not a folder", None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                ("does not exist", Some(error))
            }
            Err(error) => ("cannot be looked into", Some(error)),
        };
        let folder = folder.to_owned();
        let kind = FaultKind::Folder {
            folder,
            problem,
            source,
        };
        self.fault_at(origin, kind);
    }

    /// Whether a fault of this key has been noted already, while parsing or since.
    pub(super) fn is_at_fault(&self, key: &str) -> bool {
        self.source.is_faulty(key)
            || self.faults.iter().any(
                |fault| matches!(&fault.origin, Origin::Key { key: at_fault, .. } if at_fault == key),
            )
    }
}

/// An empty string stands for a key that is not set, as in the Go program.
pub(super) fn given(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

fn open_as_file(path: &Path) -> io::Result<()> {
    // Asked before opening: opening a named pipe would wait for its writer.
    let found = fs::metadata(path)?;
    if !found.is_file() {
        let kind = if found.is_dir() {
            io::ErrorKind::IsADirectory
        } else {
            io::ErrorKind::InvalidInput
        };
        return Err(kind.into());
    }
    fs::File::open(path).map(drop)
}
