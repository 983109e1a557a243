//! The choice of a CBOR crate (docs/decisions/0001-cbor.md): sections of row operations as src/codec/rows.rs writes and reads them with minicbor, against
//! ciborium on the same content, by hand on its low-level encoder and through serde. Prints nanoseconds a row and writes docs/benchmarks/codec.json.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

use std::hint::black_box;
use std::time::Instant;

use ciborium_ll::{Decoder, Encoder, Header, simple};
use harmonylite::change::value::{OwnedValue, Value};
use harmonylite::codec::commit::TableDefinition;
use harmonylite::codec::rows::{RowReader, RowWriter};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq as _, Serializer};

const ROWS: usize = 10_000;
const ROUNDS: usize = 21;

type Row = Vec<OwnedValue>;

/// One section encoded or decoded.
type Work<'a> = Box<dyn Fn() -> usize + 'a>;

fn main() {
    let rows: Vec<Row> = (0..ROWS as i64).map(row).collect();
    let tables = [TableDefinition {
        name: "items".into(),
        columns: ["id", "name", "kind", "amount", "quantity", "note"]
            .map(Into::into)
            .to_vec(),
        key: vec![0],
        uniques: vec![],
    }];
    let (ours, low, serde) = (encode_ours(&rows), encode_low(&rows), encode_serde(&rows));
    assert_eq!(decode_low(&low), rows);
    assert_eq!(decode_serde(&serde), rows);
    assert_eq!(decode_ours_owned(&ours, &tables), rows);
    let mut contests: Vec<(&str, Work<'_>, Vec<f64>)> = vec![
        (
            "minicbor, encode",
            Box::new(|| encode_ours(&rows).len()),
            vec![],
        ),
        (
            "ciborium-ll, encode",
            Box::new(|| encode_low(&rows).len()),
            vec![],
        ),
        (
            "ciborium (serde), encode",
            Box::new(|| encode_serde(&rows).len()),
            vec![],
        ),
        (
            "minicbor, decode, borrowed",
            Box::new(|| decode_ours(&ours, &tables)),
            vec![],
        ),
        (
            "minicbor, decode, owned",
            Box::new(|| decode_ours_owned(&ours, &tables).len()),
            vec![],
        ),
        (
            "ciborium-ll, decode, owned",
            Box::new(|| decode_low(&low).len()),
            vec![],
        ),
        (
            "ciborium (serde), decode, owned",
            Box::new(|| decode_serde(&serde).len()),
            vec![],
        ),
    ];
    for _ in 0..ROUNDS {
        for (_, work, times) in &mut contests {
            let started = Instant::now();
            black_box(work());
            times.push(started.elapsed().as_secs_f64() * 1e9 / ROWS as f64);
        }
    }
    println!(
        "{ROWS} rows of 6 columns, {ROUNDS} rounds; bytes a row: minicbor {}, ciborium-ll {}, ciborium {}",
        ours.len() / ROWS,
        low.len() / ROWS,
        serde.len() / ROWS
    );
    let mut json = Vec::new();
    for (name, _, mut times) in contests {
        times.sort_by(f64::total_cmp);
        let (median, min, max) = (times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
        println!("{name:<34} {median:6.0} ns a row ({min:.0}-{max:.0})");
        json.push(serde_json::json!({"name": name, "ns_a_row": {"median": median.round(), "min": min.round(), "max": max.round()}}));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks/codec.json");
    std::fs::write(path, serde_json::to_string_pretty(&json).unwrap() + "\n").unwrap();
}

fn row(i: i64) -> Row {
    vec![
        OwnedValue::Integer(i * 7919),
        OwnedValue::Text(format!("item {i}").into_bytes().into()),
        OwnedValue::Text((*b"tool").into()),
        OwnedValue::Real(i as f64 * 0.25),
        if i % 10 == 0 {
            OwnedValue::Null
        } else {
            OwnedValue::Integer(i % 1000)
        },
        OwnedValue::Text((*b"a note of some length, as they are").into()),
    ]
}

fn encode_ours(rows: &[Row]) -> Vec<u8> {
    let mut writer = RowWriter::default();
    for row in rows {
        writer.whole(0, row.iter().map(OwnedValue::as_value));
    }
    writer.take()
}

fn decode_ours(bytes: &[u8], tables: &[TableDefinition]) -> usize {
    let mut reader = RowReader::new(bytes, tables);
    let (mut values, mut count) = (Vec::new(), 0);
    while reader.next(&mut values).unwrap().is_some() {
        count += black_box(&values).len();
    }
    count
}

fn decode_ours_owned(bytes: &[u8], tables: &[TableDefinition]) -> Vec<Row> {
    let mut reader = RowReader::new(bytes, tables);
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    while reader.next(&mut values).unwrap().is_some() {
        rows.push(values.iter().map(Value::to_owned).collect());
    }
    rows
}

fn encode_low(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut e = Encoder::from(&mut out);
    for row in rows {
        e.push(Header::Array(Some(row.len() + 1))).unwrap();
        e.push(Header::Positive(1)).unwrap();
        for value in row {
            match value.as_value() {
                Value::Null => e.push(Header::Simple(simple::NULL)).unwrap(),
                Value::Integer(i) if i >= 0 => e.push(Header::Positive(i.cast_unsigned())).unwrap(),
                Value::Integer(i) => e.push(Header::Negative((-1 - i).cast_unsigned())).unwrap(),
                Value::Real(r) => e.push(Header::Float(r)).unwrap(),
                Value::Text(t) => e.text(std::str::from_utf8(t).unwrap(), None).unwrap(),
                Value::Blob(b) => e.bytes(b, None).unwrap(),
            }
        }
    }
    out
}

fn decode_low(mut bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut scratch = [0; 4096];
    while !bytes.is_empty() {
        let mut d = Decoder::from(&mut bytes);
        let Header::Array(Some(count)) = d.pull().unwrap() else {
            panic!("no row")
        };
        assert_eq!(d.pull().unwrap(), Header::Positive(1));
        let row = (1..count).map(|_| match d.pull().unwrap() {
            Header::Simple(simple::NULL) => OwnedValue::Null,
            Header::Positive(u) => OwnedValue::Integer(u.cast_signed()),
            Header::Negative(u) => OwnedValue::Integer(-1 - u.cast_signed()),
            Header::Float(r) => OwnedValue::Real(r),
            Header::Text(length) => {
                let mut text = Vec::with_capacity(length.unwrap_or(0));
                let mut segments = d.text(length);
                while let Some(mut segment) = segments.pull().unwrap() {
                    while let Some(chunk) = segment.pull(&mut scratch).unwrap() {
                        text.extend_from_slice(chunk.as_bytes());
                    }
                }
                OwnedValue::Text(text.into())
            }
            other => panic!("{other:?} is not in the sample"),
        });
        rows.push(row.collect());
    }
    rows
}

struct AsSerde<T>(T);

fn encode_serde(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        ciborium::into_writer(&AsSerde(row), &mut out).unwrap();
    }
    out
}

fn decode_serde(mut bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let AsSerde(row) = ciborium::from_reader(&mut bytes).unwrap();
        rows.push(row);
    }
    rows
}

impl Serialize for AsSerde<&Row> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len() + 1))?;
        seq.serialize_element(&1_u8)?;
        for value in self.0 {
            seq.serialize_element(&AsSerde(value.as_value()))?;
        }
        seq.end()
    }
}

impl Serialize for AsSerde<Value<'_>> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => s.serialize_unit(),
            Value::Integer(i) => s.serialize_i64(i),
            Value::Real(r) => s.serialize_f64(r),
            Value::Text(t) => s.serialize_str(std::str::from_utf8(t).unwrap()),
            Value::Blob(b) => s.serialize_bytes(b),
        }
    }
}

impl<'de> Deserialize<'de> for AsSerde<Row> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Row;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a row")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Row, A::Error> {
                let mut row = Vec::with_capacity(seq.size_hint().unwrap_or(0));
                let _operation: Option<u8> = seq.next_element()?;
                while let Some(AsSerde(value)) = seq.next_element()? {
                    row.push(value);
                }
                Ok(row)
            }
        }
        d.deserialize_seq(Rows).map(AsSerde)
    }
}

impl<'de> Deserialize<'de> for AsSerde<OwnedValue> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Cell;
        impl Visitor<'_> for Cell {
            type Value = OwnedValue;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value")
            }
            fn visit_unit<E>(self) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Null)
            }
            fn visit_none<E>(self) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Null)
            }
            fn visit_i64<E>(self, i: i64) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Integer(i))
            }
            fn visit_u64<E>(self, u: u64) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Integer(u.cast_signed()))
            }
            fn visit_f64<E>(self, r: f64) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Real(r))
            }
            fn visit_str<E>(self, t: &str) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Text(t.as_bytes().into()))
            }
            fn visit_string<E>(self, t: String) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Text(t.into_bytes().into()))
            }
            fn visit_bytes<E>(self, b: &[u8]) -> Result<OwnedValue, E> {
                Ok(OwnedValue::Blob(b.into()))
            }
        }
        d.deserialize_any(Cell).map(AsSerde)
    }
}
