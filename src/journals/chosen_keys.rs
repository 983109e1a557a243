//! Tables in which collisions are to be expected: those whose keys SQLite chooses. It chooses the next free number, and so do other nodes.

use crate::change::table::{Table, TableKey};

/// Names in one warning: more help nobody.
const NAMED: usize = 8;

/// One sentence about those of these tables whose keys SQLite chooses; `None` where there are none.
#[must_use]
pub fn chosen_keys<'t>(tables: impl IntoIterator<Item = &'t Table>) -> Option<String> {
    let names: Vec<String> = tables
        .into_iter()
        .filter(|t| t.integer_key || matches!(t.key, TableKey::Rowid(_)))
        .map(|t| format!("{:?}", t.name))
        .collect();
    let shown = names.get(..NAMED.min(names.len()))?.join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let (tables, have) = match names.len() {
        0 => return None,
        1 => ("table", "has a key"),
        _ => ("tables", "have keys"),
    };
    Some(format!(
        "{tables} {shown}{more} {have} that SQLite chooses (INTEGER PRIMARY KEY or rowid): two nodes that insert at the same time choose the same one, and one of the rows goes to the conflict journal; docs/choosing-keys.md shows what to use instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::introspect::read_schema;

    fn warning(schema: &str) -> Option<String> {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch(schema).unwrap();
        chosen_keys(&read_schema(&conn).unwrap().tables)
    }

    #[test]
    fn tables_whose_keys_sqlite_chooses_are_named() {
        assert_eq!(
            warning(
                "CREATE TABLE a(k TEXT PRIMARY KEY); CREATE TABLE b(id INTEGER PRIMARY KEY) WITHOUT ROWID; CREATE TABLE c(x, y, PRIMARY KEY(x, y))"
            ),
            None
        );
        let said = warning("CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE q(v); CREATE TABLE r(k TEXT PRIMARY KEY)").unwrap();
        assert!(
            said.starts_with("tables \"p\", \"q\" have keys that"),
            "{said}"
        );
        let many: String = (0..20)
            .map(|n| format!("CREATE TABLE t{n}(id INTEGER PRIMARY KEY);"))
            .collect();
        let said = warning(&many).unwrap();
        assert!(
            said.contains(" and 12 more have") && said.len() < 400,
            "{said}"
        );
    }
}
