//! What lies in virtual tables and other tables that are not replicated follows what other nodes write, by the app's own triggers.

mod failures;
mod filters;
mod modules;
mod recovery;
mod search;
mod triggers;

use crate::harness::{Cluster, Node, tables};

/// Full-text search over a table's own rows, in the form that SQLite's documentation recommends.
const EXTERNAL: &str = "
    CREATE TABLE docs(id INTEGER PRIMARY KEY, slug TEXT UNIQUE, title TEXT, body TEXT, views INTEGER DEFAULT 0);
    CREATE VIRTUAL TABLE ft USING fts5(title, body, content='docs', content_rowid='id');
    CREATE TRIGGER docs_ai AFTER INSERT ON docs BEGIN
        INSERT INTO ft(rowid, title, body) VALUES(new.id, new.title, new.body); END;
    CREATE TRIGGER docs_ad AFTER DELETE ON docs BEGIN
        INSERT INTO ft(ft, rowid, title, body) VALUES('delete', old.id, old.title, old.body); END;
    CREATE TRIGGER docs_au AFTER UPDATE ON docs BEGIN
        INSERT INTO ft(ft, rowid, title, body) VALUES('delete', old.id, old.title, old.body);
        INSERT INTO ft(rowid, title, body) VALUES(new.id, new.title, new.body); END;
";

/// Running nodes with these sections in their configurations.
fn running(count: u64, schema: &str, sections: &str) -> Cluster {
    let mut cluster = Cluster::prepared(count, schema);
    for node in &mut cluster.nodes {
        node.sections.push_str(sections);
        node.start_replicating();
    }
    cluster
}

/// The app's writes, with which SQLite fires delete triggers for what REPLACE removes: without them the index of the app itself is out of step.
fn write(node: &Node, sql: &str) {
    node.sql(&format!("PRAGMA recursive_triggers = ON; {sql}"));
}

/// All nodes answer this query alike, and with something; the answer.
fn same_everywhere(cluster: &Cluster, sql: &str) -> Vec<Vec<tables::Cell>> {
    let mut answers: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| tables::rows(&node.app(), sql))
        .collect();
    assert!(
        answers.windows(2).all(|two| two[0] == two[1]),
        "{sql}: {answers:#?}"
    );
    let answer = answers.pop().unwrap();
    assert!(!answer.is_empty(), "{sql}");
    answer
}

/// The full-text index of each node fits its table to the last word.
fn sound(cluster: &Cluster, index: &str) {
    for node in &cluster.nodes {
        let checked = node.app().execute_batch(&format!(
            "INSERT INTO {index}({index}, rank) VALUES('integrity-check', 1)"
        ));
        assert!(checked.is_ok(), "node {}: {checked:?}", node.id);
    }
}
