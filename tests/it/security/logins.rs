//! Brokers that demand a login, of each kind that NATS knows.

use super::credentials::Operator;
use super::{is_kept_out, is_let_in, node};
use crate::harness::eventually;
use crate::harness::http::get;
use crate::harness::nats::NatsServer;

/// Writes a file into the server's folder; the line that names it.
fn line(server: &NatsServer, key: &str, text: &str) -> String {
    let file = server.folder().join(key);
    std::fs::write(&file, text).unwrap();
    format!("{key} = {file:?}\n")
}

#[test]
fn user_and_password() {
    let server = NatsServer::with("authorization { user: ada, password: lovelace-1815 }");
    let login = |password| format!("user_name = \"ada\"\nuser_password = \"{password}\"\n");
    is_let_in(&server.url(), &login("lovelace-1815"));
    let words = "does not accept nats.user_name with nats.user_password";
    is_kept_out(&server.url(), &login("byron-1788"), words, &["byron-1788"]);
    is_kept_out(
        &server.url(),
        "",
        "the server wants a login: set nats.user_name",
        &[],
    );
    let in_url = |password| server.url().replace("//", &format!("//ada:{password}@"));
    is_let_in(&in_url("lovelace-1815"), "");
    let words = "does not accept the login in nats.urls";
    is_kept_out(&in_url("byron-1788"), "", words, &["byron-1788"]);
}

#[test]
fn an_nkey() {
    let (ours, other) = (nkeys::KeyPair::new_user(), nkeys::KeyPair::new_user());
    let server = NatsServer::with(&format!(
        "authorization {{ users = [ {{ nkey: {} }} ] }}",
        ours.public_key()
    ));
    is_let_in(
        &server.url(),
        &line(&server, "seed_file", &ours.seed().unwrap()),
    );
    let seed = other.seed().unwrap();
    let wrong = line(&server, "seed_file", &seed);
    is_kept_out(
        &server.url(),
        &wrong,
        "the nkey that nats.seed_file names",
        &[&seed],
    );
    let none = line(&server, "seed_file", "SUNOTASEED-hunter2\n");
    is_kept_out(&server.url(), &none, "nats.seed_file", &["hunter2"]);
}

#[test]
fn credentials() {
    let operator = Operator::new();
    let server = NatsServer::with(&operator.configuration());
    let with = |text: &str| line(&server, "creds_file", text);
    let (file, _) = operator.user(None);
    is_let_in(&server.url(), &with(&file));
    let words = "the credentials that nats.creds_file names";
    let (unknown, seed) = Operator::new().user(None);
    is_kept_out(&server.url(), &with(&unknown), words, &[&seed]);
    let (expired, seed) = operator.user(Some(1_600_000_001));
    is_kept_out(&server.url(), &with(&expired), words, &[&seed]);
    is_kept_out(
        &server.url(),
        &with("hunter2"),
        "it does not hold a user JWT and its nkey seed",
        &["hunter2"],
    );
}

#[test]
fn a_login_that_is_changed_under_a_running_node_is_named() {
    let mut server = NatsServer::with("authorization { user: ada, password: lovelace-1815 }");
    let (mut node, health) = node(
        1,
        &server.url(),
        "user_name = \"ada\"\nuser_password = \"lovelace-1815\"\n",
    );
    node.start_replicating();
    server.reconfigure("authorization { user: ada, password: byron-1788 }");
    eventually("health says why", || {
        get(health, "/health").is_some_and(|(status, body)| {
            status == 503 && body.contains("does not accept nats.user_name with nats.user_password")
        })
    });
    node.sql("INSERT INTO t VALUES(1, 'x')");
    server.reconfigure("authorization { user: ada, password: lovelace-1815 }");
    node.wait_published();
    eventually("it is healthy again", || {
        get(health, "/health").is_some_and(|(status, _)| status == 200)
    });
    node.stop();
}

#[test]
fn the_rights_that_the_documentation_names_are_enough() {
    let documentation = include_str!("../../../docs/security.md");
    let (_, rest) = documentation.split_once("```text\npermissions").unwrap();
    let (rights, _) = rest.split_once("```").unwrap();
    let server = NatsServer::with(&format!(
        "authorization {{ users = [ {{ user: ada, password: lovelace-1815, permissions{rights} }} ] }}"
    ));
    let login = "user_name = \"ada\"\nuser_password = \"lovelace-1815\"";
    let (mut one, _) = node(1, &server.url(), login);
    let (mut two, _) = node(2, &server.url(), login);
    for node in [&mut one, &mut two] {
        node.start_replicating();
    }
    one.sql("INSERT INTO t VALUES(1, 'x')");
    // All that asks the broker for something, and all nodes.
    for word in [
        &["wait"][..],
        &["verify"],
        &["snapshot", "save"],
        &["snapshot", "list"],
        &["position"],
    ] {
        let ended = one.run(word);
        assert_eq!(ended.code, Some(0), "{word:?}: {}", ended.said);
    }
    assert_eq!(two.integer("SELECT count(*) FROM t"), 1);
    for node in [&one, &two] {
        let log = node.log();
        assert!(
            !log.to_lowercase().contains("permissions violation"),
            "{log}"
        );
    }
}
