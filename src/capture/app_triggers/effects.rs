//! What a trigger writes and reads, as SQLite's authorizer tells it when a statement that fires the trigger is compiled.
//!
//! Invariants: nothing is executed; only one trigger's own statements count, not those of triggers that it fires in turn; the authorizer is gone afterwards.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::text::Event;
use crate::sqlite::error::{Doing, Fault, SqliteError, fault_of};
use crate::sqlite::ident::quote;

const DOING: &str = "look at what a trigger of the application does";

/// What one trigger does, tables by their names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    /// Tables and views that it writes to.
    pub writes: BTreeSet<String>,
    /// Tables and views that it reads.
    pub reads: BTreeSet<String>,
    /// Why SQLite cannot compile it here, if so: what stands above is then what was seen before.
    pub unfit: Option<String>,
}

/// What the authorizer has seen of one trigger.
#[derive(Debug, Default)]
struct Seen {
    trigger: String,
    effects: Effects,
}

/// Looks at triggers through the authorizer of a connection.
pub struct Observer<'c> {
    conn: &'c mut Connection,
    seen: Arc<Mutex<Seen>>,
}

impl<'c> Observer<'c> {
    /// Begins to look.
    ///
    /// # Errors
    /// SQLite's.
    pub fn new(conn: &'c mut Connection) -> Result<Self, SqliteError> {
        let views = conn
            .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'view'")
            .and_then(|mut s| {
                s.query_map([], |r| r.get(0))?
                    .collect::<rusqlite::Result<BTreeSet<String>>>()
            })
            .doing(DOING)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let watched = Arc::clone(&seen);
        conn.authorizer(Some(move |context: AuthContext<'_>| {
            note(&watched, &views, &context);
            Authorization::Allow
        }))
        .doing(DOING)?;
        Ok(Self { conn, seen })
    }

    /// The connection.
    #[must_use]
    pub fn conn(&self) -> &Connection {
        self.conn
    }

    /// Makes a TEMP trigger and looks at what it does. Where it cannot be made or compiled, it is not there afterwards.
    ///
    /// # Errors
    /// SQLite's, where they have nothing to do with the trigger.
    pub fn make(
        &self,
        name: &str,
        table: &str,
        event: Event,
        sql: &str,
    ) -> Result<Effects, SqliteError> {
        let fires = match statement(self.conn, table, event) {
            Ok(fires) => fires,
            // A view that does not compile here.
            Err(e) if is_of_the_trigger(&e) => {
                return Ok(Effects {
                    unfit: Some(said(&e)),
                    ..Effects::default()
                });
            }
            Err(e) => return Err(e).doing(DOING),
        };
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen = Seen {
                trigger: name.to_owned(),
                effects: Effects::default(),
            };
        }
        let made = self.conn.execute_batch(sql);
        let there = made.is_ok();
        let compiled = made.and_then(|()| self.conn.prepare(&fires).map(drop));
        let mut effects = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut seen.effects)
        };
        if let Err(e) = compiled {
            if !is_of_the_trigger(&e) {
                return Err(e).doing(DOING);
            }
            if there {
                self.drop(name)?;
            }
            effects.unfit = Some(said(&e));
        }
        Ok(effects)
    }

    /// Drops a TEMP trigger.
    ///
    /// # Errors
    /// SQLite's.
    pub fn drop(&self, name: &str) -> Result<(), SqliteError> {
        self.conn
            .execute_batch(&format!("DROP TRIGGER temp.{}", quote(name)))
            .doing(DOING)
    }
}

impl Drop for Observer<'_> {
    fn drop(&mut self) {
        // Nothing is refused by it: staying, it would cost a little time.
        if let Err(e) = self
            .conn
            .authorizer(None::<fn(AuthContext<'_>) -> Authorization>)
        {
            tracing::debug!(error = %e, "the authorizer stays on our connection");
        }
    }
}

fn note(seen: &Mutex<Seen>, views: &BTreeSet<String>, context: &AuthContext<'_>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    // What is read through a view is read on the account of that view, whoever reads the view.
    let through_view = matches!(context.action, AuthAction::Read { .. })
        && context.accessor.is_some_and(|a| views.contains(a));
    if context.accessor != Some(seen.trigger.as_str()) && !through_view {
        return;
    }
    let effects = &mut seen.effects;
    let (tables, name) = match context.action {
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => (&mut effects.writes, table_name),
        AuthAction::Read { table_name, .. } => (&mut effects.reads, table_name),
        _ => return,
    };
    tables.insert(name.to_ascii_lowercase());
}

/// A statement that fires the triggers of an event. It names all columns, as those do that write what others have changed.
fn statement(conn: &Connection, table: &str, event: Event) -> rusqlite::Result<String> {
    let on = format!("main.{}", quote(table));
    if event == Event::Delete {
        return Ok(format!("DELETE FROM {on}"));
    }
    let columns: Vec<String> = conn
        .prepare_cached(
            "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid",
        )?
        .query_map([table], |r| r.get(0))?
        .collect::<Result<_, _>>()?;
    let columns: Vec<String> = columns.iter().map(|c| quote(c)).collect();
    Ok(if event == Event::Update {
        let sets: Vec<String> = columns.iter().map(|c| format!("{c} = {c}")).collect();
        format!("UPDATE {on} SET {}", sets.join(", "))
    } else {
        format!(
            "INSERT INTO {on}({}) VALUES({})",
            columns.join(", "),
            vec!["NULL"; columns.len()].join(", ")
        )
    })
}

/// Whether a failure tells something of what was to be run, rather than of the machine or of who waits.
#[must_use]
pub fn is_of_the_trigger(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode;
    let (rusqlite::Error::SqliteFailure(e, _) | rusqlite::Error::SqlInputError { error: e, .. }) =
        error
    else {
        return false;
    };
    // A full-text index that is out of step with its table calls itself damaged; the database is not.
    let index = e.extended_code == rusqlite::ffi::SQLITE_CORRUPT_VTAB;
    index
        || (matches!(fault_of(error), Fault::Other | Fault::Unique)
            && !matches!(
                e.code,
                ErrorCode::OperationInterrupted
                    | ErrorCode::OutOfMemory
                    | ErrorCode::OperationAborted
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::InternalMalfunction
            ))
}

/// What SQLite says of a failure, without our statement.
#[must_use]
pub fn said(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(schema: &str, table: &str, event: Event, sql: &str) -> Effects {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(schema).unwrap();
        let observer = Observer::new(&mut conn).unwrap();
        observer.make("x y", table, event, sql).unwrap()
    }

    fn names(names: &BTreeSet<String>) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }

    const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, g AS (a + 1)); CREATE TABLE \"Other one\"(id INTEGER PRIMARY KEY, n UNIQUE);
        CREATE VIRTUAL TABLE ft USING fts5(a, content=t, content_rowid=id); CREATE VIEW v AS SELECT * FROM t;";

    #[test]
    fn writes_and_reads_of_the_trigger_alone() {
        let sql = "CREATE TEMP TRIGGER \"x y\" AFTER UPDATE OF a ON t WHEN (SELECT max(n) FROM \"Other one\") > 1 BEGIN
            INSERT INTO ft(ft, rowid, a) VALUES('delete', old.id, old.a); REPLACE INTO \"Other one\" SELECT id, a FROM t; END";
        let found = effects(SCHEMA, "t", Event::Update, sql);
        assert_eq!(names(&found.writes), ["ft", "other one"]);
        assert_eq!(names(&found.reads), ["other one", "t"]);
        assert_eq!(found.unfit, None);
    }

    #[test]
    fn what_another_trigger_does_is_not_this_ones() {
        let schema = format!(
            "{SCHEMA} CREATE TEMP TRIGGER nested AFTER DELETE ON \"Other one\" BEGIN DELETE FROM ft; END;"
        );
        let sql = "CREATE TEMP TRIGGER \"x y\" BEFORE DELETE ON t BEGIN DELETE FROM \"Other one\"; SELECT RAISE(IGNORE); END";
        let found = effects(&schema, "t", Event::Delete, sql);
        assert_eq!(names(&found.writes), ["other one"]);
    }

    #[test]
    fn what_cannot_be_compiled_is_gone_and_says_why() {
        let mut conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(SCHEMA).unwrap();
        let observer = Observer::new(&mut conn).unwrap();
        let sql = "CREATE TEMP TRIGGER \"x y\" AFTER INSERT ON t BEGIN INSERT INTO ft(a) VALUES(stemmed(new.a)); END";
        let found = observer.make("x y", "t", Event::Insert, sql).unwrap();
        assert!(found.unfit.unwrap().contains("no such function: stemmed"));
        assert_eq!(names(&found.writes), ["ft"]);
        let sql =
            "CREATE TEMP TRIGGER \"x y\" AFTER INSERT ON t BEGIN INSERT INTO gone VALUES(1); END";
        let found = observer.make("x y", "t", Event::Insert, sql).unwrap();
        assert!(found.unfit.unwrap().contains("no such table"));
        drop(observer);
        conn.execute_batch("INSERT INTO t(a) VALUES('x')").unwrap();
    }

    #[test]
    fn what_is_read_through_a_view_is_read() {
        let sql = "CREATE TEMP TRIGGER \"x y\" AFTER INSERT ON \"Other one\" BEGIN INSERT INTO ft(a) SELECT a FROM v; END";
        let found = effects(SCHEMA, "Other one", Event::Insert, sql);
        assert!(found.reads.contains("t"), "{:?}", found.reads);
        assert_eq!(names(&found.writes), ["ft"]);
    }

    #[test]
    fn a_trigger_that_changes_nothing_writes_nothing() {
        let sql = "CREATE TEMP TRIGGER \"x y\" BEFORE INSERT ON t BEGIN SELECT RAISE(ABORT, 'no') WHERE new.a IS NULL; END";
        let found = effects(SCHEMA, "t", Event::Insert, sql);
        assert!(found.writes.is_empty() && found.unfit.is_none());
    }
}
