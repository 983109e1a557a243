//! How much memory this process has, and quiet while that is measured: tests run side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

static QUIET: RwLock<()> = RwLock::const_new(());

/// Side by side with others.
pub async fn shared() -> RwLockReadGuard<'static, ()> {
    QUIET.read().await
}

/// While no other case runs.
pub async fn alone() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().await
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Watches the most memory that this process has had since.
pub struct Peak {
    before: u64,
    most: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Peak {
    pub fn watch() -> Self {
        let before = resident();
        let most = Arc::new(AtomicU64::new(before));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, end) = (most.clone(), ended.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::SeqCst) {
                seen.fetch_max(resident(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self {
            before,
            most,
            ended,
        }
    }

    /// The growth at its peak, in bytes.
    pub fn growth(&self) -> u64 {
        self.most.load(Ordering::SeqCst) - self.before
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}
