//! What is captured: the tables as they were when capture was last made current.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use super::app_triggers::{AppTriggers, TriggerCopy};
use super::formerly::Formerly;
use super::{layout, rekey, triggers};
use crate::change::operation::{ChangeKind, ColumnMask};
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
    /// Columns of keys that it had before: what they hold tells which row batches under such a key mean, so they travel with their whole row.
    pub former_key: ColumnMask,
    /// The columns of former keys that its change log has, by their names of that time; none: no delete under such a key is pending.
    pub former_logged: Vec<String>,
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
            former_key: ColumnMask::default(),
            former_logged: Vec::new(),
            fires: Vec::new(),
            turn: 0,
        }
    }

    /// The columns of a table that were in one of its keys before and are in its key no more, as far as a mask has them.
    pub(super) fn former_key_columns(table: &Table, formerly: &Formerly) -> ColumnMask {
        let now = table.key_names();
        formerly
            .keys()
            .flatten()
            .filter_map(|name| {
                let now = formerly.column(&name).flatten().unwrap_or(&name);
                table.column(now)
            })
            .filter(|c| *c < ColumnMask::MAX_COLUMNS)
            .filter(|c| {
                table
                    .columns
                    .get(*c)
                    .is_some_and(|c| !now.contains(&c.name.as_str()))
            })
            .fold(ColumnMask::default(), ColumnMask::with)
    }

    /// The condition, in SQL, that a row of the change log is a delete under a former key; `None` where none can be.
    #[must_use]
    pub fn is_under_former_key(&self) -> Option<String> {
        let set: Vec<String> = self
            .former_logged
            .iter()
            .map(|name| format!("{} IS NOT NULL", rekey::former_column(name)))
            .collect();
        (!set.is_empty()).then(|| {
            format!(
                "type = {} AND ({})",
                ChangeKind::Delete.code(),
                set.join(" OR ")
            )
        })
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
        if self.tables.iter().all(|t| t.fires.is_empty()) {
            return;
        }
        let names: Vec<String> = self
            .tables
            .iter()
            .map(|t| t.table.name.to_ascii_lowercase())
            .collect();
        let place: HashMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), at))
            .collect();
        // Of each table, which others its triggers read.
        let reads: Vec<BTreeSet<usize>> = self
            .tables
            .iter()
            .enumerate()
            .map(|(at, table)| {
                let read = table.fires.iter().flat_map(|copy| &copy.reads);
                read.filter_map(|name| place.get(name.as_str()).copied())
                    .filter(|other| *other != at)
                    .collect()
            })
            .collect();
        let mut done = vec![false; self.tables.len()];
        let mut left: Vec<usize> = (0..self.tables.len()).collect();
        for turn in 0.. {
            let waits = |at: &usize| {
                let mut others = reads.get(*at).into_iter().flatten();
                others.any(|other| done.get(*other) == Some(&false))
            };
            let (mut later, mut now): (Vec<usize>, Vec<usize>) =
                left.iter().partition(|t| waits(t));
            if now.is_empty() {
                std::mem::swap(&mut later, &mut now);
            }
            for at in now {
                if let (Some(table), Some(done)) = (self.tables.get_mut(at), done.get_mut(at)) {
                    table.turn = turn;
                    *done = true;
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
