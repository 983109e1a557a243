//! What became of log lines, in numbers: who watches the log by machine has to know whether it is all there.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where a line goes.
const TO: [&str; 2] = ["file", "stderr"];
/// What had no room for it.
const BY: [&str; 3] = ["queue", "file", "stderr"];

/// Counts since the start; they only rise.
#[derive(Debug, Default)]
pub(super) struct Tally {
    written: [AtomicU64; 2],
    dropped: [AtomicU64; 3],
    failures: [AtomicU64; 2],
}

/// The counts at one moment, by the words of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineCounts {
    /// Lines that were written, by where to.
    pub written: [(&'static str, u64); 2],
    /// Lines that were not, by what had no room for them.
    pub dropped: [(&'static str, u64); 3],
    /// Writes that failed, by where to.
    pub failures: [(&'static str, u64); 2],
}

impl Tally {
    /// An event came while the queue was full.
    pub(super) fn no_room_in_queue(&self) {
        let [queue, ..] = &self.dropped;
        add(queue);
    }

    /// A line was written to the file, or could not be.
    pub(super) fn of_file(&self, written: bool) {
        let ([file, _], [_, dropped, _], [failed, _]) =
            (&self.written, &self.dropped, &self.failures);
        if written {
            add(file);
        } else {
            add(dropped);
            add(failed);
        }
    }

    /// A line was written to standard error, or nobody read what is there.
    pub(super) fn of_stderr(&self, written: bool) {
        let ([_, error], [_, _, dropped]) = (&self.written, &self.dropped);
        add(if written { error } else { dropped });
    }

    /// Standard error takes nothing: it is closed, or on a disk that is full.
    pub(super) fn stderr_failed(&self) {
        let ([_, _, dropped], [_, failed]) = (&self.dropped, &self.failures);
        add(dropped);
        add(failed);
    }

    /// The counts now.
    pub(super) fn counts(&self) -> LineCounts {
        let of = |n: &AtomicU64| n.load(Ordering::Relaxed);
        fn named<const N: usize>(
            names: [&'static str; N],
            n: [u64; N],
        ) -> [(&'static str, u64); N] {
            let mut numbers = n.into_iter();
            names.map(|name| (name, numbers.next().unwrap_or_default()))
        }
        LineCounts {
            written: named(TO, self.written.each_ref().map(of)),
            dropped: named(BY, self.dropped.each_ref().map(of)),
            failures: named(TO, self.failures.each_ref().map(of)),
        }
    }
}

fn add(n: &AtomicU64) {
    n.fetch_add(1, Ordering::Relaxed);
}
