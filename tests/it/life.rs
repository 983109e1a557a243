//! Starting, stopping, and who may run beside whom.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Cluster, Node, app, eventually, nats, node};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

#[test]
fn a_second_daemon_on_the_same_database_is_refused() {
    let mut cluster = Cluster::new(1, 1, SCHEMA);
    cluster[0].wait_log("replicating position");
    let second = cluster[0].run(&["-node-id", "9"]);
    assert_eq!(second.code, Some(75), "{}", second.said);
    assert!(
        second.said.contains(&cluster[0].pid().to_string()) && second.said.contains("app.db"),
        "{}",
        second.said
    );
    // The first one goes on.
    cluster[0].sql("INSERT INTO t VALUES(1, 1)");
    cluster[0].wait_published();
    cluster.assert_running();
}

#[test]
fn a_node_id_that_a_living_node_holds_is_refused_and_free_again_after_sigkill() {
    let mut cluster = Cluster::new(1, 1, SCHEMA);
    cluster[0].wait_log("replicating position");
    let mut twin = Node::new(1, &cluster.server.url(), SCHEMA);
    twin.spawn();
    let ended = twin.wait_end();
    assert_eq!(ended.code, Some(75), "{}", ended.said);
    let named = [cluster[0].database(), twin.database()]
        .iter()
        .all(|path| ended.said.contains(&path.display().to_string()));
    assert!(named, "both are named: {}", ended.said);
    cluster.assert_running();
    // The holder killed: its own restart is not refused, however soon it comes.
    for _ in 0..3 {
        cluster[0].kill();
        cluster[0].start_replicating();
    }
    // Ended cleanly: another machine may take the id.
    cluster[0].stop();
    twin.start_replicating();
}

#[test]
fn a_stop_publishes_what_is_pending() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut cluster = Cluster::new(2, 1, SCHEMA);
        cluster[0].wait_log("replicating position");
        cluster[1].wait_log("replicating position");
        let app = cluster[0].app();
        for id in 0..500 {
            app.execute_batch(&format!("INSERT INTO t VALUES({id}, 'x')"))
                .unwrap();
        }
        cluster[0].signal(signal);
        let ended = cluster[0].wait_end();
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        assert_eq!(cluster[0].pending(), 0);
        eventually("all rows are on the other node", || {
            cluster[1].integer("SELECT count(*) FROM t") == 500
        });
    }
}

#[test]
fn a_stop_without_a_broker_ends_cleanly_and_keeps_what_is_pending() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].wait_log("replicating position");
    cluster.server.kill();
    cluster[0].sql("INSERT INTO t VALUES(1, 'pending')");
    let ended = cluster[0].terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_eq!(cluster[0].pending(), 1);
    // Also one that never had a broker.
    cluster[0].start();
    let ended = cluster[0].terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    cluster.server.restart();
    cluster[0].start();
    assert_eq!(cluster.converge()["t"].len(), 1);
}

#[test]
fn the_stop_flag_stops_the_daemon_of_the_database_and_waits() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].wait_log("replicating position");
    cluster[0].sql("INSERT INTO t VALUES(1, 'x')");
    let asked = cluster[0].run(&["-stop"]);
    assert_eq!(asked.code, Some(0), "{}", asked.said);
    // It waited: the daemon is gone by now.
    assert!(!cluster[0].is_running());
    assert_eq!(cluster[0].wait_end().code, Some(0));
    eventually("what was pending is there", || {
        cluster[1].integer("SELECT count(*) FROM t") == 1
    });
    // Where none runs it says so, and there is nothing to do.
    let again = cluster[0].run(&["-stop"]);
    assert_eq!(again.code, Some(0), "{}", again.said);
    assert!(again.said.to_lowercase().contains("no "), "{}", again.said);
    // The other daemon was not meant.
    cluster[1].assert_running();
}

#[test]
fn a_broker_that_is_not_there_yet_is_waited_for() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    cluster.server.kill();
    for node in &mut cluster.nodes {
        node.start();
        node.wait_log("trying again");
    }
    cluster[0].sql("INSERT INTO t VALUES(1, 'one')");
    cluster[1].sql("INSERT INTO t VALUES(2, 'two')");
    cluster.assert_running();
    cluster.server.restart();
    assert_eq!(cluster.converge()["t"].len(), 2);
}

/// Longer than the five seconds that SQLite's users often wait.
const LONG: Duration = Duration::from_secs(7);

#[test]
fn a_database_that_is_locked_for_long_ends_nothing() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    // At the start.
    let app = cluster[0].app();
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES(1, 'from the long transaction')")
        .unwrap();
    cluster[0].spawn();
    cluster[0].wait_log("waiting for the database");
    cluster[1].start();
    let since = Instant::now();
    while since.elapsed() < LONG {
        cluster[0].assert_running();
        std::thread::sleep(Duration::from_millis(100));
    }
    app.execute_batch("ROLLBACK").unwrap();
    cluster[0].wait_log("replicating position");
    // While it runs: a write lock, held by the app of the node that has to apply.
    app.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES(2, 'mine')")
        .unwrap();
    cluster[1].sql("INSERT INTO t VALUES(3, 'theirs')");
    let since = Instant::now();
    while since.elapsed() < LONG {
        cluster.assert_running();
        std::thread::sleep(Duration::from_millis(100));
    }
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(cluster.converge()["t"].len(), 2);
}

#[test]
fn a_database_that_is_locked_exclusively_ends_nothing() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    for node in &mut cluster.nodes {
        node.sql("PRAGMA journal_mode = DELETE");
    }
    let app = cluster[0].app();
    // Not even readers get in.
    app.execute_batch("BEGIN EXCLUSIVE").unwrap();
    cluster[0].spawn();
    cluster[1].start();
    let since = Instant::now();
    while since.elapsed() < LONG {
        cluster[0].assert_running();
        std::thread::sleep(Duration::from_millis(100));
    }
    app.execute_batch("COMMIT").unwrap();
    cluster[0].wait_log("replicating position");
    app.execute_batch("BEGIN EXCLUSIVE; INSERT INTO t VALUES(1, 'x')")
        .unwrap();
    cluster[1].sql("INSERT INTO t VALUES(2, 'y')");
    let since = Instant::now();
    while since.elapsed() < LONG {
        cluster.assert_running();
        std::thread::sleep(Duration::from_millis(100));
    }
    app.execute_batch("COMMIT").unwrap();
    assert_eq!(cluster.converge()["t"].len(), 2);
}

#[test]
fn an_app_that_writes_at_full_speed_does_not_shut_out_what_others_wrote() {
    let cluster = Cluster::new(2, 1, SCHEMA);
    let done = crate::harness::wait::Done::default();
    std::thread::scope(|scope| {
        let _end = done.on_drop();
        let busy = scope.spawn(|| {
            let app = app::connect(&cluster[0].database());
            let mut id = 0;
            while !done.is_said() {
                id += 1;
                app.execute_batch(&format!(
                    "INSERT OR REPLACE INTO t VALUES({}, {id})",
                    id % 1000
                ))
                .unwrap();
            }
            id
        });
        for id in 0..50 {
            cluster[1].sql(&format!("INSERT INTO t VALUES(10000 + {id}, 'other')"));
        }
        // Well before the busy app ends.
        eventually("the rows arrive at the busy node", || {
            cluster[0].integer("SELECT count(*) FROM t WHERE id >= 10000") == 50
        });
        done.say();
        assert!(busy.join().unwrap() > 0);
    });
    cluster.converge();
}

#[test]
fn a_daemon_that_waits_for_a_lock_can_be_stopped() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    let app = cluster[0].app();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    for by_flag in [false, true] {
        cluster[0].spawn();
        cluster[0].wait_log("waiting for the database");
        if by_flag {
            let asked = cluster[0].run(&["-stop"]);
            assert_eq!(asked.code, Some(0), "{}", asked.said);
        } else {
            cluster[0].signal(Signal::SIGTERM);
        }
        assert_eq!(cluster[0].wait_end().code, Some(0));
    }
    app.execute_batch("ROLLBACK").unwrap();
    // And one that waits for the lock with changes to apply.
    cluster[0].start_replicating();
    app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ended = cluster[0].terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}

#[test]
fn a_second_signal_stops_at_once_and_loses_nothing() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].wait_log("replicating position");
    // Its echo cannot be folded, so that the drain has to wait.
    let app = cluster[0].app();
    app.execute_batch(
        "INSERT INTO t VALUES(1, 'x'); BEGIN IMMEDIATE; INSERT INTO t VALUES(2, 'y')",
    )
    .unwrap();
    cluster[0].signal(Signal::SIGTERM);
    cluster[0].wait_log("stopping");
    cluster[0].signal(Signal::SIGTERM);
    let ended = cluster[0].wait_end();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    app.execute_batch("COMMIT").unwrap();
    cluster[0].start();
    assert_eq!(cluster.converge()["t"].len(), 2);
}

#[test]
fn a_port_in_use_is_said_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let server = node::broker();
    for section in ["health_check", "prometheus"] {
        let mut node = Node::new(1, &server.url(), SCHEMA);
        node.sections.push_str(&format!(
            "[{section}]\nenable = true\nbind = \"127.0.0.1:{port}\"\n"
        ));
        node.spawn();
        let ended = node.wait_end();
        assert_eq!(ended.code, Some(73), "{}", ended.said);
        assert!(ended.said.contains(&port.to_string()), "{}", ended.said);
    }
}

#[test]
fn a_managed_server_replicates_and_dies_with_its_daemon() {
    let port = crate::harness::ports::free();
    let url = format!("nats://127.0.0.1:{port}");
    let mut host = Node::new(1, &url, SCHEMA);
    host.sections = format!(
        "[nats]\nbind_address = \"127.0.0.1:{port}\"\nserver_path = {:?}\n",
        nats::binary()
    );
    let mut guest = Node::new(2, &url, SCHEMA);
    guest.start();
    host.start_replicating();
    host.sql("INSERT INTO t VALUES(1, 'host')");
    guest.sql("INSERT INTO t VALUES(2, 'guest')");
    let mut cluster_rows = 2;
    let equal = |host: &Node, guest: &Node, rows: usize| {
        eventually("both are equal", || {
            host.dump()["t"].len() == rows && host.dump() == guest.dump()
        })
    };
    equal(&host, &guest, cluster_rows);
    for _ in 0..2 {
        host.kill();
        // The server died with its daemon: its port is free again.
        eventually("the server is gone", || {
            TcpListener::bind(("127.0.0.1", port)).is_ok()
        });
        guest.sql(&format!(
            "INSERT INTO t VALUES({cluster_rows} + 10, 'while down')"
        ));
        host.sql(&format!(
            "INSERT INTO t VALUES({cluster_rows} + 20, 'while down')"
        ));
        cluster_rows += 2;
        host.start_replicating();
        equal(&host, &guest, cluster_rows);
    }
    host.stop();
    eventually("the server is gone", || {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
    });
    guest.assert_running();
}
