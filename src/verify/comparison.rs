//! A node's part in one comparison: waits for the marker, then examines its snapshot step by step in a thread of its own, while replication goes on.
//!
//! Invariants: the snapshot lives only as long as somebody asks: it is let go of when it is released, when nobody has asked for [`IDLE`], and when
//! the daemon ends, since it keeps the WAL from being checkpointed; a step is done once, however often it is asked for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::examiner::{Examiner, Resender};
use super::snapshot::{self, NoSnapshot, Snapshot};
use crate::capture::Captured;
use crate::change::position::Sequence;
use crate::peers::protocol::{Command, Outcome};

/// How long nobody may ask before a snapshot is let go of: a coordinator asks every second.
pub const IDLE: Duration = Duration::from_secs(20);

/// How often a thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(500);

/// How long publishing stands still at most for a marker that is to be folded by itself.
const CALM: Duration = Duration::from_secs(3);

/// What a thread is told and has not heard: the marker, and a step.
const QUEUED: usize = 4;

/// Comparisons that a node takes part in at a time.
const MOST: usize = 4;

/// What a comparison's thread is told.
pub(super) enum Input {
    /// The marker was folded.
    Folded(Result<Box<Snapshot>, NoSnapshot>),
    /// The next step.
    Step(Command),
}

/// A node's part in one comparison.
pub struct Comparison {
    inbox: mpsc::SyncSender<Input>,
    state: Mutex<State>,
    changed: Notify,
    over: AtomicBool,
    rows: AtomicU64,
    /// Until when nothing new is to be published before the marker is folded.
    calm: Option<Instant>,
}

struct State {
    step: u64,
    outcome: Option<Outcome>,
    /// The marker has come by.
    folded: bool,
    heard: Instant,
}

impl Comparison {
    /// Does a step, or tells how far it is: `None` while it is under way after `patience`.
    pub async fn step(&self, step: u64, command: Command, patience: Duration) -> Option<Outcome> {
        {
            let mut state = self.lock();
            state.heard = Instant::now();
            if step == state.step + 1 {
                (state.step, state.outcome) = (step, None);
                self.rows.store(0, Ordering::Relaxed);
                if self.inbox.try_send(Input::Step(command)).is_err() {
                    return Some(failed("it was asked for the next step too early"));
                }
            } else if step != state.step {
                return Some(failed("the steps of this comparison came out of order"));
            }
        }
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                {
                    let state = self.lock();
                    if state.outcome.is_some() || state.step != step {
                        return state.outcome.clone();
                    }
                }
                if self.is_over() {
                    return Some(failed("the comparison is over"));
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, wait).await.unwrap_or(None)
    }

    /// It is still wanted.
    pub fn keep(&self) {
        self.lock().heard = Instant::now();
    }

    /// Rows that were read for the present step.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn counter(&self) -> &AtomicU64 {
        &self.rows
    }

    /// Whether nobody wants it any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.lock().heard.elapsed() > IDLE
    }

    fn finish(&self, outcome: Outcome) {
        self.lock().outcome = Some(outcome);
        self.changed.notify_waiters();
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread.
    fn run(&self, inbox: &mpsc::Receiver<Input>, mut examiner: Examiner) {
        let mut folded: Option<Result<(), Outcome>> = None;
        let mut reaching = false;
        while !self.is_over() {
            match inbox.recv_timeout(LOOK) {
                Ok(Input::Folded(Ok(snapshot))) => {
                    examiner.hold(*snapshot);
                    folded = Some(Ok(()));
                }
                Ok(Input::Folded(Err(why))) => {
                    folded = Some(Err(match why {
                        NoSnapshot::Missed(_) => Outcome::Missed {
                            reason: why.to_string(),
                        },
                        _ => failed(why),
                    }));
                }
                Ok(Input::Step(Command::Reach)) => reaching = true,
                Ok(Input::Step(command)) => {
                    let outcome = examiner.examine(command, self);
                    self.finish(outcome);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if reaching && let Some(folded) = &folded {
                reaching = false;
                self.finish(match folded {
                    Ok(()) => Outcome::Reached,
                    Err(outcome) => outcome.clone(),
                });
            }
        }
        self.end();
    }
}

pub(super) fn failed(reason: impl std::fmt::Display) -> Outcome {
    Outcome::Failed {
        reason: reason.to_string(),
    }
}

/// The comparisons that a node takes part in, by the id of their marker.
#[derive(Default)]
pub struct Comparisons(Mutex<HashMap<u64, Arc<Comparison>>>);

impl Comparisons {
    /// Gets ready for the marker `id`; if `calm`, nothing new is to be published until it is folded. `page` bounds the bytes of one answer.
    ///
    /// # Errors
    /// Why not, for the node that asked.
    pub fn prepare(
        &self,
        id: u64,
        tables: Option<String>,
        calm: bool,
        page: usize,
        resender: Box<dyn Resender>,
    ) -> Result<(), String> {
        let mut held = self.lock();
        held.retain(|_, c| !c.is_over());
        if held.contains_key(&id) {
            return Ok(());
        }
        if held.len() >= MOST {
            return Err(format!(
                "it takes part in {MOST} comparisons already: try again when they are over"
            ));
        }
        let (inbox, receiver) = mpsc::sync_channel(QUEUED);
        let comparison = Arc::new(Comparison {
            inbox,
            state: Mutex::new(State {
                step: 0,
                outcome: None,
                folded: false,
                heard: Instant::now(),
            }),
            changed: Notify::new(),
            over: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            calm: calm.then(|| Instant::now() + CALM),
        });
        let examiner = Examiner::new(tables, page, resender);
        let thread = Arc::clone(&comparison);
        std::thread::Builder::new()
            .name("compare".to_owned())
            .spawn(move || thread.run(&receiver, examiner))
            .map_err(|e| format!("it could not start a thread: {e}"))?;
        held.insert(id, comparison);
        Ok(())
    }

    /// The comparison, as long as it is not over.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<Comparison>> {
        self.lock().get(&id).filter(|c| !c.is_over()).cloned()
    }

    /// The comparison is over.
    pub fn release(&self, id: u64) {
        if let Some(comparison) = self.lock().remove(&id) {
            comparison.end();
        }
    }

    /// Whether somebody waits for this marker.
    #[must_use]
    pub fn awaits(&self, id: u64) -> bool {
        self.lock()
            .get(&id)
            .is_some_and(|c| !c.is_over() && !c.lock().folded)
    }

    /// Whether publishing is to wait a moment, so that a marker can be folded by itself.
    #[must_use]
    pub fn want_calm(&self) -> bool {
        let now = Instant::now();
        self.lock()
            .values()
            .any(|c| c.calm.is_some_and(|until| now < until) && !c.is_over() && !c.lock().folded)
    }

    /// The marker was folded, and nothing behind it was if `exactly`: the snapshot is taken before this returns.
    pub fn folded(
        &self,
        id: u64,
        at: Sequence,
        exactly: bool,
        database: &Path,
        captured: &Arc<Captured>,
    ) {
        let Some(comparison) = self.get(id) else {
            return;
        };
        comparison.lock().folded = true;
        let taken = if exactly {
            snapshot::take(database, Arc::clone(captured), at).map(Box::new)
        } else {
            Err(NoSnapshot::Missed(
                "it had to fold what comes behind the marker in the same transaction",
            ))
        };
        // Told once, so there is room, unless the thread has ended.
        let _ = comparison.inbox.try_send(Input::Folded(taken));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Comparison>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Comparisons {
    fn drop(&mut self) {
        for comparison in self.lock().values() {
            comparison.end();
        }
    }
}
