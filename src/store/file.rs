//! A folder of this machine, or one that is mounted.
//!
//! Invariants: an object is written beside its place, made durable and renamed; the folder is never created, since a share that
//! is not mounted would be filled in below its mount point.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::fs;
use tokio::io::AsyncReadExt;

use super::Entry;
use super::error::{Fault, local};
use super::key::{Key, is_partial};
use super::meter::Meter;
use super::retrying::Backend;
use super::sink::Sink;
use super::source::Source;
use super::written::Written;
use crate::runtime::page_cache::{Passage, WINDOW, leave};

/// Each piece is a way to another thread and back.
const LARGE_PIECE: usize = 512 * 1024;

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

    /// A new file beside the place of an object, which goes again unless it is put [there](Self::place).
    async fn begin(&self, key: &Key) -> Result<(std::fs::File, tempfile::TempPath), Fault> {
        let partial = self.path.join(key.partial());
        let fault = |error| local(error, &partial);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&partial)
            .await
            .map_err(fault)?
            .into_std()
            .await;
        // Removed by its destructor unless it is renamed: also when the future is dropped.
        let temporary = tempfile::TempPath::try_from_path(&partial).map_err(fault)?;
        Ok((file, temporary))
    }

    /// Makes a durable file the object.
    async fn place(&self, temporary: tempfile::TempPath, key: &Key) -> Result<(), Fault> {
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
        let (file, temporary) = self.begin(key).await?;
        let mut file = Written::new(file);
        let fault = |error| local(error, &temporary);
        let mut reader = source.whole();
        let mut piece = vec![0; LARGE_PIECE];
        loop {
            let count = reader.read(&mut piece).await.map_err(fault)?;
            if count == 0 {
                break;
            }
            let bytes = piece.get(..count).unwrap_or_default();
            file.write_all(bytes).await.map_err(fault)?;
        }
        file.finish().await.map_err(fault)?;
        source.meter().alive();
        self.place(temporary, key).await
    }

    /// By the system itself, which may ask the server of a mounted folder to do it, or let both names share their blocks.
    async fn duplicate(&self, from: &Key, to: &Key, meter: &Meter) -> Result<bool, Fault> {
        self.check().await?;
        let path = self.path.join(from.as_str());
        let from = match fs::File::open(&path).await {
            Ok(file) => file.into_std().await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Fault::Missing),
            Err(error) => return Err(local(error, &path)),
        };
        let (file, temporary) = self.begin(to).await?;
        let fault = |error| local(error, &temporary);
        let mut copy = Copying {
            from,
            to: file,
            at: 0,
            read: Passage::default(),
            written: Passage::default(),
        };
        loop {
            let window = tokio::task::spawn_blocking(move || (copy.window(), copy));
            let (count, back) = window.await.map_err(|e| fault(io::Error::other(e)))?;
            copy = back;
            meter.alive();
            if count.map_err(fault)? == 0 {
                break;
            }
        }
        self.place(temporary, to).await?;
        Ok(true)
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
        let mut piece = vec![0; LARGE_PIECE];
        let (mut at, mut passage) = (0, Passage::default());
        loop {
            let count = file.read(&mut piece).await.map_err(fault)?;
            if count == 0 {
                return Ok(());
            }
            sink.write(piece.get(..count).unwrap_or_default()).await?;
            at += count as u64;
            passage.advance(&file, at);
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

/// A file that is copied by the system.
struct Copying {
    from: std::fs::File,
    to: std::fs::File,
    at: u64,
    read: Passage,
    written: Passage,
}

impl Copying {
    /// Copies the next window; where nothing is left, all of it is on the disk. Returns how many bytes it copied.
    fn window(&mut self) -> io::Result<u64> {
        let count = io::copy(&mut (&self.from).take(WINDOW), &mut &self.to)?;
        self.at += count;
        self.read.advance(&self.from, self.at);
        self.written.advance(&self.to, self.at);
        if count == 0 {
            self.to.sync_all()?;
            leave(&self.to);
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
