//! The journals and the operator's commands, against real daemons: what lost comes back, what cannot be read is shown, what stops a node is skipped, and what
//! was missed is folded again.

use serde_json::Value as Json;

use crate::harness::http::{get, metric, observed};
use crate::harness::jetstream::Outsider;
use crate::harness::{Cluster, Node, eventually};

const STREAM: &str = "harmonylite-changes-1";
const SUBJECT: &str = "harmonylite-change-log-1";
const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, v, w);
    CREATE TABLE k(name TEXT PRIMARY KEY, v) WITHOUT ROWID;
";

/// What a command says when it works.
fn said(node: &Node, command: &[&str]) -> String {
    let ended = node.run(command);
    assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.said);
    ended.said
}

/// What a command says when it ends with this code.
fn refused(node: &Node, code: i32, command: &[&str]) -> String {
    let ended = node.run(command);
    assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.said);
    ended.said
}

fn json(node: &Node, command: &[&str]) -> Json {
    let text = said(node, command);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{command:?}: {e}: {text}"))
}

/// The node whose journal has a conflict of this reason, and the conflict.
fn conflict<'c>(cluster: &'c Cluster, reason: &str) -> (&'c Node, Json) {
    for node in &cluster.nodes {
        let list = json(node, &["conflicts", "list", "--json"]);
        if let Some(found) = list
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["reason"] == reason)
        {
            return (node, found.clone());
        }
    }
    panic!("no node has journaled {reason}");
}

fn position(node: &Node) -> i64 {
    node.integer("SELECT position FROM __harmonylite__node")
}

#[test]
fn a_row_that_lost_its_key_comes_back_under_a_fresh_one() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster.concurrently(&[
        "INSERT INTO t(v, w) VALUES('one', x'00ff')",
        "INSERT INTO t(v, w) VALUES('two', 0.5)",
    ]);
    cluster.converge();
    assert_eq!(cluster[0].integer("SELECT count(*) FROM t"), 1);
    let (node, lost) = conflict(&cluster, "insert-collision");
    let id = lost["id"].to_string();
    assert_eq!(
        (lost["table"].as_str(), lost["key"].as_str()),
        (Some("t"), Some("1"))
    );
    let shown = said(node, &["conflicts", "show", &id]);
    assert!(
        shown.contains("insert-collision of table t, key 1"),
        "{shown}"
    );
    let done = said(node, &["conflicts", "restore", &id, "--as-new-row"]);
    assert!(
        done.starts_with("inserted the row with key 2 of table t:"),
        "{done}"
    );
    cluster.converge();
    for node in &cluster.nodes {
        let both =
            "SELECT count(*) FROM t WHERE (v = 'one' AND w = x'00ff') OR (v = 'two' AND w = 0.5)";
        assert_eq!(node.integer(both), 2);
    }
    // Once is enough.
    let again = refused(node, 1, &["conflicts", "restore", &id, "--as-new-row"]);
    assert!(again.contains("was restored at"), "{again}");
    let list = said(node, &["conflicts", "list"]);
    assert!(list.contains("  yes"), "{list}");
    assert!(
        list.lines().all(|line| line.chars().count() <= 80),
        "{list}"
    );
}

#[test]
fn a_cell_that_lost_is_written_back_and_the_journal_is_purged() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO k VALUES('a', 'old'), ('b', 'old')");
    cluster.concurrently(&[
        "UPDATE k SET v = 'one' WHERE name = 'a'; UPDATE k SET v = 'one' WHERE name = 'b'",
        "UPDATE k SET v = 'two' WHERE name = 'a'; DELETE FROM k WHERE name = 'b'",
    ]);
    cluster.converge();
    let (node, lost) = conflict(&cluster, "updated-here");
    let id = lost["id"].to_string();
    let values = json(node, &["conflicts", "show", &id, "--json"]);
    let loser = values["values"]["v"].as_str().unwrap().to_owned();
    let winner = if loser == "one" { "two" } else { "one" };
    let held = |node: &Node, value: &str| {
        node.integer(&format!(
            "SELECT count(*) FROM k WHERE name = 'a' AND v = '{value}'"
        ))
    };
    assert!(cluster.nodes.iter().all(|n| held(n, winner) == 1));
    // The daemon need not run: capture is in the database.
    let at = cluster.nodes.iter().position(|n| n.id == node.id).unwrap();
    cluster[at].stop();
    let done = said(&cluster[at], &["conflicts", "restore", &id]);
    assert!(
        done.contains("updated the row with key 'a' of table k")
            && done.contains("no daemon runs here"),
        "{done}"
    );
    cluster[at].start();
    cluster.converge();
    assert!(cluster.nodes.iter().all(|n| held(n, &loser) == 1));

    let node = &cluster[at];
    refused(node, 64, &["conflicts", "purge"]);
    refused(node, 1, &["conflicts", "purge", "4711"]);
    said(node, &["conflicts", "purge", "--before", "1d"]);
    assert!(
        !json(node, &["conflicts", "list", "--json"])
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        json(node, &["conflicts", "list", "--json", "--table", "t"]),
        serde_json::json!([])
    );
    said(node, &["conflicts", "purge", &id]);
    said(node, &["conflicts", "purge", "--all"]);
    assert_eq!(said(node, &["conflicts", "list"]), "no conflicts\n");
}

#[test]
fn a_storm_of_conflicts_stays_within_its_bound() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        // Nothing but the transactions that add entries holds the bound.
        node.root = "cleanup_interval = 86400000".to_owned();
        node.sections.push_str("[journals]\nmax_conflicts = 25\n");
        node.start();
    }
    cluster[0].sql("INSERT INTO k SELECT value, 'old' FROM generate_series(1, 500)".replace("generate_series(1, 500)", "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 500) SELECT value FROM n)").as_str());
    cluster.concurrently(&["UPDATE k SET v = 'one'", "UPDATE k SET v = 'two'"]);
    cluster.converge();
    let entries: Vec<i64> = cluster
        .nodes
        .iter()
        .map(|n| n.integer("SELECT count(*) FROM __harmonylite__conflicts"))
        .collect();
    assert!(
        entries.iter().all(|n| *n <= 25) && entries.contains(&25),
        "{entries:?}"
    );
}

#[test]
fn dead_letters_are_counted_shown_and_purged() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let (health, metrics) = observed(&mut cluster[0]);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let counted = |n: f64| {
        metric(metrics, "harmonylite_dead_letters") == Some(n)
            && get(health, "/health").is_some_and(|(code, body)| {
                let body: Json = serde_json::from_str(&body).unwrap();
                code == 200 && body["dead_letters"].as_f64() == Some(n)
            })
    };
    let outsider = Outsider::new(&cluster.server.url());
    outsider.publish(SUBJECT, b"\x1b[31mgarbage");
    let second = outsider.publish(SUBJECT, b"more of it");
    eventually("both are counted", || counted(2.0));
    // As it is after a restart.
    cluster[0].stop();
    cluster[0].start();
    eventually("both are counted from the start", || counted(2.0));
    let node = &cluster[0];
    let list = json(node, &["dead-letters", "list", "--json"]);
    assert_eq!(list[0]["sequence"], second);
    let ids: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["id"].to_string())
        .collect();
    let table = said(node, &["dead-letters", "list"]);
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    let shown = said(node, &["dead-letters", "show", &ids[1]]);
    assert!(
        shown.contains("1b 5b 33 31 6d 67") && shown.contains(".[31mgarbage"),
        "{shown}"
    );
    assert!(!shown.contains('\x1b'));
    let why = refused(node, 1, &["dead-letters", "retry", &ids[1]]);
    assert!(why.contains("not a HarmonyLite message"), "{why}");
    said(node, &["dead-letters", "purge", &ids[1]]);
    eventually("one is left", || counted(1.0));
    said(node, &["dead-letters", "purge", "--all"]);
    eventually("none is left", || counted(0.0));
    cluster[1].sql("INSERT INTO k VALUES('after', 1)");
    cluster.converge();
}

#[test]
fn a_message_of_a_newer_version_is_skipped() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO k VALUES('first', 1)");
    cluster.converge();
    let outsider = Outsider::new(&cluster.server.url());
    let mut newer = outsider.message(STREAM, 1);
    newer[2] = 2;
    let at = outsider.publish(SUBJECT, &newer).to_string();
    for node in &mut cluster.nodes {
        node.wait_log("format version 2");
    }
    cluster[0].sql("INSERT INTO k VALUES('second', 2)");
    for (node, spell) in cluster.nodes.iter().zip([at.clone(), format!("{at}-{at}")]) {
        let done = said(node, &["skip", "1", &spell]);
        assert!(done.contains("run harmonylite verify"), "{done}");
    }
    // Also when the daemon is killed before it comes to it.
    cluster[1].kill();
    cluster[1].start();
    assert_eq!(cluster.converge()["k"].len(), 2);
    for node in &cluster.nodes {
        let list = json(node, &["dead-letters", "list", "--json"]);
        assert_eq!(list.as_array().unwrap().len(), 1);
        assert_eq!(list[0]["reason"], "skipped by the operator");
        let why = refused(
            node,
            1,
            &["dead-letters", "retry", &list[0]["id"].to_string()],
        );
        assert!(why.contains("format version 2"), "{why}");
    }
}

#[test]
fn what_was_skipped_can_be_folded_again_or_retried() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO k VALUES('first', 1)");
    cluster.converge();
    // Node 2 lacks the table, and does not want to wait for it.
    cluster[0].sql("CREATE TABLE late(id TEXT PRIMARY KEY, v)");
    cluster[0].sql("INSERT INTO late VALUES('x', 1)");
    cluster[1].wait_log("which is not here");
    cluster[0].sql("INSERT INTO k VALUES('behind', 2)");
    let at = position(&cluster[1]) + 1;
    said(&cluster[1], &["skip", "1", &at.to_string()]);
    eventually("node 2 goes on", || {
        cluster[1].integer("SELECT count(*) FROM k WHERE name = 'behind'") == 1
    });
    // The batch counts as taken: nothing of its publisher is ignored.
    cluster[0].sql("UPDATE k SET v = 3 WHERE name = 'behind'");
    eventually("node 2 takes what follows", || {
        cluster[1].integer("SELECT count(*) FROM k WHERE v = 3") == 1
    });
    let range = format!("{at}-");
    let why = refused(&cluster[1], 1, &["replay", "1", &range]);
    assert!(
        why.contains("which is not here") && why.contains("nothing was changed"),
        "{why}"
    );
    let letter = json(&cluster[1], &["dead-letters", "list", "--json"])[0]["id"].to_string();
    let why = refused(&cluster[1], 1, &["dead-letters", "retry", &letter]);
    assert!(why.contains("there is no table"), "{why}");

    cluster[1].sql("CREATE TABLE late(id TEXT PRIMARY KEY, v)");
    let done = said(&cluster[1], &["replay", "1", &range]);
    assert!(done.contains("folded again: "), "{done}");
    assert!(!done.contains("may be overwritten"), "{done}");
    cluster.converge();
    assert_eq!(cluster[1].integer("SELECT v FROM late"), 1);

    // As a change of node 2: what was written since loses to it, everywhere.
    cluster[0].sql("UPDATE late SET v = 2");
    cluster.converge();
    eventually("the new table is captured", || {
        cluster[1].integer(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'late'",
        ) > 0
    });
    let done = said(&cluster[1], &["dead-letters", "retry", &letter]);
    assert!(done.starts_with("wrote 1 row as a change"), "{done}");
    cluster.converge();
    assert_eq!(cluster[0].integer("SELECT v FROM late"), 1);

    // A range that ends early says what it may have done.
    let done = said(&cluster[1], &["replay", "1", &at.to_string()]);
    assert!(done.contains("may be overwritten"), "{done}");
}

#[test]
fn what_is_folded_again_leaves_what_is_there_and_what_is_pending() {
    let mut cluster = Cluster::new(
        2,
        1,
        "CREATE TABLE k(name TEXT PRIMARY KEY, v, w); CREATE TABLE u(id TEXT PRIMARY KEY, email TEXT UNIQUE)",
    );
    // An address that goes from row to row, rows that come and go, cells.
    for (node, sql) in [
        (
            0,
            "INSERT INTO u VALUES('x', 'a@x'); INSERT INTO k VALUES('one', 1, 1), ('two', 2, 2)",
        ),
        (
            1,
            "UPDATE u SET email = NULL WHERE id = 'x'; DELETE FROM k WHERE name = 'two'",
        ),
        (0, "INSERT INTO u VALUES('y', 'a@x'); UPDATE k SET v = 5"),
        (
            1,
            "UPDATE u SET email = 'b@x' WHERE id = 'y'; INSERT INTO k VALUES('two', 6, 6)",
        ),
        (
            0,
            "INSERT INTO u VALUES('z', 'a@x'); UPDATE k SET w = 7 WHERE name = 'one'",
        ),
    ] {
        cluster[node].sql(sql);
        cluster.converge();
    }
    let expected = cluster.converge();
    for (node, range) in [(0, "1-"), (1, "1-"), (1, "2-")] {
        let done = said(&cluster[node], &["replay", "1", range]);
        assert!(done.contains("folded again: "), "{done}");
        assert_eq!(cluster[node].dump(), expected);
        assert_eq!(
            said(&cluster[node], &["conflicts", "list"]),
            "no conflicts\n"
        );
    }
    cluster.converge_to(&expected);

    // Paused, so that what node 2 writes is pending for as long as we like.
    let outsider = Outsider::new(&cluster.server.url());
    let mut newer = outsider.message(STREAM, 1);
    newer[2] = 2;
    let at = outsider.publish(SUBJECT, &newer).to_string();
    cluster[1].wait_log("format version 2");
    cluster[1].sql("UPDATE k SET v = 'mine' WHERE name = 'one'");
    let mine = cluster[1].dump();
    said(&cluster[1], &["replay", "1", "1-"]);
    assert_eq!(cluster[1].dump(), mine);
    // This row goes on the way, and comes back without what nobody has yet.
    cluster[1].sql("UPDATE k SET v = 'too' WHERE name = 'two'");
    let mine = cluster[1].dump();
    let why = refused(&cluster[1], 75, &["replay", "1", "1-"]);
    assert!(why.contains("an update of table \"k\""), "{why}");
    assert_eq!(cluster[1].dump(), mine);
    cluster[1].sql("INSERT INTO u VALUES('mine', 'c@x')");
    let why = refused(&cluster[1], 75, &["replay", "1", "1-"]);
    assert!(why.contains("changes of table \"u\""), "{why}");
    for node in &cluster.nodes {
        said(node, &["skip", "1", &at]);
    }
    let dump = cluster.converge();
    assert_eq!((dump["u"].len(), dump["k"].len()), (4, 2));
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM k WHERE v IN ('mine', 'too')"),
        2
    );
    cluster.assert_running();
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let mut cluster = Cluster::new(1, 1, SCHEMA);
    cluster[0].sql("INSERT INTO k VALUES('a', 1)");
    cluster.converge();
    eventually("the echo is folded", || position(&cluster[0]) == 1);
    let node = &cluster[0];
    for (command, text) in [
        (
            &["skip", "1", "1"][..],
            "is not ahead of this node's position 1",
        ),
        (&["skip", "1", "2"], "the stream ends at 1"),
        (&["skip", "1", "2-"], "needs the end of its range"),
        (&["skip", "2", "1"], "shard 2 holds payload only"),
        (&["skip", "1", "3-2"], "the RANGE cannot be read"),
        (&["skip", "1", "0"], "the RANGE cannot be read"),
        (
            &["skip", "1"],
            "skip needs a RANGE; write harmonylite skip SHARD RANGE",
        ),
        (&["skip", "x", "1"], "a SHARD cannot be read"),
        (&["replay", "1", "2"], "messages 1 to 1"),
        (&["replay", "1", "1-2"], "messages 1 to 1"),
    ] {
        let why = refused(node, 64, command);
        assert!(why.contains(text), "{command:?}: {why}");
    }
    cluster[0].stop();
    let why = refused(&cluster[0], 69, &["replay", "1", "1-"]);
    assert!(
        why.contains("no daemon is running") && why.contains("start harmonylite"),
        "{why}"
    );
}

#[test]
fn tables_whose_keys_sqlite_chooses_are_warned_of() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let node = &mut cluster.nodes[0];
    let checked = said(node, &["-check"]);
    assert!(
        checked.contains("table \"t\" has a key that SQLite chooses"),
        "{checked}"
    );
    node.start();
    node.wait_log("that SQLite chooses");
    let log = node.log();
    assert_eq!(log.matches("that SQLite chooses").count(), 1, "{log}");
    node.stop();
    node.sections.push_str("[replication]\nexclude = [\"t\"]\n");
    assert!(!said(node, &["-check"]).contains("SQLite chooses"));
    node.start();
    assert!(!node.log().contains("SQLite chooses"));
}
