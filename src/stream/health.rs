//! How a reader is doing, for health and metrics: shared, so that whoever shows it never waits for the reader.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::change::position::Sequence;

/// Written by one [`LogReader`](super::LogReader), read by anybody.
#[derive(Debug)]
pub struct ReaderHealth {
    delivered: AtomicU64,
    stream_last: AtomicU64,
    recreations: AtomicU64,
    stalls: AtomicU64,
    started: Instant,
    progress_nanos: AtomicU64,
    /// When the server was last heard of, and since when the caller waits for a message; 0: it does not.
    heard_nanos: AtomicU64,
    waiting_nanos: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// A reader's health at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderSnapshot {
    /// The last message handed to the caller; what was asked for minus one at the start.
    pub delivered: Sequence,
    /// The stream's last message as of the last look.
    pub stream_last: Sequence,
    /// Messages that the stream holds beyond `delivered`, as of the last look.
    pub behind: u64,
    /// Consumers made anew after the first.
    pub recreations: u64,
    /// Those of them made because messages were there and none came.
    pub stalls: u64,
    /// Time since the last message was handed over, or since the reader was made.
    pub since_progress: Duration,
    /// For how long the caller has waited for a message; zero when it does not.
    pub waiting: Duration,
    /// Time since the server last sent anything for this reader, be it a sign of life.
    pub silent: Duration,
    /// What keeps the reader from reading at the moment; `None` when all is well.
    pub trouble: Option<String>,
}

impl ReaderHealth {
    pub(super) fn new(delivered: Sequence) -> Self {
        Self {
            delivered: AtomicU64::new(delivered.0),
            stream_last: AtomicU64::new(0),
            recreations: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            started: Instant::now(),
            progress_nanos: AtomicU64::new(0),
            heard_nanos: AtomicU64::new(0),
            waiting_nanos: AtomicU64::new(0),
            trouble: Mutex::new(None),
        }
    }

    /// Messages that the stream holds beyond the last one delivered, as of the last look.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.stream_last
            .load(Ordering::Relaxed)
            .saturating_sub(self.delivered.load(Ordering::Relaxed))
    }

    /// All of it.
    #[must_use]
    pub fn snapshot(&self) -> ReaderSnapshot {
        let since = |nanos: &AtomicU64| {
            let at = Duration::from_nanos(nanos.load(Ordering::Relaxed));
            self.started.elapsed().saturating_sub(at)
        };
        ReaderSnapshot {
            delivered: Sequence(self.delivered.load(Ordering::Relaxed)),
            stream_last: Sequence(self.stream_last.load(Ordering::Relaxed)),
            behind: self.behind(),
            recreations: self.recreations.load(Ordering::Relaxed),
            stalls: self.stalls.load(Ordering::Relaxed),
            since_progress: since(&self.progress_nanos),
            waiting: match self.waiting_nanos.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                _ => since(&self.waiting_nanos),
            },
            silent: since(&self.heard_nanos),
            trouble: self.lock().clone(),
        }
    }

    pub(super) fn message(&self, sequence: Sequence, stream_last: Sequence, now: Instant) {
        self.delivered.store(sequence.0, Ordering::Relaxed);
        self.stream_last.store(stream_last.0, Ordering::Relaxed);
        self.progress_nanos
            .store(self.nanos(now), Ordering::Relaxed);
        self.waiting_nanos.store(0, Ordering::Relaxed);
    }

    /// The server has sent something.
    pub(super) fn heard(&self, now: Instant) {
        self.heard_nanos.store(self.nanos(now), Ordering::Relaxed);
    }

    /// The caller waits for a message, from now on if it has not waited before.
    pub(super) fn waits(&self) {
        if self.waiting_nanos.load(Ordering::Relaxed) == 0 {
            let now = self.nanos(Instant::now()).max(1);
            self.waiting_nanos.store(now, Ordering::Relaxed);
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    pub(super) fn looked(&self, stream_last: Sequence) {
        self.stream_last.store(stream_last.0, Ordering::Relaxed);
    }

    pub(super) fn recreated(&self) {
        self.recreations.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stalled(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes trouble, or its end. Returns whether this is news.
    pub(super) fn trouble(&self, trouble: Option<String>) -> bool {
        let mut current = self.lock();
        let news = *current != trouble;
        *current = trouble;
        news
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // The value is whole whatever happened to a thread that held the lock.
        self.trouble
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
