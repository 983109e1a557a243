//! What of the database is told: its schema, and how much of what there is. Never a row.
//!
//! Invariants: the connection reads only; every statement ends within its bound; what is selected are counts, names of ours, and what made the schema.

use std::fmt::Write as _;
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::ASK;
use crate::config::Config;
use crate::control::lock;
use crate::registry::audit;
use crate::replica::filter::TableFilter;
use crate::sqlite::connection;
use crate::sqlite::error::{Doing, SqliteError};
use crate::sqlite::ident::quote;
use crate::sqlite::leftover::Leftover;

/// What is asked of the state tables: positions and counts. No column that holds values, keys or reasons with text from elsewhere.
const SUMMARIES: [(&str, &str); 10] = [
    (
        "this node",
        "SELECT format, node_id, database_id, cluster_id, history, incarnation, position, folded FROM __harmonylite__node",
    ),
    (
        "publishers",
        "SELECT node_id, incarnation, batch, sequence FROM __harmonylite__publishers ORDER BY node_id LIMIT 1000",
    ),
    (
        "tables",
        "SELECT table_name, generation FROM __harmonylite__tables ORDER BY table_name LIMIT 2000",
    ),
    (
        "tables that are not certain",
        "SELECT table_name, kind, since FROM __harmonylite__unsure LIMIT 2000",
    ),
    (
        "conflicts, by table and reason",
        "SELECT table_name, reason, count(*), min(time), max(time) FROM __harmonylite__conflicts GROUP BY table_name, reason LIMIT 2000",
    ),
    (
        "dead letters, by shard",
        "SELECT shard, count(*), min(sequence), max(sequence), sum(length(bytes)), max(time) FROM __harmonylite__dead_letters GROUP BY shard LIMIT 2000",
    ),
    (
        "messages that are skipped",
        "SELECT first, last, time FROM __harmonylite__skips ORDER BY first LIMIT 1000",
    ),
    (
        "void messages",
        "SELECT count(*), min(sequence), max(sequence) FROM __harmonylite__void",
    ),
    (
        "what batches have covered",
        "SELECT node_id, count(*), max(sequence), sum(length(covers)) FROM __harmonylite__covered GROUP BY node_id LIMIT 1000",
    ),
    (
        "lives of publishers",
        "SELECT node_id, count(*), max(incarnation) FROM __harmonylite__lives GROUP BY node_id LIMIT 1000",
    ),
];

/// The journal mode is not among them: of a file that nobody has open SQLite tells another.
const PRAGMAS: [&str; 8] = [
    "encoding",
    "page_size",
    "page_count",
    "freelist_count",
    "auto_vacuum",
    "schema_version",
    "user_version",
    "application_id",
];

/// All parts.
pub fn all(config: &Config) -> Vec<(&'static str, &'static str, String)> {
    const SCHEMA: (&str, &str) = (
        "schema.sql",
        "the statements that made the tables, indexes, triggers and views",
    );
    const AUDIT: (&str, &str) = (
        "schema.json",
        "tables as replication sees them, their capture, and why which are not replicated",
    );
    const STATE: (&str, &str) = (
        "state.txt",
        "settings of the file, sizes of the change logs, summaries of the replication state",
    );
    // A daemon has settled this at its start.
    let alone = matches!(lock::holder(&config.db_path), Ok(None));
    let leftover = match alone {
        true => Leftover::find(&config.db_path).map(|l| l.to_string()),
        false => None,
    };
    if let Some(leftover) = leftover {
        let text = format!("not looked at: {leftover}\n");
        return vec![(STATE.0, STATE.1, text)];
    }
    let conn = match config.db_path.exists() {
        true => connection::open_to_look(&config.db_path).map_err(|e| e.to_string()),
        false => Err(format!("{} is not there", config.db_path.display())),
    };
    let (mut conn, wal) = match conn {
        Ok(opened) => opened,
        Err(why) => return vec![(STATE.0, STATE.1, format!("{why}\n"))],
    };
    let until = Instant::now() + ASK;
    let _ = conn.progress_handler(10_000, Some(move || Instant::now() > until));
    let filter = TableFilter::new(&config.replication.include, &config.replication.exclude);
    let or_why = |text: Result<String, SqliteError>| text.unwrap_or_else(|e| format!("{e}\n"));
    let audited =
        audit::audit(&conn, &filter).map(|a| serde_json::to_string_pretty(&a).unwrap_or_default());
    vec![
        (STATE.0, STATE.1, state(&conn, wal)),
        (SCHEMA.0, SCHEMA.1, or_why(schema(&conn))),
        (AUDIT.0, AUDIT.1, or_why(audited)),
    ]
}

fn schema(conn: &Connection) -> Result<String, SqliteError> {
    let doing = "read the schema";
    let mut stmt = conn
        .prepare("SELECT sql FROM main.sqlite_schema WHERE sql IS NOT NULL ORDER BY tbl_name, type DESC, name LIMIT 20000")
        .doing(doing)?;
    let all: Vec<String> = stmt
        .query_map([], |r| r.get(0))
        .and_then(Iterator::collect)
        .doing(doing)?;
    Ok(all.into_iter().map(|sql| format!("{sql};\n")).collect())
}

fn state(conn: &Connection, wal: bool) -> String {
    let mode = if wal { "wal" } else { "a rollback journal" };
    let mut out = format!("journal_mode: {mode}\n");
    for pragma in PRAGMAS {
        let said = table(conn, &format!("PRAGMA {pragma}"));
        // Writing to memory cannot fail.
        let _ = writeln!(out, "{pragma}: {}", said.trim());
    }
    for (name, sql) in SUMMARIES {
        let _ = writeln!(out, "\n{name}\n{}", table(conn, sql));
    }
    let _ = writeln!(out, "\nrows in tables of ours\n{}", sizes(conn));
    out
}

/// How many rows the change logs and the other tables of ours have.
fn sizes(conn: &Connection) -> String {
    let names: rusqlite::Result<Vec<String>> = conn
        .prepare("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name LIKE '\\_\\_harmonylite\\_\\_%' ESCAPE '\\' ORDER BY name LIMIT 5000")
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect());
    match names {
        Ok(names) => names
            .iter()
            .map(|name| {
                let count = table(conn, &format!("SELECT count(*) FROM {}", quote(name)));
                let last = count.lines().last().unwrap_or_default();
                format!("  {:>9}  {name}\n", last.trim())
            })
            .collect(),
        Err(e) => format!("  {e}\n"),
    }
}

/// A query's answer as lines. One that fails says so in its place: a table that an older format does not have.
fn table(conn: &Connection, sql: &str) -> String {
    let rows = || -> rusqlite::Result<String> {
        let mut stmt = conn.prepare(sql)?;
        let names = stmt.column_names().collect::<Vec<_>>().join("  ");
        let columns = stmt.column_count();
        let mut out = String::new();
        if !sql.starts_with("PRAGMA") {
            let _ = writeln!(out, "  {names}");
        }
        let mut rows = stmt.query([])?;
        while let Some(row) = rows.next()? {
            let cells: rusqlite::Result<Vec<String>> =
                (0..columns).map(|at| row.get_ref(at).map(shown)).collect();
            let _ = writeln!(out, "  {}", cells?.join("  "));
        }
        Ok(out)
    };
    rows().unwrap_or_else(|e| format!("  {e}\n"))
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "-".to_owned(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(x) => x.to_string(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}
