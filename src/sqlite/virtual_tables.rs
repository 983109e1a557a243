//! Virtual tables, and the tables in which they keep their data.
//!
//! Invariants: nothing here connects to a virtual table, so that one of a module that this program lacks does no harm; a table in which one keeps its data is known
//! by what SQLite says of it, or, where SQLite does not know the module, by its name.

use rusqlite::Connection;

use super::error::{Doing, SqliteError};
use super::tokens::{tokens, unquote};

/// A virtual table of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualTable {
    /// Its name.
    pub name: String,
    /// The module that it was made with, in lower case; empty where its definition cannot be read.
    pub module: String,
    /// The module is in this program.
    pub known: bool,
}

/// Modules whose tables only show what is elsewhere: nobody writes to them.
const READ_ONLY: [&str; 6] = [
    "fts5vocab",
    "fts4aux",
    "fts3tokenize",
    "dbstat",
    "rtreecheck",
    "bytecode",
];

impl VirtualTable {
    /// Whether a table of this name is one that it keeps its data in, as far as names tell.
    #[must_use]
    pub fn may_own(&self, table: &str) -> bool {
        let (table, own) = (table.as_bytes(), self.name.as_bytes());
        table.len() > own.len() + 1
            && table.get(own.len()) == Some(&b'_')
            && table
                .get(..own.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(own))
    }

    /// Whether an application can write to it.
    #[must_use]
    pub fn takes_rows(&self) -> bool {
        !READ_ONLY.contains(&self.module.as_str())
    }
}

/// The virtual tables of `main`, by name.
///
/// # Errors
/// SQLite's.
pub fn virtual_tables(conn: &Connection) -> Result<Vec<VirtualTable>, SqliteError> {
    let doing = "list the virtual tables";
    let mut stmt = conn
        .prepare_cached(
            "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' AND coalesce(rootpage, 0) = 0 AND sql IS NOT NULL ORDER BY name",
        )
        .doing(doing)?;
    let found: Vec<(String, String)> = stmt
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
        .and_then(Iterator::collect)
        .doing(doing)?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let known: Vec<String> = conn
        .prepare_cached("SELECT lower(name) FROM pragma_module_list")
        .and_then(|mut s| s.query_map([], |r| r.get(0))?.collect())
        .doing(doing)?;
    let tables = found.into_iter().map(|(name, sql)| {
        let module = module(&sql).unwrap_or_default();
        VirtualTable {
            known: known.contains(&module),
            name,
            module,
        }
    });
    Ok(tables.collect())
}

/// The module in `CREATE VIRTUAL TABLE name USING module(…)`, in lower case.
fn module(sql: &str) -> Option<String> {
    let tokens = tokens(sql)?;
    // A table may be called "using" only in quotes, and quotes are part of a token.
    let using = tokens.iter().position(|t| t.is_word(sql, "USING"))?;
    let name = tokens.get(using + 1)?.text(sql);
    Some(unquote(name).to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_names() {
        assert_eq!(
            module("CREATE VIRTUAL TABLE \"a using b\" USING FTS5(x, content='')").as_deref(),
            Some("fts5")
        );
        assert_eq!(
            module("CREATE VIRTUAL TABLE t using [Vec0](x)").as_deref(),
            Some("vec0")
        );
        assert_eq!(module("CREATE VIRTUAL TABLE t"), None);
        let docs = VirtualTable {
            name: "Döcs".to_owned(),
            module: "vec0".to_owned(),
            known: false,
        };
        assert!(docs.may_own("döcs_chunks"));
        assert!(!docs.may_own("Döcs_") && !docs.may_own("Döcs") && !docs.may_own("Döcsx_y"));
    }

    #[test]
    fn tables_of_modules_that_are_not_here_are_listed() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE VIRTUAL TABLE ft USING fts5(body); PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema VALUES('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0(embedding float[4])');
             PRAGMA writable_schema = RESET;",
        )
        .unwrap();
        let found = virtual_tables(&conn).unwrap();
        let shown: Vec<(&str, bool)> = found.iter().map(|v| (v.name.as_str(), v.known)).collect();
        assert_eq!(shown, [("ft", true), ("v", false)]);
    }
}
