//! `verify`: all nodes compared at one position of the stream, and mended from one of them.

use nix::sys::signal::Signal;
use rusqlite::config::DbConfig;
use serde_json::Value as Json;

use crate::harness::node::Ended;
use crate::harness::wait::{Done, eventually_ok};
use crate::harness::{Cluster, Node, eventually, nats};

const SCHEMA: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, v, w);
    CREATE TABLE users(id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT);
    CREATE TABLE pairs(a TEXT COLLATE NOCASE, b INTEGER, v REAL, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE keyless(a, b);
";

/// Nodes that replicate.
fn running(count: u64) -> Cluster {
    let mut cluster = Cluster::new(count, 1, SCHEMA);
    for node in &mut cluster.nodes {
        node.wait_log("replicating position");
    }
    cluster
}

/// Writes as nobody captures it.
fn behind_the_back(node: &Node, sql: &str) {
    let app = node.app();
    app.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
        .unwrap();
    app.execute_batch(sql)
        .unwrap_or_else(|error| panic!("node {}: {sql}: {error}", node.id));
}

fn verified(node: &Node, more: &[&str], code: i32) -> Ended {
    let flags: Vec<&str> = ["verify"].into_iter().chain(more.iter().copied()).collect();
    let ended = node.run(&flags);
    assert_eq!(ended.code, Some(code), "{}", ended.said);
    ended
}

/// The report as JSON, without the lines of progress before it.
fn report(node: &Node, more: &[&str], code: i32) -> Json {
    let mut flags = vec!["--json"];
    flags.extend_from_slice(more);
    let said = verified(node, &flags, code).said;
    let (begin, end) = (said.find('{').unwrap(), said.rfind('}').unwrap());
    serde_json::from_str(&said[begin..=end]).unwrap_or_else(|e| panic!("{e}: {said}"))
}

fn fill(cluster: &Cluster) {
    cluster[0].sql(
        "INSERT INTO plain WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
           SELECT i, 'value ' || i, i * 0.5 FROM n;
         INSERT INTO users SELECT id, 'user' || id || '@example.org', v FROM plain WHERE id <= 200;
         INSERT INTO pairs SELECT 'Key' || (id % 7), id, id / 3.0 FROM plain WHERE id <= 500;
         INSERT INTO keyless SELECT v, w FROM plain WHERE id <= 50;",
    );
    cluster.converge();
}

#[test]
fn nodes_that_write_all_the_time_are_equal() {
    let cluster = running(3);
    fill(&cluster);
    let done = Done::default();
    std::thread::scope(|scope| {
        let _done = done.on_drop();
        for node in &cluster.nodes {
            let done = &done;
            scope.spawn(move || {
                let app = node.app();
                let mut n = 0_i64;
                while !done.is_said() {
                    n += 1;
                    // The same rows on all nodes, and rows of its own.
                    app.execute_batch(&format!(
                        "BEGIN IMMEDIATE;
                         UPDATE plain SET v = 'node {id}, {n}' WHERE id = {n} % 50 + 1;
                         INSERT INTO plain VALUES({own}, {n}, NULL);
                         INSERT OR REPLACE INTO users VALUES({n} % 10 + 1000 * {id}, 'fought' || ({n} % 5), 'node {id}');
                         DELETE FROM pairs WHERE b = {n} % 500 AND a = 'key' || ({n} % 7);
                         INSERT OR REPLACE INTO pairs VALUES('KEY' || ({n} % 7), {n} % 500, {n});
                         COMMIT",
                        id = node.id,
                        own = 1_000_000 * node.id as i64 + n,
                    ))
                    .unwrap();
                    // A busy app, but not one that leaves the others nothing of two processors.
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            });
        }
        for round in 0..6 {
            let asked = &cluster[round % 3];
            let found = report(asked, &[], 0);
            assert_eq!(found["nodes"], serde_json::json!([1, 2, 3]), "{found}");
            assert_eq!(found["tables"], 4, "{found}");
            assert!(found["rows"].as_u64().unwrap() > 3000, "{found}");
        }
    });
    cluster.converge();
    let text = verified(&cluster[1], &[], 0).said;
    assert!(
        text.contains("equal on nodes 1, 2, 3 (4 tables, ") && text.contains("; 0 rows with"),
        "{text}"
    );
}

/// What is wrong on node 2 in the tests below.
const BEHIND: &str = "
    UPDATE plain SET w = 7 WHERE id = 17;
    DELETE FROM plain WHERE id = 2500;
    INSERT INTO plain VALUES(-4, 'extra', 1);
    UPDATE pairs SET v = -0.0 WHERE b = 9;
    UPDATE users SET email = upper(email) WHERE id = 3;
    UPDATE keyless SET b = CAST(b AS TEXT) WHERE rowid = 5;
";

#[test]
fn what_differs_is_named_and_mended_from_another_node() {
    let mut cluster = running(3);
    fill(&cluster);
    let right = cluster[0].dump();
    behind_the_back(&cluster[1], BEHIND);
    let text = verified(&cluster[0], &[], 1).said;
    for line in [
        "table plain: 3 rows differ, keys -4 to 2500\n",
        "\n  -4: on node 2; missing on nodes 1, 3\n",
        "\n  17: the same on nodes 1, 3; another on node 2\n",
        "\n  2500: the same on nodes 1, 3; missing on node 2\n",
        "\ntable pairs: 1 row differs, keys 'Key2', 9 to 'Key2', 9\n",
        "\ntable users: 1 row differs, keys 3 to 3\n",
        "\ntable keyless: 1 row differs, keys 5 to 5\n",
        "DIFFERENT on nodes 1, 2, 3 (4 tables, ",
    ] {
        assert!(
            format!("\n{text}").contains(line),
            "{line:?} is not in\n{text}"
        );
    }
    let found = report(&cluster[2], &["--table", "P*s"], 1);
    assert_eq!(found["tables"], 1);
    assert_eq!(
        found["different"][0]["keys"][0]["versions"],
        serde_json::json!([[1, 3], [2]])
    );

    // From which node must be said, and it must be there.
    for (flags, sentence) in [
        (&["--repair"][..], "--repair and --from"),
        (&["--from", "1"], "--repair and --from"),
        (
            &["--repair", "--from", "9"],
            "node 9 is not among the nodes",
        ),
    ] {
        let refused = verified(&cluster[0], flags, 64);
        assert!(refused.said.contains(sentence), "{}", refused.said);
    }
    let position = |cluster: &Cluster| report(&cluster[0], &[], 1)["position"].as_u64().unwrap();
    let before = position(&cluster);
    let text = verified(&cluster[2], &["--repair", "--from", "1"], 0).said;
    assert!(
        text.contains("table plain: 3 rows sent again from node 1")
            && text.contains("table users: 1 row sent again from node 1")
            && text.contains("equal on nodes 1, 2, 3"),
        "{text}"
    );
    cluster.converge_to(&right);
    // Two markers and one batch: nothing else travelled.
    let after = report(&cluster[0], &[], 0)["position"].as_u64().unwrap();
    assert_eq!(after - before, 4);
    // A second repair has nothing to send.
    let found = report(&cluster[0], &["--repair", "--from", "3"], 0);
    assert_eq!(found["resent"], serde_json::json!([]));
    cluster.assert_running();
}

#[test]
fn the_node_that_differs_can_be_the_one_that_is_right() {
    let mut cluster = running(2);
    fill(&cluster);
    behind_the_back(&cluster[1], BEHIND);
    let right = cluster[1].dump();
    verified(&cluster[0], &["--repair", "--from", "2"], 0);
    cluster.converge_to(&right);
    // Without triggers at all nothing is captured until they are made anew.
    behind_the_back(
        &cluster[0],
        "DELETE FROM plain; UPDATE users SET name = 'x'",
    );
    let found = report(&cluster[1], &[], 1);
    let plain = &found["different"][0];
    assert_eq!(
        (plain["table"].as_str(), plain["rows"].as_u64()),
        (Some("plain"), Some(3000))
    );
    assert_eq!(plain["keys"].as_array().unwrap().len(), 10);
    let found = report(&cluster[0], &["--repair", "--from", "2"], 0);
    assert_eq!(
        found["resent"],
        serde_json::json!([{"table": "plain", "rows": 3000, "from": 2}, {"table": "users", "rows": 200, "from": 2}])
    );
    cluster.converge_to(&right);
    cluster.assert_running();
}

#[test]
fn rows_with_unpublished_changes_are_set_apart() {
    // Users may do what docs/verify.md lists, but that the second node's may not publish changes.
    let permissions = |id: u64, more: &str| {
        format!(
            "{{ publish: {{ allow: [{more} \"$JS.API.>\", \"$KV.harmonylite-changes-leases.>\", \"$KV.harmonylite-changes-nodes.>\", \"$KV.harmonylite-changes-cluster.>\", \"$KV.harmonylite-changes-snapshots.>\", \"$O.harmonylite-changes-snapshot-store.>\", \"harmonylite.peers.harmonylite-changes.>\"] }}
               subscribe: {{ allow: [\"_INBOX.>\", \"harmonylite.peers.harmonylite-changes.{id}\"] }}
               allow_responses: true }}"
        )
    };
    let server = nats::NatsServer::with(&format!(
        "authorization {{ users = [
           {{ user: free, password: f, permissions: {} }}
           {{ user: silent, password: s, permissions: {} }} ] }}",
        permissions(1, "\"harmonylite-change-log-1\","),
        permissions(2, "")
    ));
    let mut nodes: Vec<Node> = [(1, "free", "f"), (2, "silent", "s")]
        .map(|(id, user, password)| {
            let mut node = Node::new(id, &server.url(), SCHEMA);
            node.sections.push_str(&format!(
                "user_name = \"{user}\"\nuser_password = \"{password}\"\n"
            ));
            node
        })
        .into();
    for node in &mut nodes {
        node.start_replicating();
    }
    nodes[0].sql("INSERT INTO plain VALUES(1, 'a', 1), (2, 'b', 2), (3, 'c', 3)");
    let waited = nodes[0].run(&["wait"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    nodes[1].sql(
        "UPDATE plain SET v = 'pending' WHERE id = 2;
         INSERT INTO plain VALUES(50, 'pending', 0);
         DELETE FROM plain WHERE id = 3;
         INSERT INTO users VALUES(1, 'pending@example.org', 'p')",
    );
    let found = eventually_ok("it is in flight", || match nodes[1].pending() {
        4 => Ok(report(&nodes[0], &[], 0)),
        n => Err(n.to_string()),
    });
    assert_eq!(found["set_apart"], 4, "{found}");
    // What is not pending is seen all the same.
    behind_the_back(&nodes[1], "UPDATE plain SET v = 'wrong' WHERE id = 1");
    let text = verified(&nodes[0], &[], 1).said;
    assert!(
        text.contains("table plain: 1 row differs, keys 1 to 1\n")
            && text.contains("; 4 rows with unpublished changes set apart)"),
        "{text}"
    );
    // The silent node cannot be waited for by what it has committed, nor mend anything: it says so.
    let told = nodes[1].run(&["position", "--timeout", "2s"]);
    assert_eq!(told.code, Some(75), "{}", told.said);
    assert!(told.said.contains("has not come back"), "{}", told.said);
}

#[test]
fn differences_of_the_schema_and_what_is_left_out_are_named() {
    let mut cluster = Cluster::prepared(3, SCHEMA);
    cluster[2]
        .sections
        .push_str("[replication]\nexclude = [\"key*\"]\n");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    // Rows without a whole key are not replicated, and no difference.
    cluster[1].sql("CREATE TABLE loose(k TEXT PRIMARY KEY, v); INSERT INTO loose VALUES(NULL, 1)");
    cluster[0].sql("CREATE TABLE loose(k TEXT PRIMARY KEY, v)");
    cluster[2].sql("CREATE TABLE loose(k TEXT PRIMARY KEY, v)");
    // What is written to a table before it is captured is found, but `wait` does not wait for that.
    eventually("the new table is captured", || {
        cluster[0].integer(
            "SELECT count(*) FROM sqlite_schema WHERE name = '__harmonylite__loose_insert'",
        ) == 1
    });
    cluster[0].sql("INSERT INTO plain VALUES(1, 2, 3); INSERT INTO loose VALUES('a', 1)");
    let waited = cluster[0].run(&["wait"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    let text = verified(&cluster[0], &[], 0).said;
    assert!(
        text.contains("note: table \"keyless\" is not compared on node 3: [replication]")
            && text.contains("equal on nodes 1, 2, 3 (5 tables, "),
        "{text}"
    );
    cluster[1].sql("ALTER TABLE plain ADD COLUMN more");
    cluster[2].sql("CREATE TABLE only_here(id INTEGER PRIMARY KEY)");
    let text = verified(&cluster[0], &["--table", "[^u]*"], 1).said;
    for line in [
        "schema: column \"more\" of table \"plain\" is missing on node 1, 3\n",
        "schema: table \"only_here\" is missing on node 1, 2\n",
        "DIFFERENT on nodes 1, 2, 3",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("rows differ"), "{text}");
}

#[test]
fn nodes_that_cannot_be_compared_are_named() {
    let mut cluster = Cluster::prepared(4, SCHEMA);
    cluster[3].root = "replicate = false".to_owned();
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    fill_first(&cluster);
    // As configured: no fault.
    let text = verified(&cluster[0], &[], 0).said;
    assert!(
        text.contains("node 4 was not compared: it applies nothing (replicate = false)"),
        "{text}"
    );
    // Its app holds the lock: it does not get to the marker.
    let app = cluster[1].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let text = verified(&cluster[0], &["--timeout", "2s"], 75).said;
    assert!(
        text.contains(
            "node 2 was not compared: it was not done in time: it has folded the stream up to "
        ) && text.contains("equal on nodes 1, 3 "),
        "{text}"
    );
    app.execute_batch("COMMIT").unwrap();
    cluster[2].freeze();
    let text = verified(&cluster[0], &["--timeout", "5s"], 75).said;
    assert!(
        text.contains("node 3 was not compared: it does not answer")
            && text.contains("equal on nodes 1, 2 "),
        "{text}"
    );
    cluster[2].signal(Signal::SIGCONT);
    let waited = cluster[0].run(&["wait", "--timeout", "80s"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    verified(&cluster[0], &[], 0);
}

#[test]
fn a_database_in_which_a_snapshot_would_make_the_app_wait_is_left_out() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[1].sql("PRAGMA journal_mode = DELETE");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    fill_first(&cluster);
    let text = verified(&cluster[0], &[], 75).said;
    assert!(
        text.contains("node 2 was not compared: it says that its database is not in WAL mode")
            && text.contains("only node 1 is there: nothing to compare"),
        "{text}"
    );
    cluster.assert_running();
}

#[test]
fn a_cleanup_is_not_held_up_by_who_waits() {
    let mut cluster = running(2);
    fill_first(&cluster);
    let app = cluster[1].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    cluster[0].sql("INSERT INTO plain VALUES(9, 9, 9)");
    std::thread::scope(|scope| {
        let node = &cluster[0];
        let asking: Vec<_> = [["wait", "--timeout", "80s"], ["verify", "--timeout", "80s"]]
            .into_iter()
            .map(|flags| scope.spawn(move || node.run(&flags)))
            .collect();
        eventually_ok("both are under way", || {
            let log = node.log();
            // One `wait` came before these.
            let asked = |what, times| log.matches(what).count() == times;
            if asked("command=wait", 2) && asked("command=verify", 1) {
                Ok(())
            } else {
                Err(log)
            }
        });
        let cleaned = node.run(&["-cleanup"]);
        assert_eq!(cleaned.code, Some(0), "{}", cleaned.said);
        for asked in asking {
            let ended = asked.join().unwrap();
            assert_eq!(ended.code, Some(75), "{}", ended.said);
            assert!(ended.said.contains("stopping"), "{}", ended.said);
        }
    });
    let left =
        cluster[0].integer("SELECT count(*) FROM sqlite_schema WHERE name GLOB '__harmonylite__*'");
    assert_eq!(left, 0);
    assert_eq!(cluster[0].wait_end().code, Some(0));
}

fn fill_first(cluster: &Cluster) {
    cluster[0].sql("INSERT INTO plain VALUES(1, 2, 3), (4, 5, 6)");
    let waited = cluster[0].run(&["wait"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
}
