//! The database itself: whether it opens, and what of ours is in it.
//!
//! Invariants: one connection, which only reads and creates nothing; no statement outlives its deadline.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode};

use super::problem::{Check, Problem};
use super::report::Notes;
use super::{Look, tables};
use crate::capture::install;
use crate::change::position::NodeId;
use crate::config::Config;
use crate::registry::entry::Entry;
use crate::replica::filter::TableFilter;
use crate::sqlite::concerns;
use crate::sqlite::connection;
use crate::sqlite::error::{Fault, SqliteError};
use crate::sqlite::introspect::{Familiar, has_table};
use crate::state::node::{self, NodeState};
use crate::state::{StateError, ddl, journal, unsure};

/// The oldest SQLite that what we put into the schema is written for, as in a file's header.
const OLDEST_SQLITE: u32 = 3_035_000;

/// What others need to know of it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Bytes of the database and its log.
    pub size: u64,
    /// Who this node is and where.
    pub state: Option<NodeState>,
    /// The cluster that the database is part of.
    pub cluster: Option<String>,
    /// Its schema.
    pub schema: Option<Entry>,
    /// It must not be opened.
    pub untouchable: bool,
    /// Whether it could be looked at, so that what is not known is not there.
    pub looked: bool,
}

/// Bytes of the database and its log, by name.
pub fn size(config: &Config) -> u64 {
    let database = super::files::real(&config.db_path);
    ["", "-wal"]
        .iter()
        .filter_map(|suffix| {
            let mut name = database.as_os_str().to_owned();
            name.push(suffix);
            fs::metadata(name).ok().map(|m| m.len())
        })
        .sum()
}

/// Looks at everything but whether the file is sound. `daemon`: one runs.
pub fn look(look: &Look, daemon: bool) -> Known {
    let (config, notes) = (&look.config, &look.notes);
    let mut known = Known {
        size: size(config),
        ..Known::default()
    };
    if !config.db_path.exists() {
        known.looked = true;
        notes.note(
            Check::Database,
            format!(
                "{} is not there yet: the first start makes it, or fills it from a snapshot",
                config.db_path.display()
            ),
        );
        return known;
    }
    let written_by = last_writer(&config.db_path);
    let (mut conn, wal) = match open(config, look.deadline) {
        Ok(opened) => opened,
        Err(e) => {
            unreadable(&e, notes);
            return known;
        }
    };
    if let Err(e) = parts(look, daemon, &mut conn, wal, written_by, &mut known) {
        unreadable(&e, notes);
        return known;
    }
    known.looked = true;
    known
}

fn open(config: &Config, until: Instant) -> Result<(Connection, bool), SqliteError> {
    let (mut conn, wal) = connection::open_to_look(&config.db_path)?;
    interrupt(&mut conn, until);
    Ok((conn, wal))
}

fn parts(
    look: &Look,
    daemon: bool,
    conn: &mut Connection,
    wal: bool,
    written_by: Option<u32>,
    known: &mut Known,
) -> Result<(), SqliteError> {
    let (config, notes) = (&look.config, &look.notes);
    notes.ok(
        Check::Database,
        format!(
            "{} opens, {}",
            config.db_path.display(),
            super::machine::bytes(known.size)
        ),
    );
    journal_mode(conn, wal, notes)?;
    sqlite(written_by, notes);
    state(conn, config, known, notes)?;
    captured(conn, config, daemon, known, notes)?;
    of_tables(conn, config, notes)?;
    interrupt(conn, look.deadline);
    leftovers(conn, notes)
}

pub(super) fn interrupt(conn: &mut Connection, until: Instant) {
    /// Steps of SQLite's machine between two looks at the clock.
    const STEPS: i32 = 10_000;
    // Without it a statement takes as long as it takes; the whole run has its bound.
    let _ = conn.progress_handler(STEPS, Some(move || Instant::now() > until));
}

fn unreadable(error: &SqliteError, notes: &Notes) {
    if was_interrupted(error) {
        return notes.unfinished(Check::Database);
    }
    let remedy = match error.fault() {
        Fault::Busy => {
            "another process holds its lock for long: stop that, or let it end its transaction"
        }
        Fault::Other | Fault::Unique | Fault::Schema => {
            "see that db_path names the SQLite database of the application, and that this user may read it and its folder"
        }
        _ => error.remedy().unwrap_or_default(),
    };
    notes.problem(Problem::Unreadable, error.to_string(), remedy);
}

pub(super) fn was_interrupted(error: &SqliteError) -> bool {
    matches!(&error.source, rusqlite::Error::SqliteFailure(e, _) if e.code == ErrorCode::OperationInterrupted)
}

/// The version of the SQLite that was the last to write to a file, as its header says. Call it only where this process has not opened the database.
fn last_writer(path: &Path) -> Option<u32> {
    use std::io::Read as _;
    let mut header = [0; 100];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    let bytes: [u8; 4] = header.get(96..100)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes)).filter(|v| *v > 0)
}

fn sqlite(written_by: Option<u32>, notes: &Notes) {
    let dotted = |v: u32| format!("{}.{}.{}", v / 1_000_000, v / 1_000 % 1_000, v % 1_000);
    let ours = rusqlite::version();
    match written_by {
        Some(version) if version < OLDEST_SQLITE => notes.problem(
            Problem::OldSqlite,
            format!("SQLite {} was the last to write to the file", dotted(version)),
            "update SQLite in the application to 3.35 or later: older ones may not understand the triggers",
        ),
        Some(version) => notes.ok(Check::Sqlite, format!("{ours} here; {} was the last to write", dotted(version))),
        None => notes.ok(Check::Sqlite, format!("{ours} here")),
    }
}

fn journal_mode(conn: &Connection, wal: bool, notes: &Notes) -> Result<(), SqliteError> {
    let sentences = concerns::settings(conn, wal)?;
    for sentence in &sentences {
        let (problem, remedy) = if sentence.contains("encoded in") {
            (
                Problem::Encoding,
                "make the database anew in UTF-8: PRAGMA encoding before its first table",
            )
        } else {
            (
                Problem::NotWal,
                "PRAGMA journal_mode = WAL, once, in the application or with sqlite3",
            )
        };
        notes.problem(problem, sentence, remedy);
    }
    if sentences.is_empty() {
        notes.ok(Check::Journal, "WAL, UTF-8");
    }
    Ok(())
}

/// Who this node is, where it is, and what it keeps for people.
fn state(
    conn: &Connection,
    config: &Config,
    known: &mut Known,
    notes: &Notes,
) -> Result<(), SqliteError> {
    let format = match ddl::stored_format(conn) {
        Ok(Some(format)) => format,
        Ok(None) => {
            notes.note(
                Check::State,
                "none yet: no daemon has begun on this database",
            );
            return Ok(());
        }
        Err(StateError::Sqlite(e)) => return Err(e),
        Err(_) => return Ok(()),
    };
    if format > ddl::FORMAT {
        notes.problem(
            Problem::StateNewer,
            StateError::Newer {
                found: format,
                known: ddl::FORMAT,
            }
            .to_string(),
            "use the harmonylite that has written it, or a later one",
        );
        return Ok(());
    }
    let state = match node::read(conn) {
        Ok(state) => state,
        Err(StateError::Sqlite(e)) => return Err(e),
        Err(_) => None,
    };
    known.cluster = node::cluster(conn)?;
    if let Some(state) = &state {
        if state.node_id != NodeId(config.node_id) {
            notes.problem(
                Problem::StateOther,
                format!("the database was node {}'s, and this is node {}", state.node_id, config.node_id),
                "nothing, if it was copied from there: the start makes it this node's own; otherwise correct node_id",
            );
        } else {
            let cluster = if known.cluster.is_some() {
                "part of a cluster"
            } else {
                "not part of a cluster yet"
            };
            notes.ok(
                Check::State,
                format!(
                    "format {format}, position {}, history {}, {cluster}",
                    state.position.sequence, state.history.number
                ),
            );
        }
    }
    known.state = state;
    if has_table(conn, "__harmonylite__unsure")? {
        let marked = unsure::read(conn)?;
        if !marked.is_empty() {
            let names: Vec<String> = marked
                .iter()
                .take(8)
                .map(|u| format!("\"{}\"", u.table))
                .collect();
            notes.problem(
                Problem::Unsure,
                format!("rows of {} may have been written without capture (tables {})", super::count(marked.len(), "table"), names.join(", ")),
                "let the daemon run: it compares them with a snapshot and the stream, and publishes what is missing; docs/uncaptured.md tells what else can be done",
            );
        }
    }
    let letters = journal::dead_letters(conn)?;
    let conflicts: i64 = conn
        .query_row("SELECT count(*) FROM __harmonylite__conflicts", [], |r| {
            r.get(0)
        })
        .unwrap_or_default();
    if letters > 0 {
        notes.problem(
            Problem::DeadLetters,
            format!("{letters} messages could not be read, or were skipped"),
            "harmonylite dead-letters list shows them; docs/conflicts.md tells how each is tried again or put away",
        );
    } else {
        notes.ok(
            Check::Journals,
            format!("no dead letters, {conflicts} conflicts kept"),
        );
    }
    Ok(())
}

/// Triggers and change logs, and the schema that others are told.
fn captured(
    conn: &Connection,
    config: &Config,
    daemon: bool,
    known: &mut Known,
    notes: &Notes,
) -> Result<(), SqliteError> {
    let filter = TableFilter::new(&config.replication.include, &config.replication.exclude);
    let described =
        install::describe_only(conn, &|t| filter.wants(conn, t), &mut Familiar::default())?;
    let looked = install::look_at(conn, described.tables.iter().map(|t| &t.table))?;
    known.schema = Some(Entry::of(&described));
    if !config.publish {
        notes.note(Check::Capture, "publish is false: nothing is captured here");
        return Ok(());
    }
    let (mut none, mut old, mut pending) = (Vec::new(), Vec::new(), 0_u64);
    for (table, looked) in described.tables.iter().zip(&looked) {
        match looked {
            None => none.push(format!("\"{}\"", table.table.name)),
            Some((false, waiting)) => {
                old.push(format!("\"{}\"", table.table.name));
                pending += waiting;
            }
            Some((true, waiting)) => pending += waiting,
        }
    }
    let tables = super::count(described.tables.len(), "table");
    if none.len() == described.tables.len() && known.state.is_none() {
        notes.note(
            Check::Capture,
            format!("{tables}, none captured yet: no daemon has begun on this database"),
        );
        return Ok(());
    }
    let remedy = match daemon {
        true => {
            "wait a second and look again: the daemon mends it by itself; if it stays, its log says why"
        }
        false => {
            "start harmonylite: it makes capture current, and finds what was written meanwhile (docs/uncaptured.md)"
        }
    };
    for (which, what) in [
        (none, "is not captured"),
        (old, "is captured for a former schema, or in part"),
    ] {
        if !which.is_empty() {
            let shown = which
                .get(..which.len().min(8))
                .unwrap_or_default()
                .join(", ");
            notes.problem(
                Problem::NotCaptured,
                format!("{what}: {} ({shown})", super::count(which.len(), "table")),
                remedy,
            );
        }
    }
    if !notes.has(Check::Capture) {
        let waits = match pending {
            0 => "nothing pending".to_owned(),
            n => format!("{n} changes pending"),
        };
        notes.ok(
            Check::Capture,
            format!("{tables}, triggers current, {waits}"),
        );
    }
    Ok(())
}

fn of_tables(conn: &mut Connection, config: &Config, notes: &Notes) -> Result<(), SqliteError> {
    let found = tables::concerns(conn, config)?;
    for (table, reason) in &found.refused {
        let sentence = concerns::refusal(table, reason);
        match concerns::blocks_snapshots(reason) {
            true => notes.problem(
                Problem::TableBlocks,
                sentence,
                "drop the table or its index, or use what SQLite has built in",
            ),
            false => notes.problem(
                Problem::TableRefused,
                sentence,
                "change the table as the sentence says, or name it in replication.exclude",
            ),
        }
    }
    for sentence in found.tables.iter().chain(&found.null_keys) {
        notes.problem(Problem::TableLimit, sentence, "docs/sqlite-support.md tells what it means; a table with a key of its own has no such limit");
    }
    for sentence in &found.triggers {
        notes.problem(Problem::TriggerLimit, sentence, "docs/triggers.md tells when a trigger runs on every node, and what replication.fire_triggers does");
    }
    if let Some(sentence) = &found.chosen_keys {
        notes.note(Check::Tables, sentence);
    } else if !notes.has(Check::Tables) {
        notes.ok(
            Check::Tables,
            format!(
                "{} replicated, none with a limit",
                super::count(found.replicated, "table")
            ),
        );
    }
    if !notes.has(Check::Triggers) {
        notes.ok(Check::Triggers, "none that would have to run and does not");
    }
    Ok(())
}

/// Tables and triggers of the Go program and of Marmot, which its `-cleanup` removes.
fn leftovers(conn: &Connection, notes: &Notes) -> Result<(), SqliteError> {
    use crate::sqlite::error::Doing as _;
    // The Go program's change logs have a column `state`, and its list of all changes is a table.
    let sql = "SELECT name FROM main.sqlite_schema s WHERE name LIKE '\\_\\_marmot\\_\\_%' ESCAPE '\\'
        OR (s.type = 'table' AND name IN ('__harmonylite___change_log_global', '__harmonylite___global_change_log'))
        OR (s.type = 'table' AND name LIKE '\\_\\_harmonylite\\_\\_%\\_change\\_log' ESCAPE '\\'
            AND EXISTS (SELECT 1 FROM pragma_table_info(s.name) c WHERE c.name = 'state'))
        ORDER BY name LIMIT 100";
    let names: Vec<String> = conn
        .prepare(sql)
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
        .doing("look for what other programs have left")?;
    match names.first() {
        Some(first) => notes.problem(
            Problem::GoLeftovers,
            format!("{} of the Go HarmonyLite or Marmot are in the database, such as {first}", super::count(names.len(), "object")),
            "stop that program and run it once with -cleanup and its own configuration, before harmonylite is started here",
        ),
        None => notes.ok(Check::Leftovers, "none of the Go HarmonyLite or Marmot"),
    }
    Ok(())
}
