//! A snapshot on its way into this database: fetched once, however often restoring it is tried (while a column is missing here, or the database is locked).
//!
//! Invariant: at most one fetched file lies beside the database, and it goes with this value.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::snapshot::catalog::{Catalog, CatalogError};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::scratch::Scratch;
use crate::store::Progress;

/// What was fetched last, and what was said of those that cannot be used.
#[derive(Default)]
pub struct Download {
    have: Option<(Manifest, Arc<Scratch>)>,
    told: BTreeSet<String>,
}

impl Download {
    /// The file of this snapshot.
    ///
    /// # Errors
    /// The store's; damage.
    pub async fn get(
        &mut self,
        engine: &Engine,
        catalog: &Catalog,
        manifest: &Manifest,
    ) -> Result<Arc<Scratch>, CatalogError> {
        if let Some((_, file)) = self.have.as_ref().filter(|(m, _)| m == manifest) {
            return Ok(Arc::clone(file));
        }
        tracing::info!(
            snapshot = %manifest.file, store = catalog.store_name(), position = manifest.sequence, bytes = manifest.size,
            "restoring from a snapshot; what is pending here is kept"
        );
        self.have = None;
        let scratch = Arc::new(Scratch::new(&engine.config.db_path, "restore"));
        let fetched = catalog
            .fetch(manifest, scratch.path(), &fetching(engine))
            .await;
        engine.metrics.restore_progress_bytes.set(0);
        fetched?;
        self.have = Some((manifest.clone(), Arc::clone(&scratch)));
        Ok(scratch)
    }

    /// It cannot be used; said once.
    pub fn unusable(&mut self, manifest: &Manifest, why: &str) {
        if self.told.insert(manifest.file.clone()) {
            tracing::warn!(snapshot = %manifest.file, "Failed to restore snapshot: {why}");
        }
    }
}

/// Says now and then how much has come, and shows it as a metric.
fn fetching(engine: &Engine) -> Progress {
    let (said, gauge) = (
        Mutex::new(Said::default()),
        engine.metrics.restore_progress_bytes.clone(),
    );
    Progress::new(move |done, total| {
        gauge.set(i64::try_from(done).unwrap_or(i64::MAX));
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_time() {
            tracing::info!(bytes = done, total, "fetching the snapshot");
        }
    })
}

/// When something that goes on for long was last spoken of.
pub struct Said {
    at: Cell<Instant>,
    sum: Cell<u64>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            at: Cell::new(Instant::now()),
            sum: Cell::new(0),
        }
    }
}

impl Said {
    /// Whether it is time to speak of it again.
    fn is_time(&self) -> bool {
        /// People who watch a log want to see that it goes on.
        const EVERY: Duration = Duration::from_secs(5);
        let is_time = self.at.get().elapsed() >= EVERY;
        if is_time {
            self.at.set(Instant::now());
        }
        is_time
    }

    /// So many more; all of them if it is time to speak of it.
    pub fn more(&self, count: u64) -> Option<u64> {
        self.sum.set(self.sum.get() + count);
        self.is_time().then(|| self.sum.get())
    }
}

/// Whether another snapshot may serve where this one cannot be had.
#[must_use]
pub fn is_lost(error: &CatalogError) -> bool {
    match error {
        CatalogError::Damaged { .. } | CatalogError::Name(_) => true,
        CatalogError::Store(e) => e.is_missing(),
    }
}
