//! Our connections to the application's database.
//!
//! Invariants: the writer fires no trigger of the database (no echo of what we apply, no second run of the
//! app's triggers; those that are to run here have TEMP copies, `capture::app_triggers`), enforces no foreign key and no CHECK (the origin has done so, and the fold must not depend
//! on luck); the reader cannot write; nothing here waits without a bound.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::planted::planted;

use super::error::{Doing, Fault, SqliteError, fault_of};
use super::wal_file::FirstPage;

/// Statements kept prepared: a handful for each of the tables that are written at a time.
const STATEMENT_CACHE: usize = 512;

/// How long a read waits for a lock. Reads wait only in rollback-journal mode, for recovery or a checkpoint that truncates.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the connection that applies changes and keeps our tables, creating an empty WAL database where there is none.
///
/// # Errors
/// SQLite's, for example for a file that is no database or may not be written.
pub fn open_writer(path: &Path) -> Result<Connection, SqliteError> {
    let new = !path.exists();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .doing_with(|| format!("open the database {}", path.display()))?;
    // Before any statement is prepared: a statement keeps the triggers that it was prepared with.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
        .doing("switch triggers off on our connection")?;
    // The application's library may accept double-quoted strings in its schema; refusing them would make it unreadable.
    for quoting in [
        DbConfig::SQLITE_DBCONFIG_DQS_DDL,
        // In triggers that we copy.
        DbConfig::SQLITE_DBCONFIG_DQS_DML,
    ] {
        conn.set_db_config(quoting, true)
            .doing("accept the application's quoting")?;
    }
    conn.busy_timeout(READ_TIMEOUT)
        .doing("set the busy timeout")?;
    if new {
        conn.pragma_update(None, "journal_mode", "wal")
            .doing("set journal mode WAL on the new database")?;
    }
    prepare(&conn, path)?;
    conn.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;")
        .doing_with(|| format!("prepare the connection to {}", path.display()))?;
    // WAL keeps a NORMAL database consistent through power loss, at most older, and identity survives that.
    // A rollback journal at NORMAL may corrupt on some file systems, so there SQLite's own default (FULL) stays.
    if is_wal(&conn)? {
        conn.execute_batch("PRAGMA synchronous = NORMAL;")
            .doing("set synchronous = NORMAL")?;
    }
    Ok(conn)
}

/// From now on SQLite overwrites what this connection deletes, so that nobody finds it in the file's bytes.
///
/// # Errors
/// SQLite's.
pub fn overwrite_deleted(conn: &Connection) -> Result<(), SqliteError> {
    conn.execute_batch("PRAGMA secure_delete = ON")
        .doing("have deleted values overwritten")
}

/// Opens a connection that only reads.
///
/// # Errors
/// SQLite's.
pub fn open_reader(path: &Path) -> Result<Connection, SqliteError> {
    // Opened for writing, since a read-only handle cannot recover a WAL; `query_only` forbids writes.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .doing_with(|| format!("open the database {} for reading", path.display()))?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)
        .doing("accept the application's quoting")?;
    conn.busy_timeout(READ_TIMEOUT)
        .doing("set the busy timeout")?;
    prepare(&conn, path)?;
    conn.pragma_update(None, "query_only", true)
        .doing("make the reading connection read-only")?;
    Ok(conn)
}

/// Opens a database that may be in use, or not ours to touch, and says whether it is in WAL mode: nothing is created. Call it only where this process has not
/// opened the database before.
///
/// # Errors
/// SQLite's.
pub fn open_to_look(path: &Path) -> Result<(Connection, bool), SqliteError> {
    // SQLite follows links, and keeps the log beside the file itself.
    let real = path.canonicalize();
    let path = real.as_deref().unwrap_or(path);
    // SQLite itself says nothing of WAL where it takes a file for immutable.
    let first = File::open(path).and_then(FirstPage::read).ok().flatten();
    let wal = first.is_some_and(|page| page.is_of_wal_mode());
    let doing = || format!("open the database {} for reading", path.display());
    let mut flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        Path::new(&name).exists()
    };
    let mut name = path.as_os_str().to_owned();
    // Whoever writes to it has a log or a journal beside it. Without one the file is all there is, and needs no lock; SQLite would make the files of its WAL mode.
    if let Some(text) = path.to_str()
        && !beside("-wal")
        && !beside("-journal")
    {
        let escaped = text
            .replace('%', "%25")
            .replace('?', "%3f")
            .replace('#', "%23");
        let root = if path.is_absolute() {
            "file://"
        } else {
            "file:"
        };
        name = format!("{root}{escaped}?immutable=1").into();
        flags |= OpenFlags::SQLITE_OPEN_URI;
    }
    let conn = Connection::open_with_flags(Path::new(&name), flags).doing_with(doing)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)
        .doing("accept the application's quoting")?;
    conn.busy_timeout(READ_TIMEOUT).doing_with(doing)?;
    prepare(&conn, path)?;
    Ok((conn, wal))
}

/// Opens a database that is in use and not in WAL mode, for reading: with the locks that its writers look at, and without making a file.
///
/// # Errors
/// SQLite's.
pub fn open_in_use(path: &Path) -> Result<Connection, SqliteError> {
    let doing = || format!("open the database {} for reading", path.display());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).doing_with(doing)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)
        .doing("accept the application's quoting")?;
    conn.busy_timeout(READ_TIMEOUT).doing_with(doing)?;
    prepare(&conn, path)?;
    Ok(conn)
}

fn prepare(conn: &Connection, path: &Path) -> Result<(), SqliteError> {
    conn.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    // Reads the header, so that a damaged file fails here with its name.
    conn.query_row("PRAGMA schema_version", [], |_| Ok(()))
        .doing_with(|| format!("read the database {}", path.display()))
}

/// What SQLite finds wrong with a database; `None`: nothing. A row that breaks a CHECK constraint is no damage: merged rows may (see docs/consistency.md).
///
/// # Errors
/// SQLite's, where it is too damaged to be looked through.
pub fn quick_check(conn: &Connection) -> Result<Option<String>, SqliteError> {
    conn.execute_batch("PRAGMA ignore_check_constraints = ON")
        .doing("leave CHECK constraints out")?;
    let found: String = conn
        .query_row("PRAGMA quick_check(1)", [], |r| r.get(0))
        .doing("check the database")?;
    Ok((found != "ok").then_some(found))
}

/// Whether the database is in WAL mode.
///
/// # Errors
/// SQLite's.
pub fn is_wal(conn: &Connection) -> Result<bool, SqliteError> {
    let mode: String = conn
        .query_row("PRAGMA journal_mode", [], |r| r.get(0))
        .doing("read the journal mode")?;
    Ok(mode.eq_ignore_ascii_case("wal"))
}

/// How the database encodes text.
///
/// # Errors
/// SQLite's.
pub fn encoding(conn: &Connection) -> Result<String, SqliteError> {
    conn.query_row("PRAGMA encoding", [], |r| r.get(0))
        .doing("read the text encoding")
}

/// The counter that rises with every commit of another connection.
///
/// # Errors
/// SQLite's.
pub fn data_version(conn: &Connection) -> Result<i64, SqliteError> {
    let mut stmt = conn
        .prepare_cached("PRAGMA data_version")
        .doing("prepare PRAGMA data_version")?;
    stmt.query_row([], |r| r.get(0))
        .doing("read PRAGMA data_version")
}

/// The counter that rises with every change of the schema.
///
/// # Errors
/// SQLite's.
pub fn schema_version(conn: &Connection) -> Result<i64, SqliteError> {
    let mut stmt = conn
        .prepare_cached("PRAGMA schema_version")
        .doing("prepare PRAGMA schema_version")?;
    stmt.query_row([], |r| r.get(0))
        .doing("read PRAGMA schema_version")
}

/// Begins a write transaction, waiting for the lock in short steps.
///
/// An application that writes at full speed leaves the lock free for microseconds at a time, which SQLite's own busy handler, sleeping up
/// to 100 ms, keeps missing. `stop` is asked between tries; `Ok(false)` means that it said so or that `patience` ran out.
///
/// # Errors
/// SQLite's, other than the lock being held.
pub fn begin_immediate(
    conn: &Connection,
    patience: Duration,
    stop: &dyn Fn() -> bool,
) -> Result<bool, SqliteError> {
    const FIRST: Duration = Duration::from_micros(20);
    const LONGEST: Duration = Duration::from_millis(2);
    conn.busy_timeout(Duration::ZERO)
        .doing("clear the busy timeout")?;
    let started = Instant::now();
    let mut pause = FIRST;
    let outcome = loop {
        match conn.execute_batch("BEGIN IMMEDIATE") {
            Ok(()) => break Ok(true),
            Err(e) if fault_of(&e) == Fault::Busy => {
                if stop() || started.elapsed() >= patience {
                    break Ok(false);
                }
                std::thread::sleep(pause);
                // Short steps for the first moments, longer ones when somebody holds the lock for long.
                if started.elapsed() > Duration::from_millis(20) {
                    pause = (pause * 2).min(LONGEST);
                }
            }
            Err(e) => {
                // A statement that breaks off after it took the lock leaves the transaction open.
                if !planted!(BeginLeftOpen) {
                    rollback(conn);
                }
                break Err(e).doing("begin a write transaction");
            }
        }
    };
    conn.busy_timeout(READ_TIMEOUT)
        .doing("set the busy timeout")?;
    outcome
}

/// Ends a transaction without its changes; harmless outside of one.
pub fn rollback(conn: &Connection) {
    // A statement that is interrupted leaves everything as it was: then once more.
    for _ in 0..2 {
        if conn.is_autocommit() {
            return;
        }
        if let Err(e) = conn.execute_batch("ROLLBACK") {
            tracing::warn!(error = %e, "could not roll back; SQLite does so when the connection closes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_breaks_a_check_constraint_is_no_damage() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE TABLE t(a, b, CHECK(a < b)); PRAGMA ignore_check_constraints = ON;
             INSERT INTO t VALUES(2, 1); PRAGMA ignore_check_constraints = OFF",
        )
        .unwrap();
        assert_eq!(quick_check(&conn).unwrap(), None);
    }
}
