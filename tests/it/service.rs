//! What service managers, probes and dashboards see of a daemon.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::http::{free_port, get, metric, observed};
use crate::harness::wait::{Done, eventually_ok};
use crate::harness::{Cluster, Node, eventually, nats, node};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

#[test]
fn health_and_metrics_tell_what_happens() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let (health, metrics) = observed(&mut cluster[0]);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO t VALUES(1, 1), (2, 2)");
    cluster[1].sql("INSERT INTO t VALUES(3, 3)");
    cluster.converge();
    let body = eventually_ok("it is healthy", || match get(health, "/health") {
        Some((200, body)) => Ok(body),
        other => Err(format!("{other:?}")),
    });
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["status"], "healthy");
    assert_eq!(
        (
            &json["db_connected"],
            &json["nats_connected"],
            &json["cdc_installed"]
        ),
        (&true.into(), &true.into(), &true.into()),
        "{body}"
    );
    assert_eq!(json["tables_tracked"], 1);
    assert_eq!(json["schema"]["paused"], false);
    for key in [
        "node_id",
        "uptime_seconds",
        "last_replicated_event_timestamp",
        "last_published_event_timestamp",
        "version",
    ] {
        assert!(!json[key].is_null(), "{key} is missing in {body}");
    }
    assert_eq!(metric(metrics, "harmonylite_published"), Some(2.0));
    eventually("nothing is pending", || {
        metric(metrics, "harmonylite_pending_publish") == Some(0.0)
    });
    assert_eq!(
        metric(metrics, "harmonylite_schema_mismatch_paused"),
        Some(0.0)
    );
    // A schema that is behind shows, and is gone again when it is not.
    cluster[1].sql("ALTER TABLE t ADD COLUMN w; INSERT INTO t VALUES(4, 4, 4)");
    eventually("the pause shows", || {
        metric(metrics, "harmonylite_schema_mismatch_paused") == Some(1.0)
    });
    let (_, body) = get(health, "/health").unwrap();
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["schema"]["paused"], true, "{body}");
    cluster[0].sql("ALTER TABLE t ADD COLUMN w");
    cluster.converge();
    eventually("the pause is over", || {
        metric(metrics, "harmonylite_schema_mismatch_paused") == Some(0.0)
    });
    // A broker that is away shows.
    cluster.server.kill();
    cluster[0].sql("INSERT INTO t VALUES(5, 5, 5)");
    eventually("the outage shows", || {
        get(health, "/health").is_some_and(|(_, body)| body.contains("\"nats_connected\":false"))
    });
    eventually("what is pending shows", || {
        metric(metrics, "harmonylite_pending_publish") == Some(1.0)
            && metric(metrics, "harmonylite_pending_age_seconds") > Some(1.0)
    });
    cluster.server.restart();
    cluster.converge();
    eventually("it is healthy again", || {
        get(health, "/health")
            .is_some_and(|(status, body)| status == 200 && body.contains("\"nats_connected\":true"))
    });
}

#[test]
fn the_service_manager_is_told() {
    let server = node::broker();
    let mut node = Node::new(1, &server.url(), SCHEMA);
    let path = node.folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    node.environment = vec![
        ("NOTIFY_SOCKET".to_owned(), path.display().to_string()),
        ("WATCHDOG_USEC".to_owned(), "400000".to_owned()),
    ];
    // As a service manager does, it is read all the time: who says something waits for room.
    let (told, done) = (
        Arc::new(Mutex::new(String::new())),
        Arc::new(Done::default()),
    );
    let _done = done.on_drop();
    std::thread::spawn({
        let (told, done) = (Arc::clone(&told), Arc::clone(&done));
        move || {
            let mut buffer = [0; 4096];
            while !done.is_said() {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let mut told = told.lock().unwrap();
                    told.push_str(&String::from_utf8_lossy(&buffer[..length]));
                    told.push('\n');
                }
            }
        }
    });
    let wait_for = |text: &str| {
        eventually(&format!("told {text}"), || {
            told.lock().unwrap().contains(text)
        });
        told.lock().unwrap().clear();
    };
    let (health, metrics) = observed(&mut node);
    node.start();
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    node.stop();
    wait_for("STOPPING=1");
    // Between two lives of the daemon somebody else has the database for as long as he wants.
    node.start_replicating();
    eventually("there is a snapshot", || {
        node.run(&["snapshot", "save"]).code == Some(0)
    });
    let app = node.app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let begun = node.run(&["snapshot", "restore"]);
    assert_eq!(begun.code, Some(0), "{}", begun.said);
    node.wait_log("waiting for the database");
    told.lock().unwrap().clear();
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    let (code, body) = get(health, "/health").unwrap();
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("the database cannot be used"), "{body}");
    assert_eq!(metric(metrics, "harmonylite_healthy"), Some(0.0));
    app.execute_batch("ROLLBACK").unwrap();
    eventually("it is healthy again", || {
        get(health, "/health").is_some_and(|(code, _)| code == 200)
    });
}

#[test]
fn a_server_that_wants_a_password_gets_it_and_nobody_else_does() {
    let server =
        nats::NatsServer::with("authorization { user: harmony, password: \"hunter2-secret\" }");
    let mut nodes = Vec::new();
    for (id, password) in [
        (1, "hunter2-secret"),
        (2, "hunter2-secret"),
        (3, "not-the-hunter2"),
    ] {
        let mut node = Node::new(id, &server.url(), SCHEMA);
        node.sections.push_str(&format!(
            "user_name = \"harmony\"\nuser_password = \"{password}\"\n[logging]\nverbose = true\n"
        ));
        node.start();
        nodes.push(node);
    }
    nodes[0].sql("INSERT INTO t VALUES(1, 'x')");
    eventually("the row arrives", || {
        nodes[1].integer("SELECT count(*) FROM t") == 1
    });
    // A wrong password does not end it: the operator may change it on the server.
    nodes[2].wait_log("trying again");
    nodes[2].assert_running();
    for node in &nodes {
        assert!(!node.log().contains("hunter2"), "{}", node.log());
    }
}

#[test]
fn it_stops_by_itself_after_a_time_without_changes() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster[0].root = "sleep_timeout = 1500".to_owned();
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO t VALUES(1, 'x')");
    let ended = cluster[0].wait_end();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    eventually("what was written was published", || {
        cluster[1].integer("SELECT count(*) FROM t") == 1
    });
    cluster[1].assert_running();
}

#[test]
fn orphans_that_a_merge_makes_are_counted_on_every_node() {
    let mut cluster = Cluster::prepared(
        2,
        "CREATE TABLE parents(id INTEGER PRIMARY KEY); CREATE TABLE children(id INTEGER PRIMARY KEY, p REFERENCES parents); INSERT INTO parents VALUES(1);",
    );
    let ports: Vec<u16> = (0..2).map(|_| free_port()).collect();
    for (node, port) in cluster.nodes.iter_mut().zip(&ports) {
        node.root.push_str("cleanup_interval = 100\n");
        node.sections.push_str(&format!(
            "[prometheus]\nenable = true\nbind = \"127.0.0.1:{port}\"\n"
        ));
        node.start();
    }
    cluster.concurrently(&["DELETE FROM parents", "INSERT INTO children VALUES(7, 1)"]);
    cluster.converge();
    for (node, port) in cluster.nodes.iter().zip(ports) {
        assert_eq!(
            node.integer("SELECT count(*) FROM pragma_foreign_key_check"),
            1
        );
        eventually("the orphan is counted", || {
            metric(port, "harmonylite_foreign_key_violations") == Some(1.0)
        });
    }
}
