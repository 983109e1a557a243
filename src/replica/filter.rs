//! Which tables are replicated: `[replication] include` and `exclude`, as SQLite's GLOB matches them.

use std::cell::RefCell;
use std::collections::HashMap;

use rusqlite::Connection;

/// The globs, and the answers given so far.
#[derive(Debug, Default)]
pub struct TableFilter {
    include: Vec<String>,
    exclude: Vec<String>,
    answers: RefCell<HashMap<String, bool>>,
}

impl TableFilter {
    /// `include` empty: all tables. Table names ignore case in SQLite, so the globs do.
    #[must_use]
    pub fn new(include: &[String], exclude: &[String]) -> Self {
        let lower = |globs: &[String]| globs.iter().map(|g| g.to_ascii_lowercase()).collect();
        Self {
            include: lower(include),
            exclude: lower(exclude),
            answers: RefCell::default(),
        }
    }

    /// Whether a table is replicated.
    pub fn wants(&self, conn: &Connection, table: &str) -> bool {
        let table = table.to_ascii_lowercase();
        if self.include.is_empty() && self.exclude.is_empty() {
            return true;
        }
        if let Some(known) = self.answers.borrow().get(&table) {
            return *known;
        }
        let matches = |globs: &[String]| {
            globs.iter().any(|g| {
                conn.query_row("SELECT ?1 GLOB ?2", [&table, g], |r| r.get(0))
                    .unwrap_or(false)
            })
        };
        let wanted = (self.include.is_empty() || matches(&self.include)) && !matches(&self.exclude);
        self.answers.borrow_mut().insert(table, wanted);
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn include_and_exclude() {
        let conn = Connection::open_in_memory().unwrap();
        let f = TableFilter::new(&["App_*".into()], &["*_cache".into()]);
        assert!(f.wants(&conn, "app_users") && f.wants(&conn, "APP_X"));
        assert!(!f.wants(&conn, "app_page_cache") && !f.wants(&conn, "other"));
        assert!(TableFilter::default().wants(&conn, "anything"));
    }
}
