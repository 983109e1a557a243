//! What is known of capture from before: which tables were captured in which generation, and which objects are in the schema.

use std::collections::HashMap;

use rusqlite::Connection;

use super::{layout, triggers};
use crate::change::table::Table;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::introspect::OWN_PREFIX;

#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct KnownTable {
    pub generation: i64,
    pub columns: String,
    pub key: String,
    /// What its triggers are for, joined by commas; empty where a former version has not noted it.
    pub triggers: String,
}

pub(super) struct StoredObject {
    pub rowid: i64,
    pub kind: String,
    pub name: String,
    pub on: String,
    pub sql: String,
    pub ours: bool,
}

/// All objects of ours, and the app's triggers, by name in lower case.
pub(super) fn read_objects(
    conn: &Connection,
) -> Result<HashMap<String, StoredObject>, SqliteError> {
    let mut stmt = conn
        .prepare_cached("SELECT rowid, type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_schema WHERE type IN ('table', 'view', 'trigger')")
        .doing("read the schema")?;
    stmt.query_map([], |r| {
        let name: String = r.get(2)?;
        let ours = name.to_ascii_lowercase().starts_with(OWN_PREFIX);
        Ok((
            name.to_ascii_lowercase(),
            StoredObject {
                rowid: r.get(0)?,
                kind: r.get(1)?,
                name,
                on: r.get(3)?,
                sql: r.get(4)?,
                ours,
            },
        ))
    })
    .and_then(Iterator::collect)
    .doing("read the schema")
}

/// What the triggers of a table are for, in a form to compare by.
pub(super) fn purposes(table: &Table, triggers: &[triggers::Object]) -> String {
    let prefix = layout::trigger(&table.name, "");
    let words: Vec<&str> = triggers
        .iter()
        .filter_map(|o| o.name.strip_prefix(&prefix))
        .collect();
    words.join(",")
}

/// Whether a trigger that the table was given is not on it any more, under whatever name it was captured.
pub(super) fn has_lost_triggers(
    there: &HashMap<String, StoredObject>,
    table: &Table,
    known: &KnownTable,
) -> bool {
    if known.triggers.is_empty() {
        return !bears_trigger(there, table);
    }
    known.triggers.split(',').any(|purpose| {
        let ending = format!("_{purpose}");
        !there.values().any(|o| {
            o.ours
                && o.kind == "trigger"
                && o.on.eq_ignore_ascii_case(&table.name)
                && o.name.ends_with(&ending)
        })
    })
}

/// Whether the table bears an insert trigger of ours, under whatever name it was captured.
pub(super) fn bears_trigger(there: &HashMap<String, StoredObject>, table: &Table) -> bool {
    there.values().any(|o| {
        o.ours
            && o.kind == "trigger"
            && o.name.ends_with("_insert")
            && o.on.eq_ignore_ascii_case(&table.name)
    })
}

pub(super) fn newest_app_trigger(
    there: &HashMap<String, StoredObject>,
    table: &str,
) -> Option<i64> {
    there
        .values()
        .filter(|o| o.kind == "trigger" && !o.ours && o.on.eq_ignore_ascii_case(table))
        .map(|o| o.rowid)
        .max()
}

pub(super) fn read_known(conn: &Connection) -> Result<HashMap<String, KnownTable>, SqliteError> {
    let mut stmt = conn
        .prepare_cached(
            "SELECT table_name, generation, columns, key, triggers FROM __harmonylite__tables",
        )
        .doing("read the captured tables")?;
    stmt.query_map([], |r| {
        let name: String = r.get(0)?;
        Ok((
            name.to_ascii_lowercase(),
            KnownTable {
                generation: r.get(1)?,
                columns: r.get(2)?,
                key: r.get(3)?,
                triggers: r.get(4)?,
            },
        ))
    })
    .and_then(Iterator::collect)
    .doing("read the captured tables")
}

pub(super) fn write_known(
    conn: &Connection,
    table: &str,
    known: &KnownTable,
) -> Result<(), SqliteError> {
    conn.execute(
        "INSERT INTO __harmonylite__tables(table_name, generation, columns, key, triggers) VALUES(?1, ?2, ?3, ?4, ?5)
         ON CONFLICT(table_name) DO UPDATE SET generation = excluded.generation, columns = excluded.columns, key = excluded.key, triggers = excluded.triggers",
        rusqlite::params![table, known.generation, known.columns, known.key, known.triggers],
    )
    .doing("write the captured tables")?;
    Ok(())
}
