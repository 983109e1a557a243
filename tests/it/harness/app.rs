//! The application's side: connections as an app opens them, with SQLite as it is.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// A connection of an app that trusts nothing in the schema.
pub fn connect(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(Duration::from_secs(60)).unwrap();
    app.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON")
        .unwrap();
    app
}

/// A connection to a database that must exist; it changes nothing.
pub fn look(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.busy_timeout(Duration::from_secs(60))?;
    conn.execute_batch("PRAGMA query_only = ON")?;
    Ok(conn)
}

/// Makes a database in WAL mode with this schema.
pub fn create(path: &Path, schema: &str) {
    let app = Connection::open(path).unwrap();
    app.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    app.execute_batch(schema).unwrap();
}

/// One integer.
pub fn integer(conn: &Connection, sql: &str) -> i64 {
    conn.query_row(sql, [], |row| row.get(0))
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}
