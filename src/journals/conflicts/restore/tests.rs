use super::*;
use crate::change::position::{NodeId, Sequence};
use crate::change::value::Value;
use crate::journals::open_as_app;
use crate::replica::Replica;
use crate::replica::lifecycle::OpenOptions;
use crate::state::journal::{self, record_conflict};
use std::path::PathBuf;
use std::time::Duration;

/// A database with capture, as a daemon leaves it, and a connection as commands open one.
fn database(schema: &str) -> (tempfile::TempDir, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("app.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch(schema)
        .unwrap();
    let options = OpenOptions {
        node_id: NodeId(1),
        publish: true,
        include: vec![],
        exclude: vec!["aside".to_owned()],
        fire_triggers: Some(Vec::new()),
    };
    drop(Replica::open(&path, &options, Duration::from_secs(5), &|| false).unwrap());
    let conn = open_as_app(&path).unwrap();
    (folder, conn)
}

/// Journals these values as one conflict; returns its id.
fn lost(conn: &Connection, table: &str, key: &str, values: &[(&str, Value<'_>)]) -> i64 {
    let next: i64 = conn
        .query_row(
            "SELECT coalesce(max(id), 0) + 1 FROM __harmonylite__conflicts",
            [],
            |r| r.get(0),
        )
        .unwrap();
    for (column, value) in values {
        record_conflict(
            conn,
            &journal::Conflict {
                table,
                key,
                column,
                losing_value: *value,
                losing_node: Some(NodeId(2)),
                winning_node: NodeId(1),
                position: Sequence(next as u64),
                reason: "updated-here",
            },
        )
        .unwrap();
    }
    next
}

fn text(conn: &Connection, sql: &str) -> String {
    conn.query_row(sql, [], |r| r.get(0)).unwrap()
}

fn pending(conn: &Connection) -> i64 {
    conn.query_row(
        "SELECT count(*) FROM __harmonylite___global_change_log",
        [],
        |r| r.get(0),
    )
    .unwrap()
}

const USERS: &str = "CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE, shout AS (upper(name)) STORED);
    INSERT INTO users(id, name, email) VALUES(1, 'ann', 'a@x'), (2, 'bob', 'b@x');";

#[test]
fn cells_go_back_into_their_row_and_are_captured() {
    let (_folder, conn) = database(USERS);
    let id = lost(
        &conn,
        "users",
        "1",
        &[
            ("name", Value::Text(b"Ann")),
            ("email", Value::Text(b"c@x")),
        ],
    );
    let one = How {
        columns: vec!["NAME".to_owned()],
        ..How::default()
    };
    let done = restore(&conn, id, &one).unwrap();
    assert_eq!((done.key.as_str(), done.is_new), ("1", false));
    assert_eq!(
        text(
            &conn,
            "SELECT name || email || shout FROM users WHERE id = 1"
        ),
        "Anna@xANN"
    );
    assert_eq!(pending(&conn), 1);
    // What is left comes with the next, and then nothing is.
    restore(&conn, id, &How::default()).unwrap();
    assert_eq!(text(&conn, "SELECT email FROM users WHERE id = 1"), "c@x");
    assert!(matches!(
        restore(&conn, id, &How::default()),
        Err(RestoreError::Already { .. })
    ));
}

#[test]
fn a_value_that_another_row_holds_is_refused_with_that_row() {
    let (_folder, conn) = database(USERS);
    let id = lost(&conn, "users", "1", &[("email", Value::Text(b"b@x"))]);
    let refused = restore(&conn, id, &How::default()).unwrap_err().to_string();
    assert!(
        refused.starts_with("email = 'b@x' is taken by the row with key 2 of table \"users\""),
        "{refused}"
    );
    assert_eq!(pending(&conn), 0);
    assert!(!find(&conn, id).unwrap().unwrap().is_restored());
}

#[test]
fn a_row_that_is_gone_comes_back_whole_or_as_a_new_one() {
    let (_folder, conn) = database(USERS);
    let cells = [
        ("id", Value::Integer(9)),
        ("name", Value::Text(b"eve")),
        ("email", Value::Null),
    ];
    let whole = lost(&conn, "users", "9", &cells);
    let done = restore(&conn, whole, &How::default()).unwrap();
    assert_eq!((done.key.as_str(), done.is_new), ("9", true));
    let part = lost(&conn, "users", "7", &[("name", Value::Text(b"sid"))]);
    assert!(matches!(
        restore(&conn, part, &How::default()),
        Err(RestoreError::RowGone { .. })
    ));
    let new = How {
        as_new_row: true,
        ..How::default()
    };
    assert_eq!(restore(&conn, part, &new).unwrap().key, "10");
    // Over a row that is there, a whole row is an update of it.
    conn.execute("UPDATE users SET name = 'other' WHERE id = 9", [])
        .unwrap();
    let again = lost(&conn, "users", "9", &cells);
    assert!(!restore(&conn, again, &How::default()).unwrap().is_new);
    assert_eq!(text(&conn, "SELECT name FROM users WHERE id = 9"), "eve");
}

#[test]
fn keys_that_sqlite_does_not_choose_are_asked_for() {
    let (_folder, conn) = database(
        "CREATE TABLE pairs(a TEXT, b INT, v, PRIMARY KEY(a, b)) WITHOUT ROWID; INSERT INTO pairs VALUES('x', 1, 'old'); CREATE TABLE loose(v); CREATE TABLE bytes(id BLOB PRIMARY KEY, v)",
    );
    let id = lost(&conn, "pairs", "'x', 1", &[("v", Value::Blob(b"\0"))]);
    let with = |key: &[&str]| How {
        as_new_row: true,
        key: key.iter().map(|k| (*k).to_owned()).collect(),
        ..How::default()
    };
    let refused = restore(&conn, id, &with(&[])).unwrap_err().to_string();
    assert!(refused.contains("give --key A,B"), "{refused}");
    assert!(matches!(
        restore(&conn, id, &with(&["x", "1"])),
        Err(RestoreError::KeyTaken { .. })
    ));
    restore(&conn, id, &with(&["x", "2"])).unwrap();
    assert_eq!(
        text(
            &conn,
            "SELECT typeof(b) || typeof(v) FROM pairs WHERE b = 2"
        ),
        "integerblob"
    );
    // Bytes, where a key is of bytes; what only looks a little like it is text.
    for (key, kind) in [("x'00Ff'", "blob"), ("x'0'", "text"), ("'x'", "text")] {
        let id = lost(&conn, "bytes", "x'01'", &[("v", Value::Integer(1))]);
        restore(&conn, id, &with(&[key])).unwrap();
        let found = text(
            &conn,
            "SELECT typeof(id) FROM bytes ORDER BY rowid DESC LIMIT 1",
        );
        assert_eq!(found, kind, "{key}");
    }
    let id = lost(&conn, "loose", "5", &[("v", Value::Integer(3))]);
    assert_eq!(restore(&conn, id, &How::default()).unwrap().key, "5");
    let id = lost(&conn, "loose", "5", &[("v", Value::Integer(4))]);
    assert_eq!(restore(&conn, id, &with(&[])).unwrap().key, "6");
}

#[test]
fn what_would_not_replicate_is_refused() {
    let (_folder, conn) = database(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v NOT NULL); CREATE TABLE aside(id INTEGER PRIMARY KEY, v)",
    );
    let id = lost(&conn, "aside", "1", &[("v", Value::Null)]);
    assert!(matches!(
        restore(&conn, id, &How::default()),
        Err(RestoreError::NotCaptured(_))
    ));
    let id = lost(&conn, "none", "1", &[("v", Value::Null)]);
    assert!(matches!(
        restore(&conn, id, &How::default()),
        Err(RestoreError::NoTable(_))
    ));
    let id = lost(&conn, "t", "1", &[("v", Value::Null)]);
    let refused = restore(&conn, id, &How::default()).unwrap_err().to_string();
    assert!(refused.contains("NOT NULL"), "{refused}");
    let missing = How {
        columns: vec!["w".to_owned()],
        ..How::default()
    };
    let refused = restore(&conn, id, &missing).unwrap_err().to_string();
    assert!(
        refused.contains("is not part of this conflict; it can be one of: v"),
        "{refused}"
    );
}
