//! Markers among the messages that wait: where a comparison wants this node's database exactly as it is there.
//!
//! Invariant: a snapshot is taken after the marker's transaction and before the next one. What must be folded in one transaction with what comes
//! behind the marker is: then the comparison is told, and tries another marker.

use std::sync::Arc;

use crate::apply::incoming::{Body, Incoming};
use crate::engine::Engine;

/// The messages up to the first marker that is awaited; all where none is.
pub fn up_to_marker<'a>(engine: &Engine, messages: &'a [Incoming]) -> &'a [Incoming] {
    messages
        .iter()
        .position(|m| awaited(engine, m).is_some())
        .and_then(|at| messages.get(..=at))
        .unwrap_or(messages)
}

/// These messages are folded and committed.
pub fn folded(engine: &Engine, messages: &[Incoming]) {
    for (index, message) in messages.iter().enumerate() {
        match &message.body {
            Body::Marker(marker) => engine.markers.note(marker.id),
            Body::Batch(batch) => {
                for section in &batch.record.sections {
                    if let Some(last) = section.pieces.iter().max() {
                        engine.way.passed(section.shard, *last);
                    }
                }
            }
            Body::Payload | Body::Unreadable { .. } | Body::Newer(_) => {}
        }
        let Some(id) = awaited(engine, message) else {
            continue;
        };
        let (captured, position) = {
            let replica = engine.replica();
            (Arc::clone(replica.captured()), replica.position().sequence)
        };
        let exactly = index + 1 == messages.len() && position == message.sequence;
        let database = &engine.config.db_path;
        engine
            .comparisons
            .folded(id, message.sequence, exactly, database, &captured);
    }
}

fn awaited(engine: &Engine, message: &Incoming) -> Option<u64> {
    match &message.body {
        Body::Marker(marker) if engine.comparisons.awaits(marker.id) => Some(marker.id),
        _ => None,
    }
}
