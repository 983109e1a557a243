//! Where people ask a running daemon for a snapshot.
//!
//! Invariant: every request is answered once: with what was taken, or with why not.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::manifest::Manifest;

/// Requests that wait; who comes beyond them is refused.
const QUEUE: usize = 8;

/// What came of a request.
pub type Saved = Result<Manifest, String>;

/// One request.
pub struct Ask {
    /// Hears what is under way.
    pub say: Box<dyn Fn(String) + Send + Sync>,
    /// Hears what came of it.
    pub done: oneshot::Sender<Saved>,
}

/// Clones share it. Open while the daemon has a session.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Option<mpsc::Sender<Ask>>>>);

impl Desk {
    /// Opens it: requests come out of the receiver from now on.
    #[must_use]
    pub fn open(&self) -> mpsc::Receiver<Ask> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// Asks for a snapshot and waits for it.
    ///
    /// # Errors
    /// Why there is none, as a sentence.
    pub async fn save(&self, say: impl Fn(String) + Send + Sync + 'static) -> Saved {
        let sender = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(sender) = sender else {
            return Err(
                "this daemon is not connected to NATS yet, or snapshots are disabled: its log and health tell".to_owned(),
            );
        };
        let (done, answer) = oneshot::channel();
        let ask = Ask {
            say: Box::new(say),
            done,
        };
        if sender.try_send(ask).is_err() {
            return Err("the daemon is stopping, or too many have asked already".to_owned());
        }
        match answer.await {
            Ok(saved) => saved,
            Err(_) => Err("the daemon stopped before the snapshot was taken".to_owned()),
        }
    }
}
