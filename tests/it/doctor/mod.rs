//! `harmonylite doctor` and `harmonylite diagnose`: a healthy system has nothing to be told, each thing that is wrong is found under its name, and nothing is
//! changed by looking.

mod broker;
mod bundle;
mod cluster;
mod healthy;
mod local;

use serde_json::Value as Json;

use crate::harness::Node;
use crate::harness::jetstream::Outsider;
use crate::harness::nats::NatsServer;
use crate::harness::node::broker;

/// A table that is replicated without a limit.
const SCHEMA: &str = "CREATE TABLE t(id TEXT PRIMARY KEY, v)";

/// What a run has found.
struct Report {
    code: Option<i32>,
    json: Json,
}

impl Report {
    /// The names of the problems.
    fn problems(&self) -> Vec<&str> {
        let all = self.json["findings"].as_array().unwrap();
        all.iter().filter_map(|f| f["problem"].as_str()).collect()
    }

    /// Fails unless this was found, with these words, and with a remedy.
    fn assert_found(&self, problem: &str, words: &str) {
        let all = self.json["findings"].as_array().unwrap();
        let found = all.iter().find(|f| {
            f["problem"] == problem && f["found"].as_str().is_some_and(|text| text.contains(words))
        });
        let found = found.unwrap_or_else(|| panic!("no {problem} with {words:?}: {self:#?}"));
        assert!(
            found["remedy"].as_str().is_some_and(|r| r.len() > 10),
            "{found}"
        );
        assert_ne!(self.code, Some(0));
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:#}", self.code, self.json)
    }
}

/// Runs it.
fn doctor_with(node: &Node, flags: &[&str]) -> Report {
    let flags: Vec<&str> = ["doctor", "--json"].iter().chain(flags).copied().collect();
    let ended = node.run(&flags);
    Report {
        code: ended.code,
        json: serde_json::from_str(&ended.said)
            .unwrap_or_else(|error| panic!("{error}: {}", ended.said)),
    }
}

fn doctor(node: &Node) -> Report {
    doctor_with(node, &[])
}

/// A node that has replicated this many rows, and has stopped; its server; somebody who is no node.
fn stopped(rows: usize) -> (Node, NatsServer, Outsider) {
    let server = broker();
    let mut node = Node::new(1, &server.url(), SCHEMA);
    node.start_replicating();
    for row in 0..rows {
        node.sql(&format!("INSERT INTO t VALUES('row {row}', {row})"));
    }
    node.wait_published();
    node.stop();
    let outsider = Outsider::new(&server.url());
    (node, server, outsider)
}
