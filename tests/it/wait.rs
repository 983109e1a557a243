//! Positions: reading one's own write on another node, and waiting until everybody has it.

use nix::sys::signal::Signal;

use crate::harness::http::{free_port, get};
use crate::harness::wait::{Done, eventually_ok};
use crate::harness::{Cluster, Node, eventually, node};

const SCHEMA: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)";

/// Serves HTTP; returns the port.
fn serve_http(node: &mut Node) -> u16 {
    let port = free_port();
    node.sections.push_str(&format!(
        "[health_check]\nenable = true\nbind = \"127.0.0.1:{port}\"\n"
    ));
    port
}

fn json(answer: Option<(u16, String)>, code: u16) -> serde_json::Value {
    let (status, body) = answer.expect("it answers");
    assert_eq!(status, code, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Where everything that the app has committed so far stands.
fn position(port: u16) -> String {
    let answer = json(get(port, "/position?timeout=60s"), 200);
    answer["position"].as_str().unwrap().to_owned()
}

#[test]
fn a_user_reads_their_own_write_on_another_node() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let ports: Vec<u16> = cluster.nodes.iter_mut().map(serve_http).collect();
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let apps: Vec<_> = cluster.nodes.iter().map(Node::app).collect();
    for i in 0..200_usize {
        let (here, there) = (i % 2, (i + 1) % 2);
        let table = if i % 3 == 0 { "u" } else { "t" };
        apps[here]
            .execute(&format!("INSERT INTO {table} VALUES(?1, ?1)"), [i as i64])
            .unwrap();
        let token = position(ports[here]);
        let path = format!("/wait?position={token}&timeout=60s");
        let answer = json(get(ports[there], &path), 200);
        assert_eq!(answer["position"], token.as_str());
        let seen: i64 = apps[there]
            .query_row(
                &format!("SELECT count(*) FROM {table} WHERE id = ?1"),
                [i as i64],
                |r| r.get(0),
            )
            .unwrap();
        assert_eq!(seen, 1, "write {i} is not on node {}", there + 1);
    }
    // The same by commands.
    cluster[0].sql("INSERT INTO t VALUES(1000, 'by command')");
    let told = cluster[0].run(&["position"]);
    assert_eq!(told.code, Some(0), "{}", told.said);
    let waited = cluster[1].run(&["wait", "--position", told.said.trim()]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM t WHERE id = 1000"),
        1
    );
    cluster.assert_running();
}

#[test]
fn wait_returns_when_every_living_node_has_it() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    for node in &mut cluster.nodes {
        node.wait_log("replicating position");
    }
    let done = Done::default();
    std::thread::scope(|scope| {
        let _done = done.on_drop();
        // The app never stops writing, on this node and on another.
        for (node, base) in [(&cluster[0], 1_000_000), (&cluster[1], 2_000_000)] {
            let done = &done;
            scope.spawn(move || {
                let app = node.app();
                let mut n = base;
                while !done.is_said() {
                    n += 1;
                    app.execute("INSERT INTO u VALUES(?1, ?1)", [n]).unwrap();
                }
            });
        }
        for round in 0..10 {
            cluster[0].sql(&format!("INSERT INTO t VALUES({round}, 'round')"));
            let waited = cluster[0].run(&["wait", "--timeout", "60s"]);
            assert_eq!(waited.code, Some(0), "{}", waited.said);
            assert!(waited.said.contains("(1, 2, 3)"), "{}", waited.said);
            for node in &cluster.nodes {
                assert_eq!(
                    node.integer(&format!("SELECT count(*) FROM t WHERE id = {round}")),
                    1,
                    "node {} lacks round {round}",
                    node.id
                );
            }
        }
    });
    cluster.converge();
}

#[test]
fn wait_names_the_node_that_does_not_get_there() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    for node in &mut cluster.nodes {
        node.wait_log("replicating position");
    }
    cluster[2].freeze();
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    let waited = cluster[0].run(&["wait", "--timeout", "4s"]);
    assert_eq!(waited.code, Some(75), "{}", waited.said);
    let last = waited.said.lines().last().unwrap();
    assert!(
        last.contains("node 3 does not answer") && !last.contains("node 2"),
        "{}",
        waited.said
    );
    cluster[2].signal(Signal::SIGCONT);
    let waited = cluster[0].run(&["wait", "--timeout", "80s"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    assert_eq!(cluster[2].integer("SELECT count(*) FROM t"), 1);

    // A node that folds nothing, because its app holds the lock, is named with where it is.
    let app = cluster[1].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    cluster[0].sql("INSERT INTO t VALUES(2, 2)");
    let waited = cluster[0].run(&["wait", "--timeout", "3s"]);
    assert_eq!(waited.code, Some(75), "{}", waited.said);
    assert!(waited.said.contains("node 2 is at "), "{}", waited.said);
    app.execute_batch("COMMIT").unwrap();

    // One that has been stopped is not waited for.
    cluster[2].stop();
    cluster[0].sql("INSERT INTO t VALUES(3, 3)");
    let waited = cluster[0].run(&["wait", "--timeout", "80s"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    assert!(waited.said.contains("(1, 2)"), "{}", waited.said);
}

#[test]
fn a_node_that_applies_nothing_is_named_and_not_waited_for() {
    let mut cluster = Cluster::prepared(3, SCHEMA);
    cluster[1].root = "replicate = false".to_owned();
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    let waited = cluster[0].run(&["wait"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    assert!(
        waited.said.contains("(1, 3); node 2 applies nothing"),
        "{}",
        waited.said
    );
    // What such a node writes can be waited for elsewhere, and nothing there.
    cluster[1].sql("INSERT INTO t VALUES(2, 2)");
    let told = cluster[1].run(&["position"]);
    assert_eq!(told.code, Some(0), "{}", told.said);
    let waited = cluster[2].run(&["wait", "--position", told.said.trim()]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    assert_eq!(cluster[2].integer("SELECT count(*) FROM t WHERE id = 2"), 1);
    let refused = cluster[1].run(&["wait", "--position", told.said.trim()]);
    assert_eq!(refused.code, Some(64), "{}", refused.said);
    assert!(
        refused.said.contains("replicate = false"),
        "{}",
        refused.said
    );
    // One that sends nothing can wait, and is told what it does not wait for.
    cluster[2].stop();
    cluster[2].root = "publish = false".to_owned();
    cluster[2].start_replicating();
    let waited = cluster[2].run(&["wait"]);
    assert_eq!(waited.code, Some(0), "{}", waited.said);
    assert!(waited.said.contains("publish = false"), "{}", waited.said);
}

#[test]
fn a_position_of_another_cluster_is_refused() {
    let server = node::broker();
    let cluster = |prefix: &str| {
        let mut node = Node::new(7, &server.url(), SCHEMA);
        node.sections.push_str(&format!(
            "stream_prefix = \"{prefix}\"\nsubject_prefix = \"{prefix}-log\"\n"
        ));
        let port = serve_http(&mut node);
        node.start_replicating();
        node.sql("INSERT INTO t VALUES(1, 1)");
        (node, port)
    };
    // The same node id, in two clusters on one NATS: neither hears the other's questions.
    let ((one, one_port), (two, two_port)) = (cluster("one"), cluster("two"));
    let (ours, other) = (position(one_port), position(two_port));
    assert_ne!(
        ours.split_once('-').unwrap().0,
        other.split_once('-').unwrap().0
    );
    assert_eq!(
        json(get(one_port, &format!("/wait?position={ours}")), 200)["folded"],
        ours.as_str()
    );
    let refused = json(get(one_port, &format!("/wait?position={other}")), 400);
    let reason = refused["error"].as_str().unwrap();
    assert!(reason.contains("another cluster"), "{reason}");
    let refused = one.run(&["wait", "--position", &other]);
    assert_eq!(refused.code, Some(64), "{}", refused.said);
    assert!(refused.said.contains("another cluster"), "{}", refused.said);
    for said in [one.run(&["wait"]), two.run(&["wait"])] {
        assert_eq!(said.code, Some(0), "{}", said.said);
        assert!(said.said.contains("(7)"), "{}", said.said);
    }
    // A place that nobody has written to yet, and texts that are none.
    let stream = ours.split_once('-').unwrap().0;
    let beyond = json(
        get(one_port, &format!("/wait?position={stream}-999999")),
        400,
    );
    assert!(beyond["error"].as_str().unwrap().contains("behind the end"));
    for path in [
        "/wait",
        "/wait?position=5",
        "/wait?position=%00",
        "/position?position=5",
        "/position?timeout=1h",
        "/position?timeout=soon",
    ] {
        let refused = json(get(one_port, path), 400);
        assert!(refused["error"].is_string(), "{path}: {refused}");
    }
    let refused = one.run(&["wait", "--position", "nonsense"]);
    assert_eq!(refused.code, Some(64), "{}", refused.said);
}

#[test]
fn probes_are_answered_however_many_wait() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let ports: Vec<u16> = cluster.nodes.iter_mut().map(serve_http).collect();
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    // The second node folds nothing while its app holds the lock.
    let app = cluster[1].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    let token = position(ports[0]);
    let late = json(
        get(ports[1], &format!("/wait?position={token}&timeout=300ms")),
        504,
    );
    assert!(
        late["folded"].is_string() && late["error"].is_string(),
        "{late}"
    );
    let path = format!("/wait?position={token}&timeout=60s");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| get(ports[1], &path).unwrap().0))
            .collect();
        // Those beyond the bound are turned away at once.
        eventually("eight are turned away", || {
            asking.iter().filter(|a| a.is_finished()).count() == 8
        });
        let (status, _) = eventually_ok("health answers", || {
            get(ports[1], "/health").ok_or_else(String::new)
        });
        assert!(matches!(status, 200 | 503));
        assert_eq!(asking.iter().filter(|a| a.is_finished()).count(), 8);
        app.execute_batch("COMMIT").unwrap();
        let mut codes: Vec<u16> = asking.into_iter().map(|a| a.join().unwrap()).collect();
        codes.sort_unstable();
        assert_eq!(codes[..32], [200; 32]);
        assert_eq!(codes[32..], [503; 8]);
    });
}
