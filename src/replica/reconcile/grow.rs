//! The fold that a table is compared with begins with a snapshot, whose schema may be older than what was written since. Where a batch does not fit, its table is
//! made anew in that database, so that it does; the database here has folded the batch, so there is a schema that it fits.
//!
//! Invariant: only for a database of ours that is thrown away: nothing is guessed about an application's schema.

use std::borrow::Cow;
use std::time::Duration;

use rusqlite::Connection;

use super::names::{in_names_of, note_names};
use crate::apply::former_key::under_key_here;
use crate::apply::plan::{Fit, Gate, gate, plain_index};
use crate::capture::Captured;
use crate::capture::formerly::{Formerly, remember_key};
use crate::change::key::Collation;
use crate::change::table::{Table, TableKey, UniqueIndex};
use crate::codec::commit::{CommitRecord, TableDefinition};
use crate::replica::{Replica, ReplicaError};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{OWN_PREFIX, read_schema};
use crate::state::unsure::Unsure;

/// A column that a table of the fold was given: rows that nobody has written since have NULL there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    table: String,
    column: String,
}

impl Grown {
    /// Whether it is of this table.
    #[must_use]
    pub fn is_of(&self, table: &str) -> bool {
        self.table.eq_ignore_ascii_case(table)
    }

    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, table: &str, column: &str) -> bool {
        self.table.eq_ignore_ascii_case(table) && self.column.eq_ignore_ascii_case(column)
    }
}

/// Makes the tables of `fold` fit a batch. `like`: what is captured in the database that has folded it. `None` where that is not possible: the key is another, and nothing tells
/// which row is which under the key that the table has there.
///
/// # Errors
/// SQLite's; nothing is changed then.
pub fn grow(
    fold: &mut Replica,
    record: &CommitRecord,
    like: &Captured,
) -> Result<Option<Vec<Grown>>, ReplicaError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut grown = Vec::new();
    for definition in &record.tables {
        let closed = {
            let (filter, conn) = (&fold.filter, &fold.conn);
            let wanted = |t: &str| filter.wants(conn, t);
            let gate = gate(&fold.captured, &wanted, definition, record.node, Fit::Live);
            matches!(gate, Gate::Closed(_))
        };
        if !closed {
            continue;
        }
        // A table of that name in the fold is what is meant by it; else it may have been called so.
        let named = match fold.captured.table(&definition.name) {
            Some(_) => like.table(&definition.name),
            None => like.table_meant(&definition.name),
        };
        let definition = match named {
            Some(named) => Cow::Owned(in_names_of(definition, named)),
            None => Cow::Borrowed(definition),
        };
        let old = fold.captured.table(&definition.name).map(|t| &t.table);
        let like = named.map(|t| &t.table);
        // Where it has another key there, it was made under one of before: the table gets the one that it has there, and goes by both.
        let rekeyed = like.and_then(|like| under_key_of(like, &definition));
        let definition_here = rekeyed.as_ref().unwrap_or(&definition);
        let Some(made) = Remade::new(definition_here, old, like) else {
            return Ok(None);
        };
        let former: Vec<Formerly> = made
            .former
            .iter()
            .cloned()
            .chain(rekeyed.map(|_| Formerly::of_key(definition.key_names())))
            .collect();
        grown.extend(made.grown.clone());
        let done = fold.write(
            PATIENCE,
            &|| false,
            "commit a table that fits",
            |fold| -> Result<(), SqliteError> {
                fold.conn
                    .execute_batch(&made.sql)
                    .doing_with(|| format!("make table \"{}\" fit the stream", made.name))?;
                if let Some(named) = named {
                    note_names(&fold.conn, named)?;
                }
                for former in &former {
                    remember_key(&fold.conn, &made.name, former)?;
                }
                fold.refresh_capture_as(true)
            },
        )?;
        if done.is_none() {
            return Err(fold.locked());
        }
    }
    Ok(Some(grown))
}

/// A batch's definition under the key that the table has here, where that is another and the columns of both are in both.
fn under_key_of(like: &Table, definition: &TableDefinition) -> Option<TableDefinition> {
    let key: Vec<String> = key_of(like)?;
    let there: Vec<&str> = definition.key_names().collect();
    let same = there.len() == key.len()
        && key
            .iter()
            .zip(&there)
            .all(|(a, b)| a.eq_ignore_ascii_case(b));
    if same || definition.key.is_empty() {
        return None;
    }
    let places: Vec<Option<usize>> = definition.columns.iter().map(|c| like.column(c)).collect();
    let columns = |u: &str| plain_index(like, &Formerly::default(), u);
    under_key_here(like, definition, &places, &columns).map(|(definition, _)| definition)
}

/// The key's columns in lower case; `None`: the rowid.
fn key_of(table: &Table) -> Option<Vec<String>> {
    match table.key {
        TableKey::Rowid(_) => None,
        TableKey::Columns(_) => Some(
            table
                .key_names()
                .iter()
                .map(|k| k.to_ascii_lowercase())
                .collect(),
        ),
    }
}

/// Gives the tables of a fold the keys and column types that they have here, as far as the columns are there: so its rows are compared as the migration here has made them.
///
/// # Errors
/// SQLite's.
pub(super) fn fit(
    fold: &Connection,
    captured: &Captured,
    unsure: &[Unsure],
) -> Result<(), SqliteError> {
    let schema = read_schema(fold)?;
    for unsure in unsure {
        let (Some(here), Some(there)) =
            (captured.table(&unsure.table), schema.table(&unsure.table))
        else {
            continue;
        };
        let here = &here.table;
        let definition = TableDefinition::of(there);
        let rekeyed = under_key_of(here, &definition);
        let typed = there.columns.iter().any(|c| {
            let now = here.column(&c.name).and_then(|i| here.columns.get(i));
            now.is_some_and(|now| now.affinity != c.affinity)
        });
        if rekeyed.is_none() && (!typed || key_of(here) != key_of(there)) {
            continue;
        }
        let definition = rekeyed.unwrap_or(definition);
        if let Some(made) = Remade::typed(&definition, Some(there), Some(here), Some(here)) {
            fold.execute_batch(&format!("BEGIN; {} COMMIT", made.sql))
                .doing_with(|| {
                    format!(
                        "give table \"{}\" of the fold the key that it has here",
                        here.name
                    )
                })?;
        }
    }
    Ok(())
}

/// A table that is made anew.
struct Remade {
    name: String,
    sql: String,
    grown: Vec<Grown>,
    /// The key that it had before, where it was another.
    former: Option<Formerly>,
}

impl Remade {
    /// Without types: what the stream carries is stored as it is.
    fn new(
        definition: &TableDefinition,
        old: Option<&Table>,
        like: Option<&Table>,
    ) -> Option<Self> {
        Self::typed(definition, old, like, None)
    }

    /// With the types that the columns of a table have.
    fn typed(
        definition: &TableDefinition,
        old: Option<&Table>,
        like: Option<&Table>,
        types: Option<&Table>,
    ) -> Option<Self> {
        let key: Vec<&str> = definition
            .key
            .iter()
            .filter_map(|k| definition.columns.get(usize::try_from(*k).ok()?))
            .map(String::as_str)
            .collect();
        let names = |t: &Table| key_of(t).unwrap_or_default();
        let wanted: Vec<String> = key.iter().map(|k| k.to_ascii_lowercase()).collect();
        let another = old.filter(|t| names(t) != wanted);
        let told = |t: &Table| {
            key_of(t).is_some()
                && like.is_some_and(|l| names(l) == wanted)
                && !wanted.is_empty()
                && wanted.iter().all(|k| t.column(k).is_some())
        };
        if another.is_some_and(|t| !told(t)) {
            return None;
        }
        let pattern = old
            .filter(|_| another.is_none())
            .or(like)
            .filter(|t| names(t) == wanted);
        let mut columns: Vec<String> = definition.columns.clone();
        let mut common = Vec::new();
        for column in old.iter().flat_map(|t| &t.columns) {
            if !columns.iter().any(|c| c.eq_ignore_ascii_case(&column.name)) {
                columns.push(column.name.clone());
            }
            common.push(quote(&column.name));
        }
        let on = quote(&definition.name);
        let aside = quote(&format!("{OWN_PREFIX}aside"));
        let mut sql = String::new();
        let rowid = old.and_then(|t| match t.key {
            TableKey::Rowid(name) => Some(name),
            TableKey::Columns(_) => None,
        });
        let select = rowid
            .iter()
            .map(|name| format!("{name} AS {aside}"))
            .chain(common.iter().cloned())
            .collect::<Vec<_>>()
            .join(", ");
        if old.is_some() {
            sql.push_str(&format!(
                "CREATE TABLE {aside} AS SELECT {select} FROM {on}; DROP TABLE {on};"
            ));
        }
        sql.push_str(&create(&on, &columns, &key, pattern, types));
        if old.is_some() {
            let into: Vec<String> = rowid
                .iter()
                .map(|name| (*name).to_owned())
                .chain(common.iter().cloned())
                .collect();
            let from: Vec<String> = rowid
                .iter()
                .map(|_| aside.clone())
                .chain(common.iter().cloned())
                .collect();
            // Two rows that the key here cannot tell apart: as when the later of them is written last.
            let (or, has_key) = match another {
                Some(_) => {
                    let keys: Vec<String> = key
                        .iter()
                        .map(|k| format!("{} IS NOT NULL", quote(k)))
                        .collect();
                    (" OR REPLACE", format!(" WHERE {}", keys.join(" AND ")))
                }
                None => ("", String::new()),
            };
            sql.push_str(&format!(
                "INSERT{or} INTO {on}({}) SELECT {} FROM {aside}{has_key}; DROP TABLE {aside};",
                into.join(", "),
                from.join(", ")
            ));
        }
        for (n, text) in indexes(definition, old, like).iter().enumerate() {
            let name = quote(&format!("{OWN_PREFIX}{}_unique_{n}", definition.name));
            sql.push_str(&format!("CREATE UNIQUE INDEX {name} ON {on}{text};"));
        }
        let grown = definition
            .columns
            .iter()
            .filter(|c| old.is_some_and(|t| t.column(c).is_none()))
            .map(|c| Grown {
                table: definition.name.clone(),
                column: c.clone(),
            })
            .collect();
        Some(Self {
            name: definition.name.clone(),
            sql,
            grown,
            former: another.map(|t| Formerly::of_key(t.key_names().into_iter())),
        })
    }
}

/// The statement that makes a table `on` (quoted) of these columns, with this key or by rowid. `pattern`: a table with the same key, whose columns compare as its do. `types`: a
/// table whose columns' types they get; without one they have none, and what the stream carries is stored as it is.
pub(in crate::replica) fn create(
    on: &str,
    columns: &[String],
    key: &[&str],
    pattern: Option<&Table>,
    types: Option<&Table>,
) -> String {
    let integer_key = pattern.is_some_and(|t| t.integer_key);
    let declared: Vec<String> = columns
        .iter()
        .map(|c| {
            let alias = integer_key && key.iter().any(|k| k.eq_ignore_ascii_case(c));
            let typed = types.and_then(|t| t.columns.get(t.column(c)?));
            format!(
                "{} {}",
                quote(c),
                if alias {
                    "INTEGER PRIMARY KEY"
                } else {
                    typed.map_or("", |c| c.affinity.declared())
                }
            )
        })
        .collect();
    let mut body = declared.join(", ");
    if !integer_key && !key.is_empty() {
        let collations = pattern.map(Table::key_collations).unwrap_or_default();
        let parts: Vec<String> = key
            .iter()
            .enumerate()
            .map(|(i, k)| {
                let collation = collations.get(i).copied().unwrap_or(Collation::Binary);
                format!("{} COLLATE {}", quote(k), collation.name())
            })
            .collect();
        body.push_str(&format!(", PRIMARY KEY({})", parts.join(", ")));
    }
    format!("CREATE TABLE {on}({body});")
}

/// The UNIQUE indexes of a batch's table, as they are written: from a table that has them, since a definition does not tell an expression's own
/// parentheses from ours.
fn indexes(definition: &TableDefinition, old: Option<&Table>, like: Option<&Table>) -> Vec<String> {
    let same = [old, like]
        .into_iter()
        .flatten()
        .find(|t| t.unique_definitions() == definition.uniques);
    same.map_or_else(
        || definition.uniques.clone(),
        |table| table.uniques.iter().map(index_as_written).collect(),
    )
}

/// A UNIQUE index's terms and condition, as they stand in a statement that makes it.
pub(in crate::replica) fn index_as_written(index: &UniqueIndex) -> String {
    let terms: Vec<String> = index
        .terms
        .iter()
        .map(|t| {
            let text = if t.column.is_none() {
                t.sql
                    .strip_prefix('(')
                    .and_then(|s| s.strip_suffix(')'))
                    .unwrap_or(&t.sql)
            } else {
                &t.sql
            };
            format!("{text} COLLATE {}", t.collation)
        })
        .collect();
    match &index.predicate {
        Some(p) => format!("({}) WHERE {p}", terms.join(", ")),
        None => format!("({})", terms.join(", ")),
    }
}
