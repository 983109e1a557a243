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
        let progress = Duration::from_nanos(self.progress_nanos.load(Ordering::Relaxed));
        ReaderSnapshot {
            delivered: Sequence(self.delivered.load(Ordering::Relaxed)),
            stream_last: Sequence(self.stream_last.load(Ordering::Relaxed)),
            behind: self.behind(),
            recreations: self.recreations.load(Ordering::Relaxed),
            stalls: self.stalls.load(Ordering::Relaxed),
            since_progress: self.started.elapsed().saturating_sub(progress),
            trouble: self.lock().clone(),
        }
    }

    pub(super) fn message(&self, sequence: Sequence, stream_last: Sequence, now: Instant) {
        self.delivered.store(sequence.0, Ordering::Relaxed);
        self.stream_last.store(stream_last.0, Ordering::Relaxed);
        let progress = now.saturating_duration_since(self.started).as_nanos();
        self.progress_nanos.store(
            u64::try_from(progress).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
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
