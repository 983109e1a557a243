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
    let mut run: Vec<Conflict> = Vec::new();
    while let Some(row) = rows.next().doing(READING)? {
        let cell = of_row(row).doing(READING)?;
        if run.last().is_some_and(|last| !same_place(last, &cell)) {
            out.extend(split(run.drain(..).rev()).into_iter().rev());
            if out.len() >= filter.limit {
                break;
            }
        }
        run.push(cell);
    }
    out.extend(split(run.into_iter().rev()).into_iter().rev());
    out.truncate(filter.limit);
    Ok(out)
}

/// The conflict with this number (that of any of its values), with its values.
///
/// # Errors
/// SQLite's.
pub fn find(conn: &Connection, id: i64) -> Result<Option<Conflict>, SqliteError> {
    let mut run: Vec<Conflict> = Vec::new();
    // Back to where the place begins, then on from there to where it ends.
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
            let fits = match run.last() {
                Some(last) => same_place(last, &cell),
                None => cell.id == id,
            };
            if !fits {
                break;
            }
            run.push(cell);
        }
        if !forward {
            run.reverse();
        }
    }
    let all = split(run.into_iter());
    Ok(all.into_iter().find(|c| (c.id..=c.last).contains(&id)))
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

/// Whether two values lost at the same place, for the same reason.
fn same_place(a: &Conflict, b: &Conflict) -> bool {
    a.position == b.position
        && a.table == b.table
        && a.key == b.key
        && a.reason == b.reason
        && a.losing_node == b.losing_node
        && a.winning_node == b.winning_node
}

/// Puts the values of one place together, in the order of the journal: a conflict ends where a column would lose twice in it.
fn split(run: impl Iterator<Item = Conflict>) -> Vec<Conflict> {
    let mut out: Vec<Conflict> = Vec::new();
    for cell in run {
        let name = cell.cells.first().map(|c| c.column.as_str());
        match out.last_mut() {
            Some(last) if last.cells.iter().all(|c| Some(c.column.as_str()) != name) => {
                last.last = cell.last;
                last.cells.extend(cell.cells);
            }
            _ => out.push(cell),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ddl;

    fn database(rows: &[(&str, &str, &str, &str, i64)]) -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        ddl::migrate(&conn).unwrap();
        for (time, table, key, column, position) in rows {
            conn.execute(
                "INSERT INTO __harmonylite__conflicts(time, table_name, key, column_name, losing_value, losing_node, winning_node, position, reason)
                 VALUES(?1, ?2, ?3, ?4, ?5, '2', '1', ?6, 'updated-here')",
                (time, table, key, column, column.to_uppercase(), position),
            )
            .unwrap();
        }
        conn
    }

    #[test]
    fn values_that_belong_together_are_one_conflict() {
        let conn = database(&[
            ("2026-01-01T00:00:00Z", "t", "1", "a", 5),
            ("2026-01-01T00:00:00Z", "t", "1", "b", 5),
            // The same row at the same place once more: no column loses twice in one conflict.
            ("2026-01-02T00:00:00Z", "t", "1", "a", 5),
            ("2026-01-03T00:00:00Z", "T", "1", "a", 6),
            ("2026-01-04T00:00:00Z", "u", "1", "a", 6),
        ]);
        let ids = |filter: Filter| -> Vec<i64> {
            list(&conn, &filter).unwrap().iter().map(|c| c.id).collect()
        };
        let all = Filter {
            limit: 100,
            ..Filter::default()
        };
        assert_eq!(ids(all.clone()), [5, 4, 3, 1]);
        assert_eq!(
            ids(Filter {
                limit: 2,
                ..all.clone()
            }),
            [5, 4]
        );
        assert_eq!(
            ids(Filter {
                limit: 0,
                ..all.clone()
            }),
            [0; 0]
        );
        let since = Some("2026-01-02T00:00:00Z".to_owned());
        assert_eq!(
            ids(Filter {
                since,
                ..all.clone()
            }),
            [5, 4, 3]
        );
        let table = Some("t".to_owned());
        assert_eq!(ids(Filter { table, ..all }), [4, 3, 1]);

        // By the number of any of its values, with the values.
        for id in [1, 2] {
            let found = find(&conn, id).unwrap().unwrap();
            assert_eq!(
                (found.id, found.last, found.columns()),
                (1, 2, vec!["a", "b"])
            );
            assert_eq!(
                found.cells[1].value,
                crate::change::value::OwnedValue::Text(b"B".to_vec().into())
            );
        }
        assert_eq!(find(&conn, 3).unwrap().unwrap().last, 3);
        assert!(find(&conn, 0).unwrap().is_none() && find(&conn, 6).unwrap().is_none());
    }
}
