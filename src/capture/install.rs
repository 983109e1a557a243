//! Installs capture and keeps it current: compares the objects that should be there with those that are ([`Prepared`]), and mends the difference in
//! one transaction.
//!
//! Invariants: a table's change log and its triggers appear together; a change of columns begins a new generation. Rows that are there when the first capture
//! is installed are taken to be equal on all nodes. In the database of a cluster any other rows that were written without capture make their table
//! one that is not certain ([`unsure`](crate::state::unsure)), which is then compared with the fold; elsewhere a table that appears later has all its rows logged.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::Connection;

use super::captured::{Captured, CapturedTable};
use super::known::{KnownTable, StoredObject, has_known, read_known, read_objects};
use super::prepare::Prepared;
use super::{layout, triggers};
use crate::change::operation::{ChangeKind, ColumnMask};
use crate::change::table::Table;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect::{Familiar, Schema, read_schema_again};

/// Tables that were captured here, are in the schema no more, and were not renamed: by all names that they had.
pub(super) fn dropped(known: &HashMap<String, KnownTable>, schema: &Schema) -> BTreeSet<String> {
    let here: HashSet<String> = schema
        .tables
        .iter()
        .map(|t| &t.name)
        .chain(schema.refused.iter().map(|(t, _)| t))
        .map(|t| t.to_ascii_lowercase())
        .collect();
    let is_here = |name: &str| here.contains(&name.to_ascii_lowercase());
    known
        .iter()
        .filter(|(name, _)| !is_here(name))
        .flat_map(|(name, known)| std::iter::once(name.as_str()).chain(known.formerly.tables()))
        .filter(|name| !is_here(name))
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Which tables are wanted.
pub type TableFilter<'a> = &'a dyn Fn(&str) -> bool;

/// The tables as they would be captured, without capturing them: `publish = false` still applies what others write.
///
/// # Errors
/// SQLite's.
pub fn describe_only(
    conn: &Connection,
    wanted: TableFilter<'_>,
    familiar: &mut Familiar,
) -> Result<Captured, SqliteError> {
    let schema = read_schema_again(conn, familiar)?;
    // Of a time when it published.
    let known = if has_known(conn)? {
        read_known(conn)?
    } else {
        HashMap::new()
    };
    let dropped = dropped(&known, &schema);
    let (refused, warnings) = schema.concerns(wanted);
    let tables = schema
        .tables
        .into_iter()
        .filter(|t| wanted(&t.name))
        .map(|table| CapturedTable {
            generation: 0,
            log: String::new(),
            notes: None,
            former: None,
            formerly: known
                .get(&table.name.to_ascii_lowercase())
                .map(|k| k.formerly.clone())
                .unwrap_or_default(),
            former_key: ColumnMask::default(),
            former_logged: Vec::new(),
            fires: Vec::new(),
            turn: 0,
            table,
        })
        .collect();
    Ok(Captured {
        schema_version: crate::sqlite::connection::schema_version(conn)?,
        tables,
        warnings,
        refused,
        dropped,
        virtual_tables: schema.virtual_tables,
        ..Captured::default()
    })
}

/// Of each table, whether its capture is as it should be, and how many changes are pending in its change log; `None` where it has none.
///
/// # Errors
/// SQLite's.
pub fn look_at<'t>(
    conn: &Connection,
    tables: impl IntoIterator<Item = &'t Table>,
) -> Result<Vec<Option<(bool, u64)>>, SqliteError> {
    let there = read_objects(conn)?;
    // Of a database that was never replicated nothing is known.
    let known = if has_known(conn)? {
        read_known(conn)?
    } else {
        HashMap::new()
    };
    let tables = tables.into_iter();
    tables
        .map(|table| look_at_one(conn, table, &there, &known))
        .collect()
}

fn look_at_one(
    conn: &Connection,
    table: &Table,
    there: &HashMap<String, StoredObject>,
    known: &HashMap<String, KnownTable>,
) -> Result<Option<(bool, u64)>, SqliteError> {
    if !there.contains_key(&layout::change_log(&table.name).to_ascii_lowercase()) {
        return Ok(None);
    }
    let generation = known
        .get(&table.name.to_ascii_lowercase())
        .map_or(0, |k| k.generation);
    let current = triggers::triggers(table, generation).iter().all(|o| {
        there
            .get(&o.name.to_ascii_lowercase())
            .is_some_and(|t| t.sql == o.sql)
    });
    let pending = format!(
        "SELECT count(*) FROM {} WHERE type <> {}",
        quote(&layout::change_log(&table.name)),
        ChangeKind::Done.code()
    );
    let pending: i64 = conn
        .query_row(&pending, [], |r| r.get(0))
        .doing_with(|| format!("count the pending changes of table \"{}\"", table.name))?;
    Ok(Some((current, pending.cast_unsigned())))
}

/// Makes capture current. Call it inside a write transaction, after the state tables exist. `first`: nothing was ever captured here.
///
/// # Errors
/// SQLite's.
pub fn refresh(
    conn: &Connection,
    wanted: TableFilter<'_>,
    first: bool,
) -> Result<Captured, SqliteError> {
    Prepared::read(conn, wanted, first, &mut Familiar::default())?.carry_out(conn)
}
