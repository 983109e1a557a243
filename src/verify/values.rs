//! Values as bytes, exact in storage class and content: what digests are made of, and how keys travel between nodes.

use std::cmp::Ordering;

use xxhash_rust::xxh3::xxh3_128;

use crate::change::value::{OwnedValue, Value};

/// Larger values stand in a digest by their own hash, so that a row's buffer stays small.
const LARGE: usize = 4096;

/// Appends a value.
fn push(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::Null => out.push(0),
        Value::Integer(i) => {
            out.push(1);
            out.extend_from_slice(&i.to_le_bytes());
        }
        Value::Real(r) => {
            out.push(2);
            out.extend_from_slice(&r.to_bits().to_le_bytes());
        }
        Value::Text(t) => push_bytes(out, 3, t),
        Value::Blob(b) => push_bytes(out, 4, b),
    }
}

fn push_bytes(out: &mut Vec<u8>, class: u8, bytes: &[u8]) {
    out.push(class);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends what a digest sees of a value: two values give the same bytes exactly when SQLite stores the same.
pub fn push_for_digest(out: &mut Vec<u8>, value: &Value<'_>) {
    match *value {
        Value::Text(t) if t.len() > LARGE => push_large(out, 5, t),
        Value::Blob(b) if b.len() > LARGE => push_large(out, 6, b),
        _ => push(out, value),
    }
}

fn push_large(out: &mut Vec<u8>, class: u8, bytes: &[u8]) {
    out.push(class);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(&xxh3_128(bytes).to_le_bytes());
}

/// A key as bytes.
pub fn encode<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        push(&mut out, &value);
    }
    out
}

/// A key from its bytes; `None` where they are none.
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Option<Vec<OwnedValue>> {
    let mut out = Vec::new();
    while let Some((class, rest)) = bytes.split_first() {
        bytes = rest;
        out.push(match class {
            0 => OwnedValue::Null,
            1 => OwnedValue::Integer(i64::from_le_bytes(take_8(&mut bytes)?)),
            2 => OwnedValue::Real(f64::from_bits(u64::from_le_bytes(take_8(&mut bytes)?))),
            3 => OwnedValue::Text(take_bytes(&mut bytes)?),
            4 => OwnedValue::Blob(take_bytes(&mut bytes)?),
            _ => return None,
        });
    }
    Some(out)
}

fn take_8(bytes: &mut &[u8]) -> Option<[u8; 8]> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(*head)
}

fn take_bytes(bytes: &mut &[u8]) -> Option<Box<[u8]>> {
    let length = usize::try_from(u64::from_le_bytes(take_8(bytes)?)).ok()?;
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head.into())
}

/// How SQLite orders values by bytes: NULL, numbers, text, blobs.
fn compare_values(a: &OwnedValue, b: &OwnedValue) -> Ordering {
    use OwnedValue::{Blob, Integer, Null, Real, Text};
    let class = |v: &OwnedValue| match v {
        Null => 0,
        Integer(_) | Real(_) => 1,
        Text(_) => 2,
        Blob(_) => 3,
    };
    class(a).cmp(&class(b)).then_with(|| match (a, b) {
        (Integer(a), Integer(b)) => a.cmp(b),
        (Real(a), Real(b)) => a.total_cmp(b),
        // Only for people: a difference below the precision of a real does not matter.
        (Integer(a), Real(b)) => (*a as f64).total_cmp(b),
        (Real(a), Integer(b)) => a.total_cmp(&(*b as f64)),
        (Text(a), Text(b)) | (Blob(a), Blob(b)) => a.cmp(b),
        _ => Ordering::Equal,
    })
}

/// Orders keys as SQLite does, for people.
#[must_use]
pub fn compare(a: &[OwnedValue], b: &[OwnedValue]) -> Ordering {
    a.iter()
        .zip(b)
        .map(|(a, b)| compare_values(a, b))
        .find(|o| o.is_ne())
        .unwrap_or_else(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Value<'static>> {
        vec![
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Integer(1),
            Value::Real(1.0),
            Value::Real(0.0),
            Value::Real(-0.0),
            Value::Text(b""),
            Value::Text(b"a\0"),
            Value::Text(b"\xff"),
            Value::Blob(b""),
            Value::Blob(b"a\0"),
        ]
    }

    #[test]
    fn keys_come_back_to_the_bit() {
        let bytes = encode(all());
        let back = decode(&bytes).unwrap();
        assert_eq!(back.len(), all().len());
        for (a, b) in back.iter().zip(all()) {
            assert!(a.as_value().same_bytes(&b), "{a:?} {b:?}");
        }
        assert!(decode(&bytes[..bytes.len() - 1]).is_none());
        assert!(decode(&[3, 255, 255, 255, 255, 255, 255, 255, 255]).is_none());
        assert!(decode(&[9]).is_none());
    }

    #[test]
    fn digests_see_storage_class_and_every_byte() {
        let long = vec![b'x'; LARGE + 1];
        let mut other = long.clone();
        other[LARGE] = b'y';
        let mut values = all();
        values.extend([
            Value::Text(&long),
            Value::Blob(&long),
            Value::Text(&other),
            Value::Text(&long[..LARGE]),
        ]);
        let seen: std::collections::HashSet<Vec<u8>> = values
            .iter()
            .map(|v| {
                let mut out = Vec::new();
                push_for_digest(&mut out, v);
                assert!(out.len() <= LARGE + 9);
                out
            })
            .collect();
        assert_eq!(seen.len(), values.len());
    }

    #[test]
    fn keys_are_in_the_order_of_the_index() {
        let key = |v: Value<'_>| vec![v.to_owned()];
        let sorted = [
            key(Value::Null),
            key(Value::Integer(-5)),
            key(Value::Real(-0.5)),
            key(Value::Integer(3)),
            key(Value::Text(b"A")),
            key(Value::Text(b"a")),
            key(Value::Blob(b"")),
        ];
        assert!(sorted.is_sorted_by(|a, b| compare(a, b).is_lt()));
    }
}
