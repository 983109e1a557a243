//! Takes everything of ours out of the database again; the app's schema is then what it was before.

use rusqlite::Connection;

use super::layout;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{ABSENT_PREFIX, OWN_PREFIX, has_table};

/// Drops every trigger, view and table of ours. Call it inside a write transaction. Returns how many objects went.
///
/// # Errors
/// SQLite's.
pub fn remove_all(conn: &Connection) -> Result<usize, SqliteError> {
    drop_objects(conn, &["trigger", "view", "table"], |_| true)
}

/// Whether the Go HarmonyLite was here and its `-cleanup` was not run. Its change logs have our names and other columns, so the application's writes would
/// fail on them. It is known by its global log, which is a table: ours is a view of that name.
///
/// # Errors
/// SQLite's.
pub fn go_program_was_here(conn: &Connection) -> Result<bool, SqliteError> {
    Ok(has_table(conn, layout::GLOBAL_VIEW_ALIAS)? && !has_table(conn, "__harmonylite__node")?)
}

/// Drops what the Go program has left. Call it inside a write transaction. Returns how many objects went.
///
/// # Errors
/// SQLite's.
pub fn remove_go_program(conn: &Connection) -> Result<usize, SqliteError> {
    drop_objects(conn, &["trigger", "table"], |name| {
        name.ends_with("_change_log") || name == layout::GLOBAL_VIEW_ALIAS
    })
}

/// Drops the triggers, change logs, notes and former values but keeps the state tables: `publish = false` captures nothing.
///
/// # Errors
/// SQLite's.
pub fn remove_capture(conn: &Connection) -> Result<usize, SqliteError> {
    drop_objects(conn, &["trigger", "view", "table"], |name| {
        let endings = ["_change_log", "_displaced_rows", layout::FORMER_VALUES];
        !name.to_ascii_lowercase().starts_with(ABSENT_PREFIX)
            && endings.iter().any(|ending| name.ends_with(ending))
    })
}

fn drop_objects(
    conn: &Connection,
    kinds: &[&str],
    tables: impl Fn(&str) -> bool,
) -> Result<usize, SqliteError> {
    let mut count = 0;
    for kind in kinds {
        let names: Vec<String> = {
            let mut stmt = conn
                .prepare("SELECT name FROM main.sqlite_schema WHERE type = ?1 AND lower(substr(name, 1, length(?2))) = ?2")
                .doing("list our objects")?;
            stmt.query_map([*kind, OWN_PREFIX], |r| r.get(0))
                .and_then(Iterator::collect)
                .doing("list our objects")?
        };
        for name in names {
            if *kind == "table" && !tables(&name) {
                continue;
            }
            conn.execute_batch(&format!(
                "DROP {} {}",
                kind.to_ascii_uppercase(),
                quote(&name)
            ))
            .doing_with(|| format!("drop {kind} {name}"))?;
            count += 1;
        }
    }
    Ok(count)
}
