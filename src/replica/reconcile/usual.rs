//! Which values of a column that the fold does not know are no news: a migration has put them there, on each node for itself.
//!
//! A node that migrates late would otherwise send its rows' first values over what others have written to the column since.

use rusqlite::Connection;

use crate::change::table::{Affinity, Column, Table};
use crate::change::value::OwnedValue;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::value::from_sql;

/// The value that the column's default gives; where it has none, the one that more than half of the rows have (a migration may fill a column in and drop
/// its default), and NULL.
///
/// # Errors
/// SQLite's.
pub fn values(
    conn: &Connection,
    table: &Table,
    column: &Column,
) -> Result<Vec<OwnedValue>, SqliteError> {
    if let Some(default) = &column.default {
        return Ok(of_default(default, column.affinity).into_iter().collect());
    }
    let most = of_most(conn, table, column)?;
    Ok([OwnedValue::Null].into_iter().chain(most).collect())
}

/// What a DEFAULT clause gives, as the column stores it; `None` where it is not the same each time, or not to be had without the application.
fn of_default(default: &str, affinity: Affinity) -> Option<OwnedValue> {
    let declared = affinity.declared();
    let conn = Connection::open_in_memory().ok()?;
    conn.execute_batch(&format!(
        "CREATE TABLE d(id INTEGER PRIMARY KEY, v {declared} DEFAULT ({default})); INSERT INTO d(id) VALUES(1), (2)"
    ))
    .ok()?;
    let read = |id: i64| {
        conn.query_row("SELECT v FROM d WHERE id = ?1", [id], |r| {
            r.get_ref(0).map(|v| from_sql(v).to_owned())
        })
        .ok()
    };
    let (first, second) = (read(1)?, read(2)?);
    (first == second).then_some(first)
}

fn of_most(
    conn: &Connection,
    table: &Table,
    column: &Column,
) -> Result<Option<OwnedValue>, SqliteError> {
    let name = quote(&column.name);
    let sql = format!(
        "SELECT {name}, count(*), sum(count(*)) OVER () FROM {} GROUP BY typeof({name}), {name} COLLATE BINARY ORDER BY 2 DESC LIMIT 1",
        quote(&table.name)
    );
    let doing = || format!("look for the usual value of column \"{}\"", column.name);
    let mut stmt = conn.prepare(&sql).doing_with(doing)?;
    let mut rows = stmt.query([]).doing_with(doing)?;
    let Some(row) = rows.next().doing_with(doing)? else {
        return Ok(None);
    };
    let (most, all): (i64, i64) = (row.get(1).doing_with(doing)?, row.get(2).doing_with(doing)?);
    Ok((2 * most > all).then_some(from_sql(row.get_ref(0).doing_with(doing)?).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::introspect::read_schema;

    fn usual(sql: &str) -> Vec<OwnedValue> {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(sql).unwrap();
        let schema = read_schema(&conn).unwrap();
        let table = schema.table("t").unwrap();
        let column = table.columns.last().unwrap();
        values(&conn, table, column).unwrap()
    }

    #[test]
    fn the_default_as_it_is_stored_and_the_value_of_most_rows() {
        assert_eq!(
            usual("CREATE TABLE t(id INTEGER PRIMARY KEY, w TEXT DEFAULT 7)"),
            [OwnedValue::Text(b"7".as_slice().into())]
        );
        let filled = "CREATE TABLE t(id INTEGER PRIMARY KEY, w REAL NOT NULL); INSERT INTO t VALUES(1, 2), (2, 2), (3, 5)";
        assert_eq!(usual(filled), [OwnedValue::Null, OwnedValue::Real(2.0)]);
        // 1 and 1.0 are two values, and neither is that of most rows.
        let mixed =
            "CREATE TABLE t(id INTEGER PRIMARY KEY, w); INSERT INTO t VALUES(1, 1), (2, 1.0)";
        assert_eq!(usual(mixed), [OwnedValue::Null]);
    }

    #[test]
    fn a_default_that_differs_from_row_to_row_is_none() {
        assert_eq!(
            usual("CREATE TABLE t(id INTEGER PRIMARY KEY, w DEFAULT (hex(randomblob(8))))"),
            []
        );
    }
}
