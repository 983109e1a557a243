//! The snapshots of one cluster in a store.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::manifest::{self, Manifest, ManifestError};
use crate::change::history::History;
use crate::change::position::Sequence;
use crate::store::{InvalidKey, Key, Progress, SnapshotStore, StoreError};

/// The newest snapshot under a name that does not change, for people.
const LATEST: &str = "latest.db";
const LATEST_MANIFEST: &str = "latest.json";

/// Snapshots that are kept beside the newest.
pub const OLDER: usize = 2;

/// What has no readable manifest counts as left over after this: longer than any upload takes.
pub const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);

/// The snapshots of one cluster.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Arc<dyn SnapshotStore>,
    cluster: Option<String>,
    history: Option<History>,
}

/// What can go wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was stored is not what the manifest says.
    #[error(
        "snapshot {file} in {store} is damaged: its {what} is {found}, and its manifest says {expected}"
    )]
    Damaged {
        /// The snapshot.
        file: String,
        /// Where.
        store: String,
        /// Length or SHA-256.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A manifest names something that no store can hold.
    #[error(transparent)]
    Name(#[from] InvalidKey),
}

/// A snapshot that is in the store, or what is wrong with it.
#[derive(Debug)]
pub struct Listed {
    /// The manifest's object.
    pub key: Key,
    /// The manifest.
    pub manifest: Result<Manifest, ManifestError>,
}

impl Catalog {
    /// The snapshots of `cluster` in a store.
    #[must_use]
    pub fn new(store: Arc<dyn SnapshotStore>, cluster: &str) -> Self {
        Self {
            store,
            cluster: Some(cluster.to_owned()),
            history: None,
        }
    }

    /// The snapshots of any cluster in a store, for people who look; nothing is added to it or removed.
    #[must_use]
    pub fn of_any(store: Arc<dyn SnapshotStore>) -> Self {
        Self {
            store,
            cluster: None,
            history: None,
        }
    }

    /// The same, but only those of one history can be restored.
    #[must_use]
    pub fn of(mut self, history: History) -> Self {
        self.history = Some(history);
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn SnapshotStore> {
        &self.store
    }

    /// The store, for people.
    #[must_use]
    pub fn store_name(&self) -> &str {
        self.store.name()
    }

    /// The snapshots of this cluster, newest first, and manifests that cannot be read.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<Listed>, CatalogError> {
        let mut keys: Vec<Key> = self
            .store
            .list()
            .await?
            .into_iter()
            .map(|e| e.key)
            .filter(|k| {
                k.as_str().ends_with(".json") && manifest::position_in_name(k.as_str()).is_some()
            })
            .collect();
        keys.sort();
        let mut out = Vec::new();
        for key in keys.into_iter().rev() {
            // It may have been removed meanwhile.
            let Some(bytes) = self.store.get_small(&key).await? else {
                continue;
            };
            let manifest = Manifest::read(&bytes);
            let other = |m: &Manifest| self.cluster.as_ref().is_some_and(|c| m.cluster != *c);
            if manifest.as_ref().is_ok_and(other) {
                continue;
            }
            out.push(Listed { key, manifest });
        }
        // Positions of a later history may be lower. What does not read stands where its name says, among those of the newest.
        let newest = out
            .iter()
            .filter_map(|l| l.manifest.as_ref().ok())
            .map(|m| m.history)
            .max();
        out.sort_by_cached_key(|l| {
            let history = l.manifest.as_ref().map(|m| m.history).ok().or(newest);
            std::cmp::Reverse((history, l.key.as_str().to_owned()))
        });
        Ok(out)
    }

    /// The snapshots that can be restored, newest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn usable(&self) -> Result<Vec<Manifest>, CatalogError> {
        let mut out = Vec::new();
        for listed in self.list().await? {
            match listed.manifest {
                Ok(manifest) if self.history.is_some_and(|h| h != manifest.history) => {}
                Ok(manifest) => out.push(manifest),
                Err(e) => tracing::warn!(
                    manifest = %listed.key, store = self.store_name(),
                    "a snapshot's manifest {e}; the snapshot before it is used"
                ),
            }
        }
        Ok(out)
    }

    /// Fetches a snapshot into a file, and compares its hash.
    ///
    /// # Errors
    /// The store's; [`CatalogError::Damaged`]: the file is removed then.
    pub async fn fetch(
        &self,
        manifest: &Manifest,
        to: &Path,
        progress: &Progress,
    ) -> Result<(), CatalogError> {
        let key = key(&manifest.file)?;
        let got = self.store.get(&key, to, manifest.size, progress).await;
        if let Err(StoreError::TooLong { .. }) = got {
            // One more than it should have is enough to know.
            return self.compare(manifest, manifest.size.saturating_add(1), String::new());
        }
        let got = got?;
        let compared = self.compare(manifest, got.len, got.sha256);
        if compared.is_err() {
            let _ = std::fs::remove_file(to);
        }
        compared
    }

    fn compare(&self, manifest: &Manifest, size: u64, hash: String) -> Result<(), CatalogError> {
        let (what, found, expected) = if size != manifest.size {
            ("length", size.to_string(), manifest.size.to_string())
        } else if hash != manifest.sha256 {
            ("SHA-256", hash, manifest.sha256.clone())
        } else {
            return Ok(());
        };
        Err(CatalogError::Damaged {
            file: manifest.file.clone(),
            store: self.store_name().to_owned(),
            what,
            found,
            expected,
        })
    }

    /// Stores a snapshot, its manifest last. `size`, `sha256` and the names in the manifest are filled in.
    ///
    /// # Errors
    /// The store's; the snapshots before it stay.
    pub async fn add(
        &self,
        file: &Path,
        mut manifest: Manifest,
        progress: &Progress,
    ) -> Result<Manifest, CatalogError> {
        manifest.cluster = self.cluster.clone().unwrap_or_default();
        let name = manifest::new_name(Sequence(manifest.sequence));
        manifest.file = format!("{name}.db");
        let database = key(&manifest.file)?;
        let sent = self.store.put(&database, file, progress).await?;
        (manifest.size, manifest.sha256) = (sent.len, sent.sha256);
        let bytes = Bytes::from(manifest.write());
        self.store
            .put_small(&key(&format!("{name}.json"))?, bytes)
            .await?;
        Ok(manifest)
    }

    /// Puts a snapshot that is stored and verified under the name that does not change, too.
    ///
    /// # Errors
    /// The store's; what was there stays, or is without its manifest.
    pub async fn set_latest(&self, file: &Path, manifest: &Manifest) -> Result<(), CatalogError> {
        // Never a manifest beside a database that is another.
        self.store.delete(&key(LATEST_MANIFEST)?).await?;
        let (stored, latest) = (key(&manifest.file)?, key(LATEST)?);
        if !self.store.duplicate(&stored, &latest).await {
            self.store.put(&latest, file, &Progress::none()).await?;
        }
        let bytes = Bytes::from(manifest.write());
        self.store.put_small(&key(LATEST_MANIFEST)?, bytes).await?;
        Ok(())
    }

    /// Removes a snapshot: its manifest first, without which the rest does not count.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        if let Some(name) = manifest.file.strip_suffix(".db") {
            self.store.delete(&key(&format!("{name}.json"))?).await?;
            self.store.delete(&key(&manifest.file)?).await?;
        }
        Ok(())
    }

    /// Reads a snapshot back from the store and compares its hash.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn verify(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        let found = self.store.read_back(&key(&manifest.file)?).await?;
        self.compare(manifest, found.len, found.sha256)
    }

    /// Removes the snapshots of this cluster beyond the newest and [`OLDER`] before it that can be restored; and, where they are of earlier positions than
    /// all of those and were stored more than [`LEFT_OVER`] ago, databases without a manifest (what broke off) and manifests that do not read. Nothing goes
    /// that a newer program has written. Returns how many went.
    ///
    /// # Errors
    /// The store's.
    pub async fn prune(&self) -> Result<usize, CatalogError> {
        let listed = self.list().await?;
        let good: Vec<&Manifest> = listed
            .iter()
            .filter_map(|l| l.manifest.as_ref().ok())
            .collect();
        let mut removed = 0;
        for old in good.iter().skip(OLDER + 1) {
            self.remove(old).await?;
            removed += 1;
        }
        let Some(oldest) = good.get(OLDER) else {
            return Ok(removed);
        };
        let known: BTreeSet<&str> = listed
            .iter()
            .filter(|l| {
                matches!(
                    l.manifest,
                    Ok(_) | Err(ManifestError::Newer(_) | ManifestError::Foreign(_))
                )
            })
            .map(|l| stem(l.key.as_str()))
            .collect();
        for entry in self.store.list().await? {
            let name = entry.key.as_str();
            let before = manifest::position_in_name(name).is_some_and(|p| p.0 < oldest.sequence);
            let aged = entry
                .modified
                .and_then(|at| at.elapsed().ok())
                .is_some_and(|age| age > LEFT_OVER);
            if before && aged && !known.contains(stem(name)) {
                // It may be another cluster's in the same store: its manifest says so.
                let json = key(&format!("{}.json", stem(name)))?;
                let other = self.store.get_small(&json).await?;
                if other.is_some_and(|bytes| Manifest::read(&bytes).is_ok()) {
                    continue;
                }
                self.store.delete(&entry.key).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A name without its ending.
fn stem(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// What a manifest names may be anything.
fn key(name: &str) -> Result<Key, CatalogError> {
    Ok(Key::new(name)?)
}
