//! A large new file on its way to the disk.
//!
//! Invariants: what is written goes to the disk as it comes, and memory holds a few windows of it at most; an error of any write is told by the
//! next call, at the latest by [`Written::finish`], also one that the system finds out only when it writes to the disk.

use std::io;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

use crate::runtime::page_cache::{self, Passage};

/// A new file, written once and in order.
#[derive(Debug)]
pub(super) struct Written {
    file: File,
    at: u64,
    passage: Passage,
}

impl Written {
    pub(super) fn new(file: std::fs::File) -> Self {
        Self {
            file: File::from_std(file),
            at: 0,
            passage: Passage::default(),
        }
    }

    /// Appends; the write may go on in the background.
    pub(super) async fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece).await?;
        self.at += piece.len() as u64;
        if self.passage.is_due(self.at) {
            self.pass().await?;
        }
        Ok(())
    }

    /// In a thread that may wait: a disk with a full queue lets it.
    async fn pass(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        let file = self.file.try_clone().await?.into_std().await;
        let (at, mut passage) = (self.at, std::mem::take(&mut self.passage));
        let passed = tokio::task::spawn_blocking(move || {
            passage.advance(&file, at);
            passage
        });
        self.passage = passed.await.map_err(io::Error::other)?;
        Ok(())
    }

    /// All is written, and on the disk: little of it was not there yet.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        page_cache::leave(&self.file);
        Ok(())
    }
}
