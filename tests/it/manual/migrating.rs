//! From the Go program and from Marmot, and back: what they leave in a database and in NATS, and what this program makes of it. Their tables, triggers and
//! streams are made here by the names and shapes that they have; the programs themselves are not run.

use crate::harness::jetstream::Outsider;
use crate::harness::{Cluster, Node, eventually};

const BOOKS: &str = "CREATE TABLE books(id TEXT NOT NULL PRIMARY KEY, title TEXT, stars INTEGER);
    INSERT INTO books VALUES('a', 'before', 1), ('b', 'before too', 2);";

/// Change logs, a global log and triggers with a guard, as the Go programs make them under their prefix, and a change that was not published.
fn left_by(prefix: &str, guard: &str) -> String {
    let trigger = |what: &str, row: &str| {
        format!(
            "CREATE TRIGGER {prefix}books_change_log_on_{what} AFTER {what} ON books
             WHEN (SELECT count(*) FROM pragma_function_list WHERE name = '{guard}') < 1 BEGIN
               INSERT INTO {prefix}books_change_log(val_id, val_title, val_stars, type, created_at, state)
                 VALUES({row}.id, {row}.title, {row}.stars, '{what}', 0, 0);
               INSERT INTO {prefix}_change_log_global(change_table_id, table_name) VALUES(last_insert_rowid(), 'books');
             END;"
        )
    };
    format!(
        "CREATE TABLE {prefix}books_change_log(id INTEGER PRIMARY KEY AUTOINCREMENT, val_id TEXT, val_title TEXT, val_stars INTEGER,
           type TEXT, created_at INTEGER, state INTEGER);
         CREATE INDEX {prefix}books_change_log_state_index ON {prefix}books_change_log(state);
         CREATE TABLE {prefix}_change_log_global(id INTEGER PRIMARY KEY AUTOINCREMENT, change_table_id INTEGER, table_name TEXT);
         {}{}{}
         UPDATE books SET stars = 3 WHERE id = 'a';",
        trigger("insert", "NEW"),
        trigger("update", "NEW"),
        trigger("delete", "OLD")
    )
}

fn objects(node: &Node, prefix: &str) -> i64 {
    node.integer(&format!(
        "SELECT count(*) FROM sqlite_schema WHERE name GLOB '{prefix}*'"
    ))
}

/// Runs SQL as an application of the Go program's has to: its triggers need `trusted_schema`.
fn trusting(node: &Node, sql: &str) {
    let app = rusqlite::Connection::open(node.database()).unwrap();
    app.execute_batch("PRAGMA trusted_schema = ON; PRAGMA busy_timeout = 60000")
        .unwrap();
    app.execute_batch(sql).unwrap();
}

/// Both write, and both have all.
fn replicate(cluster: &mut Cluster) {
    cluster[0].sql(
        "INSERT INTO books VALUES('c', 'after', 5); UPDATE books SET stars = 9 WHERE id = 'a'",
    );
    cluster[1].sql("DELETE FROM books WHERE id = 'b'");
    assert_eq!(cluster.converge()["books"].len(), 2);
    cluster.assert_running();
}

#[test]
fn what_the_go_program_left_is_removed_at_the_first_start() {
    let mut cluster = Cluster::prepared(2, BOOKS);
    for node in &mut cluster.nodes {
        trusting(node, &left_by("__harmonylite__", "harmonylite_version"));
        // Its map, of a compressed stream.
        let map = [
            &[0xa1, 0x78, 0x18][..],
            b"harmonylite-changes-c-1",
            &[0x18, 0x2a],
        ]
        .concat();
        std::fs::write(node.sequence_map(), map).unwrap();
        let check = node.run(&["-check"]);
        assert_eq!(check.code, Some(0), "{}", check.said);
        assert!(
            check
                .said
                .contains("the next start of this one removes them"),
            "{}",
            check.said
        );
        assert!(!check.said.contains("error:"), "{}", check.said);
    }
    for node in &mut cluster.nodes {
        node.start_replicating();
        assert!(
            node.log()
                .contains("what the Go HarmonyLite left in this database is removed")
        );
    }
    let triggers =
        "SELECT count(*) FROM sqlite_schema WHERE name GLOB '__harmonylite__books_change_log_on_*'";
    assert_eq!(cluster[0].integer(triggers), 0);
    replicate(&mut cluster);
    // And back: nothing of ours stays, so the Go program finds the database as it would a new one.
    for node in &mut cluster.nodes {
        let cleaned = node.run(&["-cleanup"]);
        assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
        assert_eq!(node.wait_end().code, Some(0));
        assert_eq!(objects(node, "__harmonylite__"), 0);
        trusting(node, &left_by("__harmonylite__", "harmonylite_version"));
        trusting(
            node,
            "INSERT INTO books VALUES('d', 'under the Go program', 0)",
        );
        assert_eq!(
            node.integer("SELECT count(*) FROM __harmonylite__books_change_log"),
            2
        );
        trusting(node, "DELETE FROM books WHERE id = 'd'");
    }
    // And here again.
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO books VALUES('e', 'at last', 0)");
    assert_eq!(cluster.converge()["books"].len(), 3);
}

/// A table of the application's that only looks like ours is left alone.
#[test]
fn only_what_the_go_program_made_is_removed() {
    let mut cluster = Cluster::prepared(1, BOOKS);
    cluster[0]
        .sql("CREATE TABLE __harmonylite__mine(x); INSERT INTO __harmonylite__mine VALUES(7)");
    cluster[0].start_replicating();
    assert_eq!(cluster[0].integer("SELECT x FROM __harmonylite__mine"), 7);
}

#[test]
fn a_stream_of_the_go_program_is_named_and_in_the_way_until_it_is_removed() {
    let mut cluster = Cluster::prepared(2, BOOKS);
    let outsider = Outsider::new(&cluster.server.url());
    outsider.create_stream("harmonylite-changes-c-1", "harmonylite-change-log-1");
    outsider.publish("harmonylite-change-log-1", b"of the Go program");
    let node = &mut cluster[0];
    node.spawn();
    let ended = node.wait_end();
    assert_eq!(ended.code, Some(78), "{}", ended.said);
    let said = "Failed to create stream harmonylite-changes-1: subjects overlap, its subject harmonylite-change-log-1 belongs to stream harmonylite-changes-c-1";
    assert!(ended.said.contains(said), "{}", ended.said);
    // The triggers are there, so nothing is lost meanwhile.
    node.sql("INSERT INTO books VALUES('x', 'meanwhile', 0)");
    assert_eq!(node.pending(), 1);
    outsider.delete_stream("harmonylite-changes-c-1");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    eventually("what was written meanwhile is published", || {
        cluster[0].pending() == 0
    });
    cluster[0].sql("DELETE FROM books WHERE id = 'x'");
    replicate(&mut cluster);
}

/// Without compression the Go program's stream has the name of ours.
#[test]
fn messages_of_the_go_program_in_a_stream_of_our_name_stop_nobody() {
    let mut cluster = Cluster::prepared(2, BOOKS);
    let outsider = Outsider::new(&cluster.server.url());
    outsider.create_stream("harmonylite-changes-1", "harmonylite-change-log-1");
    for _ in 0..3 {
        outsider.publish("harmonylite-change-log-1", &[0xa3, 0x62, 0x69, 0x64, 0x01]);
    }
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    replicate(&mut cluster);
    let letters = "SELECT count(*) FROM __harmonylite__dead_letters";
    assert_eq!(
        [cluster[0].integer(letters), cluster[1].integer(letters)],
        [3, 3]
    );
}

/// The statements of docs/migrating-from-marmot.md, which make the statements that remove what Marmot left.
#[test]
fn what_marmot_left_is_removed_as_the_page_says() {
    let page = include_str!("../../../docs/migrating-from-marmot.md");
    let (_, rest) = page.split_once("```sql\n").unwrap();
    let (query, _) = rest.split_once("```").unwrap();
    let mut cluster = Cluster::prepared(2, BOOKS);
    for node in &mut cluster.nodes {
        trusting(node, &left_by("__marmot__", "marmot_version"));
        assert_eq!(objects(node, "__marmot__"), 6);
        let drops: Vec<String> = {
            let app = node.app();
            let mut statement = app.prepare(query).unwrap();
            let rows = statement.query_map([], |row| row.get(0)).unwrap();
            rows.collect::<Result<_, _>>().unwrap()
        };
        node.sql(&drops.concat());
        assert_eq!(objects(node, "__marmot__"), 0);
        node.start_replicating();
    }
    replicate(&mut cluster);
}
