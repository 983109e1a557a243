//! Real applications, none of them changed, each on two nodes: what they answer over HTTP, what they write through their own drivers, and what becomes of
//! it elsewhere. What docs/apps.md says is tested here.

mod actual;
mod admin;
mod browser;
mod isso;
pub mod server;
mod site;

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::harness::tables::{self, Cell};
use crate::harness::{Cluster, Node};

/// All that the application has made, as `sqlite_schema` has it.
type Schema = Vec<Vec<Cell>>;

/// What the application has made.
fn schema(node: &Node) -> Schema {
    tables::rows(
        &node.app(),
        "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT GLOB '*__harmonylite__*' AND name NOT GLOB 'sqlite_*'",
    )
}

/// The texts that a query finds.
fn texts(node: &Node, sql: &str) -> BTreeSet<String> {
    let rows = tables::rows(&node.app(), sql);
    rows.into_iter()
        .map(|row| match &row[..] {
            [Cell::Text(text)] => String::from_utf8(text.clone()).unwrap(),
            other => panic!("not a text: {other:?}"),
        })
        .collect()
}

/// What a column has lost, by the journals of both nodes.
fn lost(cluster: &Cluster, table: &str, column: &str) -> BTreeSet<String> {
    let sql = format!(
        "SELECT coalesce(CAST(losing_value AS TEXT), 'NULL') FROM __harmonylite__conflicts WHERE table_name = '{table}' AND column_name = '{column}'"
    );
    cluster
        .nodes
        .iter()
        .flat_map(|node| texts(node, &sql))
        .collect()
}

/// No node has journaled anything.
fn assert_no_conflicts(cluster: &Cluster) {
    for node in &cluster.nodes {
        let all = "SELECT table_name || '.' || column_name || ': ' || reason FROM __harmonylite__conflicts";
        assert!(texts(node, all).is_empty(), "{:?}", texts(node, all));
    }
}

/// Brings back all rows that lost their key, under fresh ones; of one table, or of all.
fn restore(cluster: &Cluster, table: &[&str]) {
    for node in &cluster.nodes {
        let mut list = vec!["conflicts", "list", "--json"];
        list.extend(table);
        let listed: Json = serde_json::from_str(&node.run(&list).said).unwrap();
        for conflict in listed.as_array().unwrap().iter().rev() {
            assert_eq!(conflict["reason"], "insert-collision", "{conflict}");
            let id = conflict["id"].to_string();
            let ended = node.run(&["conflicts", "restore", &id, "--as-new-row"]);
            assert_eq!(ended.code, Some(0), "{}", ended.said);
        }
    }
}

/// The end of each test: databases sound, nothing lost in silence, and after `-cleanup` what the application made and nothing else.
fn leave_as_it_was(cluster: &mut Cluster, made: &Schema) {
    cluster.assert_running();
    for node in &mut cluster.nodes {
        node.stop();
        let ended = node.run(&["-cleanup"]);
        assert_eq!(ended.code, Some(0), "{}", ended.said);
        let sound = tables::rows(&node.app(), "PRAGMA integrity_check");
        assert_eq!(sound, [[Cell::Text(b"ok".to_vec())]]);
        assert_eq!(&schema(node), made, "node {}", node.id);
        assert_eq!(
            node.integer("SELECT count(*) FROM sqlite_schema WHERE name GLOB '*harmonylite*'"),
            0
        );
    }
}
