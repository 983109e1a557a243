//! Where a download goes: a file that appears only when it is whole, a few bytes, or nowhere but through a hash.
//!
//! Invariants: the target is replaced by rename, and only by something as long as the store said; until then, and for ever when the
//! try fails or its future is dropped, nothing of it stays; memory is a piece, or the limit of a small object.

use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::digest::hexadecimal;
use super::error::{Fault, local};
use super::meter::Meter;
use super::written::Written;

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
        file: Written,
        digest: Sha256,
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
                file: Written::new(file),
                digest: Sha256::new(),
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
            Target::File {
                file,
                digest,
                to,
                most,
                ..
            } => {
                if self.got > *most {
                    return Err(Fault::TooLong { most: *most });
                }
                let written = file.write_all(piece).await;
                written.map_err(|error| local(error, to))?;
                // While the piece is on its way.
                digest.update(piece);
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
    pub(super) async fn finish(self) -> Result<Kept, Fault> {
        if let Some(expected) = self.expected
            && expected != self.got
        {
            let got = self.got;
            return Err(Fault::passing(format!(
                "the transfer ended after {got} of {expected} bytes"
            )));
        }
        let (bytes, digest) = match self.target {
            Target::File {
                file,
                digest,
                temporary,
                to,
                ..
            } => {
                // The hash is of what came: what cannot be written must not pass for it.
                file.finish().await.map_err(|error| local(error, &to))?;
                temporary
                    .persist(&to)
                    .map_err(|error| local(error.error, &to))?;
                (Bytes::new(), Some(digest))
            }
            Target::Memory { bytes, .. } => (bytes.freeze(), None),
            Target::Hash(digest) => (Bytes::new(), Some(digest)),
        };
        Ok(Kept {
            len: self.got,
            bytes,
            sha256: digest.map(hexadecimal).unwrap_or_default(),
        })
    }
}

/// What came of a download.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its length in bytes.
    pub(super) len: u64,
    /// What went to memory.
    pub(super) bytes: Bytes,
    /// Its SHA-256, hexadecimal; empty for what went to memory.
    pub(super) sha256: String,
}
