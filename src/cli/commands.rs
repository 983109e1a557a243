//! What the commands other than running do; each returns the text to show, or why it failed.

use std::io::Write as _;
use std::time::Duration;

use super::args::Command;
use super::exit::ExitCode;
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::{Request, lock};
use crate::engine::Fatal;
use crate::journals::{JournalError, chosen_keys};
use crate::replica::filter::TableFilter;
use crate::sqlite::connection;
use crate::sqlite::error::{Fault, SqliteError};
use crate::sqlite::introspect::read_schema;
use crate::sqlite::leftover::Leftover;
use crate::state::StateError;

/// How long `-stop` and `-cleanup` wait for the daemon: more than it takes to publish what is pending.
const DAEMON_DEADLINE: Duration = Duration::from_secs(60);

/// `-check`: the configuration is sound; needs no network. Every fault was reported before this is reached. The database, where there is one, is only read.
#[must_use]
pub fn check(config: &Config, notices: &[String]) -> String {
    let mut out = String::new();
    for notice in notices {
        out.push_str(&format!("note: {notice}\n"));
    }
    if !config.db_path.exists() {
        out.push_str(&format!(
            "note: the database {} does not exist yet\n",
            config.db_path.display()
        ));
    } else if let Some(leftover) = Leftover::find(&config.db_path) {
        out.push_str(&format!(
            "warning: {leftover}: the next start moves it aside\n"
        ));
    } else {
        match warning_of(config) {
            Ok(Some(warning)) => out.push_str(&format!("warning: {warning}\n")),
            Ok(None) => {}
            Err(e) => out.push_str(&format!("warning: the database cannot be read: {e}\n")),
        }
    }
    out.push_str("the configuration is valid");
    out
}

/// What the tables that are replicated deserve to be told.
fn warning_of(config: &Config) -> Result<Option<String>, SqliteError> {
    let conn = connection::open_reader(&config.db_path)?;
    let filter = TableFilter::new(&config.replication.include, &config.replication.exclude);
    let schema = read_schema(&conn)?;
    Ok(chosen_keys(
        schema
            .tables
            .iter()
            .filter(|t| filter.wants(&conn, &t.name)),
    ))
}

/// `-stop`: asks the daemon of this database to stop, and waits until it has.
///
/// # Errors
/// When it does not stop.
pub fn stop(config: &Config) -> Result<String, Fatal> {
    client::stop(&config.db_path, DAEMON_DEADLINE, progress)
        .map(|s| s.to_string())
        .map_err(|e| Fatal::new(code(&e), e))
}

/// `-cleanup` through the running daemon; `None` where none runs.
#[must_use]
pub fn cleanup(config: &Config) -> Option<Result<String, Fatal>> {
    match lock::holder(&config.db_path) {
        Ok(None) => return None,
        Ok(Some(_)) => {}
        Err(e) => return Some(Err(Fatal::new(ExitCode::Failed, e))),
    }
    let answer = client::request(&config.db_path, Request::Cleanup, DAEMON_DEADLINE, progress);
    Some(
        answer
            .map(|a| a.message)
            .map_err(|e| Fatal::new(code(&e), e)),
    )
}

/// A command whose feature is not built yet.
///
/// # Errors
/// Always: the sentence that says so.
pub fn not_built_yet(command: &Command) -> Result<String, Fatal> {
    let name = match command {
        Command::SchemaStatus => "-schema-status",
        Command::SchemaStatusCluster => "-schema-status-cluster",
        Command::Run
        | Command::Check
        | Command::Cleanup
        | Command::SaveSnapshot
        | Command::Stop
        | Command::Version
        | Command::Help(_)
        | Command::Word(_) => "this command",
    };
    Err(Fatal::new(
        ExitCode::Unavailable,
        format!(
            "{name} is not built yet in version {}",
            env!("CARGO_PKG_VERSION")
        ),
    ))
}

/// Why a journal could not be read, with the code to exit with.
pub(super) fn journal_fault(error: &JournalError) -> Fatal {
    let code = match error {
        JournalError::State(StateError::Newer { .. }) => ExitCode::DataError,
        JournalError::Sqlite(e) | JournalError::State(StateError::Sqlite(e)) => match e.fault() {
            Fault::Busy => ExitCode::TempFail,
            Fault::Disk => ExitCode::Io,
            Fault::ReadOnly => ExitCode::NoPermission,
            Fault::Corrupt => ExitCode::DataError,
            Fault::Unique | Fault::Schema | Fault::Other => ExitCode::Failed,
        },
        _ => ExitCode::Failed,
    };
    Fatal::new(code, error)
}

/// Shows what is under way.
pub(super) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The code to exit with when the daemon did not do what it was asked.
pub(super) fn code(error: &ClientError) -> ExitCode {
    match error {
        ClientError::Refused(refusal) => ExitCode::ALL
            .into_iter()
            .find(|c| c.number() == refusal.exit)
            .unwrap_or(ExitCode::Failed),
        ClientError::NotRunning { .. } => ExitCode::Unavailable,
        ClientError::Timeout { .. } | ClientError::NotListening { .. } => ExitCode::TempFail,
        ClientError::Socket { .. } => ExitCode::NoPermission,
        _ => ExitCode::Failed,
    }
}
