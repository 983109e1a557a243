//! Whether a write-ahead log can be of the database file that it lies beside, by what is in both.
//!
//! SQLite ties the two together by nothing but their names: it replays whatever log it finds, also over a file that was copied into the place of
//! another. What a log leaves behind tells, in part:
//!
//! - a file whose header names a rollback journal has no log: SQLite removes the log before it writes such a header, and makes one only after it has
//!   written the other;
//! - both have one page size;
//! - each change of the first page raises the counter in it by one, so the file's counter is one below the log's first, or one that is in the log.
//!
//! Invariant: "foreign" is said only where nothing that SQLite does to one database can lead to the two. What is in doubt belongs.

use std::io::{ErrorKind, Read};

/// The length of a database's header.
pub const HEADER: usize = 100;

const MAGIC: &[u8] = b"SQLite format 3\0";
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// The log's magic number; its lowest bit says in which order the bytes of a checksum's words are.
const LOG_MAGIC: u32 = 0x377f_0682;

/// What stands in the first page of a database file, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstPage(Vec<u8>);

impl FirstPage {
    /// Reads the first page; `None` where the file is no database that SQLite would replay a log over.
    ///
    /// # Errors
    /// The file's.
    pub fn read(mut file: impl Read) -> std::io::Result<Option<Self>> {
        let mut page = vec![0; HEADER];
        if !fill(&mut file, &mut page)? || !page.starts_with(MAGIC) {
            return Ok(None);
        }
        let page_size = page_size(&page);
        page.resize(page_size.max(HEADER), 0);
        let rest = page.get_mut(HEADER..).unwrap_or_default();
        Ok(fill(&mut file, rest)?.then_some(Self(page)))
    }

    /// The size of the database's pages.
    pub(super) fn size(&self) -> usize {
        self.0.len()
    }

    /// The change counter.
    pub(super) fn counter(&self) -> u32 {
        counter(&self.0)
    }

    /// Whether the database is in WAL mode.
    pub(super) fn is_of_wal_mode(&self) -> bool {
        self.0.get(18..20) == Some(&[2, 2])
    }

    fn names_a_rollback_journal(&self) -> bool {
        self.0.get(18..20) == Some(&[1, 1])
    }
}

/// Why the log cannot be of the database; `None` where it may be, or holds nothing.
///
/// # Errors
/// The log's.
pub fn foreign(first: &FirstPage, mut log: impl Read) -> std::io::Result<Option<&'static str>> {
    let mut header = [0; LOG_HEADER];
    if !fill(&mut log, &mut header)? || be32(&header, 0) & !1 != LOG_MAGIC {
        return Ok(None);
    }
    if first.names_a_rollback_journal() {
        return Ok(Some("the database has a rollback journal, not a log"));
    }
    let mut sums = Sums {
        big_endian: be32(&header, 0) & 1 == 1,
        now: (0, 0),
    };
    sums.add(header.get(..24).unwrap_or_default());
    if sums.now != (be32(&header, 24), be32(&header, 28)) {
        return Ok(None);
    }
    let page_size = be32(&header, 8) as usize;
    if !(512..=65536).contains(&page_size) || !page_size.is_power_of_two() {
        return Ok(None);
    }
    let here = first.counter();
    let mut lowest = None;
    let mut frame = vec![0; FRAME_HEADER + page_size];
    while fill(&mut log, &mut frame)? {
        let (head, page) = frame.split_at(FRAME_HEADER);
        sums.add(head.get(..8).unwrap_or_default());
        sums.add(page);
        // Frames of before the log was last begun anew follow.
        if head.get(8..16) != header.get(16..24) || sums.now != (be32(head, 16), be32(head, 20)) {
            break;
        }
        if page_size != first.size() {
            return Ok(Some("their pages are of different size"));
        }
        if be32(head, 0) != 1 {
            continue;
        }
        let lowest = *lowest.get_or_insert_with(|| counter(page));
        // A connection that keeps the page in its memory counts from what it has read.
        let before_the_log = here == lowest.wrapping_sub(1) || here == lowest;
        if before_the_log || page == first.0 {
            return Ok(None);
        }
    }
    Ok(lowest.map(|_| "the database's change counter is none that the log begins at or holds"))
}

/// The change counter in a first page.
pub(super) fn counter(page: &[u8]) -> u32 {
    be32(page, 24)
}

fn page_size(header: &[u8]) -> usize {
    match header.get(16..18) {
        // 65536 does not fit.
        Some(&[0, 1]) => 65536,
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    }
}

/// The running checksum of a log.
struct Sums {
    big_endian: bool,
    now: (u32, u32),
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            let word = |bytes| {
                if self.big_endian {
                    u32::from_be_bytes(bytes)
                } else {
                    u32::from_le_bytes(bytes)
                }
            };
            let (x, y) = (word([a, b, c, d]), word([e, f, g, h]));
            self.now.0 = self.now.0.wrapping_add(x).wrapping_add(self.now.1);
            self.now.1 = self.now.1.wrapping_add(y).wrapping_add(self.now.0);
        }
    }
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// Fills the buffer; `false` where the file ends before.
pub(super) fn fill(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
