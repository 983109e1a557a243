//! What is wrong with NATS, told apart: the name, the port, what listens there, TLS, the login, JetStream, its limits.

use std::net::TcpListener;

use super::{SCHEMA, doctor};
use crate::harness::Node;
use crate::harness::http::free_port;
use crate::harness::jetstream::Outsider;
use crate::harness::nats::NatsServer;

fn at(url: &str) -> Node {
    Node::new(1, url, SCHEMA)
}

#[test]
fn the_steps_to_a_server_are_told_apart() {
    let server = NatsServer::start();
    let report = doctor(&at("nats://no-such-host.invalid:4222"));
    report.assert_found("dns", "no-such-host.invalid:4222");
    assert_eq!(report.code, Some(69));
    let closed = free_port();
    let report = doctor(&at(&format!("nats://127.0.0.1:{closed}")));
    report.assert_found("tcp", "refused");
    assert_eq!(report.code, Some(69));
    // It listens and says nothing.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = deaf.local_addr().unwrap().port();
    doctor(&at(&format!("nats://127.0.0.1:{port}"))).assert_found("not-nats", &port.to_string());
    let report = doctor(&at(&server.url().replace("nats:", "tls:")));
    report.assert_found("tls", &server.port().to_string());
    assert_eq!(report.code, Some(77));
    // One of two servers is away: the other makes up for it.
    let mut node = at(&server.url());
    node.sections = node
        .sections
        .replace("\"]", &format!("\", \"nats://127.0.0.1:{closed}\"]"));
    let report = doctor(&node);
    report.assert_found("tcp", "refused");
    assert_eq!(report.code, Some(1), "{report:#?}");
}

#[test]
fn a_login_is_refused_and_no_password_shows() {
    let server = NatsServer::with("authorization { user: ada, password: lovelace-1815 }");
    let report = doctor(&at(&server.url()));
    report.assert_found("login", &server.port().to_string());
    assert_eq!(report.code, Some(77));
    let report = doctor(&at(&server.url().replace("//", "//ada:byron-1788@")));
    report.assert_found("login", "");
    assert!(!report.json.to_string().contains("byron"), "{report:#?}");
    assert!(
        doctor(&at(&server.url().replace("//", "//ada:lovelace-1815@"))).problems()
            == ["daemon-down"]
    );
}

#[test]
fn what_the_server_grants_is_compared_with_what_is_needed() {
    let server = NatsServer::with(
        "max_payload: 4096
         accounts {
           POOR { users: [ { user: poor, password: poor } ], jetstream { max_file: 10485760, max_streams: 3 } }
           NONE { users: [ { user: none, password: none } ] }
         }",
    );
    let login = |who: &str| at(&server.url().replace("//", &format!("//{who}:{who}@")));
    let report = doctor(&login("poor"));
    report.assert_found("max-payload", "4096 B");
    report.assert_found("account-storage", "10 MiB");
    report.assert_found("account-streams", "3 more");
    assert_eq!(report.code, Some(69));
    let report = doctor(&login("none"));
    report.assert_found("no-jetstream", "JetStream");
    assert_eq!(report.code, Some(69));
    let mut node = login("poor");
    node.sections.push_str("[replication_log]\nreplicas = 3\n");
    doctor(&node).assert_found("too-many-copies", "stands alone");
}

#[test]
fn a_subject_of_another_stream_is_named() {
    let server = NatsServer::start();
    Outsider::new(&server.url()).create_stream("go-changes", "harmonylite-change-log-1");
    let report = doctor(&at(&server.url()));
    report.assert_found("subject-taken", "go-changes");
    assert_eq!(report.code, Some(69));
}
