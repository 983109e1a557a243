//! Large files that are written or read once, in order: the system is told to keep their pages no longer than they are of use.
//!
//! Without it a snapshot puts its whole length into the page cache, several times: the application's own pages are pushed out by it, what was written is held
//! back until an fsync has to wait for all of it, and on a virtual machine each new page has to be had from the host first.
//!
//! Invariant: it is advice. No error comes of it, no byte is lost by it, and a file system that does not know it changes nothing but the speed.

use std::os::fd::AsFd;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// How much is written or read between two words to the system, in bytes: large enough for a disk, small enough to be nothing beside a database.
pub const WINDOW: u64 = 8 * 1024 * 1024;

/// How far a file that is gone through once has been spoken of.
#[derive(Debug, Default)]
pub struct Passage {
    at: u64,
}

impl Passage {
    /// The file is written or read up to `at`, in bytes from its begin. What was written since the last word begins its way to the disk; what is there already leaves memory.
    pub fn advance(&mut self, file: impl AsFd, at: u64) {
        if !self.is_due(at) {
            return;
        }
        // The windows before were on their way to the disk at the last words, and could not leave yet.
        let from = self.at.saturating_sub(2 * WINDOW);
        advise(file, from, at.saturating_sub(from));
        self.at = at;
    }

    /// Whether [`advance`](Self::advance) would say anything.
    #[must_use]
    pub const fn is_due(&self, at: u64) -> bool {
        at.saturating_sub(self.at) >= WINDOW
    }
}

/// Nothing of the file is of use in memory any more. What is not on the disk yet begins its way there, and stays.
pub fn leave(file: impl AsFd) {
    advise(file, 0, 0);
}

fn advise(file: impl AsFd, from: u64, len: u64) {
    if let (Ok(from), Ok(len)) = (i64::try_from(from), i64::try_from(len)) {
        let _ = posix_fadvise(file, from, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    #[test]
    fn what_was_passed_is_still_there() {
        let mut file = tempfile::tempfile().unwrap();
        let piece: Vec<u8> = (0..1_000_003u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut passage = Passage::default();
        let mut at = 0;
        for _ in 0..40 {
            file.write_all(&piece).unwrap();
            at += piece.len() as u64;
            passage.advance(&file, at);
        }
        leave(&file);
        file.rewind().unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).unwrap();
        assert!(back.chunks(piece.len()).all(|c| c == piece));
        assert_eq!(back.len(), 40 * piece.len());
    }

    #[test]
    fn a_word_is_due_by_the_window() {
        let file = tempfile::tempfile().unwrap();
        let mut passage = Passage::default();
        assert!(!passage.is_due(WINDOW - 1));
        assert!(passage.is_due(WINDOW));
        passage.advance(&file, WINDOW);
        assert!(!passage.is_due(2 * WINDOW - 1));
        assert!(passage.is_due(u64::MAX));
    }
}
