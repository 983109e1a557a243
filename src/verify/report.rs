//! What a comparison came to, for people and as JSON.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::error::list;
use crate::change::position::NodeId;

/// Keys of a table that are named one by one.
pub const KEYS_SHOWN: usize = 10;

/// What a comparison came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// Whether all that was compared is equal.
    pub equal: bool,
    /// The marker's place in the stream.
    pub position: u64,
    /// The nodes that were compared.
    pub nodes: Vec<u64>,
    /// Living nodes that were not.
    pub not_compared: Vec<NotCompared>,
    /// Tables that were compared.
    pub tables: usize,
    /// Rows of them, as the node with most of them counts.
    pub rows: u64,
    /// Rows that were left out on all nodes, because a node has not published its changes of them yet.
    pub set_apart: usize,
    /// Differences of the schema, each in a sentence.
    pub schema: Vec<String>,
    /// Tables whose rows differ.
    pub different: Vec<TableReport>,
    /// What else should be known.
    pub notes: Vec<String>,
    /// What was sent again.
    pub resent: Vec<Resent>,
}

/// A node that was not compared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NotCompared {
    /// The node.
    pub node: u64,
    /// Why, in words that follow "node 3".
    pub reason: String,
    /// Whether that is as configured, so that nothing is amiss.
    pub as_configured: bool,
}

/// A table whose rows differ.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// How many of its rows were found to differ.
    pub rows: u64,
    /// Whether there are more.
    pub at_least: bool,
    /// The lowest key found, as an SQL literal.
    pub lowest: String,
    /// The highest.
    pub highest: String,
    /// The first ones.
    pub keys: Vec<KeyReport>,
}

/// A row that differs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyReport {
    /// Its key, as SQL literals.
    pub key: String,
    /// Nodes that have the same, most of them first.
    pub versions: Vec<Vec<u64>>,
    /// Nodes that have none.
    pub missing: Vec<u64>,
}

/// Rows that were sent again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// The table.
    pub table: String,
    /// How many.
    pub rows: u64,
    /// From which node.
    pub from: u64,
}

impl Report {
    /// Whether a node that should have been compared was not.
    #[must_use]
    pub fn is_incomplete(&self) -> bool {
        self.not_compared.iter().any(|n| !n.as_configured)
    }

    /// For scripts: one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        // Structs of texts and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for resent in &self.resent {
            let Resent { table, rows, from } = resent;
            line(
                &mut out,
                format_args!(
                    "table {table}: {} sent again from node {from}",
                    count(*rows, "row")
                ),
            );
        }
        for difference in &self.schema {
            line(&mut out, format_args!("schema: {difference}"));
        }
        for table in &self.different {
            table.write(&mut out);
        }
        for note in &self.notes {
            line(&mut out, format_args!("note: {note}"));
        }
        for NotCompared { node, reason, .. } in &self.not_compared {
            line(
                &mut out,
                format_args!("node {node} was not compared: it {reason}"),
            );
        }
        let nodes: Vec<NodeId> = self.nodes.iter().map(|n| NodeId(*n)).collect();
        let what = format!(
            "{}, {}, at position {}; {} set apart",
            count(self.tables as u64, "table"),
            count(self.rows, "row"),
            self.position,
            count(self.set_apart as u64, "row with unpublished changes"),
        );
        let verdict = match (self.equal, nodes.len()) {
            (_, 0 | 1) => format!("only node {} is there: nothing to compare", list(&nodes)),
            (true, _) => format!("equal on nodes {}", list(&nodes)),
            (false, _) => format!("DIFFERENT on nodes {}", list(&nodes)),
        };
        line(&mut out, format_args!("{verdict} ({what})"));
        out
    }
}

impl TableReport {
    fn write(&self, out: &mut String) {
        let least = if self.at_least { "at least " } else { "" };
        line(
            out,
            format_args!(
                "table {}: {least}{} {}, keys {} to {}",
                self.table,
                count(self.rows, "row"),
                if self.rows == 1 { "differs" } else { "differ" },
                self.lowest,
                self.highest
            ),
        );
        for key in &self.keys {
            let _ = writeln!(out, "  {}: {}", key.key, key.who());
        }
        let more = self.rows.saturating_sub(self.keys.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more");
        }
    }
}

impl KeyReport {
    fn who(&self) -> String {
        let nodes = |nodes: &[u64]| {
            let list = nodes.iter().map(u64::to_string).collect::<Vec<_>>();
            let word = if nodes.len() == 1 { "node" } else { "nodes" };
            format!("{word} {}", list.join(", "))
        };
        let mut parts: Vec<String> = self
            .versions
            .iter()
            .enumerate()
            .map(|(i, same)| match (i, same.len()) {
                (0, 1) => format!("on {}", nodes(same)),
                (0, _) => format!("the same on {}", nodes(same)),
                (_, _) => format!("another on {}", nodes(same)),
            })
            .collect();
        if !self.missing.is_empty() {
            parts.push(format!("missing on {}", nodes(&self.missing)));
        }
        parts.join("; ")
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{text}");
}

/// `1 row`, `2 rows`; a word with more behind it has its plural in the first.
pub(super) fn count(n: u64, what: &str) -> String {
    let plural = |what: &str| match what.split_once(' ') {
        Some((word, rest)) => format!("{word}s {rest}"),
        None => format!("{what}s"),
    };
    let what = if n == 1 {
        what.to_owned()
    } else {
        plural(what)
    };
    format!("{n} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_who_has_what() {
        let report = Report {
            position: 7,
            nodes: vec![1, 2, 3],
            tables: 2,
            rows: 900,
            set_apart: 1,
            schema: vec!["table \"x\" is missing on node 3".into()],
            different: vec![TableReport {
                table: "t".into(),
                rows: 3,
                at_least: false,
                lowest: "1".into(),
                highest: "'z'".into(),
                keys: vec![
                    KeyReport {
                        key: "1".into(),
                        versions: vec![vec![1, 2], vec![3]],
                        missing: vec![],
                    },
                    KeyReport {
                        key: "'z'".into(),
                        versions: vec![vec![2]],
                        missing: vec![1, 3],
                    },
                ],
            }],
            not_compared: vec![NotCompared {
                node: 4,
                reason: "does not answer".into(),
                as_configured: false,
            }],
            ..Report::default()
        };
        assert_eq!(
            report.text(),
            "schema: table \"x\" is missing on node 3\n\
             table t: 3 rows differ, keys 1 to 'z'\n  \
             1: the same on nodes 1, 2; another on node 3\n  \
             'z': on node 2; missing on nodes 1, 3\n  \
             and 1 more\n\
             node 4 was not compared: it does not answer\n\
             DIFFERENT on nodes 1, 2, 3 (2 tables, 900 rows, at position 7; 1 row with unpublished changes set apart)\n"
        );
        assert!(report.is_incomplete());
        assert!(
            report
                .json()
                .starts_with("{\"equal\":false,\"position\":7,")
        );
    }
}
