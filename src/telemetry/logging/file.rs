//! The log file beside the journal.
//!
//! Invariants: the file is its owner's alone when we make it; it is only ever appended to, so that a program that truncates it in place (`copytruncate`) loses
//! nothing of what follows; a line that was only written in part is ended before the next one begins; nothing here stops the daemon: what cannot be written is
//! counted and said.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Owner only: lines name tables, nodes and addresses.
const MODE: u32 = 0o600;

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    /// The last line was written in part.
    torn: bool,
    /// Lines that are not in the file since it cannot be written.
    lost: u64,
    /// Why it cannot be written.
    fault: Option<String>,
}

impl LogFile {
    /// A file at this path, opened now; that it cannot be is a fault, no error.
    pub(super) fn open(path: PathBuf) -> Self {
        let mut file = Self {
            path,
            file: None,
            torn: false,
            lost: 0,
            fault: None,
        };
        file.reopen();
        file
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why it cannot be written, as a sentence with its remedy. It stays the same while the reason does.
    pub(super) fn fault(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        Some(format!(
            "the log file {} cannot be written ({fault}): lines go to standard error only; make room, or correct the path or its permissions",
            self.path.display()
        ))
    }

    /// Opens the file of that name anew: what had it may have been renamed.
    pub(super) fn reopen(&mut self) {
        self.file = None;
        let opened = File::options()
            .append(true)
            .create(true)
            .mode(MODE)
            // A named pipe would make us wait for its reader.
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
            .open(&self.path)
            .and_then(|file| match file.metadata()?.is_file() {
                true => Ok(file),
                false => Err(io::Error::other("it is no file")),
            });
        match opened {
            Ok(file) => {
                self.file = Some(file);
                self.torn = false;
            }
            Err(error) => self.fault = Some(error.to_string()),
        }
    }

    /// Opens it anew where the path names another file than the one we write to, or none.
    pub(super) fn follow(&mut self) {
        let ours = self.file.as_ref().and_then(|file| file.metadata().ok());
        let there = std::fs::metadata(&self.path).ok();
        let same = ours
            .zip(there)
            .is_some_and(|(a, b)| (a.dev(), a.ino()) == (b.dev(), b.ino()));
        if !same {
            self.reopen();
        }
    }

    /// Appends a line, which ends with its line break. After a fault, what `again` makes of the number of lines that are missing comes first.
    /// Whether it is in the file.
    pub(super) fn write(&mut self, line: &str, again: &dyn Fn(u64) -> String) -> bool {
        let written = self.recover(again) && self.append(line);
        self.lost += u64::from(!written);
        written
    }

    /// Whether it can be written, which is tried if it could not.
    pub(super) fn recover(&mut self, again: &dyn Fn(u64) -> String) -> bool {
        if self.fault.is_none() {
            return true;
        }
        let done = self.append(&again(self.lost));
        if done {
            (self.fault, self.lost) = (None, 0);
        }
        done
    }

    fn append(&mut self, line: &str) -> bool {
        let Some(file) = &mut self.file else {
            return false;
        };
        let mut bytes = Vec::with_capacity(line.len() + 1);
        if self.torn {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line.as_bytes());
        match append(file, &bytes) {
            Ok(()) => {
                self.torn = false;
                true
            }
            Err((written, error)) => {
                self.torn |= written > 0;
                self.fault = Some(error.to_string());
                false
            }
        }
    }
}

/// Writes all, or says how much was.
fn append(file: &mut File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}
