//! Values arrive as SQLite stores them: storage class and bytes.

use crate::harness::{Cluster, tables};

/// Every storage class and its edges, as SQL.
const VALUES: &[&str] = &[
    "NULL",
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "9007199254740993",
    "0.0",
    "-0.0",
    "1.0",
    "0.1",
    "1e308",
    "-1e308",
    "4.9e-324",
    "9e999",
    "-9e999",
    "''",
    "'text'",
    "'1'",
    "'1.0'",
    "' 1'",
    "'true'",
    "'2024-02-30 25:61:61.123456789'",
    "'2024-01-01T00:00:00.5Z'",
    "'日本語 🦀'",
    "'a' || char(0) || 'b'",
    "char(0)",
    "CAST(x'ff00fe80' AS TEXT)",
    "CAST(x'c328' AS TEXT)",
    "CAST(x'efbbbf41' AS TEXT)",
    "x''",
    "x'00'",
    "x'ff00fe80'",
    "x'31'",
    "zeroblob(3000)",
];

const SCHEMA: &str = "
    CREATE TABLE v(id INTEGER PRIMARY KEY, none, t TEXT, i INTEGER, r REAL, n NUMERIC, b BLOB, flag BOOLEAN, at DATETIME, dec DECIMAL(10, 2));
    CREATE TABLE keyed(key PRIMARY KEY, v) WITHOUT ROWID;
    CREATE TABLE text_keyed(key TEXT PRIMARY KEY, v);
    CREATE TABLE numeric_keyed(key NUMERIC PRIMARY KEY, v);
";

#[test]
fn all_storage_classes_arrive_to_the_bit() {
    let cluster = Cluster::new(3, 1, SCHEMA);
    let app = cluster[0].app();
    for (id, value) in VALUES.iter().enumerate() {
        app.execute_batch(&format!("INSERT INTO v VALUES({id}, {value}, {value}, {value}, {value}, {value}, {value}, {value}, {value}, {value})")).unwrap();
    }
    let dump = cluster.converge();
    assert_eq!(dump["v"].len(), VALUES.len());
    assert_eq!(dump, cluster[0].dump());
    // The comparison sees what must not be lost.
    let reals = tables::rows(
        &cluster[2].app(),
        "SELECT none FROM v WHERE typeof(none) = 'real' AND none = 0",
    );
    assert_eq!(
        reals,
        [
            [tables::Cell::Real(0)],
            [tables::Cell::Real((-0.0_f64).to_bits())]
        ]
    );

    // The same by updates, from another node: each row gets the value of the next.
    let app = cluster[1].app();
    for (id, value) in VALUES.iter().enumerate() {
        let row = (id + 1) % VALUES.len();
        // A change of nothing but the sign of zero is not seen by a trigger, a documented limit.
        let all = ["none", "t", "i", "r", "n", "b", "flag", "at", "dec"]
            .map(|column| format!("{column} = {value}"))
            .join(", ");
        app.execute_batch(&format!("UPDATE v SET none = 'between', t = 'between', i = 'between', r = 'between', n = 'between', b = 'between', flag = 'between', at = 'between', dec = 'between' WHERE id = {row}; UPDATE v SET {all} WHERE id = {row}")).unwrap();
    }
    let updated = cluster[1].dump();
    cluster.converge_to(&updated);
    assert_ne!(updated, dump);
}

#[test]
fn keys_of_every_storage_class_find_their_rows() {
    let cluster = Cluster::new(2, 1, SCHEMA);
    let app = cluster[0].app();
    for table in ["keyed", "text_keyed", "numeric_keyed"] {
        for value in VALUES.iter().filter(|value| **value != "NULL") {
            app.execute_batch(&format!(
                "INSERT OR REPLACE INTO {table} VALUES({value}, 'new')"
            ))
            .unwrap();
        }
    }
    let inserted = cluster[0].dump();
    assert!(inserted["keyed"].len() > 25);
    cluster.converge_to(&inserted);
    // Changed and removed elsewhere, each row by itself.
    let app = cluster[1].app();
    for table in ["keyed", "text_keyed", "numeric_keyed"] {
        for (number, value) in VALUES.iter().filter(|value| **value != "NULL").enumerate() {
            let sql = if number % 2 == 0 {
                format!("UPDATE {table} SET v = {value} WHERE key = {value}")
            } else {
                format!("DELETE FROM {table} WHERE key = {value}")
            };
            app.execute_batch(&sql).unwrap();
        }
    }
    let changed = cluster[1].dump();
    assert!(changed["keyed"].len() < inserted["keyed"].len());
    cluster.converge_to(&changed);
}

#[test]
fn a_change_of_nothing_but_type_or_case_arrives() {
    let cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT COLLATE NOCASE, c TEXT COLLATE RTRIM)",
    );
    cluster[0]
        .sql("INSERT INTO t VALUES(1, 1, 'Case', 'end'), (2, 'x', 'y', 'z'), (3, 1.0, 'k', 'm')");
    cluster.converge();
    cluster[0].sql("UPDATE t SET a = 1.0, b = 'CASE', c = 'end  ' WHERE id = 1; UPDATE t SET a = x'78' WHERE id = 2; UPDATE t SET a = 1 WHERE id = 3");
    let after = cluster[0].dump();
    cluster.converge_to(&after);
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t WHERE typeof(a) = 'real' AND b = 'CASE' COLLATE BINARY AND length(c) = 5"), 1);
}
