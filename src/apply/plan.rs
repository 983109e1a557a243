//! How rows of a message's table are written to the table here: which column is which, and the statements.
//!
//! Invariants: columns are matched by name; a node that lacks a column, has another key or other UNIQUE indexes gets no plan but a reason, since
//! folding would then depend on more than the stream.

use std::sync::Arc;

use crate::capture::{Captured, CapturedTable};
use crate::change::position::NodeId;
use crate::change::table::TableKey;
use crate::codec::commit::{CommitRecord, TableDefinition};
use crate::sqlite::ident::{quote, quote_list};
use crate::sqlite::row_sql;

/// How a table's rows are written.
#[derive(Debug)]
pub struct Plan {
    /// The table as the message knows it.
    pub definition: TableDefinition,
    /// The table here.
    pub table: CapturedTable,
    /// For each of the message's columns its place among the columns here.
    pub columns: Vec<usize>,
    /// For each key value its place in a whole row of the message.
    pub key_at: Vec<usize>,
    /// Inserts or updates a whole row.
    pub upsert: String,
    /// Reads a whole row in the message's order.
    pub select: String,
    /// Reads a whole row in the order here.
    pub select_here: String,
    /// Deletes a row.
    pub delete: String,
    /// The table here has columns that the message lacks.
    pub has_more: bool,
}

/// Whether a table's rows can be written here.
#[derive(Debug, Clone)]
pub enum Gate {
    /// Yes, in this way.
    Open(Arc<Plan>),
    /// They are not wanted here.
    Excluded,
    /// Not until the schema here is another: why, and what to do.
    Closed(String),
}

impl Plan {
    /// Whether the table has UNIQUE indexes besides its key.
    #[must_use]
    pub fn has_uniques(&self) -> bool {
        !self.table.table.uniques.is_empty()
    }

    /// Where in a whole row of the message the value of a column here stands.
    #[must_use]
    pub fn value_at(&self, column_here: usize) -> Option<usize> {
        let offset = usize::from(self.definition.key.is_empty());
        self.columns
            .iter()
            .position(|c| *c == column_here)
            .map(|i| i + offset)
    }

    /// The statement that updates the message's columns at these positions, which must not be empty. Parameters: the values, then the key.
    #[must_use]
    pub fn update(&self, columns: &[usize]) -> String {
        let sets: Vec<String> = columns
            .iter()
            .enumerate()
            .filter_map(|(n, c)| {
                self.definition
                    .columns
                    .get(*c)
                    .map(|name| format!("{} = ?{}", quote(name), n + 1))
            })
            .collect();
        format!(
            "UPDATE {} SET {} WHERE {}",
            quote(&self.table.table.name),
            sets.join(", "),
            row_sql::key_is(&self.table.table, columns.len() + 1)
        )
    }
}

/// Finds or makes the plans for a batch's tables, one entry a table; those in `plans` were made before, while the schema is the same.
///
/// # Errors
/// Why the batch cannot be folded here: a sentence with the remedy.
pub fn open_gates(
    captured: &Captured,
    wanted: &dyn Fn(&str) -> bool,
    plans: &mut Vec<Arc<Plan>>,
    record: &CommitRecord,
) -> Result<Plans, String> {
    /// Plans kept: one a table and shape is usual.
    const PLANS: usize = 4096;
    let mut out = Vec::with_capacity(record.tables.len());
    for definition in &record.tables {
        if let Some(plan) = plans.iter().find(|p| p.definition == *definition) {
            out.push(Some(Arc::clone(plan)));
            continue;
        }
        match gate(captured, wanted, definition, record.node) {
            Gate::Open(plan) => {
                if plans.len() >= PLANS {
                    plans.clear();
                }
                plans.push(Arc::clone(&plan));
                out.push(Some(plan));
            }
            Gate::Excluded => out.push(None),
            Gate::Closed(reason) => return Err(reason),
        }
    }
    Ok(out)
}

/// The plan of each of a batch's tables; `None` for one that is not wanted here.
pub type Plans = Vec<Option<Arc<Plan>>>;

/// Makes the plan for a message's table.
#[must_use]
pub fn gate(
    captured: &Captured,
    wanted: &dyn Fn(&str) -> bool,
    definition: &TableDefinition,
    from: NodeId,
) -> Gate {
    let name = &definition.name;
    if !wanted(name) {
        return Gate::Excluded;
    }
    let Some(here) = captured.table(name) else {
        let why = captured
            .refused
            .iter()
            .find(|(t, _)| t.eq_ignore_ascii_case(name))
            .map(|(_, r)| r.clone());
        return Gate::Closed(match why {
            Some(reason) => format!(
                "node {from} writes table \"{name}\", which cannot be replicated here: {reason}"
            ),
            None => format!(
                "node {from} writes table \"{name}\", which is not here: create it as on that node, or exclude it in [replication]"
            ),
        });
    };
    let table = &here.table;
    let mut columns = Vec::with_capacity(definition.columns.len());
    for column in &definition.columns {
        match table.column(column) {
            Some(i) => columns.push(i),
            None => {
                return Gate::Closed(format!(
                    "node {from} writes column \"{column}\" of table \"{name}\", which is not here: run the same ALTER TABLE on this node"
                ));
            }
        }
    }
    let key_there: Vec<&str> = definition
        .key
        .iter()
        .filter_map(|&k| definition.columns.get(usize::try_from(k).ok()?))
        .map(String::as_str)
        .collect();
    let key_here: Vec<&str> = match &table.key {
        TableKey::Columns(_) => table.key_names(),
        TableKey::Rowid(_) => Vec::new(),
    };
    if key_there.len() != key_here.len()
        || key_there
            .iter()
            .zip(&key_here)
            .any(|(a, b)| !a.eq_ignore_ascii_case(b))
    {
        return Gate::Closed(format!(
            "table \"{name}\" has another primary key on node {from} ({}) than here ({}): give it the same on all nodes",
            key_there.join(", "),
            key_here.join(", ")
        ));
    }
    let uniques = table.unique_definitions();
    if uniques != definition.uniques {
        return Gate::Closed(format!(
            "table \"{name}\" has other UNIQUE indexes on node {from} ({}) than here ({}): add or drop an index on all nodes while publishing is paused",
            definition.uniques.join("; "),
            uniques.join("; ")
        ));
    }
    Gate::Open(Arc::new(plan(here, definition, columns)))
}

fn plan(here: &CapturedTable, definition: &TableDefinition, columns: Vec<usize>) -> Plan {
    let table = &here.table;
    let on = quote(&table.name);
    let rowid = match &table.key {
        TableKey::Rowid(name) => Some(quote(name)),
        TableKey::Columns(_) => None,
    };
    let names: Vec<String> = rowid
        .iter()
        .cloned()
        .chain(definition.columns.iter().map(|c| quote(c)))
        .collect();
    let params: Vec<String> = (1..=names.len()).map(|i| format!("?{i}")).collect();
    let target = match &table.key {
        TableKey::Rowid(name) => quote(name),
        TableKey::Columns(_) if table.integer_key => quote_list(table.key_names()),
        TableKey::Columns(key) => {
            let parts: Vec<String> = key
                .iter()
                .filter_map(|(i, c)| {
                    table
                        .columns
                        .get(*i)
                        .map(|col| format!("{} COLLATE {}", quote(&col.name), c.name()))
                })
                .collect();
            parts.join(", ")
        }
    };
    // Key columns are equal by the key's index; where that leaves their bytes open, they are written too.
    let in_key = |i: usize| definition.key.contains(&(i as u64));
    let sets: Vec<String> = definition
        .columns
        .iter()
        .enumerate()
        .filter(|(i, _)| !in_key(*i) || table.key_is_loose())
        .map(|(_, c)| format!("{0} = excluded.{0}", quote(c)))
        .collect();
    let conflict = if sets.is_empty() {
        "NOTHING".to_owned()
    } else {
        format!("UPDATE SET {}", sets.join(", "))
    };
    let key_at = if definition.key.is_empty() {
        vec![0]
    } else {
        definition
            .key
            .iter()
            .filter_map(|&k| usize::try_from(k).ok())
            .collect()
    };
    Plan {
        upsert: format!(
            "INSERT INTO {on}({}) VALUES({}) ON CONFLICT({target}) DO {conflict}",
            names.join(", "),
            params.join(", ")
        ),
        select: format!(
            "SELECT {} FROM {on} WHERE {}",
            names.join(", "),
            row_sql::key_is(table, 1)
        ),
        select_here: row_sql::select_whole(table),
        delete: row_sql::delete(table),
        has_more: table.columns.len() > definition.columns.len(),
        definition: definition.clone(),
        table: here.clone(),
        columns,
        key_at,
    }
}
