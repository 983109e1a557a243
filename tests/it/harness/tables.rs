//! Tables compared to the bit: storage class and bytes of each value.

use std::collections::BTreeMap;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// A value as SQLite stores it. Reals by their bits: -0.0 is not 0.0.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    Null,
    Integer(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// The rows of each table of the app, sorted.
pub type Dump = BTreeMap<String, Vec<Vec<Cell>>>;

/// Names of the app's ordinary tables.
pub fn names(conn: &Connection) -> Vec<String> {
    conn.prepare("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT GLOB '__harmonylite__*' AND name NOT GLOB 'sqlite_*' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// All of the app's tables, as of one moment.
pub fn dump(conn: &Connection) -> Dump {
    conn.execute_batch("BEGIN").unwrap();
    let all = names(conn)
        .into_iter()
        .map(|table| {
            let quoted = table.replace('"', "\"\"");
            let rows = rows(conn, &format!("SELECT * FROM \"{quoted}\""));
            (table, rows)
        })
        .collect();
    conn.execute_batch("COMMIT").unwrap();
    all
}

/// The rows of a query, sorted.
pub fn rows(conn: &Connection, sql: &str) -> Vec<Vec<Cell>> {
    let mut statement = conn
        .prepare(sql)
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let mut found = statement.query([]).unwrap();
    let mut rows = Vec::new();
    while let Some(row) = found.next().unwrap() {
        rows.push(
            (0..columns)
                .map(|column| cell(row.get_ref_unwrap(column)))
                .collect::<Vec<_>>(),
        );
    }
    rows.sort();
    rows
}

pub fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Real(number) => Cell::Real(number.to_bits()),
        ValueRef::Text(bytes) => Cell::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
    }
}

/// Where two dumps differ, for people.
pub fn difference(left: &Dump, right: &Dump) -> Option<String> {
    if left == right {
        return None;
    }
    let mut text = String::new();
    for table in left
        .keys()
        .chain(right.keys().filter(|name| !left.contains_key(*name)))
    {
        let (a, b) = (left.get(table), right.get(table));
        if a == b {
            continue;
        }
        let (a, b) = (
            a.map_or(&[][..], Vec::as_slice),
            b.map_or(&[][..], Vec::as_slice),
        );
        let only = |these: &[Vec<Cell>], those: &[Vec<Cell>]| {
            let missing: Vec<_> = these
                .iter()
                .filter(|row| those.binary_search(row).is_err())
                .collect();
            let mut shown = format!("{:?}", missing.iter().take(3).collect::<Vec<_>>());
            shown.truncate(
                shown
                    .char_indices()
                    .nth(600)
                    .map_or(shown.len(), |(at, _)| at),
            );
            format!("{} {shown}", missing.len())
        };
        text.push_str(&format!(
            "\n  table {table}: {} and {} rows; only left: {}; only right: {}",
            a.len(),
            b.len(),
            only(a, b),
            only(b, a)
        ));
    }
    Some(text)
}
