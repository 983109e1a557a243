//! The stream of row operations inside a batch: a sequence of CBOR items.
//!
//! ```text
//!  unsigned t          the rows that follow are of the record's table t
//!  [0, key…]           delete
//!  [1, values…]        whole row (before the values its rowid, where that is the key)
//!  [2, mask, key…, v…] cells: the columns of the mask, where the row exists
//! ```
//!
//! Values keep SQLite's five storage classes to the bit: reals are always eight bytes, text that is not UTF-8 is a tagged byte string.

use minicbor::data::{Tag, Type};
use minicbor::{Decoder, Encoder};

use super::commit::TableDefinition;
use crate::change::operation::ColumnMask;
use crate::change::value::Value;

/// Marks a byte string as TEXT that is not UTF-8. From the range that CBOR leaves to first come, first served: 'H' 'L'.
const RAW_TEXT: Tag = Tag::new(0x484c);

/// Appends row operations to a buffer.
#[derive(Debug, Default)]
pub struct RowWriter {
    out: Vec<u8>,
    table: Option<u32>,
}

impl RowWriter {
    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes what was written; what follows begins with its table again, so that each section stands alone.
    pub fn take(&mut self) -> Vec<u8> {
        self.table = None;
        std::mem::take(&mut self.out)
    }

    /// A delete.
    pub fn delete<'a>(&mut self, table: u32, key: impl ExactSizeIterator<Item = Value<'a>>) {
        self.row(table, 0, None, key.len(), key);
    }

    /// A whole row.
    pub fn whole<'a>(&mut self, table: u32, values: impl ExactSizeIterator<Item = Value<'a>>) {
        self.row(table, 1, None, values.len(), values);
    }

    /// Cells: the key's values, then those of the mask's columns, `count` together.
    pub fn cells<'a>(
        &mut self,
        table: u32,
        mask: ColumnMask,
        count: usize,
        values: impl Iterator<Item = Value<'a>>,
    ) {
        self.row(table, 2, Some(mask), count, values);
    }

    fn row<'a>(
        &mut self,
        table: u32,
        op: u8,
        mask: Option<ColumnMask>,
        count: usize,
        values: impl Iterator<Item = Value<'a>>,
    ) {
        let mut e = Encoder::new(&mut self.out);
        // Writing CBOR to memory cannot fail; the closure only gathers the steps' results.
        let _ = (|| {
            if self.table != Some(table) {
                e.u32(table)?;
                self.table = Some(table);
            }
            e.array(count as u64 + 1 + u64::from(mask.is_some()))?
                .u8(op)?;
            if let Some(m) = mask {
                e.u64(m.0)?;
            }
            for v in values {
                match v {
                    Value::Null => e.null()?,
                    Value::Integer(i) => e.i64(i)?,
                    Value::Real(r) => e.f64(r)?,
                    Value::Text(t) => match std::str::from_utf8(t) {
                        Ok(s) => e.str(s)?,
                        Err(_) => e.tag(RAW_TEXT)?.bytes(t)?,
                    },
                    Value::Blob(b) => e.bytes(b)?,
                };
            }
            Ok::<(), minicbor::encode::Error<std::convert::Infallible>>(())
        })();
    }
}

/// What a row operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOp {
    /// Values: the key.
    Delete,
    /// Values: all columns (after the rowid, where that is the key).
    Whole,
    /// Values: the key, then the mask's columns.
    Cells(ColumnMask),
}

impl TableDefinition {
    /// The key's values among those of a row operation.
    #[must_use]
    pub fn key_of<'v>(&self, op: RowOp, values: &[Value<'v>]) -> Vec<Value<'v>> {
        if op == RowOp::Whole && !self.key.is_empty() {
            let place = |k: &u64| values.get(usize::try_from(*k).ok()?).copied();
            self.key.iter().filter_map(place).collect()
        } else {
            values.iter().take(self.key_len()).copied().collect()
        }
    }
}

/// Reads row operations.
pub struct RowReader<'a> {
    decoder: Decoder<'a>,
    length: usize,
    table: Option<u32>,
    tables: &'a [TableDefinition],
}

impl<'a> RowReader<'a> {
    /// Over the bytes of a section or of a record's own rows.
    #[must_use]
    pub fn new(bytes: &'a [u8], tables: &'a [TableDefinition]) -> Self {
        Self {
            decoder: Decoder::new(bytes),
            length: bytes.len(),
            table: None,
            tables,
        }
    }

    /// The next operation: its table, what it does, and its values in `values`.
    ///
    /// # Errors
    /// What does not fit; the number of values always fits the table's definition otherwise.
    pub fn next(
        &mut self,
        values: &mut Vec<Value<'a>>,
    ) -> Result<Option<(u32, RowOp)>, minicbor::decode::Error> {
        let bad = minicbor::decode::Error::message;
        let d = &mut self.decoder;
        values.clear();
        loop {
            if d.position() >= self.length {
                return Ok(None);
            }
            if d.datatype()? == Type::Array {
                break;
            }
            self.table = Some(d.u32()?);
        }
        let table = self.table.ok_or_else(|| bad("a row before its table"))?;
        let definition = self
            .tables
            .get(table as usize)
            .ok_or_else(|| bad("a row of a table that the record does not define"))?;
        let items = d.array()?.ok_or_else(|| bad("a row without a length"))?;
        let (op, head, expected) = match d.u8()? {
            0 => (RowOp::Delete, 1, definition.key_len()),
            1 => (RowOp::Whole, 1, definition.whole_len()),
            2 => {
                let mask = ColumnMask(d.u64()?);
                if mask.columns().any(|c| c >= definition.columns.len()) {
                    return Err(bad("cells of a column that the table does not have"));
                }
                (RowOp::Cells(mask), 2, definition.key_len() + mask.len())
            }
            _ => return Err(bad("an unknown row operation")),
        };
        if items != head + expected as u64 {
            return Err(bad("a row whose number of values does not fit its table"));
        }
        for _ in 0..expected {
            values.push(match d.datatype()? {
                Type::Null => {
                    d.null()?;
                    Value::Null
                }
                Type::F64 => Value::Real(d.f64()?),
                Type::String => Value::Text(d.str()?.as_bytes()),
                Type::Bytes => Value::Blob(d.bytes()?),
                Type::Tag => {
                    if d.tag()? != RAW_TEXT {
                        return Err(bad("a value with an unknown tag"));
                    }
                    Value::Text(d.bytes()?)
                }
                _ => Value::Integer(d.i64()?),
            });
        }
        Ok(Some((table, op)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Vec<TableDefinition> {
        let t = |key: Vec<u64>| TableDefinition {
            name: "t".into(),
            columns: vec!["a".into(), "b".into()],
            key,
            uniques: vec![],
        };
        vec![t(vec![0]), t(vec![])]
    }

    #[test]
    fn round_trip_to_the_bit() {
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(i64::MAX),
            Value::Real(-0.0),
            Value::Real(f64::INFINITY),
            Value::Text(b""),
            Value::Text(b"\xff\0x"),
            Value::Text("gr\u{fc}n\0".as_bytes()),
            Value::Blob(b""),
            Value::Blob(b"\0\xff"),
        ];
        let mut w = RowWriter::default();
        for v in values {
            w.whole(0, [Value::Integer(1), v].into_iter());
        }
        w.delete(1, [Value::Integer(7)].into_iter());
        w.cells(
            0,
            ColumnMask(2),
            2,
            [Value::Integer(1), Value::Real(2.5)].into_iter(),
        );
        let (bytes, tables) = (w.take(), tables());
        let mut r = RowReader::new(&bytes, &tables);
        let mut got = Vec::new();
        for v in values {
            assert_eq!(r.next(&mut got).unwrap(), Some((0, RowOp::Whole)));
            assert!(got[1].same_bytes(&v), "{v:?} came back as {:?}", got[1]);
        }
        assert_eq!(r.next(&mut got).unwrap(), Some((1, RowOp::Delete)));
        assert_eq!(
            r.next(&mut got).unwrap(),
            Some((0, RowOp::Cells(ColumnMask(2))))
        );
        assert!(got[1].same_bytes(&Value::Real(2.5)));
        assert_eq!(r.next(&mut got).unwrap(), None);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let tables = tables();
        let mut got = Vec::new();
        for bytes in [
            &[0x80][..],
            &[0x05, 0x82, 0x00, 0x01],
            &[0x00, 0x81, 0x00],
            &[0x00, 0x83, 0x02, 0x08, 0x01],
            &[0x00, 0x82, 0x09, 0x01],
            &[0x00, 0x82, 0x00],
        ] {
            assert!(
                RowReader::new(bytes, &tables).next(&mut got).is_err(),
                "{bytes:?}"
            );
        }
    }
}
