//! What the nodes' tables have in common, and where their schemas differ.

use std::collections::BTreeMap;

use super::error::list;
use crate::change::position::NodeId;
use crate::peers::protocol::TableFacts;

/// A table that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparable {
    /// Its name.
    pub name: String,
    /// The columns that all of its nodes have, in the order in which all digest them.
    pub columns: Vec<String>,
    /// Its nodes, two at least.
    pub nodes: Vec<NodeId>,
}

/// What can be compared, and what cannot.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Tables that can be.
    pub tables: Vec<Comparable>,
    /// Differences, each in a sentence.
    pub differences: Vec<String>,
    /// Tables that a node leaves out as it is configured, each in a sentence.
    pub notes: Vec<String>,
}

/// Compares what the nodes say of their tables.
#[must_use]
pub fn compare(facts: &BTreeMap<NodeId, Vec<TableFacts>>) -> Common {
    let mut out = Common::default();
    let mut by_name: BTreeMap<String, BTreeMap<NodeId, &TableFacts>> = BTreeMap::new();
    for (node, tables) in facts {
        for table in tables {
            let name = table.name.to_ascii_lowercase();
            by_name.entry(name).or_default().insert(*node, table);
        }
    }
    let all: Vec<NodeId> = facts.keys().copied().collect();
    for (name, on) in by_name {
        let replicated: BTreeMap<NodeId, &TableFacts> = on
            .iter()
            .filter(|(_, t)| t.left_out.is_none())
            .map(|(n, t)| (*n, *t))
            .collect();
        if replicated.is_empty() {
            continue;
        }
        for (node, table) in &on {
            if let Some(reason) = &table.left_out {
                out.notes.push(format!(
                    "table \"{name}\" is not compared on node {node}: {reason}"
                ));
            }
        }
        let missing: Vec<NodeId> = all
            .iter()
            .filter(|n| !on.contains_key(n))
            .copied()
            .collect();
        if !missing.is_empty() {
            out.differences.push(format!(
                "table \"{name}\" is missing on node {}",
                list(&missing)
            ));
        }
        if let Some(table) = in_common(&name, &replicated, &mut out.differences) {
            out.tables.push(table);
        }
    }
    out
}

fn in_common(
    name: &str,
    on: &BTreeMap<NodeId, &TableFacts>,
    differences: &mut Vec<String>,
) -> Option<Comparable> {
    let nodes: Vec<NodeId> = on.keys().copied().collect();
    let mut keys: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for (node, table) in on {
        keys.entry(table.key.join(", ")).or_default().push(*node);
    }
    if keys.len() > 1 {
        let each: Vec<String> = keys
            .iter()
            .map(|(key, nodes)| format!("({key}) on node {}", list(nodes)))
            .collect();
        differences.push(format!(
            "table \"{name}\" has different keys, so that its rows cannot be compared: {}",
            each.join(", ")
        ));
        return None;
    }
    let mut columns: BTreeMap<String, Vec<NodeId>> = BTreeMap::new();
    for (node, table) in on {
        for column in &table.columns {
            columns
                .entry(column.to_ascii_lowercase())
                .or_default()
                .push(*node);
        }
    }
    for (column, has) in columns.iter().filter(|(_, has)| has.len() < nodes.len()) {
        let lacks: Vec<NodeId> = nodes.iter().filter(|n| !has.contains(n)).copied().collect();
        differences.push(format!(
            "column \"{column}\" of table \"{name}\" is missing on node {}",
            list(&lacks)
        ));
    }
    columns.retain(|_, has| has.len() == nodes.len());
    (nodes.len() > 1).then(|| Comparable {
        name: name.to_owned(),
        columns: columns.into_keys().collect(),
        nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, columns: &[&str], key: &str) -> TableFacts {
        TableFacts {
            name: name.into(),
            left_out: None,
            columns: columns.iter().map(|c| (*c).into()).collect(),
            key: vec![key.into()],
        }
    }

    #[test]
    fn what_differs_is_named_and_the_rest_is_compared() {
        let left_out = TableFacts {
            left_out: Some("excluded".into()),
            ..table("cache", &["a"], "a")
        };
        let common = compare(&BTreeMap::from([
            (
                NodeId(1),
                vec![
                    table("T", &["id", "B"], "id"),
                    table("only", &["id"], "id"),
                    table("k", &["a", "b"], "a"),
                    table("cache", &["a"], "a"),
                ],
            ),
            (
                NodeId(2),
                vec![
                    table("t", &["b", "ID", "more"], "id"),
                    table("k", &["a", "b"], "b"),
                    left_out,
                ],
            ),
        ]));
        assert_eq!(
            common.tables,
            [Comparable {
                name: "t".into(),
                columns: vec!["b".into(), "id".into()],
                nodes: vec![NodeId(1), NodeId(2)],
            }]
        );
        assert_eq!(
            common.differences,
            [
                "table \"k\" has different keys, so that its rows cannot be compared: (a) on node 1, (b) on node 2",
                "table \"only\" is missing on node 2",
                "column \"more\" of table \"t\" is missing on node 1",
            ]
        );
        assert_eq!(
            common.notes,
            ["table \"cache\" is not compared on node 2: excluded"]
        );
    }
}
