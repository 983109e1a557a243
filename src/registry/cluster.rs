//! The entries of all nodes, read for people.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::change::position::NodeId;
use crate::stream::{Broker, KvError};

use super::entry::Entry;

/// An entry, and whether its node is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// What it said last.
    pub entry: Entry,
    /// Whether it holds its node id at this moment: a daemon runs and is connected.
    pub running: bool,
    /// Seconds between this entry and the newest of all, by the server's clock.
    pub seconds_behind: u64,
    /// Seconds that the node's clock was ahead of the server's when it said this; `None`: it did not say the time.
    pub clock_ahead: Option<f64>,
}

/// The registry's bucket.
pub(super) fn bucket_name(broker: &Broker) -> String {
    let prefix = match broker.bucket_prefix() {
        // With the usual stream prefix it is the bucket that the Go program's documentation names.
        "harmonylite-changes" => "harmonylite",
        other => other,
    };
    format!("{prefix}-schema-registry")
}

/// A node's key.
pub(super) fn key_of(node: NodeId) -> String {
    format!("node-{node}")
}

/// All entries, by node id. An entry that cannot be read is left out, and said.
///
/// # Errors
/// The broker's.
pub async fn list(broker: &Broker) -> Result<(Vec<Listed>, Vec<String>), KvError> {
    let Some(kv) = broker.existing_bucket(&bucket_name(broker)).await? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let living = broker.living_nodes().await?;
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    for (key, held) in kv.entries().await? {
        match serde_json::from_slice::<Entry>(&held.value) {
            Ok(entry) => found.push((entry, held.created)),
            Err(_) => unreadable.push(key),
        }
    }
    found.sort_by_key(|(entry, _)| entry.node_id);
    let newest = found.iter().map(|(_, at)| *at).max().unwrap_or(0);
    let listed = found
        .into_iter()
        .map(|(entry, at)| Listed {
            running: living.contains(&NodeId(entry.node_id)),
            seconds_behind: newest.saturating_sub(at) / 1_000_000_000,
            clock_ahead: OffsetDateTime::parse(&entry.updated_at, &Rfc3339)
                .ok()
                .and_then(|said| {
                    let stored = OffsetDateTime::from_unix_timestamp_nanos(at.into()).ok()?;
                    Some((said - stored).as_seconds_f64())
                }),
            entry,
        })
        .collect();
    Ok((listed, unreadable))
}
