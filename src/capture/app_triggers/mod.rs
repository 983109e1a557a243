//! The application's own triggers, and which of them fire for what other nodes have changed.
//!
//! Our connection fires no trigger of the database. A trigger whose effects land in tables that are not replicated (a full-text index) must run on every node all the
//! same: our connection has a TEMP trigger of the same text for it. What a trigger writes to replicated tables travels as rows, and is never done twice.
//!
//! Invariants:
//! - a copy writes to no replicated table, so whether it fires, fails or is missing, the replicated tables of all nodes are equal;
//! - the copies are those of the schema that capture was made for: they are made anew in the same transaction, and go back with it;
//! - a trigger that cannot be copied is named with its reason, and holds up nothing.

pub mod effects;
pub mod text;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::OWN_PREFIX;
use crate::sqlite::virtual_tables::VirtualTable;
use effects::{Effects, Observer};
use text::TriggerText;

const DOING: &str = "copy the application's triggers";

/// A TEMP trigger on our connection that does what one of the application's does.
#[derive(Debug)]
pub struct TriggerCopy {
    /// The name of both.
    pub name: String,
    /// The table or view that it is on.
    pub table: String,
    /// The statement that makes it.
    pub sql: String,
    /// Tables that it reads, in lower case.
    pub reads: BTreeSet<String>,
    /// It can have a row ignored, and what was done before that stays then.
    pub may_ignore: bool,
    failures: AtomicU64,
    first: Mutex<String>,
}

impl TriggerCopy {
    fn new(trigger: &AppTrigger, sql: String, reads: BTreeSet<String>) -> Self {
        Self {
            reads,
            name: trigger.name.clone(),
            table: trigger.table.clone(),
            may_ignore: text::raises_ignore(&sql),
            sql,
            failures: AtomicU64::new(0),
            first: Mutex::default(),
        }
    }

    /// It could not be fired for a row, which was written without it.
    pub fn failed(&self, why: &str) {
        if self.failures.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                trigger = self.name,
                table = self.table,
                "the trigger fails for what another node has changed: {why}; rows are written without it, and what it maintains lacks them: mend it, and fill that anew"
            );
            why.clone_into(&mut self.first.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// How many rows were written without it, and why the first; `None`: it has never failed.
    #[must_use]
    pub fn failures(&self) -> Option<(u64, String)> {
        let count = self.failures.load(Ordering::Relaxed);
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        (count > 0).then(|| (count, first.clone()))
    }
}

/// What became of the application's triggers.
#[derive(Debug, Clone, Default)]
pub struct AppTriggers {
    /// Those that fire for what other nodes have changed.
    pub copies: Vec<Arc<TriggerCopy>>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A trigger of the application.
#[derive(Debug)]
struct AppTrigger {
    name: String,
    table: String,
    sql: String,
    on_view: bool,
}

/// What is to be known beside the triggers.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Whether a table is replicated.
    pub replicated: &'a dyn Fn(&str) -> bool,
    /// The virtual tables.
    pub virtual_tables: &'a [VirtualTable],
    /// Triggers that the operator has named: what they write to tables that are not replicated is done here, though they write to replicated ones too.
    pub named: &'a [String],
    /// The copies until now, whose failures are remembered while they stay the same.
    pub before: &'a [Arc<TriggerCopy>],
}

/// Drops all copies, those too whose tables are gone, which SQLite keeps out of sight.
///
/// # Errors
/// SQLite's.
pub fn drop_copies(conn: &Connection) -> Result<(), SqliteError> {
    let there = |conn: &Connection| {
        conn.prepare("SELECT name FROM temp.sqlite_schema WHERE type = 'trigger'")
            .and_then(|mut s| {
                s.query_map([], |r| r.get(0))?
                    .collect::<Result<Vec<String>, _>>()
            })
            .doing(DOING)
    };
    for name in there(conn)? {
        conn.execute_batch(&format!("DROP TRIGGER IF EXISTS temp.{}", quote(&name)))
            .doing(DOING)?;
    }
    if there(conn)?.is_empty() {
        return Ok(());
    }
    // A table that another connection has dropped leaves a trigger that nothing can drop, and that would be back with a table of that name.
    let done = conn.execute_batch(
        "PRAGMA writable_schema = ON; DELETE FROM temp.sqlite_schema WHERE type = 'trigger'",
    );
    let ended = conn.execute_batch("PRAGMA writable_schema = RESET");
    done.and(ended).doing(DOING)
}

/// Makes the copies that the schema asks for, where there are none. Call it inside the transaction that makes capture current.
///
/// # Errors
/// SQLite's, where they have nothing to do with a trigger.
pub fn make_copies(
    conn: &mut Connection,
    around: Surroundings<'_>,
) -> Result<AppTriggers, SqliteError> {
    let mut out = AppTriggers::default();
    let triggers = read_triggers(conn)?;
    for name in around.named {
        if !triggers.iter().any(|t| t.name.eq_ignore_ascii_case(name)) {
            out.warnings.push(format!(
                "replication.fire_triggers names \"{name}\", which is no trigger of this database; it is looked for again whenever the schema changes"
            ));
        }
    }
    let mut fed = BTreeSet::new();
    if !triggers.is_empty() {
        let views = read_views(conn)?;
        let observer = Observer::new(conn)?;
        // Triggers on views first: what writes to a view can be compiled only where they are there.
        let (on_views, on_tables): (Vec<_>, Vec<_>) = triggers.iter().partition(|t| t.on_view);
        let mut making = Making {
            observer: &observer,
            around,
            views: &views,
            fed: &mut fed,
            out: &mut out,
            unfit: Vec::new(),
        };
        for trigger in on_views.into_iter().chain(on_tables) {
            making.copy(trigger)?;
        }
        making.tell_unfit();
        for copy in out
            .copies
            .iter()
            .filter(|c| !views.contains(&c.table.to_ascii_lowercase()))
        {
            observer.conn().execute_batch(&copy.sql).doing(DOING)?;
        }
    }
    for table in around.virtual_tables {
        if table.takes_rows() && !fed.contains(&table.name.to_ascii_lowercase()) {
            out.warnings.push(format!(
                "virtual table \"{}\" ({}) is not replicated, and no trigger fills it: what the application writes to it stays on this node; keep that in an ordinary table, and fill it by triggers",
                table.name, table.module
            ));
        }
    }
    Ok(out)
}

struct Making<'a> {
    observer: &'a Observer<'a>,
    around: Surroundings<'a>,
    views: &'a BTreeSet<String>,
    /// Tables that any trigger writes to.
    fed: &'a mut BTreeSet<String>,
    out: &'a mut AppTriggers,
    /// Triggers that cannot be copied, with the reason.
    unfit: Vec<(String, String, String)>,
}

impl Making<'_> {
    fn copy(&mut self, trigger: &AppTrigger) -> Result<(), SqliteError> {
        let Some(text) = TriggerText::parse(&trigger.sql) else {
            self.give_up(trigger, "its text cannot be read");
            return Ok(());
        };
        let sql = text.temporary(&text.statements);
        let mut found = self.make(trigger, &text, &sql)?;
        if found.unfit.is_some() {
            found.writes.extend(text.targets());
        }
        self.fed.extend(found.writes.iter().cloned());
        let (travels, stays) = self.split(&found);
        let is_named = self
            .around
            .named
            .iter()
            .any(|n| n.eq_ignore_ascii_case(&trigger.name));
        if let Some(why) = &found.unfit {
            // What it writes to replicated tables travels as rows whatever it calls.
            if travels.is_empty() || !stays.is_empty() || is_named {
                self.give_up(trigger, why);
            }
            return Ok(());
        }
        if travels.is_empty() && !stays.is_empty() {
            return self.keep(trigger, sql, found.reads);
        }
        self.observer.drop(&trigger.name)?;
        if travels.is_empty() || stays.is_empty() {
            if is_named {
                self.out.warnings.push(format!(
                    "replication.fire_triggers names \"{}\", which writes to no table that is not replicated: what it writes travels as rows, and it is not fired twice",
                    trigger.name
                ));
            }
            return Ok(());
        }
        if is_named {
            return self.copy_in_part(trigger, &text);
        }
        self.out.warnings.push(format!(
            "trigger \"{}\" on table \"{}\" writes to replicated tables ({}) and to others ({}): it does not fire for what other nodes change, so the latter lack those rows here; make two triggers of it, or name it in replication.fire_triggers to have its writes to the latter done here",
            trigger.name,
            trigger.table,
            travels.join(", "),
            stays.join(", ")
        ));
        Ok(())
    }

    /// Of a trigger that the operator has named: the statements that write to no replicated table.
    fn copy_in_part(
        &mut self,
        trigger: &AppTrigger,
        text: &TriggerText,
    ) -> Result<(), SqliteError> {
        let mut kept = Vec::new();
        for statement in &text.statements {
            let alone = text.temporary(std::slice::from_ref(statement));
            let found = self.make(trigger, text, &alone)?;
            if found.unfit.is_none() {
                self.observer.drop(&trigger.name)?;
            }
            let (travels, stays) = self.split(&found);
            if travels.is_empty() && !stays.is_empty() {
                kept.push(statement.clone());
            }
        }
        if kept.is_empty() {
            self.give_up(
                trigger,
                "no statement of it writes to tables alone that are not replicated",
            );
            return Ok(());
        }
        let sql = text.temporary(&kept);
        let found = self.make(trigger, text, &sql)?;
        match found.unfit {
            Some(why) => self.give_up(trigger, &why),
            None => self.keep(trigger, sql, found.reads)?,
        }
        Ok(())
    }

    fn make(
        &self,
        trigger: &AppTrigger,
        text: &TriggerText,
        sql: &str,
    ) -> Result<Effects, SqliteError> {
        self.observer
            .make(&trigger.name, &trigger.table, text.event, sql)
    }

    /// What it writes to: replicated tables, and others. What is written to a view is what the view's triggers write, and those are copied only if that is not replicated.
    fn split<'e>(&self, found: &'e Effects) -> (Vec<&'e str>, Vec<&'e str>) {
        found
            .writes
            .iter()
            .map(String::as_str)
            .partition(|t| !self.views.contains(*t) && (self.around.replicated)(t))
    }

    fn keep(
        &mut self,
        trigger: &AppTrigger,
        sql: String,
        reads: BTreeSet<String>,
    ) -> Result<(), SqliteError> {
        // So that each is compiled alone; those on views are needed by what writes to them.
        if !trigger.on_view {
            self.observer.drop(&trigger.name)?;
        }
        let before = self.around.before.iter().find(|c| {
            c.name == trigger.name && c.table == trigger.table && c.sql == sql && c.reads == reads
        });
        let copy = before.map_or_else(
            || Arc::new(TriggerCopy::new(trigger, sql, reads)),
            Arc::clone,
        );
        self.out.copies.push(copy);
        Ok(())
    }

    fn give_up(&mut self, trigger: &AppTrigger, why: &str) {
        self.unfit
            .push((trigger.name.clone(), trigger.table.clone(), why.to_owned()));
    }

    /// Names the triggers that cannot be copied and whose turn could come: those on replicated tables, and on what copies write to.
    fn tell_unfit(&mut self) {
        for (name, table, why) in std::mem::take(&mut self.unfit) {
            let lower = table.to_ascii_lowercase();
            if (self.around.replicated)(&lower) || self.fed.contains(&lower) {
                self.out.warnings.push(format!(
                    "trigger \"{name}\" on \"{table}\" cannot be fired here ({why}): it fires where the application writes, and not for what other nodes change; what it writes to tables that are not replicated has to be filled in some other way"
                ));
            }
        }
    }
}

fn read_triggers(conn: &Connection) -> Result<Vec<AppTrigger>, SqliteError> {
    let mut stmt = conn
        .prepare_cached(
            "SELECT t.name, t.tbl_name, coalesce(t.sql, ''), EXISTS(SELECT 1 FROM main.sqlite_schema AS v WHERE v.type = 'view' AND lower(v.name) = lower(t.tbl_name))
             FROM main.sqlite_schema AS t WHERE t.type = 'trigger' AND lower(substr(t.name, 1, length(?1))) <> ?1 ORDER BY t.rowid",
        )
        .doing(DOING)?;
    stmt.query_map([OWN_PREFIX], |r| {
        Ok(AppTrigger {
            name: r.get(0)?,
            table: r.get(1)?,
            sql: r.get(2)?,
            on_view: r.get(3)?,
        })
    })
    .and_then(Iterator::collect)
    .doing(DOING)
}

fn read_views(conn: &Connection) -> Result<BTreeSet<String>, SqliteError> {
    conn.prepare_cached("SELECT lower(name) FROM main.sqlite_schema WHERE type = 'view'")
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
        .doing(DOING)
}

#[cfg(test)]
mod tests;
