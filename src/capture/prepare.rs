//! Finds out, by reading alone, what makes capture current.
//!
//! The application's writers wait while capture is made current, so what can be known before is found out before: a [`Prepared`] is good for the schema version that it was made at, and
//! is carried out under the write lock, where only the differences are left to be written.
//!
//! Invariant: nothing here writes. Where something was renamed, all behind it can be known only when our tables have followed: that is decided under the lock.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::Connection;

use super::captured::Captured;
use super::decide::{Decided, Deciding};
use super::install::TableFilter;
use super::known::{KnownTable, StoredObject, read_known, read_objects};
use super::rekey;
use super::renames::Renames;
use super::steps::Step;
use crate::change::table::Table;
use crate::sqlite::connection;
use crate::sqlite::error::SqliteError;
use crate::sqlite::introspect::{Familiar, Schema, read_schema_again};
use crate::state::node;
use crate::state::unsure::{self, Unsure};

/// What the database says of its capture.
#[derive(Debug)]
pub(super) struct State {
    pub known: HashMap<String, KnownTable>,
    pub there: HashMap<String, StoredObject>,
    pub of_a_cluster: bool,
    pub unsure: Vec<Unsure>,
}

impl State {
    fn read(conn: &Connection) -> Result<Self, SqliteError> {
        Ok(Self {
            known: read_known(conn)?,
            there: read_objects(conn)?,
            of_a_cluster: node::cluster(conn)?.is_some(),
            unsure: unsure::read(conn)?,
        })
    }
}

/// What makes capture current at one version of the schema.
#[derive(Debug)]
pub struct Prepared {
    version: i64,
    first: bool,
    schema: Schema,
    tables: Vec<Table>,
    left_out: Vec<Table>,
    refused: Vec<(String, String)>,
    warnings: Vec<String>,
    state: State,
    renames: Renames,
    /// `None`: something has to be renamed first.
    decided: Option<Decided>,
}

impl Prepared {
    /// Reads the schema and what is known of capture, and decides. `first`: nothing was ever captured here. Call it inside a transaction, after the state
    /// tables exist.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read(
        conn: &Connection,
        wanted: TableFilter<'_>,
        first: bool,
        familiar: &mut Familiar,
    ) -> Result<Self, SqliteError> {
        let schema = read_schema_again(conn, familiar)?;
        let (refused, warnings) = schema.concerns(wanted);
        let (tables, left_out): (Vec<Table>, Vec<Table>) =
            schema.tables.iter().cloned().partition(|t| wanted(&t.name));
        let state = State::read(conn)?;
        let renames = Renames::find(conn, &tables, &state.there)?;
        let mut out = Self {
            version: schema.version,
            first,
            schema,
            tables,
            left_out,
            refused,
            warnings,
            state,
            renames,
            decided: None,
        };
        if out.renames.is_empty() {
            out.decided = Some(out.decide(&out.state, &out.state.there, Vec::new()));
        }
        Ok(out)
    }

    /// Whether it is for this version of the schema.
    #[must_use]
    pub fn fits(&self, version: i64, first: bool) -> bool {
        self.version == version && self.first == first
    }

    /// Whether tables of ours will be renamed.
    #[must_use]
    pub fn renames(&self) -> bool {
        !self.renames.is_empty()
    }

    /// What will be captured; `None` where that is not known before something was renamed.
    pub fn captured(&mut self) -> Option<&mut Captured> {
        self.decided.as_mut().map(|d| &mut d.captured)
    }

    /// How many tables are new, and can be captured before the others.
    #[must_use]
    pub fn new_tables(&self) -> usize {
        self.decided.as_ref().map_or(0, |d| d.new_tables.len())
    }

    /// Captures new tables while `more` says so, and nothing else. Returns their names; what is prepared is then for a schema of before. Call it inside a write transaction, at the version
    /// that this was made for.
    ///
    /// # Errors
    /// SQLite's.
    pub fn carry_out_new_tables(
        &mut self,
        conn: &Connection,
        more: &dyn Fn() -> bool,
    ) -> Result<Vec<String>, SqliteError> {
        let mut done = Vec::new();
        let Some(decided) = &mut self.decided else {
            return Ok(done);
        };
        while let Some(new) = decided.new_tables.pop() {
            for step in &new.steps {
                step.run(conn)?;
            }
            done.push(new.table.name);
            if !more() {
                break;
            }
        }
        self.version = connection::schema_version(conn)?;
        Ok(done)
    }

    /// Makes capture current. Call it inside a write transaction, at the version that this was made for.
    ///
    /// # Errors
    /// SQLite's.
    pub fn carry_out(mut self, conn: &Connection) -> Result<Captured, SqliteError> {
        let decided = match self.decided.take() {
            Some(decided) => decided,
            None => {
                let renamed = self.renames.follow(conn, &self.state.there)?;
                let now = State::read(conn)?;
                self.decide(&now, &self.state.there, renamed)
            }
        };
        let new = decided.new_tables.iter().flat_map(|new| &new.steps);
        for step in decided.steps.iter().chain(new).chain(&decided.last) {
            step.run(conn)?;
        }
        let mut captured = decided.captured;
        for table in &mut captured.tables {
            if table.formerly.keys().next().is_some() {
                table.former_logged = rekey::former_columns(conn, &table.table.name)?;
            }
        }
        captured.schema_version = connection::schema_version(conn)?;
        Ok(captured)
    }

    /// `bare`: the objects as they were found, before anything was renamed.
    fn decide(
        &self,
        state: &State,
        bare: &HashMap<String, StoredObject>,
        renamed: Vec<(String, String)>,
    ) -> Decided {
        let mut warnings = self.warnings.clone();
        warnings.extend(renamed.iter().map(|(before, now)| {
            format!("table \"{before}\" is now called \"{now}\": what was pending of it is sent under the new name")
        }));
        let taken: BTreeSet<String> = self
            .schema
            .tables
            .iter()
            .map(|t| &t.name)
            .chain(self.schema.refused.iter().map(|(t, _)| t))
            .map(|t| t.to_ascii_lowercase())
            .collect();
        // Tables that were renamed just now: their triggers still have these names.
        let followed: Vec<&str> = self
            .state
            .known
            .keys()
            .filter(|name| !state.known.contains_key(*name))
            .map(String::as_str)
            .collect();
        let captured = Captured {
            warnings,
            dropped: super::install::dropped(&state.known, &self.schema),
            refused: self.refused.clone(),
            virtual_tables: self.schema.virtual_tables.clone(),
            renamed,
            ..Captured::default()
        };
        let mut deciding = Deciding::new(state, bare, self.first, &taken, &followed, captured);
        for table in &self.tables {
            deciding.table(table);
        }
        for table in &self.left_out {
            let before = state.known.get(&table.name.to_ascii_lowercase());
            if !before.is_some_and(KnownTable::was_left_out) {
                let known = KnownTable::left_out(before);
                let step = Step::Know(table.name.clone(), known);
                deciding.out.steps.push(step);
            }
        }
        let wanted: HashSet<String> = self
            .tables
            .iter()
            .map(|t| t.name.to_ascii_lowercase())
            .collect();
        let gone = state.unsure.iter();
        let gone = gone.filter(|u| !wanted.contains(&u.table.to_ascii_lowercase()));
        deciding.out.steps.extend(gone.cloned().map(Step::Unmark));
        deciding.mend(&self.tables.iter().collect::<Vec<_>>())
    }
}
