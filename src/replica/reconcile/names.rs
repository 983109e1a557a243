//! The fold of a table in the names that it has here: a snapshot, and batches of before, may know it and its columns by former ones.
//!
//! Invariant: as in [`super::grow`], only for a database of ours that is thrown away.

use std::path::Path;

use rusqlite::Connection;

use crate::apply::plan::unique_in_names_here;
use crate::capture::formerly::Formerly;
use crate::capture::{Captured, CapturedTable, kept_names, note_formerly};
use crate::change::table::Table;
use crate::codec::commit::TableDefinition;
use crate::replica::absent;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::introspect;

const DOING: &str = "give the tables of the fold the names that they have here";

/// Gives tables of a snapshot, which is to be folded on, the names that they and their columns have in `here`; those of them that its taker had dropped come back. Their
/// former names are noted there, by which batches of before find them. Returns which of them the snapshot has.
///
/// # Errors
/// SQLite's.
pub fn name_as_here<'t>(
    fold: &Path,
    here: &Captured,
    tables: impl IntoIterator<Item = &'t str>,
) -> Result<Vec<String>, SqliteError> {
    let mut had = Vec::new();
    let fold = connection::open_writer(fold)?;
    forget_the_rest(&fold)?;
    let kept = kept_names(&fold)?;
    for name in tables {
        let Some(table) = here.table(name) else {
            continue;
        };
        let was = take_name(&fold, here, table, &kept)?;
        let there = introspect::read_schema(&fold)?;
        if let Some(there) = there.table(name) {
            let theirs = kept.iter().find(|(t, _)| was.eq_ignore_ascii_case(t));
            rename_columns(&fold, table, there, theirs.map(|(_, names)| names))?;
            note_names(&fold, table)?;
            had.push(name.to_owned());
        }
    }
    Ok(had)
}

/// Notes in the fold what a table of it was called.
pub(super) fn note_names(fold: &Connection, table: &CapturedTable) -> Result<(), SqliteError> {
    note_formerly(fold, &table.table.name, &table.formerly.names_only())
}

/// Names by which batches may mean a table.
pub fn names_of(table: &CapturedTable) -> impl Iterator<Item = &str> {
    std::iter::once(table.table.name.as_str()).chain(table.formerly.tables())
}

/// What a batch means by a table's definition, in the names that the table has in `here`.
pub(super) fn in_names_of(definition: &TableDefinition, here: &CapturedTable) -> TableDefinition {
    let mut out = TableDefinition {
        name: here.table.name.clone(),
        columns: Vec::new(),
        key: Vec::new(),
        uniques: definition
            .uniques
            .iter()
            .map(|u| unique_in_names_here(here, u).unwrap_or_else(|| u.clone()))
            .collect(),
    };
    let has = |name: &str| {
        definition
            .columns
            .iter()
            .any(|c| c.eq_ignore_ascii_case(name))
    };
    let mut places = Vec::new();
    for (i, column) in definition.columns.iter().enumerate() {
        let in_key = definition.key.contains(&(i as u64));
        let name = match here.formerly.column(column) {
            _ if here.table.column(column).is_some() => Some(column.as_str()),
            Some(Some(now)) if !has(now) => Some(now),
            Some(None) if !in_key => None,
            _ => Some(column.as_str()),
        };
        places.push(name.map(|_| out.columns.len() as u64));
        out.columns.extend(name.map(str::to_owned));
    }
    let place = |k: &u64| *places.get(usize::try_from(*k).ok()?)?;
    out.key = definition.key.iter().filter_map(place).collect();
    out
}

/// Views and triggers of the application name tables and columns, and are of no use here.
fn forget_the_rest(fold: &Connection) -> Result<(), SqliteError> {
    fold.execute_batch("PRAGMA legacy_alter_table = ON")
        .doing(DOING)?;
    for kind in ["trigger", "view"] {
        let names: Vec<String> = fold
            .prepare("SELECT name FROM main.sqlite_schema WHERE type = ?1")
            .and_then(|mut s| s.query_map([kind], |r| r.get(0))?.collect())
            .doing(DOING)?;
        for name in names {
            fold.execute_batch(&format!("DROP {kind} {}", quote(&name)))
                .doing(DOING)?;
        }
    }
    Ok(())
}

/// Gives a table of the fold the name that it has here; what it was called there.
fn take_name(
    fold: &Connection,
    here: &Captured,
    table: &CapturedTable,
    kept: &[(String, Formerly)],
) -> Result<String, SqliteError> {
    let there = introspect::read_schema(fold)?;
    let now = &table.table.name;
    if there.table(now).is_some() || absent::bring_back(fold, now, now)? {
        return Ok(now.clone());
    }
    // Renamed here, or by the snapshot's taker and not here yet.
    let ahead = kept
        .iter()
        .filter(|(theirs, names)| names.was_called(now) && here.table_meant(theirs).is_none())
        .map(|(theirs, _)| theirs.as_str());
    for before in table.formerly.tables().chain(ahead) {
        if let Some(there) = there.table(before) {
            fold.execute_batch(&format!(
                "ALTER TABLE {} RENAME TO {}",
                quote(&there.name),
                quote(now)
            ))
            .doing(DOING)?;
            return Ok(before.to_owned());
        }
        if absent::bring_back(fold, before, now)? {
            return Ok(before.to_owned());
        }
    }
    Ok(now.clone())
}

fn rename_columns(
    fold: &Connection,
    table: &CapturedTable,
    there: &Table,
    theirs: Option<&Formerly>,
) -> Result<(), SqliteError> {
    let mut taken: Vec<String> = there
        .columns
        .iter()
        .map(|c| c.name.to_ascii_lowercase())
        .collect();
    let is_here = |name: &str| table.table.column(name).is_some();
    let ahead = theirs
        .into_iter()
        .flat_map(Formerly::renamed_columns)
        .filter(|(before, now)| is_here(before) && !is_here(now))
        .map(|(before, now)| (now, before));
    for (before, now) in table.formerly.renamed_columns().chain(ahead) {
        let lower = now.to_ascii_lowercase();
        if there.column(before).is_none() || taken.contains(&lower) {
            continue;
        }
        fold.execute_batch(&format!(
            "ALTER TABLE {} RENAME COLUMN {} TO {}",
            quote(&there.name),
            quote(before),
            quote(now)
        ))
        .doing(DOING)?;
        taken.push(lower);
        taken.retain(|name| !name.eq_ignore_ascii_case(before));
    }
    Ok(())
}
