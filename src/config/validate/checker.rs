//! The checks that many keys share. Each takes a key's path, what the file says, and where the value goes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::outside::{Outside, read_secret};
use crate::config::parse::Source;
use crate::config::{Fault, FaultKind, ListenAddress, Origin, rights};

/// Bound of intervals that something waits for: past a day a value is a slip of the unit.
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Bound of ages.
pub(super) const YEAR_MS: i64 = 366 * DAY_MS;

/// Gathers faults.
pub(super) struct Checker<'s> {
    pub(super) source: &'s Source,
    outside: &'s Outside,
    /// Where values came from that the file has not given.
    origins: BTreeMap<&'static str, Origin>,
    pub(super) faults: Vec<Fault>,
    /// Sentences to log at start.
    pub(super) notices: Vec<String>,
    /// Keys whose secrets stand in the configuration file itself.
    pub(super) secrets: Vec<String>,
}

impl<'s> Checker<'s> {
    pub(super) fn new(source: &'s Source, outside: &'s Outside) -> Self {
        Self {
            source,
            outside,
            origins: BTreeMap::new(),
            faults: Vec::new(),
            notices: outside.unknown(),
            secrets: Vec::new(),
        }
    }

    /// Notes that `key` is at fault.
    pub(super) fn fault(&mut self, key: &str, kind: FaultKind) {
        let origin = self.origins.get(key).cloned();
        self.fault_at(origin.unwrap_or_else(|| self.source.origin(key)), kind);
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

    /// Takes the path of a file that we must be able to read; a systemd credential of the key's name stands for it.
    pub(super) fn readable(
        &mut self,
        key: &'static str,
        value: Option<String>,
        target: &mut Option<PathBuf>,
    ) {
        let value = given(value).map(PathBuf::from);
        let path = match self.outside.credential(key) {
            Some(path) => {
                let origin = Origin::Credential(key.to_owned());
                self.goes_before(key, value.is_some(), &origin);
                self.origins.insert(key, origin);
                path
            }
            None => match value {
                Some(path) => path,
                None => return,
            },
        };
        match open_as_file(&path) {
            Ok(()) => *target = Some(path),
            Err(source) => self.fault(key, FaultKind::Unreadable { path, source }),
        }
    }

    /// The same, for a file that holds a secret.
    pub(super) fn secret_file(
        &mut self,
        key: &'static str,
        value: Option<String>,
        target: &mut Option<PathBuf>,
    ) {
        self.readable(key, value, target);
        let named = target.as_ref();
        let notice = named.and_then(|path| rights::of_secret_file(key, path));
        self.notices.extend(notice);
    }

    /// Takes a secret: a systemd credential or an environment variable gives it, or the file that `file` names, or the configuration itself.
    pub(super) fn secret(
        &mut self,
        (key, value): (&'static str, Option<String>),
        (file_key, file): (&'static str, Option<String>),
    ) -> Option<String> {
        let (value, file) = (given(value), given(file).map(PathBuf::from));
        if let Some(text) = self.outside(key, value.is_some() || file.is_some()) {
            return text;
        }
        let Some(path) = file else {
            self.secrets.extend(value.is_some().then(|| key.to_owned()));
            return value;
        };
        self.origins.insert(key, self.source.origin(file_key));
        if value.is_some() {
            self.fault(file_key, FaultKind::Conflict { other: key });
            return None;
        }
        let notice = rights::of_secret_file(file_key, &path);
        self.notices.extend(notice);
        match read_secret(&path) {
            Ok(text) => Some(text),
            Err(kind) => {
                self.fault(file_key, kind);
                None
            }
        }
    }

    /// What is given from outside for `key`, where something is (`None` within: it is at fault). `is_set`: the file, or a flag, gives it too.
    pub(super) fn outside(&mut self, key: &'static str, is_set: bool) -> Option<Option<String>> {
        match self.outside.text(key)? {
            Ok(found) => {
                self.goes_before(key, is_set, &found.origin);
                self.origins.insert(key, found.origin);
                Some(Some(found.text))
            }
            Err(fault) => {
                self.origins.insert(key, fault.origin.clone());
                self.faults.push(fault);
                Some(None)
            }
        }
    }

    fn goes_before(&mut self, key: &str, is_set: bool, origin: &Origin) {
        if is_set {
            self.notices.push(format!(
                "{key} is set twice: {origin} goes before the configuration"
            ));
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
            || self.origins.get(key).is_some_and(|o| self.faults.iter().any(|f| f.origin == *o))
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
