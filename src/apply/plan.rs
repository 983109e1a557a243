//! How rows of a message's table are written to the table here: which column is which, and the statements.
//!
//! Invariants: columns are matched by name, also by those that they had before; a node that lacks a column, has another key, or lacks a UNIQUE index that the batch was made
//! under gets no plan but a reason, since folding would then depend on more than the stream. What the application has dropped here is passed over. UNIQUE indexes that the batch
//! was not made under are no part of the fold: what they demand is this node's own doing (see [`super::fold`]).

use std::sync::Arc;

use smallvec::SmallVec;

use super::dropped_index::dropped_index;
use super::former_key::{FormerKey, under_key_here};
use crate::capture::formerly::Formerly;
use crate::capture::{Captured, CapturedTable};
use crate::change::operation::ColumnMask;
use crate::change::position::NodeId;
use crate::change::table::{IndexTerm, Table, TableKey, UniqueIndex};
use crate::change::value::Value;
use crate::codec::commit::{CommitRecord, TableDefinition};
use crate::codec::rows::RowOp;
use crate::sqlite::ident::{quote, quote_list, quoted};
use crate::sqlite::row_sql;

/// How a table's rows are written.
#[derive(Debug)]
pub struct Plan {
    /// The table as the message knows it.
    pub origin: TableDefinition,
    /// The same in the names here, without what was dropped here: what rows are once [`Plan::project`] has been at them.
    pub definition: TableDefinition,
    /// For each of the message's columns whether it is here; empty: all are.
    kept: Vec<bool>,
    /// For each UNIQUE index here whether the batch was made under it.
    named: Vec<bool>,
    /// UNIQUE indexes that the batch was made under and that were dropped here.
    pub gone_uniques: Vec<UniqueIndex>,
    /// The key that the batch was made under, where the table here had it before and has another now.
    pub former: Option<FormerKey>,
    /// It passes over columns of which this node knows nothing: for batches of its own only.
    own: bool,
    /// The table here.
    pub table: CapturedTable,
    /// For each of the message's columns its place among the columns here.
    pub columns: Vec<usize>,
    /// For each key value its place in a whole row of the message.
    pub key_at: Vec<usize>,
    /// Inserts or updates a whole row.
    pub upsert: String,
    /// Inserts a whole row.
    pub insert: String,
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

    /// Whether the batch was made under this one of the UNIQUE indexes here.
    #[must_use]
    pub fn is_named(&self, index: usize) -> bool {
        self.named.get(index).copied().unwrap_or(true)
    }

    /// Whether there are UNIQUE indexes here that the batch was not made under.
    #[must_use]
    pub fn has_extra_uniques(&self) -> bool {
        self.named.contains(&false)
    }

    /// A row of the message as one of [`Plan::definition`].
    #[must_use]
    pub fn project<'v>(
        &self,
        op: RowOp,
        values: &[Value<'v>],
    ) -> (RowOp, SmallVec<[Value<'v>; 16]>) {
        let has = |c: usize| self.kept.get(c).copied().unwrap_or(true);
        if self.kept.is_empty() {
            return (op, SmallVec::from_slice(values));
        }
        match op {
            RowOp::Delete => (op, SmallVec::from_slice(values)),
            RowOp::Whole => {
                let first = self.origin.whole_len() - self.origin.columns.len();
                let kept = values
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i.checked_sub(first).is_none_or(has))
                    .map(|(_, v)| *v);
                (op, kept.collect())
            }
            RowOp::Cells(mask) => {
                let (key, cells) = values
                    .split_at_checked(self.origin.key_len())
                    .unwrap_or((values, &[]));
                let mut here = ColumnMask::default();
                let mut kept: SmallVec<[Value<'v>; 16]> = SmallVec::from_slice(key);
                for (c, value) in mask.columns().zip(cells).filter(|(c, _)| has(*c)) {
                    here = here.with((0..c).filter(|c| has(*c)).count());
                    kept.push(*value);
                }
                (RowOp::Cells(here), kept)
            }
        }
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

/// Finds or makes the plans for a batch's tables, one entry a table; those in `plans` were made before, while the schema is the same. `own`: it is of this life of the node.
///
/// # Errors
/// Why the batch cannot be folded here: a sentence with the remedy.
pub fn open_gates(
    captured: &Captured,
    wanted: &dyn Fn(&str) -> bool,
    plans: &mut Vec<Arc<Plan>>,
    record: &CommitRecord,
    own: bool,
) -> Result<Plans, String> {
    /// Plans kept: one a table and shape is usual.
    const PLANS: usize = 4096;
    let mut out = Vec::with_capacity(record.tables.len());
    for definition in &record.tables {
        if let Some(plan) = plans
            .iter()
            .find(|p| p.origin == *definition && (own || !p.own))
        {
            out.push(Some(Arc::clone(plan)));
            continue;
        }
        let fit = if own { Fit::Own } else { Fit::Live };
        match gate(captured, wanted, definition, record.node, fit) {
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

/// How well a message must fit the table here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It has all columns of the message and the same UNIQUE indexes.
    Exact,
    /// This node has a past and goes on: names of before count, what was dropped is passed over, and for UNIQUE indexes that others lack it makes changes of its own.
    Live,
    /// As before, and the batch is of this life of the node: this very database has held what it carries, and what its application has since done with a table or column, it has
    /// done to these changes too. (A batch of a former life may be of a file that is lost.)
    Own,
}

/// Makes the plan for a message's table.
#[must_use]
pub fn gate(
    captured: &Captured,
    wanted: &dyn Fn(&str) -> bool,
    definition: &TableDefinition,
    from: NodeId,
    fit: Fit,
) -> Gate {
    let name = &definition.name;
    if !wanted(name) {
        return Gate::Excluded;
    }
    let live = fit != Fit::Exact;
    let here = if live {
        captured.table_meant(name)
    } else {
        captured.table(name)
    };
    let Some(here) = here else {
        let why = captured
            .refused
            .iter()
            .find(|(t, _)| t.eq_ignore_ascii_case(name))
            .map(|(_, r)| r.clone());
        if why.is_none() && live && (captured.has_dropped(name) || fit == Fit::Own) {
            return Gate::Excluded;
        }
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
    let key_of_message = definition.key_names();
    let former = live && here.formerly.had_key(key_of_message.clone());
    // Where each of the message's columns is here; `None`: dropped here.
    let mut places = Vec::with_capacity(definition.columns.len());
    for column in &definition.columns {
        let place = match (table.column(column), here.formerly.column(column)) {
            (Some(i), _) => Some(i),
            (None, Some(now)) if live => now.and_then(|now| table.column(now)),
            // A column that went with the former key goes on its way alone.
            (None, None) if fit == Fit::Own || former => None,
            _ => {
                return Gate::Closed(format!(
                    "node {from} writes column \"{column}\" of table \"{}\", which is not here: run the same ALTER TABLE on this node",
                    table.name
                ));
            }
        };
        // A batch of a node that has both, the column of before and the one of now, means the one of now by that name.
        places.push(place.filter(|i| {
            table.column(column) == Some(*i)
                || !definition
                    .columns
                    .iter()
                    .any(|c| table.column(c) == Some(*i))
        }));
    }
    let rekeyed = former
        .then(|| {
            under_key_here(table, definition, &places, &|u| {
                plain_index(table, &here.formerly, u)
            })
        })
        .flatten();
    if former && rekeyed.is_none() {
        return Gate::Excluded;
    }
    let origin = definition;
    let (definition, former) = match &rekeyed {
        Some((under_key_here, former)) => (under_key_here, Some(former.clone())),
        None => (definition, None),
    };
    let key_there: Vec<&str> = definition
        .key
        .iter()
        .filter_map(|&k| (*places.get(usize::try_from(k).ok()?)?)?.into())
        .filter_map(|i: usize| table.columns.get(i))
        .map(|c| c.name.as_str())
        .collect();
    let key_here: Vec<&str> = match &table.key {
        TableKey::Columns(_) => table.key_names(),
        TableKey::Rowid(_) => Vec::new(),
    };
    if key_there.len() != key_here.len()
        || definition.key.len() != key_here.len()
        || key_there
            .iter()
            .zip(&key_here)
            .any(|(a, b)| !a.eq_ignore_ascii_case(b))
    {
        return Gate::Closed(format!(
            "table \"{name}\" has another primary key on node {from} ({}) than here ({}): give it the same on all nodes",
            key_of_message.collect::<Vec<_>>().join(", "),
            key_here.join(", ")
        ));
    }
    let exact = here.log.is_empty() || !live;
    let (named, gone) = match uniques(here, definition, exact, live) {
        Ok(found) => found,
        Err(reason) => {
            return Gate::Closed(format!(
                "node {from} writes table \"{}\" under {reason}",
                table.name
            ));
        }
    };
    let mut plan = plan(here, definition, &places, named);
    plan.gone_uniques = gone;
    plan.origin = origin.clone();
    plan.former = former;
    plan.own = fit == Fit::Own && !plan.kept.is_empty();
    Gate::Open(Arc::new(plan))
}

/// For each UNIQUE index here whether the batch was made under it, and those that it was made under and that are gone here. `exact`: they must be the same; `live`: former names
/// count.
///
/// # Errors
/// What is lacking, and what to do.
fn uniques(
    captured: &CapturedTable,
    definition: &TableDefinition,
    exact: bool,
    live: bool,
) -> Result<(Vec<bool>, Vec<UniqueIndex>), String> {
    let table = &captured.table;
    let here = table.unique_definitions();
    // An index whose columns were renamed is the same index.
    let named_here = |u: &String| {
        let named = live.then(|| unique_in_names_here(captured, u)).flatten();
        named
            .filter(|n| here.contains(n))
            .unwrap_or_else(|| u.clone())
    };
    let there: Vec<String> = definition.uniques.iter().map(named_here).collect();
    let mut gone = Vec::new();
    for lacking in there.iter().filter(|u| !here.contains(u)) {
        let known = !exact && captured.formerly.had_unique(lacking);
        match known
            .then(|| dropped_index(table, &captured.formerly, lacking))
            .flatten()
        {
            Some(index) => gone.push(index),
            None => {
                return Err(format!(
                    "a UNIQUE index on {lacking}, which is not here: create it on this node too (it can be dropped when what was written under it has been applied)"
                ));
            }
        }
    }
    let named: Vec<bool> = table
        .uniques
        .iter()
        .map(|u| there.contains(&u.definition()))
        .collect();
    let extra = table.uniques.iter().zip(&named).find(|(_, named)| !**named);
    match extra {
        Some((extra, _)) if exact => Err(format!(
            "no UNIQUE index on {}, which is here: drop it on this node, or add it on all while nothing is written",
            extra.definition()
        )),
        _ => Ok((named, gone)),
    }
}

fn plan(
    here: &CapturedTable,
    origin: &TableDefinition,
    places: &[Option<usize>],
    named: Vec<bool>,
) -> Plan {
    let table = &here.table;
    let columns: Vec<usize> = places.iter().flatten().copied().collect();
    let definition = &in_names_here(table, origin, places);
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
    let insert = format!(
        "INSERT INTO {on} AS here({}) VALUES({})",
        names.join(", "),
        params.join(", ")
    );
    Plan {
        // Not under its own name: a table that is called "excluded" would hide the row that comes in.
        upsert: format!("{insert} ON CONFLICT({target}) DO {conflict}"),
        insert,
        select: format!(
            "SELECT {} FROM {on} WHERE {}",
            names.join(", "),
            row_sql::key_is(table, 1)
        ),
        select_here: row_sql::select_whole(table),
        delete: row_sql::delete(table),
        has_more: table.columns.len() > definition.columns.len(),
        kept: if columns.len() == places.len() {
            Vec::new()
        } else {
            places.iter().map(Option::is_some).collect()
        },
        named,
        gone_uniques: Vec::new(),
        former: None,
        own: false,
        origin: origin.clone(),
        definition: definition.clone(),
        table: here.clone(),
        columns,
        key_at,
    }
}

/// The message's definition in the names here, without the columns that are not here.
fn in_names_here(
    table: &Table,
    origin: &TableDefinition,
    places: &[Option<usize>],
) -> TableDefinition {
    let name_of = |(name, place): (&String, &Option<usize>)| {
        let here = table.columns.get((*place)?)?;
        // What only differs in case stays as the message has it.
        Some(if here.name.eq_ignore_ascii_case(name) {
            name.clone()
        } else {
            here.name.clone()
        })
    };
    let kept_before = |k: u64| {
        let before = usize::try_from(k).unwrap_or(usize::MAX);
        places.iter().take(before).flatten().count() as u64
    };
    TableDefinition {
        name: table.name.clone(),
        columns: origin
            .columns
            .iter()
            .zip(places)
            .filter_map(name_of)
            .collect(),
        key: origin.key.iter().map(|&k| kept_before(k)).collect(),
        uniques: origin.uniques.clone(),
    }
}

/// A UNIQUE index's definition in the names that its columns have here, where it is on columns alone that are here.
#[must_use]
pub fn unique_in_names_here(captured: &CapturedTable, definition: &str) -> Option<String> {
    plain_index(&captured.table, &captured.formerly, definition).map(|i| i.definition())
}

/// The index that a definition is of, where it is on columns alone that are here; see [`UniqueIndex::definition`].
pub(crate) fn plain_index(
    table: &Table,
    formerly: &Formerly,
    definition: &str,
) -> Option<UniqueIndex> {
    let mut rest = definition.strip_prefix('(')?;
    let mut terms = Vec::new();
    loop {
        let (name, behind) = quoted(rest)?;
        let column = table.column(&name).or_else(|| {
            let now = formerly.column(&name)??;
            table.column(now)
        })?;
        let behind = behind.strip_prefix(" COLLATE ")?;
        let end = behind.find([',', ')'])?;
        let (collation, behind) = behind.split_at_checked(end)?;
        terms.push(IndexTerm {
            column: Some(column),
            sql: quote(&table.columns.get(column)?.name),
            collation: collation.to_owned(),
        });
        match behind.strip_prefix(", ") {
            Some(more) => rest = more,
            // A WHERE clause would follow.
            None if behind == ")" => break,
            None => return None,
        }
    }
    Some(UniqueIndex {
        name: definition.to_owned(),
        terms,
        predicate: None,
    })
}
