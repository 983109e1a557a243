//! Where the bytes of large batches wait: in memory up to a bound, beyond it in an unlinked temporary file, so that memory stays bounded
//! whatever the size of a transaction (P10).
//!
//! Invariant: a blob is readable as long as its spool lives; the file disappears with the process, whatever happens to it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes that one spool keeps in memory before it writes to its file: a few messages, so that usual batches never touch the disk.
pub const IN_MEMORY: u64 = 8 << 20;

/// Bytes of all spools' files.
static ON_DISK: AtomicU64 = AtomicU64::new(0);

/// Bytes that all spools of this process hold on the disk.
#[must_use]
pub fn on_disk() -> u64 {
    ON_DISK.load(Ordering::Relaxed)
}

/// An unlinked temporary file; its bytes count until the last blob in it is gone.
#[derive(Debug)]
pub struct SpoolFile {
    file: File,
    bytes: AtomicU64,
}

impl SpoolFile {
    fn write(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        self.file.write_all_at(data, offset)?;
        let length = data.len() as u64;
        self.bytes.fetch_add(length, Ordering::Relaxed);
        ON_DISK.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        ON_DISK.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    in_memory: u64,
    file: Option<Arc<SpoolFile>>,
    end: u64,
}

/// A piece of spooled data.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory.
    Memory(Bytes),
    /// In the spool's file.
    File {
        /// The file.
        file: Arc<SpoolFile>,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: usize,
    },
}

impl Spool {
    /// A spool whose file, if it needs one, lies in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            inner: Mutex::new(Inner::default()),
        }
    }

    /// Puts data away.
    ///
    /// # Errors
    /// The system's, for example a full disk.
    pub fn put(&self, data: Vec<u8>) -> std::io::Result<Blob> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let length = data.len() as u64;
        if inner.in_memory + length <= IN_MEMORY {
            inner.in_memory += length;
            return Ok(Blob::Memory(data.into()));
        }
        let file = match &inner.file {
            Some(f) => Arc::clone(f),
            None => {
                let f = Arc::new(SpoolFile {
                    file: tempfile::tempfile_in(&self.folder)?,
                    bytes: AtomicU64::new(0),
                });
                inner.file = Some(Arc::clone(&f));
                f
            }
        };
        let offset = inner.end;
        file.write(&data, offset)?;
        inner.end += length;
        Ok(Blob::File {
            file,
            offset,
            length: data.len(),
        })
    }
}

impl Blob {
    /// The data again.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self) -> std::io::Result<Bytes> {
        match self {
            Self::Memory(b) => Ok(b.clone()),
            Self::File {
                file,
                offset,
                length,
            } => {
                let mut out = vec![0; *length];
                file.file.read_exact_at(&mut out, *offset)?;
                Ok(out.into())
            }
        }
    }

    /// How long it is.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Memory(b) => b.len(),
            Self::File { length, .. } => *length,
        }
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_is_given() {
        let spool = Spool::new(std::env::temp_dir());
        let data: Vec<Vec<u8>> = (0..5_u8).map(|i| vec![i; 3 << 20]).collect();
        let blobs: Vec<Blob> = data.iter().map(|d| spool.put(d.clone()).unwrap()).collect();
        assert!(matches!(blobs[0], Blob::Memory(_)));
        assert!(matches!(blobs[4], Blob::File { .. }));
        for (blob, d) in blobs.iter().zip(&data) {
            assert_eq!(&blob.read().unwrap()[..], &d[..]);
        }
        assert!(on_disk() >= 9 << 20);
    }
}
