//! What of a database works with a limit or not at all: the sentences of the start and of `-check` are made here, once.
//!
//! Invariants: everything here only reads; a sentence names the table or the setting, and the remedy.

use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::connection;
use super::error::{Doing, SqliteError};
use super::ident::quote;
use super::introspect::{ABSENT_PREFIX, OWN_PREFIX};
use super::row_sql;
use crate::change::table::{Table, TableKey};

/// The most columns that a table, a result and a statement have in SQLite as it is built here.
pub const MOST_COLUMNS: usize = 2000;

/// Columns of a change log beside the key, with some to spare.
const LOG_COLUMNS: usize = 10;

/// The sentence about a table that is not replicated.
#[must_use]
pub fn refusal(table: &str, reason: &str) -> String {
    format!("table \"{table}\" is not replicated: {reason}")
}

/// Why a table of a name that is ours is not the app's to use; `None` for those that this program makes.
#[must_use]
pub fn taken_name(table: &str) -> Option<String> {
    const STATE: [&str; 12] = [
        "formerly",
        "node",
        "publishers",
        "tables",
        "unsure",
        "conflicts",
        "dead_letters",
        "skips",
        "covered",
        "lives",
        "void",
        "past",
    ];
    const ENDINGS: [&str; 3] = ["_change_log", "_displaced_rows", "_former_values"];
    let lower = table.to_ascii_lowercase();
    let rest = lower.strip_prefix(OWN_PREFIX)?;
    let ours = STATE.contains(&rest)
        || ENDINGS.iter().any(|ending| rest.ends_with(ending))
        || lower.starts_with(ABSENT_PREFIX);
    (!ours).then(|| {
        format!("names that begin with {OWN_PREFIX} are this program's own; rename the table")
    })
}

/// Where tables are made on trial: what cannot be made there without the application, no snapshot can hold, and nobody can keep its indexes.
pub struct Trial {
    conn: Connection,
}

impl Trial {
    /// An empty database in memory.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new() -> Result<Self, SqliteError> {
        let doing = "make a database in memory";
        let conn = Connection::open_in_memory().doing(doing)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true)
            .doing(doing)?;
        Ok(Self { conn })
    }

    /// Why a table cannot be replicated, if so: SQLite needs to call what only the application has, or its rows are too wide. `definitions`: the statements that make it
    /// and its indexes.
    ///
    /// # Errors
    /// SQLite's.
    pub fn refuses<'s>(
        &self,
        table: &Table,
        definitions: impl Iterator<Item = &'s str>,
    ) -> Result<Option<String>, SqliteError> {
        if row_sql::whole_names(table).len() > MOST_COLUMNS {
            return Ok(Some(format!(
                "with its rowid a row has more than {MOST_COLUMNS} values; give it a primary key"
            )));
        }
        if table.key_len() + LOG_COLUMNS > MOST_COLUMNS {
            return Ok(Some(format!(
                "its primary key has more than {} columns; give it a shorter one",
                MOST_COLUMNS - LOG_COLUMNS
            )));
        }
        let doing = || format!("look at table \"{}\"", table.name);
        for sql in definitions {
            match self.conn.execute_batch(sql) {
                Ok(()) => {}
                Err(
                    rusqlite::Error::SqliteFailure(error, Some(message))
                    | rusqlite::Error::SqlInputError {
                        error,
                        msg: message,
                        ..
                    },
                ) if error.code == ErrorCode::Unknown => return Ok(Some(lacking(&message))),
                Err(e) => return Err(e).doing_with(doing),
            }
        }
        Ok(None)
    }
}

/// Whether a table that is refused for this reason is one that no snapshot can hold, and so concerns all others.
#[must_use]
pub fn blocks_snapshots(reason: &str) -> bool {
    reason.contains(LACKING)
}

const LACKING: &str = "needs what only the application has";

/// The reason of a table that cannot be handled without the application.
pub(super) fn lacking(message: &str) -> String {
    format!(
        "its definition or one of its indexes {LACKING} ({message}); use what SQLite has built in. Until then no snapshot of this database can be taken, and without one no cluster begins: drop it, or set [snapshot] enabled = false"
    )
}

/// What the settings of a database cost, or limit. `wal`: it is in WAL mode.
///
/// # Errors
/// SQLite's.
pub fn settings(conn: &Connection, wal: bool) -> Result<Vec<String>, SqliteError> {
    let mut out = Vec::new();
    if !wal {
        out.push(
            "the database is not in WAL mode: every change that comes in waits until no reader is active, and makes readers wait; PRAGMA journal_mode = WAL in the application mends that"
                .to_owned(),
        );
    }
    let encoding = connection::encoding(conn)?;
    if encoding != "UTF-8" {
        out.push(format!(
            "the database is encoded in {encoding}: text that another node has and that is not valid Unicode cannot be kept as it is here, and becomes other text; use UTF-8 on all nodes (PRAGMA encoding, before the first table)"
        ));
    }
    Ok(out)
}

/// What is to be said of rows with NULL in their primary key, which SQLite allows and which no other node could be told of.
///
/// # Errors
/// SQLite's.
pub fn null_keys<'t>(
    conn: &mut Connection,
    tables: impl IntoIterator<Item = &'t Table>,
) -> Result<Vec<String>, SqliteError> {
    /// How long may be looked: where the NULL is not in the first column of a key, all of its index is read.
    const PATIENCE: Duration = Duration::from_secs(2);
    let until = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    for table in tables {
        out.extend(null_keys_of(conn, table, until)?);
    }
    Ok(out)
}

/// As [`null_keys`], of one table; what takes longer is not said.
fn null_keys_of(
    conn: &mut Connection,
    table: &Table,
    until: Instant,
) -> Result<Option<String>, SqliteError> {
    /// Rowids that are named.
    const NAMED: usize = 3;
    /// Steps of SQLite's machine between two looks at the clock.
    const STEPS: i32 = 10_000;
    let TableKey::Columns(key) = &table.key else {
        return Ok(None);
    };
    let nullable: Vec<String> = key
        .iter()
        .filter_map(|(i, _)| table.columns.get(*i))
        .filter(|c| !c.not_null && !table.integer_key)
        .map(|c| format!("{} IS NULL", quote(&c.name)))
        .collect();
    let hidden = |n: &&str| table.column(n).is_none();
    let Some(rowid) = ["rowid", "_rowid_", "oid"].into_iter().find(|n| hidden(n)) else {
        return Ok(None);
    };
    if nullable.is_empty() {
        return Ok(None);
    }
    let found = format!(
        "FROM {} WHERE {}",
        quote(&table.name),
        nullable.join(" OR ")
    );
    let doing = || format!("look for rows of table \"{}\" without a key", table.name);
    conn.progress_handler(STEPS, Some(move || Instant::now() > until))
        .doing_with(doing)?;
    let rows: rusqlite::Result<Vec<i64>> = conn
        .prepare(&format!("SELECT {rowid} {found} LIMIT {}", NAMED + 1))
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect());
    conn.progress_handler(0, None::<fn() -> bool>)
        .doing_with(doing)?;
    let rows = match rows {
        Err(rusqlite::Error::SqliteFailure(e, _)) if e.code == ErrorCode::OperationInterrupted => {
            return Ok(None);
        }
        rows => rows.doing_with(doing)?,
    };
    if rows.is_empty() {
        return Ok(None);
    }
    let named: Vec<String> = rows.iter().take(NAMED).map(i64::to_string).collect();
    Ok(Some(format!(
        "table \"{}\" has rows with NULL in their primary key (rowid {}{}): they stay on this node, since no other could tell which row is meant; give them a key: SELECT {rowid}, * {found}",
        table.name,
        named.join(", "),
        if rows.len() > NAMED { " and more" } else { "" }
    )))
}
