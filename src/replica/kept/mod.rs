//! What this node has published and folded, until a verified snapshot covers it: the stream may lose it even then, and nobody else may have folded it.
//!
//! ```text
//!   <database>.kept-00000001, -00000002, …    frames, in the order in which the batches came back
//! ```
//!
//! Invariants: a batch is noted here before the transaction is committed that takes it out of the change log, so what is in neither was never committed; a
//! frame too many does no harm. The files are not the application's: SQLite never opens them. A file goes when a verified snapshot covers all that is in it, or
//! when a restore has entered it in the change log again; never because there is no room: at the bound publishing waits.

mod enter;
pub mod frame;

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::apply::incoming::IncomingBatch;
use crate::change::history::History;
use crate::change::position::Sequence;

/// A file is followed by another one beyond this share of the bound.
const SHARE: u64 = 32;

/// The files.
#[derive(Debug)]
pub struct Kept {
    /// What the names begin with.
    stem: PathBuf,
    /// Bytes at which publishing waits.
    limit: u64,
    /// Oldest first; the last is written to.
    files: Vec<KeptFile>,
    open: Option<File>,
    unsynced: bool,
    /// What the last snapshot covers by which files were removed.
    pruned: Option<(History, Sequence)>,
}

#[derive(Debug)]
struct KeptFile {
    number: u64,
    bytes: u64,
    batches: u64,
    last: Sequence,
    history: History,
}

impl Kept {
    /// What is kept beside `database`, at most about `limit` bytes. What a crash has left of a frame is cut off.
    ///
    /// # Errors
    /// The files'.
    pub fn open(database: &Path, limit: u64) -> io::Result<Self> {
        let mut stem = database.as_os_str().to_owned();
        stem.push(".kept-");
        let stem = PathBuf::from(stem);
        let mut numbers = numbers(&stem)?;
        numbers.sort_unstable();
        let mut kept = Self {
            stem,
            limit,
            files: Vec::new(),
            open: None,
            unsynced: false,
            pruned: None,
        };
        for number in numbers {
            let path = kept.path(number);
            let mut file = KeptFile {
                number,
                bytes: 0,
                batches: 0,
                last: Sequence(0),
                history: History::FIRST,
            };
            let mut reader = BufReader::new(File::open(&path)?);
            while let Some((frame, length)) = frame::next(&mut reader)? {
                file.bytes += length;
                file.batches += u64::from(!frame.covers.is_empty());
                file.last = file.last.max(frame.at);
                file.history = frame.history();
            }
            if file.bytes == 0 {
                std::fs::remove_file(&path)?;
            } else {
                OpenOptions::new()
                    .write(true)
                    .open(&path)?
                    .set_len(file.bytes)?;
                kept.files.push(file);
            }
        }
        Ok(kept)
    }

    /// The files, oldest first.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|f| self.path(f.number)).collect()
    }

    fn path(&self, number: u64) -> PathBuf {
        let mut name = self.stem.as_os_str().to_owned();
        name.push(format!("{number:08}"));
        PathBuf::from(name)
    }

    /// Bytes on the disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Batches.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.files.iter().map(|f| f.batches).sum()
    }

    /// Whether a snapshot is wanted.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        self.bytes() >= self.limit / 2
    }

    /// Whether nothing more is to be published.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes() >= self.limit
    }

    /// Notes a batch that has come back at `at`.
    ///
    /// # Errors
    /// The disk's: then nothing was noted.
    pub(super) fn add(
        &mut self,
        batch: &IncomingBatch,
        at: Sequence,
        history: History,
        unfolded: bool,
    ) -> io::Result<()> {
        let mut batches = 1;
        frame::of_batch(batch, at, history, unfolded, |bytes| {
            self.write(&bytes, at, history, std::mem::take(&mut batches))
        })
    }

    fn write(
        &mut self,
        bytes: &[u8],
        at: Sequence,
        history: History,
        batches: u64,
    ) -> io::Result<()> {
        let full = (self.limit / SHARE).max(1);
        let begin = self.open.is_none()
            || self
                .files
                .last()
                .is_none_or(|f| f.bytes >= full || f.history != history);
        if begin {
            self.begin(history)?;
        }
        let (Some(open), Some(file)) = (&mut self.open, self.files.last_mut()) else {
            return Err(io::Error::other("there is no file to write to"));
        };
        if let Err(e) = open.write_all(bytes) {
            // What was written of it must not stand before what comes.
            let _ = open.set_len(file.bytes);
            self.open = None;
            return Err(e);
        }
        file.bytes += bytes.len() as u64;
        file.batches += batches;
        file.last = file.last.max(at);
        self.unsynced = true;
        Ok(())
    }

    fn begin(&mut self, history: History) -> io::Result<()> {
        self.sync()?;
        let number = self.files.last().map_or(1, |f| f.number + 1);
        let open = OpenOptions::new()
            .append(true)
            .create_new(true)
            // It holds keys of rows.
            .mode(0o600)
            .open(self.path(number))?;
        self.open = Some(open);
        self.files.push(KeptFile {
            number,
            bytes: 0,
            batches: 0,
            last: Sequence(0),
            history,
        });
        Ok(())
    }

    /// What was written survives a loss of power from now on.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced
            && let Some(open) = &self.open
        {
            open.sync_data()?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// A verified snapshot of `history` covers everything up to `covered`.
    ///
    /// # Errors
    /// The files'.
    pub fn prune(&mut self, history: History, covered: Sequence) -> io::Result<()> {
        if self.pruned == Some((history, covered)) {
            return Ok(());
        }
        let gone: Vec<u64> = self
            .files
            .iter()
            .filter(|f| f.history == history && f.last <= covered)
            .map(|f| f.number)
            .collect();
        self.remove(&gone)?;
        // What comes from now on lies in a file of its own, which the next snapshot covers as a whole.
        self.sync()?;
        self.open = None;
        self.pruned = Some((history, covered));
        Ok(())
    }

    /// Whether anything is of another history than this one.
    #[must_use]
    pub fn is_of_others(&self, history: History) -> bool {
        self.files.iter().any(|f| f.history != history)
    }

    /// Files of other histories go: a restore onto this one has entered what was to be entered.
    ///
    /// # Errors
    /// The files'.
    pub fn keep_only(&mut self, history: History) -> io::Result<()> {
        let gone: Vec<u64> = self
            .files
            .iter()
            .filter(|f| f.history != history)
            .map(|f| f.number)
            .collect();
        self.remove(&gone)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The files'.
    pub fn clear(&mut self) -> io::Result<()> {
        let gone: Vec<u64> = self.files.iter().map(|f| f.number).collect();
        self.remove(&gone)
    }

    fn remove(&mut self, gone: &[u64]) -> io::Result<()> {
        if self.files.last().is_some_and(|f| gone.contains(&f.number)) {
            self.open = None;
            self.unsynced = false;
        }
        for number in gone {
            match std::fs::remove_file(self.path(*number)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            self.files.retain(|f| f.number != *number);
        }
        Ok(())
    }
}

/// Removes all that is kept beside a database.
///
/// # Errors
/// The files'.
pub fn remove_all(database: &Path) -> io::Result<()> {
    Kept::open(database, 0)?.clear()
}

fn numbers(stem: &Path) -> io::Result<Vec<u64>> {
    let folder = match stem.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let prefix = stem
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(digits) = name.to_string_lossy().strip_prefix(&prefix)
            && let Ok(number) = digits.parse()
        {
            out.push(number);
        }
    }
    Ok(out)
}
