//! Cases whose SQL is too long to be written by hand.

use super::case::{Case, Step};

/// As many columns as SQLite allows.
const MOST_COLUMNS: usize = 2000;

/// Where a mask of columns ends.
const MASK: usize = 63;

fn write(node: usize, sql: String) -> Step {
    Step {
        node,
        sql,
        fails: None,
    }
}

pub fn cases() -> Vec<Case> {
    vec![
        columns("columns_2000", MOST_COLUMNS),
        columns("columns_62", MASK - 1),
        columns("columns_63", MASK),
        columns("columns_64", MASK + 1),
        long_names(),
    ]
}

/// A table of so many columns; each node changes the first, the last, and one between.
fn columns(name: &str, count: usize) -> Case {
    let list = |from: usize| -> Vec<String> { (from..count).map(|c| format!("c{c}")).collect() };
    let values: Vec<String> = (1..count).map(|c| (c * 3).to_string()).collect();
    let table = format!("wide_{count}");
    let last = count - 1;
    Case {
        name: name.to_owned(),
        schema: format!(
            "CREATE TABLE {table}(c0 INTEGER PRIMARY KEY, {}, UNIQUE(c2, c{last}));",
            list(1).join(", ")
        ),
        steps: vec![
            write(
                1,
                format!(
                    "INSERT INTO {table} VALUES(1, {0}); INSERT INTO {table} SELECT 2, {1} FROM {table}; UPDATE {table} SET c{last} = -0.5 WHERE c0 = 1",
                    values.join(", "),
                    list(1).join(" + 1, ") + " + 1"
                ),
            ),
            write(
                2,
                format!(
                    "UPDATE {table} SET c1 = 'first' WHERE c0 = 1; UPDATE {table} SET c{last} = x'00', c{0} = NULL WHERE c0 = 2; REPLACE INTO {table}(c0, c2, c{last}) SELECT 3, c2, c{last} FROM {table} WHERE c0 = 1",
                    last - 1
                ),
            ),
            write(
                1,
                format!(
                    "UPDATE {table} SET {} WHERE c0 = 2; UPDATE {table} SET c0 = 9 WHERE c0 = 3",
                    list(1)
                        .iter()
                        .map(|c| format!("{c} = '{c}'"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ),
        ],
        holds: vec![(
            format!("SELECT c0, c1, c{last} FROM {table} ORDER BY c0"),
            format!("2|'c1'|'c{last}';9|NULL|-0.5"),
        )],
        differs: false,
    }
}

/// Names longer than anybody would think of.
fn long_names() -> Case {
    let long = |what: &str| format!("\"{}\"", format!("{what} é\"\" ").repeat(300));
    let (table, key, column, unique) = (long("table"), long("key"), long("column"), long("unique"));
    Case {
        name: "very_long_names".to_owned(),
        schema: format!("CREATE TABLE {table}({key} TEXT PRIMARY KEY, {column}, {unique} UNIQUE);"),
        steps: vec![
            write(
                1,
                format!("INSERT INTO {table} VALUES('a', 1, 1), ('b', 2, 2)"),
            ),
            write(
                2,
                format!(
                    "UPDATE {table} SET {column} = 3 WHERE {key} = 'a'; UPDATE OR REPLACE {table} SET {unique} = 2 WHERE {key} = 'a'"
                ),
            ),
        ],
        holds: vec![(format!("SELECT * FROM {table}"), "'a'|3|2".to_owned())],
        differs: false,
    }
}
