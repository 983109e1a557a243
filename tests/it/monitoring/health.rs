//! Health when something stands still: each reason under the name of its component.

use std::path::Path;

use serde_json::Value;

use super::{answers, json};
use crate::harness::cable::Cable;
use crate::harness::http::{metric, observed};
use crate::harness::node::{broker, folder};
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node, eventually};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

fn state<'a>(body: &'a Value, component: &str) -> &'a Value {
    &body["components"][component]["state"]
}

/// The value of a series with this label among others.
fn series(port: u16, name: &str, label: &str) -> Option<f64> {
    let (_, text) = crate::harness::http::get(port, "/metrics")?;
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name}{{")) && line.contains(label))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn a_consumer_that_stalls_is_unhealthy_whatever_the_connection_says() {
    let server = broker();
    let port = server.url().rsplit(':').next().unwrap().parse().unwrap();
    let cable = Cable::to(port);
    let mut writer = Node::new(1, &server.url(), SCHEMA);
    let mut reader = Node::new(2, &cable.url(), SCHEMA);
    let (health, metrics) = observed(&mut reader);
    writer.start_replicating();
    reader.start_replicating();
    answers(health, "/health", 200, |body| {
        *state(body, "consumer_1") == "ok"
    });
    // Everything passes but the messages of the stream.
    cable.swallow(true);
    writer.sql("INSERT INTO t VALUES(1, 1)");
    let body = answers(health, "/health", 503, |body| {
        *state(body, "consumer_1") == "failing"
    });
    assert_eq!(body["nats_connected"], true, "{body}");
    let (code, _) = json(health, "/livez");
    assert_eq!(code, 200);
    eventually("metrics say so too", || {
        metric(metrics, "harmonylite_healthy") == Some(0.0)
            && series(metrics, "harmonylite_component_state", "\"consumer_1\"") == Some(2.0)
            && metric(metrics, "harmonylite_lag_seconds") > Some(1.0)
    });
    cable.swallow(false);
    answers(health, "/health", 200, |body| body["lag_messages"] == 0);
    assert_eq!(reader.integer("SELECT count(*) FROM t"), 1);
    // The server stops in the middle of everything, and every connection stands.
    server.pause();
    answers(health, "/health", 503, |body| {
        *state(body, "consumer_1") == "failing" || *state(body, "broker") == "failing"
    });
    server.resume();
    answers(health, "/health", 200, |_| true);
    assert!(metric(metrics, "harmonylite_consumer_recreations_total") > Some(0.0));
}

#[test]
fn a_node_far_behind_is_healthy_and_not_ready_and_others_see_how_far() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let (_, seen_by_one) = observed(&mut cluster[0]);
    let (health, metrics) = observed(&mut cluster[1]);
    let section = "[health_check]\n";
    let section_with = format!("{section}ready_lag_messages = 5\n");
    cluster[1].sections = cluster[1].sections.replace(section, &section_with);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    answers(health, "/readyz", 200, |body| body["status"] == "ready");
    let limited = cluster[1].run(&["limit", "apply", "1"]);
    assert_eq!(limited.code, Some(0), "{}", limited.said);
    for id in 1..=60 {
        cluster[0].sql(&format!("INSERT INTO t VALUES({id}, {id})"));
        cluster[0].wait_published();
    }
    let body = answers(health, "/readyz", 503, |body| {
        body["lag_messages"].as_u64().is_some_and(|lag| lag > 5)
    });
    assert!(
        body["reasons"][0]
            .as_str()
            .unwrap()
            .contains("ready_lag_messages"),
        "{body}"
    );
    let (code, body) = json(health, "/health");
    assert_eq!(
        (code, state(&body, "apply")),
        (200, &"warning".into()),
        "{body}"
    );
    assert_eq!(metric(metrics, "harmonylite_ready"), Some(0.0));
    eventually("the other node sees how far it is behind", || {
        series(seen_by_one, "harmonylite_peer_lag_messages", "peer=\"2\"") > Some(5.0)
            && series(
                seen_by_one,
                "harmonylite_peer_lag_seconds",
                "peer=\"2\",shard=\"1\"",
            ) > Some(1.0)
            && series(metrics, "harmonylite_lag_seconds", "shard=\"1\"") > Some(1.0)
    });
    let free = cluster[1].run(&["limit", "apply", "off"]);
    assert_eq!(free.code, Some(0), "{}", free.said);
    answers(health, "/readyz", 200, |body| body["lag_messages"] == 0);
    cluster.converge();
    eventually("that is over", || {
        series(seen_by_one, "harmonylite_peer_lag_messages", "peer=\"2\"") == Some(0.0)
            && series(seen_by_one, "harmonylite_peer_lag_seconds", "peer=\"2\"") == Some(0.0)
            && metric(metrics, "harmonylite_lag_seconds") == Some(0.0)
    });
    // Who was killed keeps its series, who is forgotten loses them.
    cluster[1].kill();
    eventually("the other node sees since when it says nothing", || {
        series(
            seen_by_one,
            "harmonylite_peer_last_seen_seconds",
            "peer=\"2\"",
        ) > Some(3.0)
    });
    eventually("it can be forgotten", || {
        cluster[0].run(&["nodes", "forget", "2"]).code == Some(0)
    });
    eventually("its series are gone", || {
        let name = |name: &str| series(seen_by_one, name, "peer=\"2\"").is_none();
        name("harmonylite_peer_last_seen_seconds")
            && name("harmonylite_peer_position")
            && name("harmonylite_peer_lag_seconds")
    });
}

#[test]
fn a_disk_that_is_too_full_and_a_database_that_is_gone_are_named() {
    let server = broker();
    let mut node = Node::new(1, &server.url(), SCHEMA);
    let (health, _) = observed(&mut node);
    let section = "[health_check]\n";
    let with = format!("{section}min_free_bytes = {}\n", i64::MAX);
    let usual = std::mem::take(&mut node.sections);
    node.sections = usual.replace(section, &with);
    node.start_replicating();
    let body = answers(health, "/health", 503, |body| {
        *state(body, "disk") == "failing"
    });
    assert!(
        body["reasons"][0]
            .as_str()
            .unwrap()
            .contains("min_free_bytes")
    );
    let free = body["disk_free_bytes"].as_u64().unwrap();
    assert!(free > 0);
    node.stop();
    node.sections = usual;
    node.start_replicating();
    answers(health, "/health", 200, |body| *state(body, "disk") == "ok");
    let (there, aside) = (node.database(), node.folder.join("aside"));
    std::fs::rename(&there, &aside).unwrap();
    let body = answers(health, "/health", 503, |body| {
        *state(body, "database") == "failing"
    });
    assert!(body.to_string().contains("removed or replaced"), "{body}");
    std::fs::rename(&aside, &there).unwrap();
    answers(health, "/health", 200, |_| true);
}

#[test]
fn a_node_that_leads_no_more_does_not_warn_of_its_snapshots() {
    let store = folder();
    let path = store.path().join("store");
    // What the path leads to can be changed at any time.
    let leads_to = |folder: &Path| {
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(folder, &path).unwrap();
    };
    let real = folder();
    leads_to(real.path());
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let mut ports = Vec::new();
    for node in &mut cluster.nodes {
        node.sections.push_str(&format!(
            "[snapshot]\ninterval = 1000\nleader_ttl = 3000\nstore = \"file\"\n[snapshot.file]\npath = {path:?}\n"
        ));
        ports.push(observed(node).0);
        node.start_replicating();
    }
    let warns = |port: u16| -> bool {
        let (_, body) = json(port, "/health");
        *state(&body, "snapshots") == "warning"
    };
    cluster[0].wait_log("this node takes the cluster's snapshots");
    // Nobody can put anything into this folder, not even root.
    leads_to(Path::new("/proc"));
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    eventually("the leader warns", || warns(ports[0]));
    let paused = cluster[0].run(&["pause", "publish"]);
    assert_eq!(paused.code, Some(0), "{}", paused.said);
    eventually("the new leader warns, and the old one no more", || {
        warns(ports[1]) && !warns(ports[0])
    });
    leads_to(real.path());
    eventually_ok("nobody warns", || {
        match (warns(ports[0]), warns(ports[1])) {
            (false, false) => Ok(()),
            both => Err(format!("{both:?}")),
        }
    });
}
