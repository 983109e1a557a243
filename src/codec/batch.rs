//! A batch while it is built: rows go to sections by shard, sections that are full are framed and put aside, so that memory holds one
//! section a shard and not the batch.
//!
//! Invariants: deletes stand before everything else; each section can be decoded alone; a batch that is small and whose rows all
//! belong to the order stream is its commit record and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::change::operation::ColumnMask;
use crate::change::position::ShardId;
use crate::change::value::Value;
use crate::codec::commit::{CommitRecord, SectionKind};
use crate::codec::covers::{self, TableCovers};
use crate::codec::frame::{HEADER, Kind, Sealer, message_hash};
use crate::codec::payload;
use crate::codec::rows::RowWriter;
use crate::codec::spool::{Blob, Spool};
use crate::planted::planted;

/// Raw bytes at which a section is closed: large enough that framing costs nothing, small enough to hold several in memory.
const SECTION_BYTES: usize = 512 << 10;

/// What bounds a batch's messages.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest message that the broker takes.
    pub max_payload: usize,
    /// The number of shards that our rows are spread over.
    pub shards: u64,
    /// Compress messages.
    pub compress: bool,
    /// Size below which a body stays plain.
    pub compress_min_bytes: usize,
}

impl Limits {
    /// Bytes of a section that fit one message.
    #[must_use]
    pub fn piece_bytes(&self) -> usize {
        self.max_payload
            .saturating_sub(payload::OVERHEAD + HEADER)
            .max(1024)
    }

    fn section_bytes(&self) -> usize {
        SECTION_BYTES.min(self.piece_bytes())
    }

    /// The shard that a table's rows belong to.
    #[must_use]
    pub fn shard_of(&self, table: &str) -> ShardId {
        if self.shards <= 1 {
            return ShardId::ORDER;
        }
        ShardId(xxh3_64(table.to_ascii_lowercase().as_bytes()) % self.shards + 1)
    }
}

/// A section that was put aside.
#[derive(Debug)]
pub struct Section {
    /// What it holds.
    pub kind: SectionKind,
    /// Its shard.
    pub shard: ShardId,
    /// Its frame.
    pub frame: Blob,
    /// The frame's hash.
    pub hash: u64,
}

/// A batch, ready to be sent.
#[derive(Debug)]
pub struct Batch {
    /// Its commit record, still without the places of its sections.
    pub record: CommitRecord,
    /// Its sections, in the order in which they are folded; none where the record carries all.
    pub sections: Vec<Section>,
    /// What bounds its messages.
    pub limits: Limits,
    /// Bytes of rows and covers before compression.
    pub raw_bytes: u64,
}

/// Builds a batch.
pub struct BatchWriter {
    limits: Limits,
    sealer: Sealer,
    spool: Arc<Spool>,
    deletes: BTreeMap<ShardId, RowWriter>,
    others: BTreeMap<ShardId, RowWriter>,
    delete_sections: Vec<Section>,
    other_sections: Vec<Section>,
    row_count: u64,
    raw_bytes: u64,
}

impl BatchWriter {
    /// A batch whose large parts go to `spool`.
    #[must_use]
    pub fn new(limits: Limits, spool: Arc<Spool>) -> Self {
        Self {
            limits,
            sealer: Sealer::new(limits.compress, limits.compress_min_bytes),
            spool,
            deletes: BTreeMap::new(),
            others: BTreeMap::new(),
            delete_sections: Vec::new(),
            other_sections: Vec::new(),
            row_count: 0,
            raw_bytes: 0,
        }
    }

    /// Row operations so far.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// Adds a delete.
    ///
    /// # Errors
    /// The spool's.
    pub fn delete(&mut self, table: &str, index: u32, key: &[Value<'_>]) -> std::io::Result<()> {
        if planted!(DeletesLast) {
            return self.other(table, |w| w.delete(index, key.iter().copied()));
        }
        let shard = self.limits.shard_of(table);
        self.row_count += 1;
        let writer = self.deletes.entry(shard).or_default();
        writer.delete(index, key.iter().copied());
        if writer.len() >= self.limits.section_bytes() {
            let rows = writer.take();
            let section = self.seal(SectionKind::Rows, shard, &rows)?;
            self.delete_sections.push(section);
        }
        Ok(())
    }

    /// Adds a whole row.
    ///
    /// # Errors
    /// The spool's.
    pub fn whole(&mut self, table: &str, index: u32, values: &[Value<'_>]) -> std::io::Result<()> {
        self.other(table, |w| w.whole(index, values.iter().copied()))
    }

    /// Adds cells.
    ///
    /// # Errors
    /// The spool's.
    pub fn cells(
        &mut self,
        table: &str,
        index: u32,
        mask: ColumnMask,
        key: &[Value<'_>],
        cells: &[Value<'_>],
    ) -> std::io::Result<()> {
        self.other(table, |w| {
            w.cells(
                index,
                mask,
                key.len() + cells.len(),
                key.iter().chain(cells).copied(),
            )
        })
    }

    fn other(&mut self, table: &str, write: impl FnOnce(&mut RowWriter)) -> std::io::Result<()> {
        let shard = self.limits.shard_of(table);
        self.row_count += 1;
        let writer = self.others.entry(shard).or_default();
        write(writer);
        if writer.len() >= self.limits.section_bytes() {
            let rows = writer.take();
            let section = self.seal(SectionKind::Rows, shard, &rows)?;
            self.other_sections.push(section);
        }
        Ok(())
    }

    fn seal(&mut self, kind: SectionKind, shard: ShardId, body: &[u8]) -> std::io::Result<Section> {
        self.raw_bytes += body.len() as u64;
        let frame = self.sealer.seal(Kind::Section, body);
        let hash = message_hash(&frame);
        Ok(Section {
            kind,
            shard,
            frame: self.spool.put(frame)?,
            hash,
        })
    }

    /// Closes the batch.
    ///
    /// # Errors
    /// The spool's.
    pub fn finish(
        mut self,
        mut record: CommitRecord,
        tables: &[TableCovers],
    ) -> std::io::Result<Batch> {
        let mut covered = Vec::new();
        for table in tables.iter().filter(|t| !t.stamps.is_empty()) {
            covers::encode(&mut covered, table);
        }
        let rest: usize = self
            .deletes
            .values()
            .chain(self.others.values())
            .map(RowWriter::len)
            .sum();
        let in_order_stream = self
            .deletes
            .keys()
            .chain(self.others.keys())
            .all(|s| *s == ShardId::ORDER);
        let small = rest + covered.len() <= self.limits.section_bytes() / 2;
        if small
            && in_order_stream
            && self.delete_sections.is_empty()
            && self.other_sections.is_empty()
        {
            for writer in self.deletes.values_mut().chain(self.others.values_mut()) {
                record.rows.append(&mut writer.take());
            }
            self.raw_bytes += (rest + covered.len()) as u64;
            record.covers = covered;
            return Ok(Batch {
                record,
                sections: Vec::new(),
                limits: self.limits,
                raw_bytes: self.raw_bytes,
            });
        }
        let mut sections = std::mem::take(&mut self.delete_sections);
        for (shard, mut writer) in std::mem::take(&mut self.deletes) {
            if !writer.is_empty() {
                sections.push(self.seal(SectionKind::Rows, shard, &writer.take())?);
            }
        }
        sections.append(&mut self.other_sections);
        for (shard, mut writer) in std::mem::take(&mut self.others) {
            if !writer.is_empty() {
                sections.push(self.seal(SectionKind::Rows, shard, &writer.take())?);
            }
        }
        sections.push(self.seal(SectionKind::Covers, ShardId::ORDER, &covered)?);
        Ok(Batch {
            record,
            sections,
            limits: self.limits,
            raw_bytes: self.raw_bytes,
        })
    }
}
