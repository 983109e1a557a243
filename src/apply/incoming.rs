//! A message of the order stream, opened: what it is, and where its rows are.
//!
//! Invariant: what a message is, every node decides from its bytes alone, so that all treat it alike.

use bytes::Bytes;

use crate::change::position::Sequence;
use crate::codec::commit::{self, CommitRecord, SectionKind, TableDefinition};
use crate::codec::covers::{self, TableCovers};
use crate::codec::frame::{self, FrameError, Kind};
use crate::codec::marker::{self, Marker};
use crate::codec::rows::RowReader;
use crate::codec::spool::Blob;
use crate::planted::planted;

/// A message of the order stream.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Its place.
    pub sequence: Sequence,
    /// The hash of its bytes.
    pub hash: u64,
    /// What it is.
    pub body: Body,
}

/// What a message is.
#[derive(Debug, Clone)]
pub enum Body {
    /// A batch.
    Batch(Box<IncomingBatch>),
    /// A piece of some batch's payload: counts for nothing by itself.
    Payload,
    /// A place at which nodes that were asked to compare what they hold; nothing to all others.
    Marker(Marker),
    /// Something that no node can read.
    Unreadable {
        /// Why.
        reason: String,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Written by a newer program.
    Newer(u8),
}

/// A batch with its rows.
#[derive(Debug, Clone)]
pub struct IncomingBatch {
    /// Its commit record.
    pub record: CommitRecord,
    /// Its row sections, framed, in the order in which they are folded. Empty where the record carries the rows.
    pub rows: Vec<Blob>,
    /// Its covers sections, framed.
    pub covers: Vec<Blob>,
    /// Set where its rows cannot be read on any node: the batch counts, with no effect but a dead letter.
    pub damage: Option<String>,
}

/// Opens a message, all but the payload that a batch has elsewhere.
#[must_use]
pub fn open(sequence: Sequence, bytes: &Bytes) -> Incoming {
    let hash = frame::message_hash(bytes);
    let unreadable = |reason: String| Body::Unreadable {
        reason,
        bytes: bytes.clone(),
    };
    let body = match frame::open(bytes) {
        Ok((Kind::Commit, body)) => match commit::decode(&body) {
            Ok(record) => {
                let damage = check_rows(&record.rows, &record.tables)
                    .or_else(|| check_covers(&record.covers, &record.tables));
                Body::Batch(Box::new(IncomingBatch {
                    record,
                    rows: Vec::new(),
                    covers: Vec::new(),
                    damage,
                }))
            }
            Err(e) => unreadable(format!("a commit record that does not decode: {e}")),
        },
        Ok((Kind::Payload, _)) => Body::Payload,
        Ok((Kind::Marker, body)) => match marker::decode(&body) {
            Ok(marker) => Body::Marker(marker),
            Err(e) => unreadable(format!("a marker that does not decode: {e}")),
        },
        Ok((Kind::Section, _)) => unreadable("a section outside of a payload message".to_owned()),
        Err(FrameError::Newer(v)) => Body::Newer(v),
        Err(e) => unreadable(e.to_string()),
    };
    Incoming {
        sequence,
        hash,
        body,
    }
}

impl IncomingBatch {
    /// Adds a section that was fetched, after checking that it can be read.
    pub fn add_section(&mut self, kind: SectionKind, framed: &[u8], blob: Blob) {
        match frame::open(framed) {
            Ok((Kind::Section, body)) => {
                let damage = match kind {
                    SectionKind::Rows => check_rows(&body, &self.record.tables),
                    SectionKind::Covers => check_covers(&body, &self.record.tables),
                };
                self.damage = self.damage.take().or(damage);
            }
            Ok(_) => self.damage = Some("a section that is something else".to_owned()),
            Err(e) => self.damage = Some(format!("a section: {e}")),
        }
        match kind {
            SectionKind::Rows if planted!(SectionsReversed) => self.rows.insert(0, blob),
            SectionKind::Rows => self.rows.push(blob),
            SectionKind::Covers => self.covers.push(blob),
        }
    }

    /// Calls `each` with the row bytes of one section after the other.
    ///
    /// # Errors
    /// Those of the spool, and of `each`.
    pub fn each_section<E: From<std::io::Error>>(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        each(&self.record.rows)?;
        for blob in &self.rows {
            let framed = blob.read()?;
            // Checked when it was added; a spool that has changed since is an I/O error.
            let (_, body) = frame::open(&framed)
                .map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string()))?;
            each(&body)?;
        }
        Ok(())
    }

    /// The change-log rows that it covers.
    ///
    /// # Errors
    /// The spool's.
    pub fn covered(&self) -> std::io::Result<Vec<TableCovers>> {
        let invalid = |e: String| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
        let mut out = covers::decode(&self.record.covers).map_err(|e| invalid(e.to_string()))?;
        for blob in &self.covers {
            let framed = blob.read()?;
            let (_, body) = frame::open(&framed).map_err(|e| invalid(e.to_string()))?;
            out.append(&mut covers::decode(&body).map_err(|e| invalid(e.to_string()))?);
        }
        Ok(out)
    }
}

fn check_rows(bytes: &[u8], tables: &[TableDefinition]) -> Option<String> {
    let mut reader = RowReader::new(bytes, tables);
    let mut values = Vec::new();
    loop {
        match reader.next(&mut values) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(e) => return Some(format!("rows that do not decode: {e}")),
        }
    }
}

fn check_covers(bytes: &[u8], tables: &[TableDefinition]) -> Option<String> {
    match covers::decode(bytes) {
        Ok(all) if all.iter().all(|c| (c.table as usize) < tables.len()) => None,
        Ok(_) => Some("covers of a table that the record does not define".to_owned()),
        Err(e) => Some(format!("covers that do not decode: {e}")),
    }
}
