//! The fold that a table is compared with begins with a snapshot, whose schema may be older than what was written since. Where a batch does not fit, its table is
//! made anew in that database, so that it does; the database here has folded the batch, so there is a schema that it fits.
//!
//! Invariant: only for a database of ours that is thrown away: nothing is guessed about an application's schema.

use std::time::Duration;

use crate::apply::plan::{Fit, Gate, gate};
use crate::change::key::Collation;
use crate::change::table::{Table, TableKey, UniqueIndex};
use crate::codec::commit::{CommitRecord, TableDefinition};
use crate::replica::{Replica, ReplicaError};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::OWN_PREFIX;

/// A column that a table of the fold was given: rows that nobody has written since have NULL there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    table: String,
    column: String,
}

impl Grown {
    /// Whether it is this one.
    #[must_use]
    pub fn is(&self, table: &str, column: &str) -> bool {
        self.table.eq_ignore_ascii_case(table) && self.column.eq_ignore_ascii_case(column)
    }
}

/// Makes the tables of `fold` fit a batch. `like`: the tables of the database that has folded it. `None` where that is not possible: the key is another.
///
/// # Errors
/// SQLite's; nothing is changed then.
pub fn grow(
    fold: &mut Replica,
    record: &CommitRecord,
    like: &[Table],
) -> Result<Option<Vec<Grown>>, ReplicaError> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut grown = Vec::new();
    for definition in &record.tables {
        let closed = {
            let (filter, conn) = (&fold.filter, &fold.conn);
            let wanted = |t: &str| filter.wants(conn, t);
            let gate = gate(&fold.captured, &wanted, definition, record.node, Fit::Exact);
            matches!(gate, Gate::Closed(_))
        };
        if !closed {
            continue;
        }
        let old = fold.captured.table(&definition.name).map(|t| &t.table);
        let like = like
            .iter()
            .find(|t| t.name.eq_ignore_ascii_case(&definition.name));
        let Some(made) = Remade::new(definition, old, like) else {
            return Ok(None);
        };
        grown.extend(made.grown.clone());
        let done = fold.write(
            PATIENCE,
            &|| false,
            "commit a table that fits",
            |fold| -> Result<(), SqliteError> {
                fold.conn
                    .execute_batch(&made.sql)
                    .doing_with(|| format!("make table \"{}\" fit the stream", made.name))?;
                fold.refresh_capture_as(true)
            },
        )?;
        if done.is_none() {
            return Err(fold.locked());
        }
    }
    Ok(Some(grown))
}

/// A table that is made anew.
struct Remade {
    name: String,
    sql: String,
    grown: Vec<Grown>,
}

impl Remade {
    fn new(
        definition: &TableDefinition,
        old: Option<&Table>,
        like: Option<&Table>,
    ) -> Option<Self> {
        let key: Vec<&str> = definition
            .key
            .iter()
            .filter_map(|k| definition.columns.get(usize::try_from(*k).ok()?))
            .map(String::as_str)
            .collect();
        let by_rowid = |t: &Table| matches!(t.key, TableKey::Rowid(_));
        let names = |t: &Table| -> Vec<String> {
            if by_rowid(t) {
                return Vec::new();
            }
            t.key_names()
                .iter()
                .map(|k| k.to_ascii_lowercase())
                .collect()
        };
        let wanted: Vec<String> = key.iter().map(|k| k.to_ascii_lowercase()).collect();
        if old.is_some_and(|t| names(t) != wanted) {
            return None;
        }
        let pattern = old.or(like).filter(|t| names(t) == wanted);
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
        // No types: what the stream carries is stored as it is.
        let integer_key = pattern.is_some_and(|t| t.integer_key);
        let declared: Vec<String> = columns
            .iter()
            .map(|c| {
                let alias = integer_key && key.iter().any(|k| k.eq_ignore_ascii_case(c));
                format!(
                    "{}{}",
                    quote(c),
                    if alias { " INTEGER PRIMARY KEY" } else { "" }
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
        sql.push_str(&format!("CREATE TABLE {on}({body});"));
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
            sql.push_str(&format!(
                "INSERT INTO {on}({}) SELECT {} FROM {aside}; DROP TABLE {aside};",
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
        })
    }
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
        |table| table.uniques.iter().map(written).collect(),
    )
}

fn written(index: &UniqueIndex) -> String {
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
