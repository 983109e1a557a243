//! Whether this node can use the snapshot store, looked at now and then: who leads finds out when it takes a snapshot, all others when they need one, which is late.
//!
//! Invariant: nothing is written, and what is found decides nothing.

use std::sync::Arc;
use std::time::Duration;

use super::catalog::Catalog;
use crate::engine::Engine;
use crate::http::status::Component;

/// How often the store is listed: it costs little, and may cost money.
const EVERY: Duration = Duration::from_secs(300);

/// How often, while it cannot be.
const AGAIN: Duration = Duration::from_secs(30);

/// Looks until it is dropped.
pub async fn run(engine: Arc<Engine>, catalog: Catalog) {
    loop {
        let wait = match catalog.usable().await {
            Ok(_) => {
                engine.status.recovered(Component::SnapshotStore);
                EVERY
            }
            Err(error) => {
                engine.status.failed(Component::SnapshotStore, &error);
                AGAIN
            }
        };
        tokio::time::sleep(wait).await;
    }
}
