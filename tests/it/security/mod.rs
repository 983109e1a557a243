//! What strangers cannot do and nobody gets to see: logins and TLS that brokers demand, secrets, row values, and the service's own walls.

mod authority;
mod credentials;
mod logins;
mod markers;
mod secrets;
mod systemd;
mod tls;
mod values;

use crate::harness::http::{free_port, get};
use crate::harness::wait::eventually_ok;
use crate::harness::{Node, eventually};

const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

/// A node with these lines in `[nats]`, observed; and the port of its health.
fn node(id: u64, url: &str, nats: &str) -> (Node, u16) {
    let mut node = Node::new(id, url, SCHEMA);
    let health = free_port();
    node.sections.push_str(&format!(
        "{nats}\n[health_check]\nenable = true\nbind = \"127.0.0.1:{health}\"\n[logging]\nverbose = true\n"
    ));
    node.environment = vec![("HARMONYLITE_LOG".to_owned(), "trace".to_owned())];
    (node, health)
}

/// Two nodes with these lines in `[nats]` replicate.
fn is_let_in(url: &str, nats: &str) {
    let (mut one, _) = node(1, url, nats);
    let (mut two, _) = node(2, url, nats);
    for node in [&mut one, &mut two] {
        node.start_replicating();
    }
    one.sql("INSERT INTO t(v) VALUES('x')");
    // Others may have written to this broker before.
    let rows = one.integer("SELECT count(*) FROM t");
    eventually("the row arrives", || {
        two.integer("SELECT count(*) FROM t") == rows
    });
    one.stop();
    two.stop();
}

/// A node with these lines in `[nats]` stays outside: it says so in its log and its health, with the words that name the key, shows no secret, captures what
/// the application writes all the same, and stops when it is asked to.
fn is_kept_out(url: &str, nats: &str, words: &str, secrets: &[&str]) {
    let (mut node, health) = node(3, url, nats);
    node.start();
    let said = eventually_ok("health says why", || match get(health, "/health") {
        Some((503, body)) if body.contains(words) => Ok(body),
        other => Err(format!("{words:?} is not in {other:?}")),
    });
    node.wait_log("trying again");
    let log = node.log();
    let line = log
        .lines()
        .find(|line| line.contains("Failed to connect to NATS"));
    assert!(line.is_some_and(|line| line.contains(words)), "{log}");
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
        assert!(!said.contains(secret), "{secret} is in {said}");
    }
    node.sql("INSERT INTO t VALUES(7, 'captured')");
    assert_eq!(node.pending(), 1);
    node.assert_running();
    node.stop();
}
