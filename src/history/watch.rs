//! A node that runs hears of a history that others have proposed.

use std::sync::Arc;

use super::agree;
use crate::engine::Engine;
use crate::stream::{Broker, Kv};

/// Looks now and then.
pub struct Watch {
    engine: Arc<Engine>,
    broker: Broker,
    kv: Option<Kv>,
}

impl Watch {
    /// A watch that has not looked yet.
    #[must_use]
    pub fn new(engine: Arc<Engine>, broker: Broker) -> Self {
        Self {
            engine,
            broker,
            kv: None,
        }
    }

    /// Where others speak of a history that is not this node's, this life ends, and the next settles it.
    pub async fn look(&mut self) {
        if self.kv.is_none() {
            let replicas = self.engine.config.replication_log.replicas;
            self.kv = agree::bucket(&self.broker, replicas).await.ok();
        }
        let Some(kv) = &self.kv else {
            return;
        };
        let agreed = match agree::read(kv).await {
            Ok(Some((agreed, _))) => agreed,
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "it is not known whether there is a new history");
                return;
            }
        };
        let mine = tokio::task::block_in_place(|| self.engine.replica().history());
        let another = agreed.history != mine && agreed.history.number >= mine.number;
        // Who applies nothing has no fold that could be of any history, and only stands still while there is none.
        if another && (self.engine.config.replicate || !agreed.is_settled()) {
            self.engine.begin_again(&format!(
                "history {} of the log has broken ({}), and the nodes begin a new one",
                agreed.before.number, agreed.reason
            ));
        }
    }
}
