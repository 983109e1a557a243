//! What status, streams and ping show.

use nix::sys::signal::Signal;

use super::{SCHEMA, done, json, of, refused, status, wait_state};
use crate::harness::wait::eventually_ok;
use crate::harness::{Cluster, Node, node};

fn running(count: u64) -> Cluster {
    let mut cluster = Cluster::prepared(count, SCHEMA);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster
}

#[test]
fn status_shows_every_node_and_needs_no_daemon() {
    let mut cluster = running(3);
    cluster[0].sql("INSERT INTO t VALUES(1, 'x')");
    cluster.converge();
    let seen = eventually_ok("all nodes run and stand at the end", || {
        let seen = status(&cluster[0]);
        let nodes = seen["nodes"].as_array().unwrap();
        let well = |n: &serde_json::Value| {
            n["state"] == "running" && n["lag_messages"] == 0 && n["pending"] == 0
        };
        match nodes.len() == 3 && nodes.iter().all(well) && !seen["snapshot_leader"].is_null() {
            true => Ok(seen),
            false => Err(seen.to_string()),
        }
    });
    assert_eq!(seen["seen_by"], 1);
    for node in &cluster.nodes {
        let shown = of(&seen, node.id);
        assert_eq!(shown["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(shown["address"], "127.0.0.1");
        assert_eq!(shown["position"], seen["last"]);
        assert_eq!(shown["lag_seconds"], 0.0);
        assert!(shown["host"].as_str().is_some_and(|h| !h.is_empty()));
        assert!(shown["pid"].is_u64() && shown["last_seen_seconds"].is_number());
        assert_eq!(shown["schema"], of(&seen, 1)["schema"]);
        assert_eq!(shown["schema"].as_str().unwrap().len(), 16);
        assert_eq!(shown["snapshot_leader"], seen["snapshot_leader"] == node.id);
    }
    let table = cluster[1].run(&["status"]);
    done(&table);
    assert!(
        table.said.contains("NODE") && table.said.contains("\n2* "),
        "{}",
        table.said
    );
    // A node that has stopped, one that was killed, and one whose schema is another.
    cluster[1].stop();
    let seen = wait_state(&cluster[0], 2, "stopped");
    assert_eq!(of(&seen, 2)["reasons"], serde_json::json!([]));
    cluster[2].sql("ALTER TABLE u ADD COLUMN w");
    eventually_ok("the difference shows", || {
        let text = cluster[0].run(&["status"]).said;
        match text.contains("schemas differ") {
            true => Ok(()),
            false => Err(text),
        }
    });
    cluster[2].kill();
    wait_state(&cluster[0], 3, "lost");
    let text = cluster[0].run(&["status"]);
    refused(&text, 1, &["harmonylite nodes forget 3"]);
    // Where no daemon runs, NATS is asked.
    cluster[0].stop();
    let alone = cluster[0].run(&["status", "--json"]);
    assert!(
        alone.said.contains("no daemon is running for"),
        "{}",
        alone.said
    );
    let seen = json(&alone);
    assert!(seen["seen_by"].is_null());
    assert_eq!(of(&seen, 1)["state"], "stopped");
    let listed = cluster[0].run(&["nodes", "list", "--json"]);
    assert_eq!(json(&listed).as_array().unwrap().len(), 3);
    let streams = cluster[0].run(&["streams", "--json"]);
    assert_eq!(json(&streams)["streams"][0]["last"], seen["last"]);
    refused(&cluster[0].run(&["ping"]), 69, &["no daemon is running"]);
    // And where NATS is not there either, it says so.
    cluster.server.kill();
    refused(&cluster[0].run(&["status"]), 69, &["NATS"]);
}

#[test]
fn status_says_what_it_can_while_nats_is_away() {
    let mut cluster = running(2);
    cluster.server.kill();
    cluster[0].sql("INSERT INTO t VALUES(1, 'x')");
    let seen = eventually_ok("it shows that it is cut off", || {
        let seen = status(&cluster[0]);
        let own = of(&seen, 1);
        match own["state"] == "unhealthy" && own["pending"] == 1 {
            true => Ok(seen),
            false => Err(seen.to_string()),
        }
    });
    assert_eq!(seen["nodes"].as_array().unwrap().len(), 1);
    let text = cluster[0].run(&["status"]);
    refused(
        &text,
        1,
        &["the other nodes cannot be seen", "not connected to NATS"],
    );
    refused(
        &cluster[0].run(&["streams"]),
        69,
        &["not connected to NATS"],
    );
    cluster.server.restart();
    wait_state(&cluster[0], 2, "running");
}

#[test]
fn streams_shows_each_shard_and_how_far_each_node_has_read() {
    // Without snapshots nodes announce themselves all the same.
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sections.push_str(
            "[replication_log]\nshards = 3\ncompress = false\n[snapshot]\nenabled = false\n",
        );
        node.start_replicating();
    }
    // Far more than one message: payload goes to the shards of both tables.
    for table in ["t", "u"] {
        cluster[0].sql(&format!(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 40)
             INSERT INTO {table} SELECT n, randomblob(100000) FROM c"
        ));
    }
    cluster.converge();
    let streams = eventually_ok("both have read all", || {
        let shown = json(&cluster[0].run(&["streams", "--json"]))["streams"].clone();
        let all = shown.as_array().unwrap();
        let read = |s: &serde_json::Value| {
            (1..=2).all(|n: u64| {
                let offset = &s["offsets"][n.to_string()];
                s["entries"] == 0 || offset == &s["last"]
            })
        };
        match all.len() == 3 && all.iter().all(read) {
            true => Ok(shown),
            false => Err(shown.to_string()),
        }
    });
    let all = streams.as_array().unwrap();
    let filled = all
        .iter()
        .filter(|s| s["entries"].as_u64() > Some(0))
        .count();
    assert!(filled >= 2, "{streams}");
    assert!(all[0]["oldest"].is_string() && all[0]["bytes"].as_u64() > Some(0));
    assert_eq!(all[0]["limit_bytes"], 1 << 30);
    let text = cluster[1].run(&["streams"]);
    done(&text);
    assert!(text.said.starts_with("SHARD"), "{}", text.said);
    assert_eq!(
        wait_state(&cluster[0], 2, "running")["nodes"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn ping_measures_each_node_and_touches_nothing() {
    let mut cluster = running(3);
    cluster[0].sql("INSERT INTO t VALUES(1, 'x')");
    let before = cluster.converge();
    let report = cluster[1].run(&["ping", "--count", "20", "--interval", "5ms", "--json"]);
    done(&report);
    let report = json(&report);
    assert_eq!((&report["node"], &report["sent"]), (&2.into(), &20.into()));
    let ways = report["nodes"].as_array().unwrap();
    assert_eq!(ways.len(), 3);
    for way in ways {
        assert_eq!(
            (&way["answers"], &way["timeouts"]),
            (&20.into(), &0.into()),
            "{way}"
        );
        let ms = |key: &str| way[key].as_f64().unwrap();
        assert!(ms("min_ms") > 0.0 && ms("min_ms") <= ms("p50_ms"), "{way}");
        assert!(
            ms("p50_ms") <= ms("p99_ms") && ms("p99_ms") <= ms("max_ms"),
            "{way}"
        );
    }
    assert_eq!(cluster.converge(), before);
    // While its app writes at full speed, too, and both see the same.
    let text = cluster[0].run(&["ping", "--count", "1"]);
    done(&text);
    // A node that stands still is named, and holds up nobody else's.
    cluster[2].freeze();
    let text = cluster[0].run(&["ping", "--count", "2", "--timeout", "2s", "--json"]);
    assert_eq!(text.code, Some(75), "{}", text.said);
    let report = json(&text);
    assert_eq!(report["nodes"][2]["timeouts"], 2);
    assert_eq!(report["nodes"][2]["reason"], "does not answer");
    assert_eq!(report["nodes"][1]["answers"], 2);
    cluster[2].signal(Signal::SIGCONT);
    // A node whose database another process holds has not folded it, and says where it is.
    let app = cluster[1].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let text = cluster[0].run(&["ping", "--count", "1", "--timeout", "2s"]);
    refused(
        &text,
        75,
        &["! node 2 has not folded it in time: it is at "],
    );
    app.execute_batch("COMMIT").unwrap();
    refused(&cluster[0].run(&["ping", "--count", "0"]), 64, &["-count"]);
    cluster.converge();
    cluster.assert_running();
}

#[test]
fn names_of_a_cluster_that_is_not_there_are_said() {
    let server = node::broker();
    let mut alone = Node::new(1, &server.url(), SCHEMA);
    alone.sections.push_str("stream_prefix = \"nobody\"\n");
    refused(
        &alone.run(&["status"]),
        69,
        &["there is no stream nobody-1"],
    );
    refused(&alone.run(&["nodes", "forget", "3"]), 69, &["nobody"]);
    alone.sections = String::new();
    refused(&alone.run(&["status"]), 69, &["nats.urls is empty"]);
    alone.sections = format!("[nats]\nurls = [\"{}\"]\n", server.url());
    alone.start_replicating();
    refused(
        &alone.run(&["nodes", "forget", "3"]),
        64,
        &["there is no node 3", "(1)"],
    );
    refused(
        &alone.run(&["nodes", "forget", "1"]),
        64,
        &["harmonylite leave"],
    );
}
