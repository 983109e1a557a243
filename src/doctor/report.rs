//! What was found: lines, and the worst of them.
//!
//! Invariant: what warns or fails says what to do about it; what could not be looked at is said, and is never called well.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, Serializer};

use super::problem::{Check, Problem};
use crate::cli::exit::ExitCode;

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not to be judged: it could not be looked at from here, or does not concern this node.
    Note,
    /// It works, or will, and somebody should look.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    #[serde(serialize_with = "named")]
    pub check: Check,
    /// How it is.
    pub level: Level,
    /// The problem, where it is one.
    #[serde(serialize_with = "problem_named")]
    pub problem: Option<Problem>,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

fn named<S: Serializer>(check: &Check, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(check.place().1)
}

#[allow(clippy::ref_option)] // as serde hands it over
fn problem_named<S: Serializer>(problem: &Option<Problem>, to: S) -> Result<S::Ok, S::Error> {
    problem.map(Problem::name).serialize(to)
}

/// Where findings go, from several threads. What was found stays, also when the rest takes too long.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<Finding>>>);

impl Notes {
    fn add(&self, finding: Finding) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(finding);
    }

    /// It is as it should be.
    pub fn ok(&self, check: Check, found: impl Into<String>) {
        self.add(Finding {
            check,
            level: Level::Ok,
            problem: None,
            found: found.into(),
            remedy: None,
        });
    }

    /// It cannot be judged, and why, or what to know.
    pub fn note(&self, check: Check, found: impl Into<String>) {
        self.add(Finding {
            check,
            level: Level::Note,
            problem: None,
            found: found.into(),
            remedy: None,
        });
    }

    /// It is wrong.
    pub fn problem(&self, problem: Problem, found: impl Into<String>, remedy: impl Into<String>) {
        self.at(problem, problem.level(), found, remedy);
    }

    /// It is wrong, and no worse than that: others make up for it.
    pub fn warn(&self, problem: Problem, found: impl Into<String>, remedy: impl Into<String>) {
        self.at(problem, Level::Warn, found, remedy);
    }

    /// It was not looked at to its end.
    pub fn unfinished(&self, check: Check) {
        self.add(Finding {
            check,
            level: Level::Warn,
            problem: Some(Problem::Unfinished),
            found: "came to no end in the time that all of it may take".to_owned(),
            remedy: Some("harmonylite doctor --timeout 2m".to_owned()),
        });
    }

    fn at(
        &self,
        problem: Problem,
        level: Level,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.add(Finding {
            check: problem.check(),
            level,
            problem: Some(problem),
            found: found.into(),
            remedy: Some(remedy.into()),
        });
    }

    /// Whether anything was said of this check.
    #[must_use]
    pub fn has(&self, check: Check) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|f| f.check == check)
    }

    /// All that was found until now.
    #[must_use]
    pub fn all(&self) -> Vec<Finding> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The whole.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// This program's version.
    pub version: &'static str,
    /// This node; none where the configuration does not say.
    pub node_id: Option<u64>,
    /// Its database.
    pub database: Option<String>,
    /// When it was looked, UTC.
    pub time: String,
    /// The worst that was found.
    pub worst: Level,
    /// Every finding, in the order of the checks.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Puts the findings in order: of one place together, in the order in which places were declared.
    #[must_use]
    pub fn new(node_id: Option<u64>, database: Option<String>, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|f| ORDER.iter().position(|c| *c == f.check));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            node_id,
            database,
            time: crate::runtime::moment::now(),
            worst: findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok),
            findings,
        }
    }

    /// How the process ends: with the code of the first failure, which is nearest to the cause; with 1 where there are warnings alone.
    #[must_use]
    pub fn exit(&self) -> ExitCode {
        let failed = self.findings.iter().find(|f| f.level == Level::Fail);
        match failed.and_then(|f| f.problem) {
            Some(problem) => problem.exit(),
            None if self.worst == Level::Warn => ExitCode::Failed,
            None => ExitCode::Ok,
        }
    }

    /// How many findings are of this level.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|f| f.level == level).count()
    }
}

/// The order of the report: what others depend on comes first.
pub const ORDER: [Check; 32] = [
    Check::Configuration,
    Check::Files,
    Check::SequenceMap,
    Check::Disk,
    Check::Ports,
    Check::Service,
    Check::Database,
    Check::Integrity,
    Check::Journal,
    Check::Sqlite,
    Check::State,
    Check::Journals,
    Check::Capture,
    Check::Tables,
    Check::Triggers,
    Check::Leftovers,
    Check::Daemon,
    Check::Processes,
    Check::Health,
    Check::Server,
    Check::Broker,
    Check::JetStream,
    Check::Sync,
    Check::Copies,
    Check::Clock,
    Check::Streams,
    Check::Position,
    Check::Nodes,
    Check::Schema,
    Check::PeerClocks,
    Check::Store,
    Check::Snapshot,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_tells_how_the_process_ends() {
        let notes = Notes::default();
        notes.ok(Check::Disk, "room");
        let exit = |notes: &Notes| Report::new(Some(1), None, notes.all()).exit();
        assert_eq!(exit(&notes), ExitCode::Ok);
        notes.note(Check::Sync, "unknown");
        assert_eq!(exit(&notes), ExitCode::Ok);
        notes.problem(Problem::NotWal, "delete", "mend it");
        assert_eq!(exit(&notes), ExitCode::Failed);
        notes.problem(Problem::Login, "refused", "mend it");
        assert_eq!(exit(&notes), ExitCode::NoPermission);
        notes.problem(Problem::Damaged, "page 3", "mend it");
        assert_eq!(exit(&notes), ExitCode::DataError);
        let report = Report::new(Some(1), None, notes.all());
        assert_eq!((report.worst, report.count(Level::Fail)), (Level::Fail, 2));
    }

    #[test]
    fn every_check_has_its_place_under_one_heading() {
        for problem in Problem::ALL {
            assert!(ORDER.contains(&problem.check()), "{problem:?}");
        }
        let mut headings: Vec<&str> = ORDER.iter().map(|c| c.place().0).collect();
        headings.dedup();
        let once: std::collections::BTreeSet<&str> = headings.iter().copied().collect();
        assert_eq!(once.len(), headings.len(), "{headings:?}");
    }
}
