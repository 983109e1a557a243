//! Nodes that only read or only write, and switching back.

use crate::harness::wait::Done;
use crate::harness::{Cluster, Node, app, eventually, node};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

fn ours(node: &Node, kind: &str) -> i64 {
    node.integer(&format!(
        "SELECT count(*) FROM sqlite_schema WHERE type = '{kind}' AND name GLOB '__harmonylite__*'"
    ))
}

#[test]
fn publish_false_captures_nothing_and_applies() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[0].start();
    cluster[1].root = "publish = false".to_owned();
    cluster[1].start_replicating();
    assert_eq!(
        (ours(&cluster[1], "trigger"), ours(&cluster[1], "view")),
        (0, 0)
    );
    cluster[0].sql("INSERT INTO t VALUES(1, 'one')");
    eventually("the row arrives", || {
        cluster[1].integer("SELECT count(*) FROM t") == 1
    });
    cluster[1].sql("INSERT INTO t VALUES(2, 'stays here')");
    cluster[0].sql("INSERT INTO t VALUES(3, 'three')");
    eventually("the next row arrives", || {
        cluster[1].integer("SELECT count(*) FROM t") == 3
    });
    cluster[1].stop();
    assert_eq!(cluster[0].integer("SELECT count(*) FROM t"), 2);
    // Switched on: what is written from now on is published, and what was written before is found.
    cluster[1].root = String::new();
    cluster[1].start();
    cluster[1].sql("INSERT INTO t VALUES(4, 'four')");
    eventually("the new row is published", || {
        cluster[0].integer("SELECT count(*) FROM t WHERE id = 4") == 1
    });
    eventually("the row that nobody captured is published", || {
        cluster[0].integer("SELECT count(*) FROM t WHERE id = 2") == 1
    });
    // Switched off again: the triggers go.
    cluster[1].wait_published();
    cluster[1].stop();
    cluster[1].root = "publish = false".to_owned();
    cluster[1].start_replicating();
    assert_eq!(
        (ours(&cluster[1], "trigger"), ours(&cluster[1], "view")),
        (0, 0)
    );
    cluster.assert_running();
}

#[test]
fn what_was_written_under_publish_false_is_found_when_it_is_switched_back() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[0].start();
    cluster[1].start();
    cluster[1].sql("INSERT INTO t VALUES(1, 'one'), (2, 'two'), (3, 'three')");
    cluster.converge();
    cluster[1].stop();
    cluster[1].root = "publish = false".to_owned();
    cluster[1].start_replicating();
    cluster[1].sql("INSERT INTO t VALUES(4, 'unseen'); UPDATE t SET v = 'unseen' WHERE id = 1; DELETE FROM t WHERE id = 2");
    cluster[1].stop();
    cluster[1].root = String::new();
    cluster[1].start();
    let expected = cluster[1].dump();
    cluster.converge_to(&expected);
}

#[test]
fn replicate_false_publishes_applies_nothing_and_catches_up_later() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[0].start();
    cluster[1].root = "replicate = false".to_owned();
    cluster[1].start();
    cluster[0].sql("INSERT INTO t VALUES(1, 'one')");
    cluster[0].wait_published();
    for id in 10..20 {
        cluster[1].sql(&format!("INSERT INTO t VALUES({id}, 'two')"));
    }
    eventually("its own rows are published", || {
        cluster[0].integer("SELECT count(*) FROM t") == 11
    });
    cluster[1].wait_published();
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t WHERE id = 1"), 0);
    // Through a restart in this mode, with an own value that the other overrides meanwhile.
    cluster[0].sql("UPDATE t SET v = 'overridden' WHERE id = 10");
    cluster[0].wait_published();
    cluster[1].kill();
    cluster[1].start();
    cluster[1].sql("INSERT INTO t VALUES(20, 'two')");
    eventually("it is published", || {
        cluster[0].integer("SELECT count(*) FROM t WHERE id = 20") == 1
    });
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM t WHERE v = 'overridden' OR id = 1"),
        0
    );
    cluster[1].stop();
    cluster[1].root = String::new();
    cluster[1].start();
    let expected = cluster[0].dump();
    assert_eq!(expected["t"].len(), 12);
    cluster.converge_to(&expected);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM t WHERE v = 'overridden'"),
        1
    );
}

#[test]
fn own_values_stay_in_sight_when_a_node_applies_again() {
    let mut cluster = Cluster::prepared(
        2,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, email TEXT UNIQUE); INSERT INTO t VALUES(1, 0)",
    );
    cluster[0].start();
    cluster[1].root = "replicate = false".to_owned();
    cluster[1].start();
    // An address goes from row to row, and others' changes stand between.
    for n in 1..=200 {
        cluster[1].sql(&format!(
            "UPDATE t SET v = {n} WHERE id = 1; DELETE FROM u; INSERT INTO u VALUES({n}, 'handed on')"
        ));
        cluster[0].sql(&format!("INSERT INTO t VALUES({n} + 1, 'other')"));
    }
    cluster[1].wait_published();
    cluster[1].stop();
    // Not published when it begins to apply.
    cluster[1].sql(
        "UPDATE t SET v = 201 WHERE id = 1; DELETE FROM u; INSERT INTO u VALUES(201, 'handed on')",
    );
    cluster[1].root = String::new();
    let (done, database) = (Done::default(), cluster[1].database());
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let reader = scope.spawn(|| {
            let conn = app::look(&database).unwrap();
            while !done.is_said() {
                assert_eq!(app::integer(&conn, "SELECT v FROM t WHERE id = 1"), 201);
                assert_eq!(app::integer(&conn, "SELECT max(id) FROM u"), 201);
            }
        });
        cluster[1].start();
        let dump = cluster.converge();
        assert_eq!(dump["t"].len(), 201);
        done.say();
        reader.join().unwrap();
    });
    assert_eq!(cluster[0].integer("SELECT id FROM u"), 201);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM __harmonylite__conflicts"),
        0
    );
}

#[test]
fn tables_that_are_left_out_stay_at_home() {
    let mut cluster = Cluster::prepared(
        2,
        "CREATE TABLE app_users(id INTEGER PRIMARY KEY, v); CREATE TABLE app_cache(id INTEGER PRIMARY KEY, v); CREATE TABLE local(id INTEGER PRIMARY KEY, v)",
    );
    for node in &mut cluster.nodes {
        node.sections
            .push_str("[replication]\ninclude = [\"app_*\"]\nexclude = [\"*_cache\"]\n");
        node.start();
    }
    cluster[0].sql("BEGIN; INSERT INTO app_users VALUES(1, 'x'); INSERT INTO app_cache VALUES(1, 'x'); INSERT INTO local VALUES(1, 'x'); COMMIT");
    eventually("the wanted row arrives", || {
        cluster[1].integer("SELECT count(*) FROM app_users") == 1
    });
    assert_eq!(
        cluster[1]
            .integer("SELECT (SELECT count(*) FROM app_cache) + (SELECT count(*) FROM local)"),
        0
    );
    cluster.assert_running();
}

#[test]
fn two_clusters_share_one_server() {
    let server = node::broker();
    let mut nodes: Vec<Node> = [(1, "red"), (2, "red"), (1, "blue"), (2, "blue")]
        .into_iter()
        .map(|(id, cluster)| {
            let mut node = Node::new(id, &server.url(), SCHEMA);
            node.sections.push_str(&format!(
                "stream_prefix = \"{cluster}\"\nsubject_prefix = \"{cluster}-log\"\n"
            ));
            node
        })
        .collect();
    for node in &mut nodes {
        node.start_replicating();
    }
    nodes[0].sql("INSERT INTO t VALUES(1, 'red')");
    nodes[3].sql("INSERT INTO t VALUES(1, 'blue'), (2, 'blue')");
    eventually("red is red", || {
        nodes[1].integer("SELECT count(*) FROM t WHERE v = 'red'") == 1
    });
    eventually("blue is blue", || {
        nodes[2].integer("SELECT count(*) FROM t WHERE v = 'blue'") == 2
    });
    assert_eq!(
        nodes[0].integer("SELECT count(*) FROM t") + nodes[3].integer("SELECT count(*) FROM t"),
        3
    );
}
