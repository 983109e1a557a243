//! What is captured: the tables as they were when capture was last made current.

use std::collections::BTreeSet;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::app_triggers::{AppTriggers, TriggerCopy};
use super::formerly::Formerly;
use super::{layout, triggers};
use crate::change::table::{Table, TableKey};
use crate::sqlite::ident::{quote, quote_list};
use crate::sqlite::virtual_tables::VirtualTable;

/// A table whose changes are captured.
#[derive(Debug, Clone)]
pub struct CapturedTable {
    /// The table.
    pub table: Table,
    /// The generation of its triggers: rows logged by an older one travel whole.
    pub generation: i64,
    /// Its change log, quoted.
    pub log: String,
    /// Its notes, quoted, if it has UNIQUE indexes.
    pub notes: Option<String>,
    /// Its former UNIQUE values, if they are kept.
    pub former: Option<FormerValues>,
    /// What its columns and itself were called before.
    pub formerly: Formerly,
    /// The application's triggers on it that fire for what other nodes have changed.
    pub fires: Vec<Arc<TriggerCopy>>,
    /// Its place among the tables of a batch: its triggers may read those with a lower one, whose rows are written before its own, and deleted after.
    pub turn: usize,
}

impl CapturedTable {
    /// What is left of a table that the application has dropped: its change log.
    #[must_use]
    pub fn dropped(name: &str) -> Self {
        Self {
            table: Table {
                name: name.to_owned(),
                columns: Vec::new(),
                key: TableKey::Rowid("rowid"),
                integer_key: false,
                uniques: Vec::new(),
            },
            generation: 0,
            log: quote(&layout::change_log(name)),
            notes: None,
            former: None,
            formerly: Formerly::default(),
            fires: Vec::new(),
            turn: 0,
        }
    }
}

/// Where the UNIQUE values are that rows had before the app changed them: by the id of the change.
#[derive(Debug, Clone)]
pub struct FormerValues {
    /// The table, quoted.
    pub table: String,
    /// Positions of the columns that are kept.
    pub columns: Vec<usize>,
    /// Reads them, by a change's id.
    pub select: String,
}

impl FormerValues {
    pub(super) fn of(table: &Table) -> Option<Self> {
        let columns = triggers::former_columns(table);
        let names: Vec<String> = columns
            .iter()
            .filter_map(|c| table.columns.get(*c))
            .map(|c| quote(&layout::key_column(&c.name)))
            .collect();
        let kept = quote(&layout::former_values(&table.name));
        (!columns.is_empty()).then(|| Self {
            select: format!("SELECT {} FROM {kept} WHERE id = ?1", names.join(", ")),
            table: kept,
            columns,
        })
    }
}

/// What is captured.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    /// SQLite's schema version after the installation.
    pub schema_version: i64,
    /// The captured tables.
    pub tables: Vec<CapturedTable>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Tables that are not captured, with the reason.
    pub refused: Vec<(String, String)>,
    /// Tables that were captured here and that the application has dropped, in lower case.
    pub dropped: BTreeSet<String>,
    /// Tables whose change log was made just now: its ids begin anew.
    pub new_logs: Vec<String>,
    /// Tables that were found renamed just now, and their change logs with them: the name of before, and the name now.
    pub renamed: Vec<(String, String)>,
    /// Whether anything had to be made or dropped.
    pub changed: bool,
    /// Virtual tables, none of which is replicated.
    pub virtual_tables: Vec<VirtualTable>,
    /// The application's triggers that fire for what other nodes have changed, on whatever table or view.
    pub triggers: Vec<Arc<TriggerCopy>>,
}

impl Captured {
    /// A hash of what replication knows of the schema: equal on nodes whose tables, columns, keys and UNIQUE indexes are.
    #[must_use]
    pub fn schema_hash(&self) -> String {
        let mut hash = Xxh3::new();
        for t in &self.tables {
            let columns = describe(t.table.columns.iter().map(|c| c.name.as_str()));
            let line = format!(
                "{}({columns}) key({}) unique({})\n",
                quote(&t.table.name),
                describe(t.table.key_names()),
                t.table.unique_definitions().join("; ")
            );
            hash.update(line.as_bytes());
        }
        format!("{:016x}", hash.digest())
    }

    /// Takes note of the copies of the application's triggers that were made for these tables.
    pub fn set_triggers(&mut self, made: AppTriggers) {
        for table in &mut self.tables {
            let on = |c: &&Arc<TriggerCopy>| c.table.eq_ignore_ascii_case(&table.table.name);
            table.fires = made.copies.iter().filter(on).map(Arc::clone).collect();
        }
        self.set_turns();
        self.triggers = made.copies;
        self.warnings.extend(made.warnings);
    }

    /// Tables that triggers of another read come before it; those that read one another in a circle come together.
    fn set_turns(&mut self) {
        let reads = |of: &CapturedTable, other: &CapturedTable| {
            let name = other.table.name.to_ascii_lowercase();
            of.table.name != other.table.name && of.fires.iter().any(|c| c.reads.contains(&name))
        };
        let mut left: Vec<usize> = (0..self.tables.len()).collect();
        for turn in 0.. {
            let waits = |at: &usize| {
                let of = self.tables.get(*at);
                left.iter()
                    .filter_map(|other| self.tables.get(*other))
                    .any(|other| of.is_some_and(|of| !of.fires.is_empty() && reads(of, other)))
            };
            let (mut later, mut now): (Vec<usize>, Vec<usize>) =
                left.iter().partition(|t| waits(t));
            if now.is_empty() {
                std::mem::swap(&mut later, &mut now);
            }
            for at in now {
                if let Some(table) = self.tables.get_mut(at) {
                    table.turn = turn;
                }
            }
            left = later;
            if left.is_empty() {
                return;
            }
        }
    }

    /// The captured table of this name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&CapturedTable> {
        self.tables
            .iter()
            .find(|t| t.table.name.eq_ignore_ascii_case(name))
    }

    /// The captured table that a batch means by this name, which may be one of before.
    #[must_use]
    pub fn table_meant(&self, name: &str) -> Option<&CapturedTable> {
        self.table(name)
            .or_else(|| self.tables.iter().find(|t| t.formerly.was_called(name)))
    }

    /// Whether a table of this name was captured here and has been dropped.
    #[must_use]
    pub fn has_dropped(&self, name: &str) -> bool {
        self.dropped.contains(&name.to_ascii_lowercase())
    }
}

/// A name list in a form that tells `a,b` from `"a,b"`.
pub(super) fn describe<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    quote_list(names)
}
