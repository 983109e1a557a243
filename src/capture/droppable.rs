//! Trigger text that outlives the columns it names.
//!
//! SQLite refuses `ALTER TABLE … DROP COLUMN` while a trigger names the column, and the application must not notice that we have triggers. A name is looked for from the innermost
//! query outward, and in each of them among its tables first and then in the trigger's `OLD` and `NEW`. So an expression is put inside a query whose tables are
//! called `OLD` and `NEW` too: as long as the column is there, the trigger's row is found first; afterwards the name means a column of that query, which is NULL. It is an aggregate that
//! reads nothing (`WHERE 0`) and has one row all the same: measured, it costs nothing.

use crate::change::table::{Table, TableKey};
use crate::sqlite::ident::quote;

/// What an expression over `OLD` and `NEW` comes to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number.
    Number,
    /// Any value.
    Value,
}

/// The expression, in a form that still parses when columns that it names have been dropped; they count as NULL then.
pub(super) fn survives_drop(table: &Table, expression: &str, kind: Kind) -> String {
    let stand_ins: Vec<String> = table
        .columns
        .iter()
        .enumerate()
        .filter(|(i, _)| !in_key(table, *i))
        .map(|(_, c)| format!("NULL AS {}", quote(&c.name)))
        .collect();
    if stand_ins.is_empty() {
        return expression.to_owned();
    }
    let nulls = stand_ins.join(", ");
    let result = match kind {
        Kind::Number => format!("count(*) + (SELECT {expression})"),
        Kind::Value => format!("coalesce(max(NULL), (SELECT {expression}))"),
    };
    format!("(SELECT {result} FROM (SELECT {nulls}) AS OLD, (SELECT {nulls}) AS NEW WHERE 0)")
}

/// Whether a column is part of the key: SQLite lets nobody drop it.
pub(super) fn in_key(table: &Table, column: usize) -> bool {
    match &table.key {
        TableKey::Columns(columns) => columns.iter().any(|(k, _)| *k == column),
        TableKey::Rowid(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use crate::capture::fixture::captured;

    fn masks(conn: &Connection) -> Vec<(i64, i64)> {
        conn.prepare("SELECT type, mask FROM __harmonylite__t_change_log ORDER BY id")
            .unwrap()
            .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn a_plain_column_can_be_dropped_and_its_neighbours_are_still_told_apart() {
        for key in ["id INTEGER PRIMARY KEY", "id TEXT PRIMARY KEY", "id"] {
            let conn = captured(&format!(
                "CREATE TABLE t({key}, a, b TEXT, c, e TEXT); INSERT INTO t VALUES(1, 1, 'b', 3, 'e');"
            ));
            conn.execute_batch("UPDATE t SET b = 'x', c = 3; ALTER TABLE t DROP COLUMN b")
                .unwrap();
            conn.execute_batch("UPDATE t SET c = 4; UPDATE t SET a = 1.0; UPDATE t SET e = 'e'")
                .unwrap();
            let kind = crate::change::operation::ChangeKind::Cells.code();
            let seen = masks(&conn);
            let bits = |n: u32| 1_i64 << n;
            assert_eq!(
                seen,
                [(kind, bits(2)), (kind, bits(3)), (kind, bits(1)), (kind, 0)],
                "{key}"
            );
        }
    }

    #[test]
    fn columns_beside_every_kind_of_unique_index_can_be_dropped() {
        let conn = captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, d, e);
             CREATE UNIQUE INDEX plain ON t(a); CREATE UNIQUE INDEX expression ON t(lower(b)); CREATE UNIQUE INDEX partial ON t(c) WHERE c > 0;
             INSERT INTO t VALUES(1, 1, 'B', 1, 'd', 'e'), (2, 2, 'C', 2, 'd', 'e');",
        );
        conn.execute_batch("ALTER TABLE t DROP COLUMN d; ALTER TABLE t DROP COLUMN e")
            .unwrap();
        conn.execute_batch(
            "INSERT OR REPLACE INTO t VALUES(3, 2, 'X', 3); UPDATE OR REPLACE t SET b = 'x' WHERE id = 1",
        )
        .unwrap();
        let deleted: i64 = conn
            .query_row(
                "SELECT count(*) FROM __harmonylite__t_change_log WHERE type = 0",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(deleted, 2, "what REPLACE removes is still logged");
        conn.execute_batch("UPDATE t SET a = 9 WHERE id = 1")
            .unwrap();
    }

    #[test]
    fn a_renamed_column_is_still_told_apart() {
        let conn = captured(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b UNIQUE, c); INSERT INTO t VALUES(1, 1, 2, 3);",
        );
        conn.execute_batch("ALTER TABLE t RENAME COLUMN a TO b2; UPDATE t SET b2 = 5; ALTER TABLE t RENAME COLUMN b TO a; UPDATE t SET c = 6; ALTER TABLE t RENAME TO u; UPDATE u SET a = 7")
            .unwrap();
        let seen = masks(&conn);
        assert_eq!(
            seen.iter().map(|(_, m)| *m).collect::<Vec<_>>(),
            [1 << 1, 1 << 3, 1 << 2]
        );
    }

    #[test]
    fn a_key_is_seen_to_change_by_all_its_names_whatever_is_renamed() {
        for (column, rename) in [
            ("a", ""),
            ("a", "ALTER TABLE t RENAME COLUMN id TO key"),
            ("a", "ALTER TABLE t RENAME COLUMN a TO b"),
        ] {
            let conn = captured(&format!(
                "CREATE TABLE t(id INTEGER PRIMARY KEY, {column}, v); INSERT INTO t VALUES(1, 0, 0);"
            ));
            conn.execute_batch(rename).unwrap();
            conn.execute_batch(
                "UPDATE t SET rowid = 2; UPDATE t SET oid = 3; UPDATE t SET \"_rowid_\" = 4; UPDATE t SET v = 1",
            )
            .unwrap();
            let kinds: Vec<i64> = masks(&conn).into_iter().map(|(kind, _)| kind).collect();
            let (delete, whole, cells) = (
                crate::change::operation::ChangeKind::Delete.code(),
                crate::change::operation::ChangeKind::Whole.code(),
                crate::change::operation::ChangeKind::Cells.code(),
            );
            assert_eq!(
                kinds,
                [delete, whole, delete, whole, delete, whole, cells],
                "{column}: {rename}"
            );
        }
        // Such a column would take our trigger's name for the rowid with it when it is renamed, which newer versions of SQLite refuse and older ones do.
        let conn = captured("CREATE TABLE t(id INTEGER PRIMARY KEY, Oid, v)");
        let sql: String = conn
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE name = '__harmonylite__t_rekey'",
                [],
                |r| r.get(0),
            )
            .unwrap();
        assert!(sql.contains("AFTER UPDATE ON"), "{sql}");
    }
}
