//! What is known of capture from before: which tables were captured in which generation, and which objects are in the schema.

use std::collections::HashMap;

use rusqlite::Connection;

use super::formerly::Formerly;
use super::{layout, triggers};
use crate::change::table::Table;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::introspect::OWN_PREFIX;
use crate::sqlite::introspect::has_table;

#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct KnownTable {
    pub generation: i64,
    /// Empty: the configuration leaves the table out.
    pub columns: String,
    pub key: String,
    /// What its triggers are for, joined by commas; empty where a former version has not noted it.
    pub triggers: String,
    /// What its columns and the table itself were called before.
    pub formerly: Formerly,
}

impl KnownTable {
    /// Whether the configuration has left it out until now.
    pub fn was_left_out(&self) -> bool {
        self.columns.is_empty()
    }

    /// The same table, left out: its generation stays, for there may be rows in its change log.
    pub fn left_out(before: Option<&Self>) -> Self {
        Self {
            generation: before.map_or(0, |b| b.generation),
            columns: String::new(),
            key: before.map_or_else(String::new, |b| b.key.clone()),
            triggers: String::new(),
            formerly: before.map_or_else(Formerly::default, |b| b.formerly.clone()),
        }
    }
}

#[derive(Debug)]
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

/// The triggers of ours on a table, as it was found.
///
/// Another table that was renamed to this one's name still bears its own: what they log is not this table's.
pub(super) struct Borne<'a> {
    pub there: &'a HashMap<String, StoredObject>,
    pub table: &'a Table,
    /// Tables whose renaming was just followed, by the names that their triggers have.
    pub followed: &'a [&'a str],
}

impl<'a> Borne<'a> {
    /// Its trigger for this.
    pub fn trigger(&self, purpose: &str) -> Option<&'a StoredObject> {
        self.followed
            .iter()
            .copied()
            .chain(std::iter::once(self.table.name.as_str()))
            .filter_map(|name| {
                let trigger = layout::trigger(name, purpose).to_ascii_lowercase();
                self.there.get(&trigger)
            })
            .find(|o| o.kind == "trigger" && o.on.eq_ignore_ascii_case(&self.table.name))
    }

    /// Whether there is any: the one for inserts always is.
    pub fn bears_any(&self) -> bool {
        self.trigger("insert").is_some()
    }

    /// Whether one that the table was given is not on it any more.
    pub fn has_lost(&self, known: &KnownTable) -> bool {
        if known.triggers.is_empty() {
            return !self.bears_any();
        }
        known
            .triggers
            .split(',')
            .any(|purpose| self.trigger(purpose).is_none())
    }
}

/// Of each table that has any, in lower case, the place in the schema of the newest trigger of the application.
pub(super) fn newest_app_triggers(there: &HashMap<String, StoredObject>) -> HashMap<String, i64> {
    let mut out: HashMap<String, i64> = HashMap::new();
    for trigger in there.values().filter(|o| o.kind == "trigger" && !o.ours) {
        let newest = out.entry(trigger.on.to_ascii_lowercase()).or_default();
        *newest = trigger.rowid.max(*newest);
    }
    out
}

/// Whether there is any state of ours: a database that was never replicated can be looked at, too.
pub(super) fn has_known(conn: &Connection) -> Result<bool, SqliteError> {
    has_table(conn, "__harmonylite__tables")
}

pub(super) fn read_known(conn: &Connection) -> Result<HashMap<String, KnownTable>, SqliteError> {
    let mut stmt = conn
        .prepare_cached(
            "SELECT table_name, generation, columns, key, triggers FROM __harmonylite__tables",
        )
        .doing("read the captured tables")?;
    stmt.query_map([], |r| {
        let name: String = r.get(0)?;
        let columns: String = r.get(2)?;
        // The last line, where there is one: names may hold line ends, JSON does not.
        let (columns, formerly) = columns
            .rsplit_once('\n')
            .filter(|(_, last)| last.starts_with('{'))
            .unwrap_or((&columns, ""));
        Ok((
            name.to_ascii_lowercase(),
            KnownTable {
                generation: r.get(1)?,
                columns: columns.to_owned(),
                key: r.get(3)?,
                triggers: r.get(4)?,
                formerly: Formerly::read(formerly),
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
        rusqlite::params![
            table,
            known.generation,
            format!("{}\n{}", known.columns, known.formerly.stored()),
            known.key,
            known.triggers
        ],
    )
    .doing("write the captured tables")?;
    Ok(())
}

/// Notes in a database of ours what a table was called before; the keys that it had stay noted.
///
/// # Errors
/// SQLite's.
pub fn note_formerly(
    conn: &Connection,
    table: &str,
    formerly: &Formerly,
) -> Result<(), SqliteError> {
    let before = read_known(conn)?.remove(&table.to_ascii_lowercase());
    let mut known = KnownTable::left_out(before.as_ref());
    known.formerly = formerly.clone().with_keys_of(&known.formerly);
    write_known(conn, table, &known)
}

/// Notes in a snapshot what its taker's tables and their columns were called before, apart from what its taker alone needs.
///
/// # Errors
/// SQLite's.
pub fn keep_names(snapshot: &Connection) -> Result<(), SqliteError> {
    const DOING: &str = "note in the snapshot what its tables were called";
    snapshot
        .execute_batch("CREATE TABLE IF NOT EXISTS __harmonylite__formerly(table_name TEXT PRIMARY KEY COLLATE NOCASE, names TEXT NOT NULL)")
        .doing(DOING)?;
    for (table, known) in read_known(snapshot)? {
        let names = known.formerly.names_only();
        if names != Formerly::default() {
            snapshot
                .execute(
                    "INSERT OR REPLACE INTO __harmonylite__formerly VALUES(?1, ?2)",
                    [table, names.stored()],
                )
                .doing(DOING)?;
        }
    }
    Ok(())
}

/// What a snapshot says of former names, by table in lower case.
///
/// # Errors
/// SQLite's.
pub fn kept_names(snapshot: &Connection) -> Result<Vec<(String, Formerly)>, SqliteError> {
    if !has_table(snapshot, "__harmonylite__formerly")? {
        return Ok(Vec::new());
    }
    snapshot
        .prepare("SELECT lower(table_name), names FROM __harmonylite__formerly ORDER BY 1")
        .and_then(|mut s| {
            s.query_map([], |r| {
                let names: String = r.get(1)?;
                Ok((r.get(0)?, Formerly::read(&names)))
            })?
            .collect()
        })
        .doing("read what the snapshot's tables were called")
}

/// Forgets it: a database that goes on notes its own.
///
/// # Errors
/// SQLite's.
pub fn forget_names(conn: &Connection) -> Result<(), SqliteError> {
    conn.execute_batch("DROP TABLE IF EXISTS __harmonylite__formerly")
        .doing("forget what the snapshot's tables were called")
}

/// A table that was renamed remembers what it was called.
pub(super) fn note_former_name(
    conn: &Connection,
    table: &str,
    before: &str,
) -> Result<(), SqliteError> {
    if let Some(known) = read_known(conn)?.get_mut(&table.to_ascii_lowercase()) {
        known.formerly.note_table(before);
        write_known(conn, table, known)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::install;
    use crate::state::unsure::{self, Reason};

    fn marks(conn: &Connection) -> Vec<(String, Reason)> {
        let marks = unsure::read(conn).unwrap();
        marks.into_iter().map(|u| (u.table, u.reason)).collect()
    }

    fn captured() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        crate::state::ddl::migrate(&conn).unwrap();
        conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE t_new(id INTEGER PRIMARY KEY, a2, b);")
            .unwrap();
        install::refresh(&conn, &|_| true, true).unwrap();
        conn
    }

    #[test]
    fn the_triggers_of_a_table_that_takes_the_place_of_another_are_not_that_others() {
        for sql in [
            "ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t",
            "DROP TABLE t; ALTER TABLE t_new RENAME TO t",
        ] {
            let conn = captured();
            conn.execute_batch(sql).unwrap();
            conn.execute_batch("INSERT INTO t VALUES(1, 2, 3)").unwrap();
            let now = install::refresh(&conn, &|_| true, false).unwrap();
            assert_eq!(marks(&conn), [("t".to_owned(), Reason::Gap)], "{sql}");
            let formerly = &now.table("t").unwrap().formerly;
            assert_eq!(
                formerly.column("a"),
                None,
                "nothing tells what became of it"
            );
        }
    }

    #[test]
    fn a_table_that_was_renamed_has_kept_its_triggers() {
        let conn = captured();
        conn.execute_batch("ALTER TABLE t RENAME TO u; ALTER TABLE u RENAME COLUMN a TO c; INSERT INTO u VALUES(1, 2, 3)")
            .unwrap();
        let now = install::refresh(&conn, &|_| true, false).unwrap();
        assert_eq!(marks(&conn), []);
        let formerly = &now.table("u").unwrap().formerly;
        assert_eq!(formerly.column("a"), Some(Some("c")));
    }
}
