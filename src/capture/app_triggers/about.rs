//! What is known of the application's triggers and of what they touch, so that each is compiled once and not at every change of the schema.
//!
//! Invariant: what was found out about a trigger holds only while its text is the same, and all that SQLite looked at to compile it: the definitions of the tables that it names, and all views
//! with what stands for writing to them.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;
use xxhash_rust::xxh3::Xxh3;

use super::effects::{Effects, Observer};
use super::text::{self, Event};
use super::{DOING, OFF, copies_there};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::{self, quote};
use crate::sqlite::introspect::OWN_PREFIX;

/// A trigger of the application.
#[derive(Debug)]
pub(super) struct AppTrigger {
    pub name: String,
    pub table: String,
    pub sql: String,
    pub on_view: bool,
}

impl AppTrigger {
    /// Holds unless its copy is switched off.
    pub fn switch(&self) -> String {
        format!(
            "NOT EXISTS(SELECT 1 FROM {OFF} WHERE name = {})",
            ident::text(&self.name)
        )
    }
}

/// What of the application's schema its triggers depend on.
pub(super) struct AppSchema {
    /// In the order in which they were made.
    pub triggers: Vec<AppTrigger>,
    /// Names of views, in lower case.
    pub views: BTreeSet<String>,
    /// Of each table and view, in lower case, what stands for its definition and those of its indexes.
    definitions: HashMap<String, u64>,
    /// The same of all views together, and of the triggers on them.
    of_views: u64,
}

impl AppSchema {
    pub fn read(conn: &Connection) -> Result<Self, SqliteError> {
        let mut stmt = conn
            .prepare_cached(
                "SELECT type, name, tbl_name, coalesce(sql, '') FROM main.sqlite_schema WHERE lower(substr(name, 1, length(?1))) <> ?1 ORDER BY rowid",
            )
            .doing(DOING)?;
        let mut rows = stmt.query([OWN_PREFIX]).doing(DOING)?;
        let mut triggers = Vec::new();
        let mut views = BTreeSet::new();
        let mut definitions: HashMap<String, Xxh3> = HashMap::new();
        let mut of_views = Xxh3::new();
        while let Some(row) = rows.next().doing(DOING)? {
            let text = |i| row.get::<_, String>(i).doing(DOING);
            let (kind, name, table, sql) = (text(0)?, text(1)?, text(2)?, text(3)?);
            if kind == "trigger" {
                triggers.push(AppTrigger {
                    name,
                    table,
                    sql,
                    on_view: false,
                });
                continue;
            }
            let mut definition = definitions
                .remove(&table.to_ascii_lowercase())
                .unwrap_or_default();
            definition.update(sql.as_bytes());
            definition.update(&[0]);
            definitions.insert(table.to_ascii_lowercase(), definition);
            if kind == "view" {
                of_views.update(sql.as_bytes());
                of_views.update(&[0]);
                views.insert(name.to_ascii_lowercase());
            }
        }
        for trigger in &mut triggers {
            trigger.on_view = views.contains(&trigger.table.to_ascii_lowercase());
            if trigger.on_view {
                of_views.update(trigger.sql.as_bytes());
                of_views.update(&[0]);
            }
        }
        Ok(Self {
            triggers,
            views,
            definitions: definitions
                .into_iter()
                .map(|(name, hash)| (name, hash.digest()))
                .collect(),
            of_views: of_views.digest(),
        })
    }

    /// Stands for all that a trigger with these effects depends on.
    fn depended_on(&self, table: &str, effects: &Effects) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.of_views.to_le_bytes());
        let table = table.to_ascii_lowercase();
        let all = effects.writes.iter().chain(&effects.reads);
        for name in std::iter::once(&table).chain(all) {
            let definition = self.definitions.get(name).copied().unwrap_or_default();
            hash.update(&definition.to_le_bytes());
        }
        hash.digest()
    }
}

/// What was found out about a trigger.
#[derive(Debug)]
struct Verdict {
    table: String,
    depended_on: u64,
    effects: Effects,
}

impl Verdict {
    fn holds(&self, about: &AppSchema) -> bool {
        about.depended_on(&self.table, &self.effects) == self.depended_on
    }
}

/// What was found out about triggers, by the statements that make their copies.
#[derive(Debug, Default)]
pub struct Verdicts {
    seen: HashMap<String, Verdict>,
    compiled: u64,
}

impl Verdicts {
    /// How many triggers were compiled to find out.
    #[must_use]
    pub const fn compiled(&self) -> u64 {
        self.compiled
    }

    pub(super) fn clear(&mut self) {
        self.seen.clear();
    }
}

/// Looks at triggers, unless it is known what they do.
pub(super) struct Looking<'a> {
    /// The connection, until something is to be looked at.
    idle: Option<&'a mut Connection>,
    observer: Option<Observer<'a>>,
    about: &'a AppSchema,
    verdicts: &'a mut Verdicts,
    before: HashMap<String, Verdict>,
    /// Copies of triggers on views: names and statements.
    on_views: Vec<(String, String)>,
    /// Those of them that were made only to look at others.
    made: Vec<String>,
}

impl<'a> Looking<'a> {
    pub fn new(conn: &'a mut Connection, about: &'a AppSchema, verdicts: &'a mut Verdicts) -> Self {
        Self {
            idle: Some(conn),
            observer: None,
            about,
            before: std::mem::take(&mut verdicts.seen),
            verdicts,
            on_views: Vec::new(),
            made: Vec::new(),
        }
    }

    /// What the copy does that this statement makes.
    pub fn effects(
        &mut self,
        trigger: &AppTrigger,
        event: Event,
        sql: &str,
    ) -> Result<Effects, SqliteError> {
        if let Some(known) = self.before.remove(sql)
            && known.holds(self.about)
        {
            let effects = known.effects.clone();
            self.verdicts.seen.insert(sql.to_owned(), known);
            return Ok(effects);
        }
        self.begin()?;
        let Some(observer) = &self.observer else {
            return Ok(Effects::default());
        };
        self.verdicts.compiled += 1;
        drop_if_there(observer.conn(), &trigger.name)?;
        let effects = observer.make(&trigger.name, &trigger.table, event, sql)?;
        if effects.unfit.is_none() {
            observer.drop(&trigger.name)?;
            // (What cannot be compiled may lack anything, and is looked at each time.)
            let verdict = Verdict {
                table: trigger.table.clone(),
                depended_on: self.about.depended_on(&trigger.table, &effects),
                effects: effects.clone(),
            };
            self.verdicts.seen.insert(sql.to_owned(), verdict);
        }
        Ok(effects)
    }

    /// What is looked at from now on may write to the view of this trigger.
    pub fn leave(&mut self, trigger: &AppTrigger, sql: &str) -> Result<(), SqliteError> {
        self.on_views.push((trigger.name.clone(), sql.to_owned()));
        if let Some(observer) = &self.observer {
            observer.conn().execute_batch(sql).doing(DOING)?;
            self.made.push(trigger.name.clone());
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), SqliteError> {
        let Some(conn) = self.idle.take() else {
            return Ok(());
        };
        let there = copies_there(conn)?;
        let observer = Observer::new(conn)?;
        // One that does not compile any more would be taken for the fault of what is looked at.
        for (name, kept) in &there {
            let made_by = text::made_by(kept);
            let known = self
                .before
                .get(&made_by)
                .or_else(|| self.verdicts.seen.get(&made_by));
            if !known.is_some_and(|v| v.holds(self.about)) {
                drop_if_there(observer.conn(), name)?;
            }
        }
        let there = copies_there(observer.conn())?;
        for (name, sql) in &self.on_views {
            let is_there = there
                .iter()
                .any(|(n, kept)| n == name && text::made_by(kept) == *sql);
            if !is_there {
                drop_if_there(observer.conn(), name)?;
                observer.conn().execute_batch(sql).doing(DOING)?;
                self.made.push(name.clone());
            }
        }
        self.observer = Some(observer);
        Ok(())
    }

    /// Leaves nothing behind that was made to look at it.
    pub fn end(self) -> Result<(), SqliteError> {
        if let Some(observer) = &self.observer {
            for name in &self.made {
                observer.drop(name)?;
            }
        }
        Ok(())
    }
}

fn drop_if_there(conn: &Connection, name: &str) -> Result<(), SqliteError> {
    conn.execute_batch(&format!("DROP TRIGGER IF EXISTS temp.{}", quote(name)))
        .doing(DOING)
}
