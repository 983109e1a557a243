//! `harmonylite reload` and SIGHUP.

use nix::sys::signal::Signal;

use super::{SCHEMA, health, logging};
use crate::harness::{Node, eventually, node};

/// The node's configuration with other values, in place of the one that it was started with.
fn change(node: &mut Node, from: &str, to: &str) {
    assert!(node.sections.contains(from), "{from}");
    node.sections = node.sections.replace(from, to);
    node.write_configuration();
}

#[test]
fn what_can_change_does_and_what_cannot_is_named() {
    let server = node::broker();
    let (mut node, _) = logging(
        &server.url(),
        SCHEMA,
        "verbose = false\nformat = \"console\"",
    );
    node.sections
        .push_str("[replication_log]\nshards = 1\ncompress = true\n");
    node.start_replicating();
    let nothing = node.run(&["reload"]);
    assert_eq!(nothing.code, Some(0), "{}", nothing.said);
    assert!(
        nothing.said.contains("nothing in it has changed"),
        "{}",
        nothing.said
    );

    change(
        &mut node,
        "verbose = false\nformat = \"console\"",
        "verbose = true\nformat = \"json\"",
    );
    let done = node.run(&["reload"]);
    assert_eq!(done.code, Some(0), "{}", done.said);
    assert!(
        done.said
            .contains("in force now: logging.verbose, logging.format"),
        "{}",
        done.said
    );
    node.sql("INSERT INTO t VALUES(1, 1)");
    node.wait_log("\"message\":\"published a batch\"");

    change(
        &mut node,
        "shards = 1\ncompress = true",
        "shards = 2\ncompress = false",
    );
    node.root = "cleanup_interval = 1000".to_owned();
    let partly = node.run(&["reload"]);
    assert_eq!(partly.code, Some(79), "{}", partly.said);
    assert!(
        partly.said.contains("in force now: cleanup_interval, replication_log.compress; changed but needs a restart: replication_log.shards"),
        "{}",
        partly.said
    );
    // Said again, as long as it waits; what is in force is no news.
    let again = node.run(&["reload"]);
    assert_eq!(again.code, Some(79), "{}", again.said);
    assert!(!again.said.contains("in force now"), "{}", again.said);
    node.wait_log("\"level\":\"WARN\",\"node\":1,\"target\":\"harmonylite::daemon::reload\"");
    node.stop();
    assert_eq!(node.run(&["reload"]).code, Some(69));
}

#[test]
fn a_configuration_with_a_fault_changes_nothing_and_says_why() {
    let server = node::broker();
    let (mut node, port) = logging(&server.url(), SCHEMA, "verbose = false");
    node.sections.push_str("[snapshot]\ninterval = 0\n");
    node.start_replicating();
    change(&mut node, "verbose = false", "verbose = true");
    change(
        &mut node,
        "interval = 0",
        "interval = \"often\"\nintervall = 1",
    );
    let refused = node.run(&["reload"]);
    assert_eq!(refused.code, Some(78), "{}", refused.said);
    assert!(
        refused.said.starts_with("Invalid configuration")
            && refused.said.contains("snapshot.intervall"),
        "{}",
        refused.said
    );
    node.signal(Signal::SIGHUP);
    node.wait_log("Invalid configuration, nothing was changed: ");
    let log = node.log();
    let line = log
        .lines()
        .find(|l| l.contains("Invalid configuration"))
        .unwrap();
    // Every fault, on one line.
    assert!(
        line.contains("snapshot.interval") && line.contains("snapshot.intervall"),
        "{line}"
    );
    eventually("the error is in health", || {
        let health = health(port);
        let last = health["log"]["last_error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        last.starts_with("Invalid configuration") && health["status"] == "healthy"
    });
    // As before: nothing at debug level.
    node.sql("INSERT INTO t VALUES(1, 1)");
    node.wait_published();
    assert!(!node.log().contains("published a batch"));
    // Corrected, and told by the signal.
    change(
        &mut node,
        "interval = \"often\"\nintervall = 1",
        "interval = 60000",
    );
    node.signal(Signal::SIGHUP);
    node.wait_log("in force now: snapshot.interval, logging.verbose");
    node.stop();
}

#[test]
fn secrets_are_compared_and_never_shown() {
    let server = node::broker();
    let (mut node, _) = logging(&server.url(), SCHEMA, "");
    node.environment
        .push(("HARMONYLITE_LOG".to_owned(), "info".to_owned()));
    let secret = node.folder.join("password");
    std::fs::write(&secret, "marker-one\n").unwrap();
    change_nats(
        &mut node,
        &format!("user_name = \"u\"\nuser_password_file = {secret:?}\n"),
    );
    node.start_replicating();
    std::fs::write(&secret, "marker-two\n").unwrap();
    let waits = node.run(&["reload"]);
    assert_eq!(waits.code, Some(79), "{}", waits.said);
    assert!(
        waits.said.contains("needs a restart: nats.user_password"),
        "{}",
        waits.said
    );
    let told = format!("{}{}", waits.said, node.log());
    assert!(!told.contains("marker-"), "{told}");
    node.stop();
}

fn change_nats(node: &mut Node, lines: &str) {
    node.sections = node
        .sections
        .replace("[logging]", &format!("{lines}[logging]"));
}

#[test]
fn sleep_timeout_can_be_set_while_it_runs() {
    let server = node::broker();
    let (mut node, _) = logging(&server.url(), SCHEMA, "");
    node.start_replicating();
    node.root = "sleep_timeout = 500".to_owned();
    node.write_configuration();
    node.signal(Signal::SIGHUP);
    let ended = node.wait_end();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(
        ended.said.contains("nothing has changed for sleep_timeout"),
        "{}",
        ended.said
    );
}
