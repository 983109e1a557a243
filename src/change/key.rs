//! Row keys in a normal form: two keys have the same bytes here exactly when the table's key index
//! holds them for the same row (`'a'` and `'A'` under NOCASE, 1 and 1.0 in a column without a type).
//!
//! Invariant: the normal form decides only which row is meant; the values that are stored travel beside it.

use smallvec::SmallVec;

use super::value::Value;

/// A key in normal form.
pub type KeyBytes = SmallVec<[u8; 24]>;

/// The collating sequences that SQLite has without help from the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collation {
    /// Bytes.
    Binary,
    /// ASCII letters compare without case.
    NoCase,
    /// Trailing spaces do not count.
    Rtrim,
}

impl Collation {
    /// From its SQL name; `None` for one that only the application knows.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "BINARY" => Some(Self::Binary),
            "NOCASE" => Some(Self::NoCase),
            "RTRIM" => Some(Self::Rtrim),
            _ => None,
        }
    }

    /// Its SQL name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::NoCase => "NOCASE",
            Self::Rtrim => "RTRIM",
        }
    }
}

/// Appends one key value in normal form.
pub fn push_normal(out: &mut KeyBytes, value: &Value<'_>, collation: Collation) {
    match *value {
        Value::Null => out.push(0),
        Value::Integer(i) => push_integer(out, i),
        Value::Real(r) => match whole(r) {
            Some(i) => push_integer(out, i),
            None => {
                out.push(2);
                out.extend_from_slice(&r.to_bits().to_be_bytes());
            }
        },
        Value::Text(t) => {
            out.push(3);
            let kept = match collation {
                Collation::Rtrim => {
                    let end = t.iter().rposition(|&b| b != b' ').map_or(0, |p| p + 1);
                    t.get(..end).unwrap_or(t)
                }
                _ => t,
            };
            push_escaped(out, kept, collation == Collation::NoCase);
        }
        Value::Blob(b) => {
            out.push(4);
            push_escaped(out, b, false);
        }
    }
}

fn push_integer(out: &mut KeyBytes, i: i64) {
    out.push(1);
    out.extend_from_slice(&i.to_be_bytes());
}

/// The integer that a real compares equal to, if there is one.
fn whole(r: f64) -> Option<i64> {
    // 2^63 is the first real above every i64; the casts below are exact inside these bounds.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (r.trunc() == r && (-LIMIT..LIMIT).contains(&r)).then_some(r as i64)
}

/// Length-free, prefix-free bytes: a zero byte is followed by 0xff, the end is two zero bytes.
fn push_escaped(out: &mut KeyBytes, bytes: &[u8], fold_case: bool) {
    for &b in bytes {
        let b = if fold_case { b.to_ascii_lowercase() } else { b };
        out.push(b);
        if b == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(values: &[(Value<'_>, Collation)]) -> KeyBytes {
        let mut out = KeyBytes::new();
        for (v, c) in values {
            push_normal(&mut out, v, *c);
        }
        out
    }

    #[test]
    fn compares_as_the_index_does() {
        use Collation::{Binary, NoCase, Rtrim};
        assert_eq!(
            normal(&[(Value::Integer(1), Binary)]),
            normal(&[(Value::Real(1.0), Binary)])
        );
        assert_eq!(
            normal(&[(Value::Real(-0.0), Binary)]),
            normal(&[(Value::Integer(0), Binary)])
        );
        assert_ne!(
            normal(&[(Value::Real(1.5), Binary)]),
            normal(&[(Value::Integer(1), Binary)])
        );
        assert_ne!(
            normal(&[(Value::Real(9.3e18), Binary)]),
            normal(&[(Value::Integer(i64::MAX), Binary)])
        );
        assert_eq!(
            normal(&[(Value::Text(b"aB"), NoCase)]),
            normal(&[(Value::Text(b"Ab"), NoCase)])
        );
        assert_ne!(
            normal(&[(Value::Text(b"aB"), Binary)]),
            normal(&[(Value::Text(b"Ab"), Binary)])
        );
        assert_eq!(
            normal(&[(Value::Text(b"a  "), Rtrim)]),
            normal(&[(Value::Text(b"a"), Rtrim)])
        );
        assert_ne!(
            normal(&[(Value::Text(b"a"), Binary)]),
            normal(&[(Value::Blob(b"a"), Binary)])
        );
    }

    #[test]
    fn composite_keys_do_not_run_together() {
        use Collation::Binary;
        let ab_c = normal(&[(Value::Text(b"ab"), Binary), (Value::Text(b"c"), Binary)]);
        let a_bc = normal(&[(Value::Text(b"a"), Binary), (Value::Text(b"bc"), Binary)]);
        let zeros = normal(&[(Value::Blob(b"\0"), Binary), (Value::Blob(b""), Binary)]);
        let other = normal(&[(Value::Blob(b""), Binary), (Value::Blob(b"\0"), Binary)]);
        assert_ne!(ab_c, a_bc);
        assert_ne!(zeros, other);
    }
}
