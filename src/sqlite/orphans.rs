//! Rows whose parent is gone: what foreign keys promise and a merge of two nodes' writes can break. Equal on all nodes; counted so that people look.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::error::{Doing, SqliteError};

/// Steps of SQLite's machine between two looks at the clock: some milliseconds.
const STEPS: i32 = 100_000;

/// Counts the rows that `PRAGMA foreign_key_check` lists; `None` if that takes longer than `limit` or `stop` says so: an open read keeps the
/// write-ahead log from being reset.
///
/// # Errors
/// SQLite's, such as a foreign key whose parent table has no such key.
pub fn count(
    conn: &mut Connection,
    limit: Duration,
    stop: impl Fn() -> bool + Send + 'static,
) -> Result<Option<u64>, SqliteError> {
    let since = Instant::now();
    let doing = "count rows without their parent";
    conn.progress_handler(STEPS, Some(move || stop() || since.elapsed() > limit))
        .doing(doing)?;
    let found = conn.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| {
        r.get::<_, i64>(0)
    });
    conn.progress_handler(0, None::<fn() -> bool>)
        .doing(doing)?;
    match found {
        Ok(n) => Ok(Some(n.cast_unsigned())),
        Err(rusqlite::Error::SqliteFailure(e, _)) if e.code == ErrorCode::OperationInterrupted => {
            Ok(None)
        }
        Err(e) => Err(e).doing(doing),
    }
}

/// Whether the app's tables have foreign keys at all.
///
/// # Errors
/// SQLite's.
pub fn possible(conn: &Connection) -> Result<bool, SqliteError> {
    conn.query_row(
        "SELECT EXISTS(SELECT 1 FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) WHERE t.type = 'table')",
        [],
        |r| r.get(0),
    )
    .doing("look for foreign keys")
}
