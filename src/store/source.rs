//! What is uploaded: a file, or a few bytes, read in pieces and counted.
//!
//! Invariants: memory is a piece, whatever the length; what is read is exactly as long as was said, or an error: a file that
//! shrinks under the upload is never sent short; each try reads from the start; the hash is of what was read, in order, once.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::digest::InOrder;
use super::error::{Fault, local};
use super::meter::Meter;
use crate::runtime::page_cache::Passage;

/// Large enough that system calls cost nothing, small enough that progress is smooth.
pub(super) const PIECE: usize = 256 * 1024;

/// What is uploaded. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Source {
    origin: Origin,
    len: u64,
    meter: Meter,
    digest: InOrder,
}

#[derive(Debug, Clone)]
enum Origin {
    File(Arc<Path>),
    Memory(Bytes),
}

impl Source {
    /// The length of the file, to be asked once before the first try.
    pub(super) async fn measure(path: &Path) -> Result<u64, Fault> {
        let file = tokio::fs::metadata(path)
            .await
            .map_err(|error| local(error, path))?;
        if file.is_file() {
            Ok(file.len())
        } else {
            Err(local(io::ErrorKind::IsADirectory.into(), path))
        }
    }

    pub(super) fn file(path: &Path, len: u64, meter: Meter, digest: InOrder) -> Self {
        Self {
            origin: Origin::File(path.into()),
            len,
            meter,
            digest,
        }
    }

    pub(super) fn memory(bytes: Bytes, meter: Meter) -> Self {
        let len = bytes.len() as u64;
        Self {
            origin: Origin::Memory(bytes),
            len,
            meter,
            digest: InOrder::default(),
        }
    }

    /// Its length in bytes.
    #[cfg(any(feature = "store-s3", feature = "store-webdav", feature = "store-sftp"))]
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Where backends note signs of life that move no byte.
    pub(super) const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// All of it.
    pub(super) fn whole(&self) -> Reader {
        self.part(0, self.len)
    }

    /// `len` bytes from `from` on.
    pub(super) fn part(&self, from: u64, len: u64) -> Reader {
        let input = match &self.origin {
            Origin::File(path) => {
                let path = path.clone();
                Input::Opening(tokio::task::spawn_blocking(move || {
                    use std::io::Seek;
                    let mut file = std::fs::File::open(&path)?;
                    file.seek(io::SeekFrom::Start(from))?;
                    Ok(file)
                }))
            }
            Origin::Memory(bytes) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX);
                Input::Memory(bytes.slice(from.min(bytes.len())..))
            }
        };
        Reader {
            input,
            at: from,
            left: len,
            meter: self.meter.clone(),
            digest: self.digest.clone(),
        }
    }
}

/// Reads a part of a [`Source`].
#[derive(Debug)]
pub(super) struct Reader {
    input: Input,
    at: u64,
    left: u64,
    meter: Meter,
    digest: InOrder,
}

#[derive(Debug)]
enum Input {
    Opening(tokio::task::JoinHandle<io::Result<std::fs::File>>),
    File(tokio::fs::File, Passage),
    Memory(Bytes),
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.left == 0 || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Input::Opening(task) = &mut this.input {
            let opened = ready!(Pin::new(task).poll(cx)).map_err(io::Error::other)?;
            this.input = Input::File(tokio::fs::File::from_std(opened?), Passage::default());
        }
        let room = usize::try_from(this.left)
            .unwrap_or(usize::MAX)
            .min(buffer.remaining());
        let count = match &mut this.input {
            Input::File(file, passage) => {
                let mut piece = ReadBuf::new(buffer.initialize_unfilled_to(room));
                ready!(Pin::new(&mut *file).poll_read(cx, &mut piece))?;
                let count = piece.filled().len();
                this.digest.feed(this.at, piece.filled());
                passage.advance(&*file, this.at + count as u64);
                count
            }
            Input::Memory(bytes) => {
                let piece = bytes.split_to(room.min(bytes.len()));
                buffer
                    .initialize_unfilled_to(piece.len())
                    .copy_from_slice(&piece);
                piece.len()
            }
            Input::Opening(_) => 0,
        };
        if count == 0 {
            let text = "the file became shorter while it was sent";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        buffer.advance(count);
        this.at += count as u64;
        this.left -= count as u64;
        this.meter.moved(count);
        Poll::Ready(Ok(()))
    }
}

/// A part of a [`Source`] as the body of an HTTP request that says its length.
#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
#[derive(Debug)]
pub(super) struct Body {
    reader: Reader,
    piece: bytes::BytesMut,
}

#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
impl From<Reader> for Body {
    fn from(reader: Reader) -> Self {
        let piece = bytes::BytesMut::new();
        Self { reader, piece }
    }
}

#[cfg(any(feature = "store-s3", feature = "store-webdav"))]
impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        let this = &mut *self;
        if this.reader.left == 0 {
            return Poll::Ready(None);
        }
        this.piece.resize(PIECE, 0);
        let mut buffer = ReadBuf::new(&mut this.piece);
        ready!(Pin::new(&mut this.reader).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        let piece = this.piece.split_to(count).freeze();
        Poll::Ready(Some(Ok(http_body::Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.reader.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.reader.left)
    }
}
