//! What of the database's tables and triggers is not replicated, or with a limit: what `-check` and the start say, sorted.
//!
//! Invariant: reads only, but for TEMP triggers of this connection's own.

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::capture::app_triggers::{self, Surroundings};
use crate::change::table::Table;
use crate::config::Config;
use crate::journals::chosen_keys;
use crate::replica::filter::TableFilter;
use crate::sqlite::concerns;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::introspect::read_schema;

/// What is to be said.
#[derive(Debug, Clone, Default)]
pub struct Concerns {
    /// Tables that are not replicated, with the reason.
    pub refused: Vec<(String, String)>,
    /// Sentences about tables that work with a limit.
    pub tables: Vec<String>,
    /// A sentence about keys that SQLite chooses.
    pub chosen_keys: Option<String>,
    /// Sentences about the app's triggers.
    pub triggers: Vec<String>,
    /// Sentences about rows with NULL in their key.
    pub null_keys: Vec<String>,
    /// How many tables are replicated, and how many triggers of the app run for what other nodes change.
    pub replicated: usize,
}

/// Looks.
///
/// # Errors
/// SQLite's.
pub fn concerns(conn: &mut Connection, config: &Config) -> Result<Concerns, SqliteError> {
    let filter = TableFilter::new(&config.replication.include, &config.replication.exclude);
    let schema = read_schema(conn)?;
    let wanted = |table: &str| filter.wants(conn, table);
    let (refused, tables) = schema.concerns(&wanted);
    let replicated: Vec<&Table> = schema.tables.iter().filter(|t| wanted(&t.name)).collect();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
        .doing("switch the application's triggers off")?;
    let copies = app_triggers::make_copies(
        conn,
        Surroundings {
            replicated: &|name| replicated.iter().any(|t| t.name.eq_ignore_ascii_case(name)),
            virtual_tables: &schema.virtual_tables,
            named: &config.replication.fire_triggers,
            before: &[],
        },
    )?;
    Ok(Concerns {
        refused,
        tables,
        chosen_keys: chosen_keys(replicated.iter().copied()),
        triggers: copies.warnings,
        replicated: replicated.len(),
        null_keys: concerns::null_keys(conn, replicated)?,
    })
}
