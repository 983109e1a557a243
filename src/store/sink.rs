//! Where a download goes: a file that appears only when it is whole, a few bytes, or nowhere but through a hash.
//!
//! Invariants: the target is replaced by rename, and only by something as long as the store said; until then, and for ever when the
//! try fails or its future is dropped, nothing of it stays; memory is a piece, or the limit of a small object.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use super::error::{Fault, local};
use super::meter::Meter;

/// Where a download goes.
#[derive(Debug)]
pub(super) struct Sink {
    target: Target,
    expected: Option<u64>,
    got: u64,
    meter: Meter,
}

#[derive(Debug)]
enum Target {
    File {
        file: tokio::fs::File,
        temporary: tempfile::TempPath,
        to: PathBuf,
        most: u64,
    },
    Memory {
        bytes: BytesMut,
        limit: usize,
    },
    Hash(Sha256),
}

impl Sink {
    /// A new file, in the folder of `to`, that becomes `to`; of at most `most` bytes.
    pub(super) fn file(to: &Path, most: u64, meter: Meter) -> Result<Self, Fault> {
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Named after what it becomes: whoever removes what was left of that finds it.
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        let temporary = tempfile::Builder::new()
            .prefix(&format!(".{}.download-", name.trim_start_matches('.')))
            .tempfile_in(folder)
            .map_err(|error| local(error, folder))?;
        let (file, temporary) = temporary.into_parts();
        Ok(Self {
            target: Target::File {
                file: tokio::fs::File::from_std(file),
                temporary,
                to: to.to_owned(),
                most,
            },
            expected: None,
            got: 0,
            meter,
        })
    }

    /// Memory, for at most `limit` bytes.
    pub(super) fn memory(limit: usize, meter: Meter) -> Self {
        Self {
            target: Target::Memory {
                bytes: BytesMut::new(),
                limit,
            },
            expected: None,
            got: 0,
            meter,
        }
    }

    /// Nowhere: what comes of it is its SHA-256.
    pub(super) fn hash(meter: Meter) -> Self {
        Self {
            target: Target::Hash(Sha256::new()),
            expected: None,
            got: 0,
            meter,
        }
    }

    /// Where backends note signs of life that move no byte.
    #[cfg(feature = "store-sftp")]
    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The store says how long the object is.
    pub(super) fn expect(&mut self, len: u64) {
        self.expected = Some(len);
        self.meter.set_total(len);
    }

    /// The next piece.
    pub(super) async fn write(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.got += piece.len() as u64;
        match &mut self.target {
            Target::File { file, to, most, .. } => {
                if self.got > *most {
                    return Err(Fault::TooLong { most: *most });
                }
                let written = file.write_all(piece).await;
                written.map_err(|error| local(error, to))?;
            }
            Target::Memory { bytes, limit } => {
                if bytes.len() + piece.len() > *limit {
                    return Err(Fault::permanent(
                        format!("it is larger than {limit} bytes"),
                        "it was not written by harmonylite: remove it or use another place",
                    ));
                }
                bytes.extend_from_slice(piece);
            }
            Target::Hash(digest) => digest.update(piece),
        }
        self.meter.moved(piece.len());
        Ok(())
    }

    /// All was written: checks the length, and makes it the target.
    pub(super) async fn finish(self) -> Result<(u64, Bytes), Fault> {
        if let Some(expected) = self.expected
            && expected != self.got
        {
            let got = self.got;
            return Err(Fault::passing(format!(
                "the transfer ended after {got} of {expected} bytes"
            )));
        }
        match self.target {
            Target::File {
                mut file,
                temporary,
                to,
                ..
            } => {
                // Not made durable: a download is compared with its hash, used, and removed.
                file.flush().await.map_err(|error| local(error, &to))?;
                temporary
                    .persist(&to)
                    .map_err(|error| local(error.error, &to))?;
                Ok((self.got, Bytes::new()))
            }
            Target::Memory { bytes, .. } => Ok((self.got, bytes.freeze())),
            Target::Hash(digest) => Ok((self.got, Bytes::copy_from_slice(&digest.finalize()))),
        }
    }
}
