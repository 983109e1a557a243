//! What has moved: progress for people, and proof of life for the watch that ends a transfer which stands still.
//!
//! ```text
//!   file ──▶ Source ──▶ network        network ──▶ Sink ──▶ file
//!               └─────── Meter::moved ──────────────┘
//!                          │        └──▶ Progress (bytes done, total)
//!                          └──▶ watched(): no byte for a while ends the try
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::error::Fault;

/// Called with the bytes done and the bytes in all of a transfer; a try that begins anew begins at 0 again.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(u64, u64) + Send + Sync>>);

impl Progress {
    /// Calls `report(done, total)`, in bytes, at every few hundred KiB. It must not block.
    pub fn new(report: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    /// Tells nobody.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() {
            "Progress(..)"
        } else {
            "Progress(none)"
        })
    }
}

/// Counts one try of one transfer.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
    /// Every sign of life, also those that move no byte.
    signs: AtomicU64,
    progress: Progress,
}

impl Meter {
    pub(super) fn new(progress: Progress, total: u64) -> Self {
        Self(Arc::new(Counts {
            total: AtomicU64::new(total),
            progress,
            ..Counts::default()
        }))
    }

    /// How long the transfer is, once that is known.
    pub(super) fn set_total(&self, total: u64) {
        self.0.total.store(total, Ordering::Relaxed);
    }

    /// `bytes` more have moved.
    pub(super) fn moved(&self, bytes: usize) {
        let bytes = bytes as u64;
        let done = self.0.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.alive();
        if let Some(report) = &self.0.progress.0 {
            let total = self.0.total.load(Ordering::Relaxed);
            // A part that is sent again would otherwise show more than there is.
            report(done.min(total), total);
        }
    }

    /// The other side has answered.
    pub(super) fn alive(&self) {
        self.0.signs.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends `work` when the meter shows no sign of life for `limit` (noticed after twice that at the latest).
pub(super) async fn watched<T>(
    meter: &Meter,
    limit: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut work = pin!(work);
    let mut seen = meter.0.signs.load(Ordering::Relaxed);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(limit) => {
                let now = meter.0.signs.load(Ordering::Relaxed);
                if now == seen {
                    return Err(Fault::passing(format!("nothing moved for {} s", limit.as_secs_f32())));
                }
                seen = now;
            }
        }
    }
}
