//! From digests that differ to the rows that do.

use std::collections::{BTreeMap, HashMap};

use smallvec::SmallVec;

use super::digest::{Bucket, RowHash};
use super::examiner::HASH_BYTES;
use super::pages::take_key;
use super::report::{KEYS_SHOWN, KeyReport, TableReport};
use super::values;
use crate::change::literal::sql_literals;
use crate::change::position::NodeId;
use crate::change::value::{OwnedValue, Value};

/// Rows of differing buckets that a node is asked to list. One bucket is asked for in any case.
const ROWS_LISTED: u64 = 100_000;

/// The buckets that are not equal on all nodes.
#[must_use]
pub fn unequal(digests: &BTreeMap<NodeId, Vec<Bucket>>) -> Vec<usize> {
    let Some(first) = digests.values().next() else {
        return Vec::new();
    };
    first
        .iter()
        .enumerate()
        .filter(|(i, bucket)| digests.values().any(|d| d.get(*i) != Some(bucket)))
        .map(|(i, _)| i)
        .collect()
}

/// The rows of one bucket, on the node that has most.
fn rows_of(digests: &BTreeMap<NodeId, Vec<Bucket>>, bucket: usize) -> u64 {
    let all = digests.values().filter_map(|d| d.get(bucket));
    all.map(|b| b.rows).max().unwrap_or(0)
}

/// How many rows may differ: all of these buckets.
#[must_use]
pub fn suspects(digests: &BTreeMap<NodeId, Vec<Bucket>>, unequal: &[usize]) -> u64 {
    unequal.iter().map(|b| rows_of(digests, *b)).sum()
}

/// As many of these buckets as a node can list.
#[must_use]
pub fn listable(digests: &BTreeMap<NodeId, Vec<Bucket>>, unequal: &[usize]) -> Vec<u64> {
    let mut total = 0_u64;
    let mut chosen = Vec::new();
    for &bucket in unequal {
        total = total.saturating_add(rows_of(digests, bucket));
        if !chosen.is_empty() && total > ROWS_LISTED {
            break;
        }
        chosen.push(bucket as u64);
    }
    chosen
}

/// A row that is not the same on all nodes.
#[derive(Debug, Clone)]
pub struct DifferingRow {
    /// Its key.
    pub key: Vec<OwnedValue>,
    /// Its key as it travels.
    pub key_bytes: Vec<u8>,
    /// Each node's digest of it, for the nodes that have it.
    pub on: Versions,
}

/// What nodes have of a row: its digest on each that has it. Inline for the usual few nodes: there may be many rows.
type Versions = SmallVec<[(NodeId, u128); 4]>;

/// The rows that are not the same in all lists, by key; `None` where a list is damaged.
#[must_use]
pub fn differing(lists: &BTreeMap<NodeId, Vec<u8>>) -> Option<Vec<DifferingRow>> {
    let mut digests: HashMap<RowHash, (&[u8], Versions)> = HashMap::new();
    for (node, list) in lists {
        let mut rest = list.as_slice();
        while !rest.is_empty() {
            let (hash, after) = rest.split_first_chunk::<HASH_BYTES>()?;
            let (digest, after) = after.split_first_chunk::<16>()?;
            rest = after;
            let key = take_key(&mut rest)?;
            digests
                .entry(RowHash::from_le_bytes(*hash))
                .or_insert_with(|| (key, Versions::new()))
                .1
                .push((*node, u128::from_le_bytes(*digest)));
        }
    }
    let mut out = Vec::new();
    for (key, on) in digests.into_values() {
        let same = on.windows(2).all(|w| matches!(w, [a, b] if a.1 == b.1));
        if on.len() == lists.len() && same {
            continue;
        }
        out.push(DifferingRow {
            key: values::decode(key)?,
            key_bytes: key.to_vec(),
            on,
        });
    }
    out.sort_by(|a, b| values::compare(&a.key, &b.key));
    Some(out)
}

/// What is told of a table's differing rows.
#[must_use]
pub fn report(table: &str, nodes: &[NodeId], rows: &[DifferingRow], at_least: bool) -> TableReport {
    let text = |row: Option<&DifferingRow>| row.map_or_else(String::new, |r| key_text(&r.key));
    TableReport {
        table: table.to_owned(),
        rows: rows.len() as u64,
        at_least,
        lowest: text(rows.first()),
        highest: text(rows.last()),
        keys: rows
            .iter()
            .take(KEYS_SHOWN)
            .map(|row| key_report(row, nodes))
            .collect(),
    }
}

fn key_report(row: &DifferingRow, nodes: &[NodeId]) -> KeyReport {
    let mut versions: BTreeMap<u128, Vec<u64>> = BTreeMap::new();
    for (node, digest) in &row.on {
        versions.entry(*digest).or_default().push(node.0);
    }
    let lacks = |node: &&NodeId| row.on.iter().all(|(n, _)| n != *node);
    let missing = nodes.iter().filter(lacks).map(|n| n.0).collect();
    let mut versions: Vec<Vec<u64>> = versions.into_values().collect();
    versions.sort_by_key(|nodes| (std::cmp::Reverse(nodes.len()), nodes.first().copied()));
    KeyReport {
        key: key_text(&row.key),
        versions,
        missing,
    }
}

/// A key for people: SQL literals, cut where they are long.
fn key_text(key: &[OwnedValue]) -> String {
    const SHOWN: usize = 200;
    let values: Vec<Value<'_>> = key.iter().map(OwnedValue::as_value).collect();
    let text = sql_literals(&values);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::pages::push_key;
    use super::*;

    fn list(rows: &[(i64, u128)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, digest) in rows {
            out.extend_from_slice(&(*key as u128).to_le_bytes());
            out.extend_from_slice(&digest.to_le_bytes());
            push_key(&mut out, &values::encode([Value::Integer(*key)]));
        }
        out
    }

    #[test]
    fn only_what_differs_is_found() {
        let lists = BTreeMap::from([
            (NodeId(1), list(&[(1, 10), (2, 20), (3, 30), (12, 1)])),
            (NodeId(2), list(&[(3, 30), (1, 10), (2, 21), (12, 1)])),
            (NodeId(3), list(&[(1, 10), (2, 20), (4, 40), (12, 1)])),
        ]);
        let rows = differing(&lists).unwrap();
        let nodes: Vec<NodeId> = lists.keys().copied().collect();
        let report = report("t", &nodes, &rows, false);
        let shown: Vec<_> = report
            .keys
            .iter()
            .map(|k| (k.key.as_str(), k.versions.clone(), k.missing.clone()))
            .collect();
        assert_eq!(
            shown,
            [
                ("2", vec![vec![1, 3], vec![2]], vec![]),
                ("3", vec![vec![1, 2]], vec![3]),
                ("4", vec![vec![3]], vec![1, 2]),
            ]
        );
        assert_eq!(
            (report.lowest.as_str(), report.highest.as_str()),
            ("2", "4")
        );
        let cut = BTreeMap::from([(NodeId(1), vec![0; 40])]);
        assert!(differing(&cut).is_none());
    }

    #[test]
    fn as_many_buckets_as_can_be_listed_and_one_at_least() {
        let bucket = |rows, sum| Bucket { rows, sum };
        let digests = BTreeMap::from([
            (
                NodeId(1),
                vec![bucket(5, 1), bucket(ROWS_LISTED, 1), bucket(1, 1)],
            ),
            (
                NodeId(2),
                vec![bucket(5, 2), bucket(ROWS_LISTED, 2), bucket(1, 1)],
            ),
        ]);
        assert_eq!(unequal(&digests), [0, 1]);
        assert_eq!(listable(&digests, &[0, 1]), [0]);
        assert_eq!(listable(&digests, &[1]), [1]);
    }
}
