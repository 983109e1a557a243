//! `harmonylite snapshot`: save, list, verify, fetch, restore.

mod access;
mod fetch;

use std::path::PathBuf;
use std::time::Duration;

use self::access::Access;
pub(super) use self::access::connect;
use super::{Done, Given, Verb, Word};
use crate::cli::commands::{code, progress};
use crate::cli::exit::ExitCode;
use crate::cli::flags::{Flag, switch};
use crate::cli::table::{moment, render};
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::control::client::{self, ClientError};
use crate::control::{Request, lock};
use crate::engine::Fatal;
use crate::snapshot::catalog::Listed;
use crate::snapshot::manifest::short_name;

/// How long the daemon may say nothing: copying and verifying a large database report nothing.
const SILENCE: Duration = Duration::from_secs(1800);

/// What is wanted of snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// Take one.
    Save,
    /// Show those in the store.
    List {
        /// As JSON.
        json: bool,
    },
    /// Read one back.
    Verify {
        /// Which; the newest where none is named.
        name: Option<String>,
    },
    /// Bring one here.
    Fetch {
        /// Which, or `latest`.
        name: String,
        /// Where to.
        file: PathBuf,
    },
    /// Restore the running daemon's database.
    Restore,
}

const LIST: &[Flag] = &[switch("json", "machine-readable")];

pub(super) const VERBS: &[Verb] = &[
    Verb {
        group: "snapshot",
        verb: Some("save"),
        operands: "",
        options: &[],
        about: "take a snapshot, verify it, and show where it is",
        more: "Through the running daemon; without one this process connects, takes it, and ends. The same as -save-snapshot.",
        parse: |given| {
            given.no_operands()?;
            Ok(Word::Snapshot(Snapshot::Save))
        },
    },
    Verb {
        group: "snapshot",
        verb: Some("list"),
        operands: "",
        options: LIST,
        about: "show the snapshots in the store, newest first",
        more: "Needs no daemon, only the store.",
        parse: |given| {
            given.no_operands()?;
            let json = given.switch("json")?;
            Ok(Word::Snapshot(Snapshot::List { json }))
        },
    },
    Verb {
        group: "snapshot",
        verb: Some("verify"),
        operands: "[NAME]",
        options: &[],
        about: "fetch a snapshot, compare its hash, and check the database in it",
        more: "NAME is one of the list; without it, the newest. Needs room for it beside the database, and no daemon.",
        parse: |given| {
            given.at_most(1)?;
            let name = match given.operands().is_empty() {
                true => None,
                false => Some(name(given)?),
            };
            Ok(Word::Snapshot(Snapshot::Verify { name }))
        },
    },
    Verb {
        group: "snapshot",
        verb: Some("fetch"),
        operands: "NAME FILE",
        options: &[],
        about: "bring a snapshot here as a plain SQLite file",
        more: "NAME is one of the list, or latest. Its hash is compared. FILE must not exist, and is never the application's\n\
               database: snapshot restore, or a start of the daemon without the file, puts a snapshot there safely.",
        parse: |given| {
            given.at_most(2)?;
            let name = name(given)?;
            let file: String = given.operand(1, "a FILE", "a path in UTF-8")?;
            let file = file.into();
            Ok(Word::Snapshot(Snapshot::Fetch { name, file }))
        },
    },
    Verb {
        group: "snapshot",
        verb: Some("restore"),
        operands: "",
        options: &[],
        about: "restore this node's database from the newest snapshot",
        more: "The running daemon does it in one transaction while the application stays connected, and keeps what is pending\n\
               here. Needs a snapshot that is at least as new as the database: run snapshot save on another node first.",
        parse: |given| {
            given.no_operands()?;
            Ok(Word::Snapshot(Snapshot::Restore))
        },
    },
];

fn name(given: &Given<'_>) -> Result<String, UsageError> {
    given.operand(0, "a NAME", "a name as snapshot list shows it, or latest")
}

/// Takes one through the running daemon; `None` where none runs.
pub fn save(config: &Config) -> Option<Result<String, Fatal>> {
    match lock::holder(&config.db_path) {
        Ok(None) => return None,
        Ok(Some(_)) => {}
        Err(e) => return Some(Err(Fatal::new(ExitCode::Failed, e))),
    }
    let answer = client::request(&config.db_path, Request::SnapshotSave, SILENCE, progress);
    Some(
        answer
            .map(|a| a.message)
            .map_err(|e| Fatal::new(code(&e), e)),
    )
}

pub(super) fn run(command: Snapshot, config: &Config) -> Result<Done, Fatal> {
    match command {
        // The program runs as a daemon for that where there is none.
        Snapshot::Save => Err(Fatal::new(
            ExitCode::Software,
            "snapshot save needs the daemon's process",
        )),
        Snapshot::List { json } => list(config, json),
        Snapshot::Verify { name } => fetch::verify(config, name.as_deref()),
        Snapshot::Fetch { name, file } => fetch::fetch(config, &name, &file),
        Snapshot::Restore => restore(config),
    }
}

fn list(config: &Config, json: bool) -> Result<Done, Fatal> {
    let access = Access::open(config)?;
    let listed = access.list()?;
    if json {
        let all: Vec<serde_json::Value> = listed.iter().map(as_json).collect();
        return Ok(Done::json(&all));
    }
    if listed.is_empty() {
        return Ok(Done::ok(format!(
            "there is no snapshot in {}",
            access.store_name()
        )));
    }
    let rows: Vec<Vec<String>> = listed.iter().map(as_row).collect();
    Ok(Done::ok(render(
        &["NAME", "TAKEN", "NODE", "POSITION", "SIZE"],
        &rows,
        1,
    )))
}

fn as_json(listed: &Listed) -> serde_json::Value {
    match &listed.manifest {
        Ok(manifest) => serde_json::to_value(manifest).unwrap_or_default(),
        Err(error) => serde_json::json!({
            "manifest": listed.key.as_str(),
            "error": format!("the manifest {error}"),
        }),
    }
}

fn as_row(listed: &Listed) -> Vec<String> {
    match &listed.manifest {
        Ok(m) => vec![
            short_name(m.file.trim_end_matches(".db")).to_owned(),
            moment(&m.time),
            m.node.clone(),
            m.sequence.to_string(),
            size(m.size),
        ],
        Err(error) => vec![listed.key.to_string(), format!("its manifest {error}")],
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn restore(config: &Config) -> Result<Done, Fatal> {
    let answer = client::request(&config.db_path, Request::SnapshotRestore, SILENCE, progress);
    answer.map(|a| Done::ok(a.message)).map_err(|error| match error {
        ClientError::NotRunning { .. } => Fatal::new(
            ExitCode::Unavailable,
            format!(
                "no daemon is running for {}: remove {} and start harmonylite, which then restores from the newest snapshot and keeps what is pending here",
                config.db_path.display(),
                config.seq_map_path.display()
            ),
        ),
        error => Fatal::new(code(&error), error),
    })
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(4096), "4096 B");
        assert_eq!(size(1 << 20), "1024 KiB");
        assert_eq!(size(1 << 30), "1024 MiB");
    }
}
