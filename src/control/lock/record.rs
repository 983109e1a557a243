//! What the lock file says: one line of JSON that names its holder.
//!
//! Invariant: process id and start time together name one process for ever, since ids are used again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// More than the longest line: a path has at most 4 KiB, six times that when every byte is escaped.
const LONGEST: usize = 32 * 1024;

/// The holder of a lock, as it wrote itself down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its process id.
    pub(super) pid: u32,
    /// When it took the lock (UTC), for people.
    pub(super) started: String,
    /// When its process began, in the kernel's ticks since boot, to tell it from a later one with its id.
    pub(super) start_ticks: Option<u64>,
    /// The database that it serves, for people.
    pub(super) database: String,
}

impl Record {
    pub(super) fn of_this_process(database: &Path) -> Self {
        let pid = std::process::id();
        Self {
            pid,
            started: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
            start_ticks: start_ticks(pid),
            database: database.to_string_lossy().into_owned(),
        }
    }

    /// Puts the line in place of what the file held.
    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        file.set_len(0)?;
        file.write_all_at(&line, 0)
    }

    /// The line, if the file has a whole one.
    pub(super) fn read(file: &File) -> Option<Self> {
        let mut buffer = vec![0; LONGEST];
        let mut length = 0;
        while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, length as u64).ok()? {
                0 => break,
                read => length += read,
            }
        }
        serde_json::from_slice(buffer.get(..length)?).ok()
    }
}

/// When a process began, in the kernel's ticks since boot; `None` when there is none with this id.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may itself hold blanks and brackets. What follows it begins with field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_a_shorter_one_replaces_it() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(Record::read(&file), None);
        for path in ["/a/quite/long/path/app.db", "/b.db"] {
            let record = Record::of_this_process(Path::new(path));
            record.write(&file).unwrap();
            assert_eq!(Record::read(&file), Some(record));
        }
    }

    #[test]
    fn a_process_has_one_start_time() {
        let own = start_ticks(std::process::id());
        assert!(own.is_some());
        assert_eq!(own, start_ticks(std::process::id()));
        // Above the highest id that Linux gives.
        assert_eq!(start_ticks(1 << 22 | 1), None);
    }
}
