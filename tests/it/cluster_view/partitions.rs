//! Nodes that do not hear one another, and a NATS cluster that has lost its quorum.

use super::{SCHEMA, of, status};
use crate::harness::http::{free_port, get, observed};
use crate::harness::nats::NatsServer;
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node, eventually};

/// Users: one that may do all, one that may not hear what others ask, one that may not ask.
const USERS: &str = r#"authorization {
  users = [
    { user: all, password: all }
    { user: deaf, password: deaf, permissions: { publish: ">", subscribe: { deny: "harmonylite.peers.>" } } }
    { user: mute, password: mute, permissions: { publish: { deny: "harmonylite.peers.>" }, subscribe: ">" } }
  ]
}"#;

/// Whether a node sees this kind of partition, by its metrics.
fn sees(metrics: u16, kind: &str) -> bool {
    let (_, text) = get(metrics, "/metrics").unwrap();
    text.lines().any(|line| {
        line.starts_with("harmonylite_partition{")
            && line.contains(&format!("reason=\"{kind}\""))
            && line.ends_with(" 1")
    })
}

/// Starts nodes as these users; their ports for health and metrics.
fn nodes(server: &NatsServer, users: &[&str]) -> (Vec<Node>, Vec<(u16, u16)>) {
    let mut nodes = Vec::new();
    let mut ports = Vec::new();
    for (id, user) in (1..).zip(users) {
        let mut node = Node::new(id, &server.url(), SCHEMA);
        node.sections.push_str(&format!(
            "user_name = \"{user}\"\nuser_password = \"{user}\"\n"
        ));
        ports.push(observed(&mut node));
        node.start_replicating();
        nodes.push(node);
    }
    (nodes, ports)
}

#[test]
fn a_node_that_is_not_heard_and_one_that_hears_nobody_are_shown() {
    let server = NatsServer::with(USERS);
    let (nodes, ports) = nodes(&server, &["all", "all", "deaf"]);
    // The deaf one does not answer; the two others do, and data move.
    eventually("the first misses the third", || sees(ports[0].1, "peers"));
    eventually("so does the second", || sees(ports[1].1, "peers"));
    let (code, body) = get(ports[0].0, "/health").unwrap();
    assert_eq!(code, 200, "{body}");
    assert!(
        body.contains("nodes 3 announce themselves and do not answer this node"),
        "{body}"
    );
    let (code, body) = get(ports[2].0, "/health").unwrap();
    assert_eq!(code, 200, "{body}");
    assert!(!sees(ports[2].1, "isolated") && !sees(ports[2].1, "peers"));
    let shown = eventually_ok("status names it", || {
        let shown = nodes[1].run(&["status"]).said;
        match shown.contains("a partition is suspected: node 1") {
            true => Ok(shown),
            false => Err(shown),
        }
    });
    assert!(
        shown.contains("gets no answer from nodes that it sees in JetStream (3)"),
        "{shown}"
    );
    assert_eq!(of(&status(&nodes[1]), 1)["hears"], serde_json::json!([2]));
    nodes[2].sql("INSERT INTO t VALUES(1, 'goes')");
    eventually("data move all the same", || {
        nodes[0].integer("SELECT count(*) FROM t") == 1
    });
}

#[test]
fn an_isolated_node_is_unhealthy_until_it_is_heard_again_or_alone() {
    let server = NatsServer::with(USERS);
    let (mut nodes, ports) = nodes(&server, &["all", "mute"]);
    eventually("it hears nobody", || sees(ports[1].1, "isolated"));
    let (code, body) = get(ports[1].0, "/health").unwrap();
    assert_eq!(code, 503, "{body}");
    assert!(
        body.contains("this node hears nobody") && body.contains("(1)"),
        "{body}"
    );
    nodes[1].wait_log("this node hears nobody");
    // The other asks, and is answered.
    assert!(!sees(ports[0].1, "isolated") && !sees(ports[0].1, "peers"));
    // A peer that was killed does not count: who says nothing is not there.
    nodes[0].kill();
    eventually("it is alone", || sees(ports[1].1, "alone"));
    let (code, body) = get(ports[1].0, "/health").unwrap();
    assert_eq!(code, 200, "{body}");
    assert!(
        body.contains("none of the other nodes (1) says anything"),
        "{body}"
    );
    assert!(!sees(ports[1].1, "isolated"));
    // One that stops in good order is not missed.
    nodes[0].start_replicating();
    eventually("it is heard of again", || !sees(ports[1].1, "alone"));
    nodes[0].stop();
    eventually("it is seen to have stopped, and that is well", || {
        let shown = nodes[1].run(&["status"]).said;
        shown.contains("stopped") && !shown.contains("none of the other nodes")
    });
}

#[test]
fn a_nats_cluster_without_a_quorum_is_shown_as_that() {
    let routes: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let all: Vec<String> = routes
        .iter()
        .map(|r| format!("nats://127.0.0.1:{r}"))
        .collect();
    let mut servers: Vec<NatsServer> = routes
        .iter()
        .enumerate()
        .map(|(n, route)| {
            NatsServer::with(&format!(
                "server_name: s{n}\ncluster {{ name: c, listen: \"127.0.0.1:{route}\", routes: [{}], no_advertise: true }}",
                all.join(", ")
            ))
        })
        .collect();
    let mut node = Node::new(1, &servers[0].url(), SCHEMA);
    node.sections
        .push_str("[replication_log]\nreplicas = 3\n[snapshot.nats]\nreplicas = 3\n");
    let (health, metrics) = observed(&mut node);
    node.start_replicating();
    eventually("it is well", || get(health, "/health").unwrap().0 == 200);
    servers[1].kill();
    servers[2].kill();
    eventually("JetStream stores nothing", || sees(metrics, "jetstream"));
    let (code, body) = get(health, "/health").unwrap();
    assert_eq!(code, 503, "{body}");
    assert!(
        body.contains("connected to NATS server s0, but JetStream stores nothing"),
        "{body}"
    );
    let shown = node.run(&["status"]);
    assert_eq!(shown.code, Some(1), "{}", shown.said);
    assert!(
        shown.said.contains("JetStream stores nothing"),
        "{}",
        shown.said
    );
    node.sql("INSERT INTO t VALUES(1, 'waits')");
    servers[1].restart();
    servers[2].restart();
    eventually("it is well again", || {
        get(health, "/health").unwrap().0 == 200 && node.pending() == 0
    });
    assert!(!sees(metrics, "jetstream"));
    let mut cluster = Cluster {
        nodes: vec![node],
        server: servers.remove(0),
    };
    cluster.assert_running();
}
