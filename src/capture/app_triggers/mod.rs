//! The application's own triggers, and which of them fire for what other nodes have changed.
//!
//! Our connection fires no trigger of the database. A trigger whose effects land in tables that are not replicated (a full-text index) must run on every node all the
//! same: our connection has a TEMP trigger of the same text for it. What a trigger writes to replicated tables travels as rows, and is never done twice.
//!
//! Invariants:
//! - a copy writes to no replicated table, so whether it fires, fails or is missing, the replicated tables of all nodes are equal;
//! - the copies are those of the schema that capture was made for: they are made anew in the same transaction, and go back with it;
//! - a trigger that cannot be copied is named with its reason, and holds up nothing.

mod about;
pub mod effects;
pub mod text;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::virtual_tables::VirtualTable;
pub use about::Verdicts;
use about::{AppSchema, AppTrigger, Looking};
use effects::Effects;
use text::TriggerText;

const DOING: &str = "copy the application's triggers";

/// The copies that do not fire for the moment, by name: a table of our connection alone. Switched off so a copy costs nothing that is worth mentioning, while dropping and making it anew
/// has SQLite compile every statement again.
const OFF: &str = "temp.__harmonylite__off";

fn make_off_table(conn: &Connection) -> Result<(), SqliteError> {
    conn.execute_batch(&format!(
        "CREATE TEMP TABLE IF NOT EXISTS {}(name TEXT PRIMARY KEY) WITHOUT ROWID",
        OFF.trim_start_matches("temp.")
    ))
    .doing(DOING)
}

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

    /// Switches the copy off, or on again.
    ///
    /// # Errors
    /// SQLite's.
    pub fn switch(&self, conn: &Connection, on: bool) -> rusqlite::Result<()> {
        let sql = if on {
            format!("DELETE FROM {OFF} WHERE name = ?1")
        } else {
            format!("INSERT OR IGNORE INTO {OFF} VALUES(?1)")
        };
        conn.prepare_cached(&sql)?.execute([&self.name])?;
        Ok(())
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
    for (name, _) in copies_there(conn)? {
        conn.execute_batch(&format!("DROP TRIGGER IF EXISTS temp.{}", quote(&name)))
            .doing(DOING)?;
    }
    if copies_there(conn)?.is_empty() {
        return Ok(());
    }
    // A table that another connection has dropped leaves a trigger that nothing can drop, and that would be back with a table of that name.
    let done = conn.execute_batch(
        "PRAGMA writable_schema = ON; DELETE FROM temp.sqlite_schema WHERE type = 'trigger'",
    );
    let ended = conn.execute_batch("PRAGMA writable_schema = RESET");
    done.and(ended).doing(DOING)
}

/// Makes the copies that the schema asks for, where there are none. Call it inside a transaction.
///
/// # Errors
/// SQLite's, where they have nothing to do with a trigger.
pub fn make_copies(
    conn: &mut Connection,
    around: Surroundings<'_>,
) -> Result<AppTriggers, SqliteError> {
    let out = decide(conn, around, &mut Verdicts::default())?;
    put(conn, &out.copies)?;
    Ok(out)
}

/// Finds out which copies the schema asks for, and makes none. Call it inside a transaction, be it one that only reads: what is looked at is a TEMP trigger for the
/// moment, and a copy of that name that is there goes.
///
/// # Errors
/// SQLite's, where they have nothing to do with a trigger.
pub fn decide(
    conn: &mut Connection,
    around: Surroundings<'_>,
    verdicts: &mut Verdicts,
) -> Result<AppTriggers, SqliteError> {
    let mut out = AppTriggers::default();
    let about = AppSchema::read(conn)?;
    for name in around.named {
        let is_it = |t: &AppTrigger| t.name.eq_ignore_ascii_case(name);
        if !about.triggers.iter().any(is_it) {
            out.warnings.push(format!(
                "replication.fire_triggers names \"{name}\", which is no trigger of this database; it is looked for again whenever the schema changes"
            ));
        }
    }
    let mut fed = BTreeSet::new();
    if !about.triggers.is_empty() {
        make_off_table(conn)?;
        // Triggers on views first: what writes to a view can be compiled only where they are there.
        let (on_views, on_tables): (Vec<_>, Vec<_>) =
            about.triggers.iter().partition(|t| t.on_view);
        let mut making = Making {
            looking: Looking::new(conn, &about, verdicts),
            around,
            views: &about.views,
            fed: &mut fed,
            out: &mut out,
            unfit: Vec::new(),
        };
        for trigger in on_views.into_iter().chain(on_tables) {
            making.copy(trigger)?;
        }
        making.tell_unfit();
        making.looking.end()?;
    } else {
        verdicts.clear();
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

/// Sees to it that these copies are there, and no others; those that are there already are left alone. Call it inside the transaction that makes capture current.
///
/// # Errors
/// SQLite's.
pub fn put(conn: &Connection, copies: &[Arc<TriggerCopy>]) -> Result<(), SqliteError> {
    let wanted: HashMap<&str, &TriggerCopy> = copies
        .iter()
        .map(|copy| (copy.name.as_str(), copy.as_ref()))
        .collect();
    let is_wanted = |(name, sql): &(String, String)| {
        wanted
            .get(name.as_str())
            .is_some_and(|copy| copy.sql == text::made_by(sql))
    };
    make_off_table(conn)?;
    let mut there = copies_there(conn)?;
    for (name, _) in there.iter().filter(|t| !is_wanted(t)) {
        conn.execute_batch(&format!("DROP TRIGGER IF EXISTS temp.{}", quote(name)))
            .doing(DOING)?;
    }
    if !there.iter().all(is_wanted) {
        there = copies_there(conn)?;
        // Such as nothing can drop.
        if !there.iter().all(is_wanted) {
            drop_copies(conn)?;
            there.clear();
        }
    }
    let there: HashSet<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    for copy in copies.iter().filter(|c| !there.contains(c.name.as_str())) {
        conn.execute_batch(&copy.sql).doing(DOING)?;
    }
    Ok(())
}

/// Names and texts of the TEMP triggers that SQLite keeps, those out of sight too.
fn copies_there(conn: &Connection) -> Result<Vec<(String, String)>, SqliteError> {
    conn.prepare_cached("SELECT name, sql FROM temp.sqlite_schema WHERE type = 'trigger'")
        .and_then(|mut s| s.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
        .doing(DOING)
}

struct Making<'a> {
    looking: Looking<'a>,
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
        let sql = text.temporary(&text.statements, &trigger.switch());
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
            let alone = text.temporary(std::slice::from_ref(statement), &trigger.switch());
            let found = self.make(trigger, text, &alone)?;
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
        let sql = text.temporary(&kept, &trigger.switch());
        let found = self.make(trigger, text, &sql)?;
        match found.unfit {
            Some(why) => self.give_up(trigger, &why),
            None => self.keep(trigger, sql, found.reads)?,
        }
        Ok(())
    }

    fn make(
        &mut self,
        trigger: &AppTrigger,
        text: &TriggerText,
        sql: &str,
    ) -> Result<Effects, SqliteError> {
        self.looking.effects(trigger, text.event, sql)
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
        // Needed by what writes to the view.
        if trigger.on_view {
            self.looking.leave(trigger, &sql)?;
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

#[cfg(test)]
mod tests;
