//! What the tests of this module begin with.

use rusqlite::Connection;

use super::install;

/// A database in memory that was captured when it had this schema.
pub fn captured(sql: &str) -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    crate::state::ddl::migrate(&conn).unwrap();
    conn.execute_batch(sql).unwrap();
    install::refresh(&conn, &|_| true, true).unwrap();
    conn
}
