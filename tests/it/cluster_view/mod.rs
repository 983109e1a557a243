//! The cluster as operators see and steer it: status, streams, ping, leave, nodes, pause, limit, partitions. On real daemons.

mod brakes;
mod going;
mod hostile;
mod partitions;
mod seen;

use serde_json::Value;

use crate::harness::Node;
use crate::harness::node::Ended;
use crate::harness::wait::eventually_ok;

const SCHEMA: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE u(id INTEGER PRIMARY KEY, v)";

/// The JSON that a command has said; what it told on standard error follows.
fn json(ended: &Ended) -> Value {
    let mut values = serde_json::Deserializer::from_str(&ended.said).into_iter();
    match values.next() {
        Some(Ok(value)) => value,
        other => panic!("{other:?}: {}", ended.said),
    }
}

fn status(node: &Node) -> Value {
    json(&node.run(&["status", "--json"]))
}

/// What `status` knows of a node.
fn of(status: &Value, node: u64) -> Value {
    let all = status["nodes"].as_array().unwrap();
    let found = all.iter().find(|n| n["node_id"] == node);
    found
        .unwrap_or_else(|| panic!("no node {node} in {status}"))
        .clone()
}

/// Waits until `status`, asked of one node, shows another in this state.
fn wait_state(asked: &Node, node: u64, state: &str) -> Value {
    eventually_ok(&format!("node {node} is {state}"), || {
        let status = status(asked);
        let all = status["nodes"].as_array().unwrap();
        match all
            .iter()
            .any(|n| n["node_id"] == node && n["state"] == state)
        {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
}

fn done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.said);
}

/// That a command was refused with this code, for a reason that holds these words.
fn refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.said);
    for word in words {
        assert!(ended.said.contains(word), "no {word:?}: {}", ended.said);
    }
}
