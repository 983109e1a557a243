//! What the commands other than running do; each returns the text to show, or why it failed.

use std::io::Write as _;
use std::time::Duration;

use super::exit::ExitCode;
use super::table::printable;
use crate::capture::{layout, remove};
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::{Request, lock};
use crate::doctor::tables;
use crate::engine::Fatal;
use crate::journals::JournalError;
use crate::sqlite::error::{Fault, SqliteError};
use crate::sqlite::leftover::Leftover;
use crate::sqlite::{concerns, connection};
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
        match database(config) {
            Ok(said) => out.push_str(&said),
            Err(e) => out.push_str(&format!("warning: the database cannot be read: {e}\n")),
        }
    }
    out.push_str("the configuration is valid");
    out
}

/// What the start would say of the database: errors for tables that are not replicated, warnings for what works with a limit.
fn database(config: &Config) -> Result<String, SqliteError> {
    let (mut conn, wal) = connection::open_to_look(&config.db_path)?;
    let settings = concerns::settings(&conn, wal)?;
    let mut found = tables::concerns(&mut conn, config)?;
    let mut out = String::new();
    if remove::go_program_was_here(&conn)? {
        out.push_str("warning: the Go HarmonyLite's tables and triggers are in the database: stop that program on all nodes; the next start of this one removes them\n");
        found
            .refused
            .retain(|(table, _)| table != layout::GLOBAL_VIEW_ALIAS);
    }
    for (table, reason) in found.refused {
        out.push_str(&format!("error: {}\n", concerns::refusal(&table, &reason)));
    }
    let warnings = found.tables.into_iter().chain(settings);
    let warnings = warnings.chain(found.chosen_keys).chain(found.triggers);
    for warning in warnings.chain(found.null_keys) {
        out.push_str(&format!("warning: {warning}\n"));
    }
    Ok(out)
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

/// Why a journal could not be read, with the code to exit with.
pub(super) fn journal_fault(error: &JournalError) -> Fatal {
    let code = match error {
        JournalError::State(StateError::Newer { .. }) => ExitCode::DataError,
        JournalError::Sqlite(e) | JournalError::State(StateError::Sqlite(e)) => code_of(e),
        _ => ExitCode::Failed,
    };
    Fatal::new(code, error)
}

/// Why the database could not be read, with the code to exit with.
pub(super) fn sqlite_fault(error: &SqliteError) -> Fatal {
    Fatal::new(code_of(error), error)
}

fn code_of(error: &SqliteError) -> ExitCode {
    match error.fault() {
        Fault::Busy => ExitCode::TempFail,
        Fault::Disk => ExitCode::Io,
        Fault::ReadOnly => ExitCode::NoPermission,
        Fault::Corrupt => ExitCode::DataError,
        Fault::Unique | Fault::Schema | Fault::Other => ExitCode::Failed,
    }
}

/// Shows what is under way.
pub(super) fn progress(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
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
