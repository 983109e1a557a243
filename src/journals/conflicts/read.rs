//! Reading conflicts out of the journal.

use rusqlite::{Connection, Row};

use super::{Cell, Conflict};
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::value::from_sql;

/// Which conflicts to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this table only; case does not count, as in SQLite.
    pub table: Option<String>,
    /// Noticed at or after this time, RFC 3339 in UTC.
    pub since: Option<String>,
    /// At most so many, the newest.
    pub limit: usize,
}

/// Lists conflicts, the newest first, without their values.
///
/// # Errors
/// SQLite's.
pub fn list(conn: &Connection, filter: &Filter) -> Result<Vec<Conflict>, SqliteError> {
    let sql = format!(
        "SELECT {HEAD}, {}, NULL FROM __harmonylite__conflicts
         WHERE (?1 IS NULL OR table_name = ?1 COLLATE NOCASE) AND (?2 IS NULL OR time >= ?2) ORDER BY id DESC",
        restored(conn)?
    );
    let mut stmt = conn.prepare(&sql).doing(READING)?;
    let mut rows = stmt.query((&filter.table, &filter.since)).doing(READING)?;
    let mut out: Vec<Conflict> = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let cell = of_row(row).doing(READING)?;
        let full = out.len() >= filter.limit;
        match out.last_mut() {
            Some(newest) if belongs(newest, &cell) => prepend(newest, cell),
            _ if full => break,
            _ => out.push(cell),
        }
    }
    Ok(out)
}

/// The conflict with this number (that of any of its values), with its values.
///
/// # Errors
/// SQLite's.
pub fn find(conn: &Connection, id: i64) -> Result<Option<Conflict>, SqliteError> {
    let mut found: Option<Conflict> = None;
    // Back to its first value, then on from there to its last.
    for (sql, forward) in [
        ("id <= ?1 ORDER BY id DESC", false),
        ("id > ?1 ORDER BY id", true),
    ] {
        let sql = format!(
            "SELECT {HEAD}, {}, losing_value FROM __harmonylite__conflicts WHERE {sql}",
            restored(conn)?
        );
        let mut stmt = conn.prepare(&sql).doing(READING)?;
        let mut rows = stmt.query([id]).doing(READING)?;
        while let Some(row) = rows.next().doing(READING)? {
            let cell = of_row(row).doing(READING)?;
            match &mut found {
                None if !forward && cell.id == id => found = Some(cell),
                None => return Ok(None),
                Some(conflict) if !belongs(conflict, &cell) => break,
                Some(conflict) if forward => {
                    conflict.last = cell.last;
                    conflict.cells.extend(cell.cells);
                }
                Some(conflict) => prepend(conflict, cell),
            }
        }
        if found.is_none() {
            return Ok(None);
        }
    }
    Ok(found)
}

const HEAD: &str =
    "id, time, table_name, key, column_name, losing_node, winning_node, position, reason";
const READING: &str = "read the conflict journal";

/// The column that says when a value was written back; databases that no daemon of this version has opened yet lack it.
fn restored(conn: &Connection) -> Result<&'static str, SqliteError> {
    let there: bool = conn
        .query_row(
            "SELECT EXISTS(SELECT 1 FROM pragma_table_info('__harmonylite__conflicts') WHERE name = 'restored')",
            [],
            |r| r.get(0),
        )
        .doing(READING)?;
    Ok(if there { "restored" } else { "NULL" })
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<Conflict> {
    Ok(Conflict {
        id: row.get(0)?,
        last: row.get(0)?,
        time: row.get(1)?,
        table: row.get(2)?,
        key: row.get(3)?,
        losing_node: row.get(5)?,
        winning_node: row.get(6)?,
        position: row.get::<_, i64>(7)?.cast_unsigned(),
        reason: row.get(8)?,
        cells: vec![Cell {
            column: row.get(4)?,
            value: from_sql(row.get_ref(10)?).to_owned(),
            restored: row.get(9)?,
        }],
    })
}

/// Whether a value that stands beside a conflict in the journal is part of it. No column loses twice in one.
fn belongs(conflict: &Conflict, cell: &Conflict) -> bool {
    conflict.position == cell.position
        && conflict.table == cell.table
        && conflict.key == cell.key
        && conflict.reason == cell.reason
        && conflict.losing_node == cell.losing_node
        && conflict.winning_node == cell.winning_node
        && cell
            .cells
            .iter()
            .all(|new| conflict.cells.iter().all(|has| has.column != new.column))
}

/// Adds what stands before it in the journal.
fn prepend(conflict: &mut Conflict, earlier: Conflict) {
    conflict.id = earlier.id;
    conflict.time = earlier.time;
    conflict.cells.splice(0..0, earlier.cells);
}
