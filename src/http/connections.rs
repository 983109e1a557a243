//! The connections of one listener, and which of them is cut when there are too many.
//!
//! Invariants: at most [`MOST`] are open; one whose request is being answered is never cut for another; a client that sends its request at once is answered
//! however many there are that hold a connection and send none, or do not read what they asked for.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};

/// Scrapers and probes are a handful.
const MOST: usize = 64;

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<Turn>)>,
    turned: Arc<Notify>,
}

/// Whose turn it is on a connection.
#[derive(Debug)]
pub(super) struct Turn {
    /// Since when the client is to send, or to read; `None`: its request is being answered.
    client: Mutex<Option<Instant>>,
    turned: Arc<Notify>,
}

/// A request is being answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Answering(Arc<Turn>);

impl Turn {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(super) fn answer(self: &Arc<Self>) -> Answering {
        *self.lock() = None;
        Answering(Arc::clone(self))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        *self.0.lock() = Some(Instant::now());
        self.0.turned.notify_one();
    }
}

impl Connections {
    /// Who has held a connection for longest without a request that is being answered.
    fn slowest(&self) -> Option<Id> {
        let idle = |(id, (_, turn)): (&Id, &(AbortHandle, Arc<Turn>))| Some(((*turn.lock())?, *id));
        let slowest = self
            .open
            .iter()
            .filter_map(idle)
            .min_by_key(|(since, _)| *since);
        slowest.map(|(_, id)| id)
    }

    /// Makes a place for one more: where all are taken, the slowest is cut. `false`: all of them are being answered.
    pub(super) fn make_room(&mut self) -> bool {
        if self.open.len() < MOST {
            return true;
        }
        let slowest = self.slowest().and_then(|id| self.open.remove(&id));
        if let Some((task, _)) = &slowest {
            tracing::debug!(
                "an HTTP connection was cut: all places were taken, and it had held its own for longest"
            );
            task.abort();
        }
        slowest.is_some()
    }

    /// One more, for which there is a place.
    pub(super) fn add<F>(&mut self, converse: impl FnOnce(Arc<Turn>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let turn = Arc::new(Turn {
            client: Mutex::new(Some(Instant::now())),
            turned: Arc::clone(&self.turned),
        });
        let task = self.tasks.spawn(converse(Arc::clone(&turn)));
        self.open.insert(task.id(), (task, turn));
    }

    /// Ends when one of them has ended, or has become one that may be cut; never while there is none.
    pub(super) async fn changed(&mut self) {
        let turned = Arc::clone(&self.turned);
        let ended = async {
            match self.tasks.join_next_with_id().await {
                Some(Ok((id, ()))) => id,
                Some(Err(error)) => error.id(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            id = ended => {
                self.open.remove(&id);
            }
            () = turned.notified() => {}
        }
    }

    /// Ends when all of them have ended.
    pub(super) async fn finished(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_holds_a_place_for_longest_yields_it_and_who_is_answered_keeps_it() {
        let mut connections = Connections::default();
        let mut turns = Vec::new();
        for _ in 0..MOST {
            connections.add(|turn| {
                turns.push(turn);
                std::future::pending()
            });
        }
        let answering = turns[0].answer();
        let there = |connections: &Connections, turn: &Arc<Turn>| {
            let mut open = connections.open.values();
            open.any(|(_, open)| Arc::ptr_eq(open, turn))
        };
        assert!(connections.make_room());
        connections.add(|_| std::future::pending());
        assert!(there(&connections, &turns[0]) && !there(&connections, &turns[1]));
        assert_eq!(connections.open.len(), MOST);
        connections.changed().await;
        drop(answering);
        connections.changed().await;
        // It was busy a moment ago: the others have waited for longer.
        assert!(connections.make_room());
        connections.add(|_| std::future::pending());
        assert!(there(&connections, &turns[0]) && !there(&connections, &turns[2]));
        let all: Vec<Answering> = connections
            .open
            .values()
            .map(|(_, turn)| turn.answer())
            .collect();
        assert!(!connections.make_room() && connections.open.len() == MOST);
        drop(all);
        assert!(connections.make_room());
    }
}
