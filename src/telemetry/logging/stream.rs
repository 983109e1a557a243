//! Standard error, or whatever else takes lines and may have a reader who does not read.
//!
//! Invariants: a line waits for room for a bounded time, and where there was none for the last one, for no time; nothing is written that would wait for room; a
//! line that was only written in part is ended before the next one begins.

use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A pipe that can be written to at all takes so many bytes at once without a wait (`PIPE_BUF`); a longer line is written in pieces.
const PIECE: usize = 4096;

/// How long there may be no room. A journal that restarts needs less.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is written.
    Written,
    /// There was no room for it, or for all of it.
    NoRoom,
    /// It could not be written.
    Failed,
}

/// A stream of lines.
#[derive(Debug)]
pub(super) struct Stream<W> {
    to: W,
    /// It had no room at the last line.
    stuck: bool,
    /// The last line was written in part.
    torn: bool,
    /// Lines that had no room since the last that had.
    missed: u64,
}

impl<W: Write + AsFd> Stream<W> {
    /// Lines to this.
    pub(super) const fn new(to: W) -> Self {
        Self {
            to,
            stuck: false,
            torn: false,
            missed: 0,
        }
    }

    /// Writes a line, which ends with its line break. What `missing` makes of the number of lines that had no room comes before the first that has.
    pub(super) fn line(&mut self, text: &str, missing: &dyn Fn(u64) -> String) -> Put {
        let patience = if self.stuck { Duration::ZERO } else { PATIENCE };
        let until = Instant::now() + patience;
        if self.missed > 0 && self.put(&missing(self.missed), until) == Put::Written {
            self.missed = 0;
        }
        let put = self.put(text, until);
        self.stuck = put == Put::NoRoom;
        self.missed += u64::from(self.stuck);
        put
    }

    fn put(&mut self, text: &str, until: Instant) -> Put {
        let end: &[u8] = if self.torn { b"\n" } else { b"" };
        for piece in std::iter::once(end)
            .filter(|end| !end.is_empty())
            .chain(text.as_bytes().chunks(PIECE))
        {
            if !self.has_room(until) {
                return Put::NoRoom;
            }
            if self.to.write_all(piece).is_err() {
                return Put::Failed;
            }
            self.torn = piece.last() != Some(&b'\n');
        }
        Put::Written
    }

    fn has_room(&self, until: Instant) -> bool {
        let wait = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let mut look = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
        // Where it cannot be asked, it is written to.
        poll(&mut look, timeout).map_or(true, |n| n > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_line_that_a_pipe_has_room_for_a_part_of_holds_nobody_up() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // All but the last of its pages, and a bit.
        let full = Stream::new(writer.try_clone().unwrap());
        let mut filled = 0;
        while full.has_room(Instant::now()) {
            writer.write_all(&[b'x'; PIECE]).unwrap();
            filled += PIECE;
        }
        drop(full);
        reader.read_exact(&mut vec![0; 2 * PIECE]).unwrap();
        filled -= 2 * PIECE;
        let long = format!("{}\n", "y".repeat(3 * PIECE));
        let (done, put) = std::sync::mpsc::sync_channel(1);
        let mut stream = Stream::new(writer);
        let line = long.clone();
        std::thread::spawn(move || {
            let missing = |n: u64| format!("{n} missing\n");
            let first = stream.line(&line, &missing);
            let second = stream.line("second\n", &missing);
            done.send((first, second, stream)).unwrap();
        });
        let deadline = Duration::from_secs(60);
        let (first, second, mut stream) = put.recv_timeout(deadline).unwrap();
        assert_eq!((first, second), (Put::NoRoom, Put::NoRoom));
        let mut read = vec![0; filled + 2 * PIECE];
        reader.read_exact(&mut read).unwrap();
        let third = stream.line("third\n", &|n| format!("{n} missing\n"));
        assert_eq!(third, Put::Written);
        drop(stream);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "\n2 missing\nthird\n");
    }
}
