//! A folder of this machine, or one that is mounted.
//!
//! Invariants: an object is written beside its place, made durable and renamed; the folder is never created, since a share that
//! is not mounted would be filled in below its mount point.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Entry;
use super::error::{Fault, local};
use super::key::{Key, is_partial};
use super::meter::Meter;
use super::retrying::Backend;
use super::sink::Sink;
use super::source::{PIECE, Source};

pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path }
    }

    /// A fault of the folder itself; what is missing in it is for the caller.
    async fn check(&self) -> Result<(), Fault> {
        match fs::metadata(&self.path).await {
            Ok(folder) if folder.is_dir() => Ok(()),
            Ok(_) => Err(self.absent(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(self.absent(error)),
            Err(error) => Err(local(error, &self.path)),
        }
    }

    fn absent(&self, error: io::Error) -> Fault {
        let path = self.path.display();
        Fault::permanent(
            error,
            format!("make the folder {path}, or mount it, or correct snapshot.file.path"),
        )
    }

    async fn names(&self) -> Result<Vec<(String, std::fs::Metadata)>, Fault> {
        self.check().await?;
        let fault = |error| local(error, &self.path);
        let mut folder = fs::read_dir(&self.path).await.map_err(fault)?;
        let mut found = Vec::new();
        while let Some(entry) = folder.next_entry().await.map_err(fault)? {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // Somebody else may have removed it meanwhile.
            if let Ok(metadata) = entry.metadata().await
                && metadata.is_file()
            {
                found.push((name, metadata));
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Backend for Folder {
    fn name(&self) -> String {
        format!("folder {}", self.path.display())
    }

    async fn put(&self, key: &Key, source: &Source) -> Result<(), Fault> {
        self.check().await?;
        let partial = self.path.join(key.partial());
        let fault = |error| local(error, &partial);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .await
            .map_err(fault)?;
        // Removed by its destructor unless it is renamed: also when the future is dropped.
        let temporary = tempfile::TempPath::try_from_path(&partial).map_err(fault)?;
        let mut reader = source.whole();
        let mut piece = vec![0; PIECE];
        loop {
            let count = reader.read(&mut piece).await.map_err(fault)?;
            if count == 0 {
                break;
            }
            let bytes = piece.get(..count).unwrap_or_default();
            file.write_all(bytes).await.map_err(fault)?;
        }
        file.flush().await.map_err(fault)?;
        file.sync_all().await.map_err(fault)?;
        source.meter().alive();
        let place = self.path.join(key.as_str());
        temporary
            .persist(&place)
            .map_err(|error| local(error.error, &place))?;
        let folder = fs::File::open(&self.path).await;
        let synced = match folder {
            Ok(folder) => folder.sync_all().await,
            Err(error) => Err(error),
        };
        synced.map_err(|error| local(error, &self.path))
    }

    async fn get(&self, key: &Key, sink: &mut Sink) -> Result<(), Fault> {
        let path = self.path.join(key.as_str());
        let fault = |error| local(error, &path);
        let mut file = match fs::File::open(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.check().await?;
                return Err(Fault::Missing);
            }
            Err(error) => return Err(fault(error)),
        };
        sink.expect(file.metadata().await.map_err(fault)?.len());
        let mut piece = vec![0; PIECE];
        loop {
            let count = file.read(&mut piece).await.map_err(fault)?;
            if count == 0 {
                return Ok(());
            }
            sink.write(piece.get(..count).unwrap_or_default()).await?;
        }
    }

    async fn list(&self, _: &Meter) -> Result<Vec<Entry>, Fault> {
        let names = self.names().await?;
        let entry = |(name, metadata): (String, std::fs::Metadata)| {
            Some(Entry {
                key: Key::new(name).ok()?,
                size: metadata.len(),
                modified: metadata.modified().ok(),
            })
        };
        Ok(names.into_iter().filter_map(entry).collect())
    }

    async fn delete(&self, key: &Key) -> Result<(), Fault> {
        self.check().await?;
        remove(&self.path.join(key.as_str())).await
    }

    async fn sweep(&self, before: SystemTime, _: &Meter) -> Result<usize, Fault> {
        let mut count = 0;
        for (name, metadata) in self.names().await? {
            if is_partial(&name) && metadata.modified().is_ok_and(|time| time < before) {
                remove(&self.path.join(name)).await?;
                count += 1;
            }
        }
        Ok(count)
    }
}

async fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(local(error, path)),
        _ => Ok(()),
    }
}
