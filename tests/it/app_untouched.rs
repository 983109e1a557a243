//! The app keeps its SQLite, its connections and its SQL, and gets its database back as it was.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, Node, app, eventually, tables};

const SCHEMA: &str = r#"
    CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, age INTEGER CHECK (age >= 0));
    CREATE TABLE posts(id INTEGER PRIMARY KEY AUTOINCREMENT, author INTEGER REFERENCES users(id) ON DELETE CASCADE, "body text" TEXT DEFAULT 'none');
    CREATE INDEX by_author ON posts(author) WHERE author IS NOT NULL;
    CREATE TABLE audit(n INTEGER PRIMARY KEY, what TEXT);
    CREATE TRIGGER users_audit AFTER INSERT ON users BEGIN INSERT INTO audit(what) VALUES('new ' || new.email); END;
    CREATE VIEW adults AS SELECT * FROM users WHERE age >= 18;
    INSERT INTO users VALUES(1, 'a@example.org', 30);
"#;

/// The schema, as text, in the order of its making.
fn schema(path: &Path) -> Vec<String> {
    app::look(path)
        .unwrap()
        .prepare("SELECT type || '|' || name || '|' || tbl_name || '|' || coalesce(sql, '') FROM sqlite_schema ORDER BY rowid")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// Debian's own shell, an SQLite that is not ours; `None` where the machine has none.
fn shell(database: &Path, sql: &str) -> Option<String> {
    let output = Command::new("sqlite3")
        .arg("-batch")
        .arg("-bail")
        // Two processes write: as any app beside a daemon, it waits for the lock (README, "Limits that stay").
        .args(["-cmd", ".timeout 30000"])
        .arg(database)
        .arg(sql)
        .output()
        .ok()?;
    assert!(
        output.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn an_app_that_trusts_nothing_in_its_schema_works_on() {
    let cluster = Cluster::new(2, 1, SCHEMA);
    let app = cluster[0].app();
    assert_eq!(
        app.query_row("PRAGMA trusted_schema", [], |row| row.get::<_, i64>(0))
            .unwrap(),
        0
    );
    app.execute_batch(
        r#"
        INSERT INTO users VALUES(2, 'b@example.org', 20), (3, 'c@example.org', 10);
        INSERT INTO posts(author) VALUES(1), (2), (2);
        UPDATE posts SET "body text" = 'hello' WHERE author = 2;
        INSERT INTO users VALUES(2, 'new@example.org', 21) ON CONFLICT(id) DO UPDATE SET email = excluded.email;
        DELETE FROM users WHERE id = 1;
        "#,
    )
    .unwrap();
    // What SQLite tells the app is what it would tell it without us.
    app.execute("INSERT INTO posts(author) VALUES(3)", [])
        .unwrap();
    assert_eq!(app.last_insert_rowid(), 4);
    assert_eq!(
        app.execute("UPDATE posts SET author = 2 WHERE author = 3", [])
            .unwrap(),
        1
    );
    assert_eq!(app.changes(), 1);
    assert!(
        app.execute("INSERT INTO users VALUES(9, 'x', -1)", [])
            .is_err(),
        "the app's own constraint holds"
    );
    assert!(
        app.execute("INSERT INTO posts(author) VALUES(77)", [])
            .is_err(),
        "the app's foreign key holds"
    );
    assert!(
        app.execute("INSERT INTO users VALUES(8, 'new@example.org', 1)", [])
            .is_err()
    );
    let expected = cluster[0].dump();
    // The app's trigger ran once, where the app wrote.
    assert_eq!(expected["audit"].len(), 3);
    cluster.converge_to(&expected);
}

#[test]
fn other_programs_with_their_own_sqlite_write_and_are_replicated() {
    let cluster = Cluster::new(2, 1, SCHEMA);
    let database = cluster[0].database();
    let mut expected = 1;
    if shell(&database, "PRAGMA trusted_schema = OFF; INSERT INTO users VALUES(100, 'shell', 1); UPDATE users SET age = 2 WHERE id = 100; DELETE FROM users WHERE id = 1").is_some() {
        eventually("the shell's row arrives", || cluster[1].integer("SELECT count(*) FROM users WHERE id = 100 AND age = 2") == 1);
    } else {
        eprintln!("no sqlite3 on this machine: not tried");
        expected += 1;
    }
    let script = "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=60)\nc.execute('PRAGMA trusted_schema = OFF')\nwith c:\n    c.executemany('INSERT INTO users VALUES(?, ?, ?)', [(200 + i, f'python{i}', i) for i in range(50)])\n    c.execute('UPDATE users SET age = age + 1 WHERE id >= 200')\n";
    match Command::new("python3")
        .args(["-c", script])
        .arg(&database)
        .output()
    {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            expected += 50;
        }
        Err(error) => eprintln!("no python3 on this machine, not tried: {error}"),
    }
    assert_eq!(cluster.converge()["users"].len(), expected);
}

#[test]
fn the_operators_guide_works_as_written() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO users VALUES(5, 'e', 5)");
    cluster.converge();
    cluster[0].kill();
    cluster[0].sql("INSERT INTO users VALUES(6, 'f', 6); UPDATE users SET age = 7 WHERE id = 6");
    for view in [
        "__harmonylite___global_change_log",
        "__harmonylite___change_log_global",
    ] {
        // Two of users, one of audit.
        assert_eq!(
            cluster[0].integer(&format!("SELECT COUNT(*) FROM {view}")),
            3
        );
        if let Some(counted) = shell(
            &cluster[0].database(),
            &format!("SELECT COUNT(*) FROM {view};"),
        ) {
            assert_eq!(counted.trim(), "3");
        }
    }
    for table in ["users", "posts", "audit"] {
        assert_eq!(cluster[0].integer(&format!("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = '__harmonylite__{table}_change_log'")), 1);
        let triggers = cluster[0].integer(&format!("SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name LIKE '__harmonylite__%' AND tbl_name = '{table}'"));
        assert!(triggers >= 3, "{triggers} triggers on {table}");
    }
    cluster[0].start();
    cluster.converge();
}

/// The schema is to the byte what it was, and the rows are all there.
fn check_clean(node: &Node, before: &[String], rows: &tables::Dump) {
    assert_eq!(schema(&node.database()), before);
    assert_eq!(&node.dump(), rows);
    let mut left: Vec<_> = std::fs::read_dir(&node.folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    left.retain(|name| name.contains("snapshot") || name.starts_with(".tmp"));
    assert!(left.is_empty(), "{left:?}");
    node.assert_sound();
}

#[test]
fn cleanup_of_a_stopped_daemon_leaves_the_schema_as_it_was() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let before = schema(&cluster[0].database());
    let text_before = shell(&cluster[0].database(), ".schema");
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster[0].sql("INSERT INTO users VALUES(2, 'b', 2); INSERT INTO posts(author) VALUES(2)");
    cluster.converge();
    cluster[0].stop();
    assert_ne!(schema(&cluster[0].database()), before);
    let rows = cluster[0].dump();
    let cleaned = cluster[0].run(&["-cleanup"]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
    check_clean(&cluster[0], &before, &rows);
    assert_eq!(shell(&cluster[0].database(), ".schema"), text_before);
    // The app goes on, and the other node does not hear of it.
    cluster[0].sql("INSERT INTO users VALUES(3, 'c', 3)");
    assert_eq!(cluster[1].integer("SELECT count(*) FROM users"), 2);
}

#[test]
fn cleanup_publishes_what_is_pending_first() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let before = schema(&cluster[0].database());
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.converge();
    cluster[0].kill();
    cluster[0].sql("INSERT INTO users VALUES(2, 'pending', 2)");
    let rows = cluster[0].dump();
    let cleaned = cluster[0].run(&["-cleanup"]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
    assert!(!cleaned.said.contains("dropped"), "{}", cleaned.said);
    check_clean(&cluster[0], &before, &rows);
    eventually("the pending row was published", || {
        cluster[1].dump() == rows
    });
}

#[test]
fn cleanup_through_a_running_daemon_publishes_removes_and_stops() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let before = schema(&cluster[0].database());
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let app = cluster[0].app();
    for id in 10..200 {
        app.execute_batch(&format!("INSERT INTO users VALUES({id}, 'u{id}', {id})"))
            .unwrap();
    }
    let cleaned = cluster[0].run(&["-cleanup"]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
    assert_eq!(cluster[0].wait_end().code, Some(0));
    let rows = cluster[0].dump();
    assert_eq!(rows["users"].len(), 191);
    check_clean(&cluster[0], &before, &rows);
    eventually("everything was published first", || {
        cluster[1].dump() == rows
    });
    cluster[1].assert_running();
}

#[test]
fn cleanup_without_a_broker_says_exactly_what_it_drops() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let before = schema(&cluster[0].database());
    cluster[0].start_replicating();
    cluster.server.kill();
    cluster[0].stop();
    cluster[0].sql("INSERT INTO users VALUES(2, 'pending', 2), (3, 'too', 3)");
    let rows = cluster[0].dump();
    let cleaned = cluster[0].run(&["-cleanup"]);
    assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
    assert!(
        cleaned.said.contains("dropped")
            && cleaned.said.contains("users: 2")
            && cleaned.said.contains("audit: 2"),
        "{}",
        cleaned.said
    );
    check_clean(&cluster[0], &before, &rows);
}
