//! Writing single rows, so that the application's triggers that fire here see what really happens to them.
//!
//! Invariants:
//! - a table without such triggers is written by one statement a row;
//! - with them, a row that is here is updated and one that is not is inserted (an upsert would fire the insert triggers in both cases), only columns that change are
//!   set, and no conflict clause of ours overrides those in the triggers;
//! - a trigger that fails, or that would have the row ignored, keeps no row from being written: that is written without it, and the trigger is named.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode};

use super::plan::Plan;
use super::rows::{self, LastStatement};
use crate::capture::app_triggers::TriggerCopy;
use crate::capture::app_triggers::effects::{is_of_the_trigger, said};
use crate::change::table::TableKey;
use crate::change::value::{OwnedValue, Value};
use crate::sqlite::error::{Doing, Fault, SqliteError, fault_of};
use crate::sqlite::ident::quote;
use crate::sqlite::row_sql;

/// Writes a row once; whether it is as it should be.
type Write<'w> = &'w dyn Fn() -> rusqlite::Result<bool>;

/// Inserts a whole row, or changes the one that is here.
///
/// # Errors
/// SQLite's: a constraint of the row's own, above all.
pub fn whole<'c>(
    conn: &'c Connection,
    last: &mut LastStatement<'c>,
    plan: &Plan,
    key: &[Value<'_>],
    values: &[Value<'_>],
) -> rusqlite::Result<()> {
    if plan.table.fires.is_empty() {
        return last.execute(conn, &plan.upsert, values).map(drop);
    }
    let offset = usize::from(plan.definition.key.is_empty());
    let columns: Vec<usize> = (0..plan.definition.columns.len())
        .filter(|c| plan.table.table.key_is_loose() || !plan.definition.key.contains(&(*c as u64)))
        .collect();
    let cells: Vec<Value<'_>> = columns
        .iter()
        .filter_map(|c| values.get(c + offset).copied())
        .collect();
    firing(
        conn,
        plan,
        &|| match change(conn, plan, key, &columns, &cells)? {
            Some(done) => Ok(done),
            None => Ok(rows::execute(conn, &plan.insert, values)? > 0),
        },
    )
}

/// Changes columns (positions in the message) of a row, if it is here.
///
/// # Errors
/// SQLite's.
pub fn cells(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
    columns: &[usize],
    cells: &[Value<'_>],
) -> rusqlite::Result<()> {
    if plan.table.fires.is_empty() {
        return update(conn, plan, key, columns, cells).map(drop);
    }
    firing(conn, plan, &|| {
        Ok(change(conn, plan, key, columns, cells)?.unwrap_or(true))
    })
}

/// Deletes a row, if it is here.
///
/// # Errors
/// SQLite's.
pub fn delete(conn: &Connection, plan: &Plan, key: &[Value<'_>]) -> rusqlite::Result<()> {
    let delete = || rows::execute(conn, &plan.delete, key);
    if plan.table.fires.is_empty() {
        return delete().map(drop);
    }
    firing(conn, plan, &|| {
        Ok(delete()? > 0 || rows::read(conn, &plan.select, key)?.is_none())
    })
}

/// Inserts a row that had stepped aside: the message's values, and of the columns that the message lacks what was there.
///
/// # Errors
/// SQLite's.
pub fn put_back(
    conn: &Connection,
    plan: &Plan,
    here: &[OwnedValue],
    values: &[Value<'_>],
) -> rusqlite::Result<()> {
    let table = &plan.table.table;
    let names = row_sql::whole_names(table);
    let params: Vec<String> = (1..=names.len()).map(|i| format!("?{i}")).collect();
    let mut all: Vec<Value<'_>> = here.iter().map(OwnedValue::as_value).collect();
    let offset = rows::offset_here(plan);
    for (i, column_here) in plan.columns.iter().enumerate() {
        if let (Some(slot), Some(v)) = (
            all.get_mut(column_here + offset),
            values.get(i + usize::from(plan.definition.key.is_empty())),
        ) {
            *slot = *v;
        }
    }
    let sql = format!(
        "INSERT INTO {}({}) VALUES({})",
        quote(&table.name),
        names.join(", "),
        params.join(", ")
    );
    firing(conn, plan, &|| Ok(rows::execute(conn, &sql, &all)? > 0))
}

/// Sets columns (positions here) of a row, unless a constraint is in the way; whether that was done.
///
/// # Errors
/// SQLite's.
pub fn try_update(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
    values: &[(usize, Value<'_>)],
) -> Result<bool, SqliteError> {
    let table = &plan.table.table;
    let sets: Vec<String> = values
        .iter()
        .enumerate()
        .filter_map(|(n, (c, _))| {
            Some(format!(
                "{} = ?{}",
                quote(&table.columns.get(*c)?.name),
                n + 1
            ))
        })
        .collect();
    let sql = format!(
        "UPDATE {} SET {} WHERE {}",
        quote(&table.name),
        sets.join(", "),
        row_sql::key_is(table, values.len() + 1)
    );
    let params: Vec<Value<'_>> = values
        .iter()
        .map(|(_, v)| *v)
        .chain(key.iter().copied())
        .collect();
    match firing(conn, plan, &|| Ok(rows::execute(conn, &sql, &params)? > 0)) {
        Ok(()) => Ok(true),
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => Ok(false),
        Err(e) => {
            Err(e).doing_with(|| format!("give a row of table \"{}\" its value back", table.name))
        }
    }
}

/// Deletes the rows of a condition, all of which are here.
///
/// # Errors
/// SQLite's.
pub fn delete_where(
    conn: &Connection,
    plan: &Plan,
    condition: &str,
    values: &[Value<'_>],
) -> rusqlite::Result<()> {
    let sql = format!("DELETE {condition}");
    firing(conn, plan, &|| Ok(rows::execute(conn, &sql, values)? > 0))
}

/// Sets those of these columns that are others in the row here; `None`: it is not here.
fn change(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
    columns: &[usize],
    cells: &[Value<'_>],
) -> rusqlite::Result<Option<bool>> {
    let Some(here) = rows::read(conn, &plan.select, key)? else {
        return Ok(None);
    };
    let offset = usize::from(matches!(plan.table.table.key, TableKey::Rowid(_)));
    let (columns, cells): (Vec<usize>, Vec<Value<'_>>) = columns
        .iter()
        .zip(cells)
        .filter(|(c, new)| {
            here.get(**c + offset)
                .is_none_or(|old| !old.as_value().same_bytes(new))
        })
        .map(|(c, new)| (*c, *new))
        .unzip();
    Ok(Some(
        columns.is_empty() || update(conn, plan, key, &columns, &cells)? > 0,
    ))
}

fn update(
    conn: &Connection,
    plan: &Plan,
    key: &[Value<'_>],
    columns: &[usize],
    cells: &[Value<'_>],
) -> rusqlite::Result<usize> {
    let mut values = cells.to_vec();
    values.extend_from_slice(key);
    rows::execute(conn, &plan.update(columns), &values)
}

/// Writes a row, with the triggers if they let it.
fn firing(conn: &Connection, plan: &Plan, write: Write<'_>) -> rusqlite::Result<()> {
    let fires = &plan.table.fires;
    let why = match attempt(conn, fires, write) {
        Ok(false) if !fires.is_empty() => "it has the row ignored".to_owned(),
        Ok(_) => return Ok(()),
        Err(e) if !fires.is_empty() && may_be_a_triggers(conn, plan, &e) => reason(&e),
        Err(e) => return Err(e),
    };
    // One may be to blame, or several.
    let single = fires.iter().map(std::slice::from_ref);
    let all = (fires.len() > 1).then_some(&fires[..]);
    for left_out in single.chain(all) {
        match without(conn, fires, left_out, write)? {
            Ok(true) => {
                left_out.iter().for_each(|copy| copy.failed(&why));
                return Ok(());
            }
            Ok(false) => {}
            Err(e) if left_out.len() < fires.len() && may_be_a_triggers(conn, plan, &e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Tries once. What triggers have done before one of them has the row ignored stays, unless it is undone.
fn attempt(
    conn: &Connection,
    fires: &[Arc<TriggerCopy>],
    write: Write<'_>,
) -> rusqlite::Result<bool> {
    if !fires.iter().any(|copy| copy.may_ignore) {
        return write();
    }
    conn.execute_batch("SAVEPOINT __harmonylite__row")?;
    let written = write();
    if !conn.is_autocommit() {
        if matches!(written, Ok(false)) {
            conn.execute_batch("ROLLBACK TO __harmonylite__row")?;
        }
        conn.execute_batch("RELEASE __harmonylite__row")?;
    }
    written
}

/// Tries while these of a table's triggers are switched off.
fn without(
    conn: &Connection,
    fires: &[Arc<TriggerCopy>],
    left_out: &[Arc<TriggerCopy>],
    write: Write<'_>,
) -> rusqlite::Result<rusqlite::Result<bool>> {
    for copy in left_out {
        copy.switch(conn, false)?;
    }
    let written = attempt(conn, fires, write);
    // Where the transaction has ended they are on again with its beginning.
    if !conn.is_autocommit() {
        for copy in left_out {
            copy.switch(conn, true)?;
        }
    }
    Ok(written)
}

/// Why a trigger has failed, for the log and for health: not what it says itself, in which there may be values of the row.
fn reason(error: &rusqlite::Error) -> String {
    let raised = matches!(error, rusqlite::Error::SqliteFailure(e, _) if e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_TRIGGER);
    if raised {
        "it refuses the row by RAISE (its message may hold values, and is not shown)".to_owned()
    } else {
        said(error)
    }
}

/// Whether a failure may come from a trigger: it is none of the machine's, and no collision of the row itself, which is to displace what is in its way.
fn may_be_a_triggers(conn: &Connection, plan: &Plan, error: &rusqlite::Error) -> bool {
    !conn.is_autocommit() && is_of_the_trigger(error) && !collides_itself(plan, error)
}

fn collides_itself(plan: &Plan, error: &rusqlite::Error) -> bool {
    let table = &plan.table.table;
    fault_of(error) == Fault::Unique
        && said(error)
            .strip_prefix("UNIQUE constraint failed: ")
            .is_some_and(|what| {
                what.strip_prefix(&table.name)
                    .is_some_and(|rest| rest.starts_with('.'))
                    || table
                        .uniques
                        .iter()
                        .any(|index| what == format!("index '{}'", index.name))
            })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trigger_says_itself_is_not_shown() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE TABLE t(a NOT NULL); CREATE TRIGGER x BEFORE INSERT ON t WHEN NEW.a = 1 BEGIN SELECT RAISE(ABORT, 'bad secret'); END",
        )
        .unwrap();
        let refused = conn.execute("INSERT INTO t VALUES(1)", []).unwrap_err();
        assert!(reason(&refused).contains("RAISE") && !reason(&refused).contains("secret"));
        let failed = conn.execute("INSERT INTO t VALUES(NULL)", []).unwrap_err();
        assert_eq!(reason(&failed), "NOT NULL constraint failed: t.a");
    }
}
