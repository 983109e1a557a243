//! The change-log rows that a batch covers, by table: ids as runs, and each row's stamp.

use minicbor::{Decoder, Encoder};

/// The covered rows of one table, ids rising.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableCovers {
    /// The table's place in the record.
    pub table: u32,
    /// Runs of ids: first id and count.
    pub runs: Vec<(i64, u64)>,
    /// The stamps, in the order of the ids.
    pub stamps: Vec<u32>,
}

impl TableCovers {
    /// Adds the next row; ids must rise.
    pub fn push(&mut self, id: i64, stamp: u32) {
        match self.runs.last_mut() {
            Some((first, count)) if first.checked_add_unsigned(*count) == Some(id) => *count += 1,
            _ => self.runs.push((id, 1)),
        }
        self.stamps.push(stamp);
    }

    /// The last covered id.
    #[must_use]
    pub fn last(&self) -> Option<i64> {
        let &(first, count) = self.runs.last()?;
        first.checked_add_unsigned(count.saturating_sub(1))
    }

    /// Each covered row: id and stamp.
    pub fn rows(&self) -> impl Iterator<Item = (i64, u32)> + '_ {
        let ids = self.runs.iter().flat_map(|&(first, count)| {
            (0..count).filter_map(move |i| first.checked_add_unsigned(i))
        });
        ids.zip(self.stamps.iter().copied())
    }
}

/// Appends one table's covers.
pub fn encode(out: &mut Vec<u8>, covers: &TableCovers) {
    let mut e = Encoder::new(out);
    let stamps: Vec<u8> = covers.stamps.iter().flat_map(|s| s.to_le_bytes()).collect();
    // Writing CBOR to memory cannot fail; the closure only gathers the steps' results.
    let _ = (|| {
        e.array(3)?
            .u32(covers.table)?
            .array(covers.runs.len() as u64 * 2)?;
        for &(first, count) in &covers.runs {
            e.i64(first)?.u64(count)?;
        }
        e.bytes(&stamps).map(|_| ())
    })();
}

/// More tables than a schema has that SQLite reads in a bearable time; an empty entry is four bytes and becomes sixty.
const MOST_TABLES: usize = 100_000;

/// Decodes all tables' covers.
///
/// # Errors
/// What does not fit.
pub fn decode(bytes: &[u8]) -> Result<Vec<TableCovers>, minicbor::decode::Error> {
    let bad = minicbor::decode::Error::message;
    let mut d = Decoder::new(bytes);
    let mut out = Vec::new();
    while d.position() < bytes.len() {
        if d.array()? != Some(3) {
            return Err(bad("covers of another shape"));
        }
        let table = d.u32()?;
        let n = d.array()?.ok_or_else(|| bad("runs without a length"))?;
        let mut covers = TableCovers {
            table,
            ..TableCovers::default()
        };
        let mut total: u64 = 0;
        for _ in 0..n / 2 {
            let (first, count) = (d.i64()?, d.u64()?);
            // Each run is worth a stamp at least, so runs take no more memory than their bytes allow.
            if count == 0 {
                return Err(bad("a run of no ids"));
            }
            total = total.saturating_add(count);
            covers.runs.push((first, count));
        }
        let stamps = d.bytes()?;
        if n % 2 != 0 || stamps.len() as u64 != total.saturating_mul(4) {
            return Err(bad("ids and stamps of different number"));
        }
        covers.stamps = stamps
            .as_chunks::<4>()
            .0
            .iter()
            .map(|c| u32::from_le_bytes(*c))
            .collect();
        if out.len() == MOST_TABLES {
            return Err(bad("covers of more tables than a batch has"));
        }
        out.push(covers);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut a = TableCovers {
            table: 3,
            ..TableCovers::default()
        };
        for (id, stamp) in [(5, 1), (6, u32::MAX), (9, 7)] {
            a.push(id, stamp);
        }
        assert_eq!(a.runs, [(5, 2), (9, 1)]);
        let mut out = Vec::new();
        encode(&mut out, &a);
        encode(&mut out, &TableCovers::default());
        let back = decode(&out).unwrap();
        assert_eq!(back, [a.clone(), TableCovers::default()]);
        assert_eq!(
            back[0].rows().collect::<Vec<_>>(),
            [(5, 1), (6, u32::MAX), (9, 7)]
        );
        assert!(decode(&out[..out.len() - 1]).is_err());
    }

    #[test]
    fn what_takes_more_memory_than_its_bytes_is_refused() {
        // A table whose ids are a run of none, and tables without ids, over and over.
        assert!(decode(&[0x83, 0x00, 0x82, 0x01, 0x00, 0x40]).is_err());
        let empty = [0x83, 0x00, 0x80, 0x40];
        assert_eq!(
            decode(&empty.repeat(MOST_TABLES)).unwrap().len(),
            MOST_TABLES
        );
        assert!(decode(&empty.repeat(MOST_TABLES + 1)).is_err());
    }
}
