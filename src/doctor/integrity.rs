//! Whether the database is sound, in SQLite's own words.
//!
//! Invariants: nothing is created, and no statement outlives its deadline; a reader that would hold up the application's writers (a rollback journal) reads
//! for a moment only.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::database::{interrupt, was_interrupted};
use super::problem::{Check, Problem};
use super::{Look, count, process};
use crate::sqlite::error::{Doing as _, Fault, SqliteError};
use crate::sqlite::{connection, ident};

/// How long SQLite may look through the file where it is not asked to look at all of it.
const LOOK_THROUGH: Duration = Duration::from_secs(5);

/// The same where the application's writers wait for readers.
const BRIEFLY: Duration = Duration::from_secs(1);

/// What they get between two such moments. SQLite's busy handler looks again after a tenth of a second at the latest.
const TURN: Duration = Duration::from_millis(100);

/// What SQLite finds wrong with the file.
pub fn look(look: &Look) {
    let (config, notes) = (&look.config, &look.notes);
    if !config.db_path.exists() {
        return;
    }
    // Where nobody had it open it is read without locks; if somebody opens it meanwhile, what is found wrong may be of two moments.
    let mut last = None;
    for _ in 0..2 {
        let before = moment(&config.db_path);
        match look_through(look) {
            Ok(Some(wrong)) => last = Some(wrong),
            Ok(None) => return,
            Err(e) if e.fault() == Fault::Corrupt => last = Some(e.to_string()),
            // Why it cannot be opened is told elsewhere.
            Err(_) => return,
        }
        if moment(&config.db_path) == before {
            break;
        }
    }
    if let Some(wrong) = last {
        notes.problem(
            Problem::Damaged,
            format!("SQLite says: {wrong}"),
            "stop the application and the daemon, keep a copy of the file, and restore from a snapshot (docs/recovery.md)",
        );
    }
}

/// When the file was written to, and whether it has a log beside it.
fn moment(path: &Path) -> (Option<(i64, i64, u64)>, u64) {
    let of = |path: &Path| fs::metadata(path).ok();
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    (
        of(path).map(|m| (m.mtime(), m.mtime_nsec(), m.len())),
        of(Path::new(&log)).map_or(0, |m| m.len()),
    )
}

/// Whether another process has the file open, or may have.
fn in_use(path: &Path) -> bool {
    let Ok(file) = fs::metadata(path) else {
        return true;
    };
    let (open, all_seen) = process::with_open(&file);
    !all_seen || open.iter().any(|pid| *pid != std::process::id())
}

/// All of it, table by table: the application's writers have their turn in between.
fn in_pieces(look: &Look) -> Result<Option<String>, SqliteError> {
    let notes = &look.notes;
    let mut conn = connection::open_in_use(&look.config.db_path)?;
    let doing = "look through the database";
    let mut tables: Vec<String> = conn
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 ORDER BY name",
        )
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
        .doing(doing)?;
    tables.insert(0, "sqlite_schema".to_owned());
    let mut large = Vec::new();
    for table in &tables {
        if look.remaining().is_zero() {
            notes.unfinished(Check::Integrity);
            return Ok(None);
        }
        interrupt(&mut conn, Instant::now() + BRIEFLY.min(look.remaining()));
        let pragma = format!("PRAGMA integrity_check({})", ident::quote(table));
        let found: Result<String, SqliteError> =
            conn.query_row(&pragma, [], |r| r.get(0)).doing(doing);
        match found {
            Ok(said) if said == "ok" => {}
            Ok(said) => return Ok(Some(said)),
            Err(e) if was_interrupted(&e) => large.push(table.as_str()),
            Err(e) => return Err(e),
        }
        std::thread::sleep(TURN);
    }
    let whole = count(tables.len().saturating_sub(large.len()), "table");
    let rest = match large.len() {
        0 => String::new(),
        _ => format!(
            "; not read whole, since writers would wait for longer than {} s in this journal mode: {}: stop what has the database open, and run it again",
            BRIEFLY.as_secs(),
            large.join(", ")
        ),
    };
    notes.ok(
        Check::Integrity,
        format!("integrity_check, table by table, finds nothing wrong in {whole}{rest}"),
    );
    Ok(None)
}

/// Says that it is sound, or what is wrong.
fn look_through(look: &Look) -> Result<Option<String>, SqliteError> {
    // Before it is open here too.
    let in_use = look.options.deep && in_use(&look.config.db_path);
    let (mut conn, wal) = connection::open_to_look(&look.config.db_path)?;
    if in_use && !wal {
        drop(conn);
        return in_pieces(look);
    }
    let (patience, pragma) = match (look.options.deep, wal) {
        (true, _) => (look.remaining(), "PRAGMA integrity_check(1)"),
        (false, true) => (
            LOOK_THROUGH.min(look.remaining() / 2),
            "PRAGMA quick_check(1)",
        ),
        (false, false) => (BRIEFLY, "PRAGMA quick_check(1)"),
    };
    interrupt(&mut conn, Instant::now() + patience);
    let found: Result<String, SqliteError> = conn
        .query_row(pragma, [], |r| r.get(0))
        .doing("look through the database");
    let notes = &look.notes;
    match found {
        Ok(said) if said == "ok" => {
            notes.ok(
                Check::Integrity,
                format!(
                    "{} finds nothing wrong",
                    pragma.trim_start_matches("PRAGMA ").trim_end_matches("(1)")
                ),
            );
            Ok(None)
        }
        Ok(said) => Ok(Some(said)),
        Err(e) if was_interrupted(&e) => {
            match look.options.deep {
                true => notes.unfinished(Check::Integrity),
                false => notes.ok(
                    Check::Integrity,
                    format!("nothing wrong in what could be read in {} s; --deep reads all of it, and its indexes", patience.as_secs()),
                ),
            }
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
