//! How a handler answers: progress while it works, then once what came of it.
//!
//! Invariants: exactly one final answer; neither progress nor answer ever waits, whoever is slow at the other end.

use tokio::sync::{mpsc, oneshot};

use crate::control::protocol::{Outcome, Refusal};

/// Progress that is not yet sent. A client that reads slower sees less of it.
const QUEUED: usize = 64;
/// `sysexits.h`: a fault of ours.
const SOFTWARE: u8 = 70;

/// The way to answer one request, from any thread. Dropped without an answer (a handler that failed), it
/// says so to the client.
#[derive(Debug)]
pub struct Reply {
    progress: mpsc::Sender<String>,
    /// `None` once answered.
    done: Option<oneshot::Sender<Result<Outcome, Refusal>>>,
}

/// The other end.
pub(super) struct Answers {
    pub(super) progress: mpsc::Receiver<String>,
    pub(super) done: oneshot::Receiver<Result<Outcome, Refusal>>,
}

impl Reply {
    pub(super) fn channel() -> (Self, Answers) {
        let (progress, progress_end) = mpsc::channel(QUEUED);
        let (done, done_end) = oneshot::channel();
        let answers = Answers {
            progress: progress_end,
            done: done_end,
        };
        let done = Some(done);
        (Self { progress, done }, answers)
    }

    /// Tells the client what is under way, in one sentence. Lost when the client reads too slowly or has
    /// gone.
    pub fn progress(&self, text: impl Into<String>) {
        // Full or closed: as said above.
        let _ = self.progress.try_send(text.into());
    }

    /// The final answer: what was done in one sentence, or with what was asked for, or why not. Lost when the client has gone.
    pub fn done<T: Into<Outcome>>(mut self, result: Result<T, Refusal>) {
        self.send(result.map(Into::into));
    }

    /// Ends when the client has gone, or was answered.
    pub async fn gone(&self) {
        self.progress.closed().await;
    }

    fn send(&mut self, result: Result<Outcome, Refusal>) {
        if let Some(done) = self.done.take() {
            // The client has gone: nobody is left to tell.
            let _ = done.send(result);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.send(Err(Refusal::new(
            "the daemon gave the request up without an answer; its log says why",
            SOFTWARE,
        )));
    }
}
