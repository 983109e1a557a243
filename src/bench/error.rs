//! Why a benchmark gave no figures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::exit::ExitCode;
use crate::replica::ReplicaError;
use crate::sqlite::error::SqliteError;
use crate::stream::StreamError;

/// What a step of a benchmark comes to.
pub type Done<T> = Result<T, BenchError>;

/// A benchmark that did not end with figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Ctrl-C.
    #[error(
        "the benchmark was stopped; what it had started has ended, and what it wrote is removed"
    )]
    Stopped,
    /// No row of that name.
    #[error("--only: there is no row with {word:?} in its name; the rows are {known}")]
    NoRow {
        /// As given.
        word: String,
        /// All that there are.
        known: String,
    },
    /// No broker.
    #[error(
        "the benchmark needs nats-server, and there is none on the PATH: install it, or give --nats-server PATH"
    )]
    NoServer,
    /// A program that does not start.
    #[error("{} cannot be started: {source}", .program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A program that has ended.
    #[error("{what} of the benchmark ended by itself. It said last:\n{log}")]
    Ended {
        /// Which.
        what: String,
        /// The end of its log.
        log: String,
    },
    /// Something that has not come.
    #[error("{what} did not come within {after:?}. What was said last:\n{log}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The end of the logs.
        log: String,
    },
    /// The benchmark's own database.
    #[error("a database of the benchmark cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file.
    #[error("{} cannot be read or written: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The nodes are not equal in the end.
    #[error(
        "table {table} differs between the nodes after the benchmark ({first} against {other}): the figures are worth nothing, and this is a fault of HarmonyLite to report"
    )]
    Differs {
        /// Which.
        table: String,
        /// Rows and sum on the first node.
        first: String,
        /// On the other.
        other: String,
    },
    /// A thread that measured has panicked.
    #[error("a thread of the benchmark failed; report it with what stands above")]
    Thread,
    /// Something that a command of the program said.
    #[error("{what} failed: {said}")]
    Command {
        /// Which command.
        what: &'static str,
        /// What it said.
        said: String,
    },
    /// A live run without its table.
    #[error(
        "a live benchmark needs its table on every node, and these do not show it: {nodes}. Run this in the database of each, and try again: {create}"
    )]
    NoTable {
        /// Where it is not, as far as is known.
        nodes: String,
        /// What makes it.
        create: &'static str,
    },
    /// A live run while nodes are away.
    #[error(
        "a live benchmark waits for every node, and these do not run: {nodes}. Start them, or take them out with harmonylite nodes forget"
    )]
    NotAllRun {
        /// Which.
        nodes: String,
    },
    /// Triggers that cannot be installed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The user's database.
    #[error(transparent)]
    Database(#[from] SqliteError),
    /// The broker.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The user's daemon.
    #[error(transparent)]
    Daemon(#[from] crate::control::client::ClientError),
}

impl BenchError {
    /// An error of a file.
    pub(super) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    /// How the process ends.
    #[must_use]
    pub const fn exit(&self) -> ExitCode {
        match self {
            Self::Stopped | Self::Late { .. } => ExitCode::TempFail,
            Self::NoRow { .. } => ExitCode::Usage,
            Self::NoServer
            | Self::Start { .. }
            | Self::NoTable { .. }
            | Self::NotAllRun { .. }
            | Self::Stream(_) => ExitCode::Unavailable,
            Self::File { .. } => ExitCode::CannotCreate,
            Self::Differs { .. } | Self::Thread => ExitCode::Software,
            _ => ExitCode::Failed,
        }
    }
}
