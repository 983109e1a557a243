//! The frame around every message and every section of a batch:
//!
//! ```text
//!  'H' 'L' | version | kind | flags | raw length (u32 LE) | xxh3-64 of the stored body (u64 LE) | stored body
//! ```
//!
//! Flag bit 0: the stored body is one zstd frame of `raw length` bytes. Whether a message is compressed thus stands in the message,
//! and `compress` can be switched at any time.

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

/// The version that this program writes, and the newest that it reads.
pub const VERSION: u8 = 1;

/// Bytes in front of the body.
pub const HEADER: usize = 17;

/// No body may be larger once decoded: SQLite's own bound for a row is 1 GB, and anything above it is an attack or damage.
pub const MAX_RAW: usize = 1 << 30;

/// No message may be larger once decoded: rows inside a commit record are bounded far below, and what is left are names and places.
pub const MAX_RAW_MESSAGE: usize = 64 << 20;

const MAGIC: [u8; 2] = *b"HL";
const COMPRESSED: u8 = 1;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit record: the message that makes a batch count.
    Commit,
    /// A piece of a batch's payload.
    Payload,
    /// A section of rows or covers, in pieces inside payload messages.
    Section,
    /// A place in the stream at which nodes compare what they hold.
    Marker,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Payload => 2,
            Self::Section => 3,
            Self::Marker => 4,
        }
    }
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not written by HarmonyLite.
    #[error("not a HarmonyLite message")]
    NotOurs,
    /// Written by a newer program: not an error of the bytes, but a reason to wait for an upgrade.
    #[error(
        "the message has format version {0}, this program reads up to {VERSION}: upgrade harmonylite on this node"
    )]
    Newer(u8),
    /// Too short, of unknown kind, or with a hash that does not fit.
    #[error("damaged message: {0}")]
    Damaged(&'static str),
    /// More than [`MAX_RAW`] once decoded.
    #[error("the message claims {0} bytes once decoded, more than SQLite can hold in a row")]
    TooLarge(u64),
}

/// Compresses frames; keeps its context from one to the next.
pub struct Sealer {
    context: Option<zstd::bulk::Compressor<'static>>,
    min_bytes: usize,
}

impl Sealer {
    /// `min_bytes`: bodies below it stay plain, since compression makes small ones larger. `compress` off: all do.
    #[must_use]
    pub fn new(compress: bool, min_bytes: usize) -> Self {
        // Level 1: measured at 700 MB/s on rows, half their size; higher levels cost more CPU than the network they save.
        let context = compress
            .then(|| zstd::bulk::Compressor::new(1).ok())
            .flatten();
        Self { context, min_bytes }
    }

    /// Frames a body.
    #[must_use]
    pub fn seal(&mut self, kind: Kind, body: &[u8]) -> Vec<u8> {
        let packed = match &mut self.context {
            Some(c) if body.len() >= self.min_bytes => {
                c.compress(body).ok().filter(|p| p.len() < body.len())
            }
            _ => None,
        };
        match packed {
            Some(p) => frame(kind, COMPRESSED, body.len(), &p),
            None => frame(kind, 0, body.len(), body),
        }
    }
}

fn frame(kind: Kind, flags: u8, raw: usize, stored: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + stored.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[VERSION, kind.code(), flags]);
    // Bodies are bounded far below 4 GiB by the sections' target size and SQLite's bound for a row.
    out.extend_from_slice(&u32::try_from(raw).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&xxh3_64(stored).to_le_bytes());
    out.extend_from_slice(stored);
    out
}

/// The version of a frame that a newer program wrote: reason to wait for an upgrade, never to call the bytes damaged.
#[must_use]
pub fn newer(bytes: &[u8]) -> Option<u8> {
    match bytes {
        [m0, m1, version, ..] if [*m0, *m1] == MAGIC && *version > VERSION => Some(*version),
        _ => None,
    }
}

/// Opens a frame.
///
/// # Errors
/// See [`FrameError`].
pub fn open(bytes: &[u8]) -> Result<(Kind, Cow<'_, [u8]>), FrameError> {
    let Some((&header, stored)) = bytes.split_first_chunk::<HEADER>() else {
        return Err(FrameError::NotOurs);
    };
    let [m0, m1, version, kind, flags, l0, l1, l2, l3, hash @ ..] = header;
    if [m0, m1] != MAGIC {
        return Err(FrameError::NotOurs);
    }
    // Judged before anything else is: only the first three bytes mean the same in every version.
    if version > VERSION {
        return Err(FrameError::Newer(version));
    }
    let kind = match kind {
        1 => Kind::Commit,
        2 => Kind::Payload,
        3 => Kind::Section,
        4 => Kind::Marker,
        _ => return Err(FrameError::Damaged("unknown kind")),
    };
    if xxh3_64(stored) != u64::from_le_bytes(hash) {
        return Err(FrameError::Damaged("its hash does not fit its bytes"));
    }
    let raw = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let most = match kind {
        Kind::Commit | Kind::Payload | Kind::Marker => MAX_RAW_MESSAGE,
        Kind::Section => MAX_RAW,
    };
    if raw > most {
        return Err(FrameError::TooLarge(raw as u64));
    }
    match flags {
        0 if stored.len() == raw => Ok((kind, Cow::Borrowed(stored))),
        COMPRESSED => {
            // Both lengths are the sender's word; where they differ no memory is taken on either.
            if !matches!(zstd::zstd_safe::get_frame_content_size(stored), Ok(Some(n)) if n == raw as u64)
            {
                return Err(FrameError::Damaged("its length does not fit"));
            }
            let body = zstd::bulk::decompress(stored, raw)
                .map_err(|_| FrameError::Damaged("it does not decompress"))?;
            if body.len() == raw {
                Ok((kind, Cow::Owned(body)))
            } else {
                Err(FrameError::Damaged("its length does not fit"))
            }
        }
        0 => Err(FrameError::Damaged("its length does not fit")),
        _ => Err(FrameError::Damaged("unknown flags")),
    }
}

/// The hash by which a stored message is recognised again.
#[must_use]
pub fn message_hash(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_plain_and_compressed() {
        let body: Vec<u8> = b"harmony".iter().copied().cycle().take(5000).collect();
        for compress in [false, true] {
            let sealed = Sealer::new(compress, 1024).seal(Kind::Commit, &body);
            assert_eq!(sealed.len() < body.len(), compress);
            let (kind, opened) = open(&sealed).unwrap();
            assert_eq!((kind, opened.as_ref()), (Kind::Commit, body.as_slice()));
        }
    }

    #[test]
    fn refuses_by_cause() {
        let good = Sealer::new(false, 0).seal(Kind::Section, b"x");
        assert_eq!(open(b"{}"), Err(FrameError::NotOurs));
        assert_eq!(open(b"HL"), Err(FrameError::NotOurs));
        let mut newer = good.clone();
        newer[2] = 2;
        assert_eq!(open(&newer), Err(FrameError::Newer(2)));
        assert_eq!((super::newer(&newer), super::newer(&good)), (Some(2), None));
        assert_eq!(super::newer(b"HL"), None);
        let mut bent = good.clone();
        *bent.last_mut().unwrap() ^= 1;
        assert!(matches!(open(&bent), Err(FrameError::Damaged(_))));
        let mut long = good;
        long[5..9].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(open(&long), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn what_decompresses_to_another_length_than_it_says_is_refused() {
        let zeros = vec![0; 4 << 20];
        let packed = zstd::bulk::compress(&zeros, 1).unwrap();
        assert!(packed.len() < 1024);
        let opened =
            |raw| open(&frame(Kind::Commit, COMPRESSED, raw, &packed)).map(|(_, b)| b.len());
        assert_eq!(opened(zeros.len()), Ok(zeros.len()));
        for raw in [0, 1, zeros.len() - 1, zeros.len() + 1, MAX_RAW_MESSAGE] {
            assert!(matches!(opened(raw), Err(FrameError::Damaged(_))), "{raw}");
        }
        assert_eq!(
            opened(MAX_RAW_MESSAGE + 1),
            Err(FrameError::TooLarge(MAX_RAW_MESSAGE as u64 + 1))
        );
        // A frame that does not say its length, however much comes of it.
        let mut stream = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        std::io::Write::write_all(&mut stream, &zeros).unwrap();
        let silent = frame(
            Kind::Commit,
            COMPRESSED,
            zeros.len(),
            &stream.finish().unwrap(),
        );
        assert!(matches!(open(&silent), Err(FrameError::Damaged(_))));
    }
}
