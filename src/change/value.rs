//! A cell's value, as SQLite stores it: five storage classes, to the bit.
//!
//! Invariant: nothing here guesses a type. Text is bytes, because SQLite stores text that is not UTF-8.

/// A borrowed value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL; never NaN, which SQLite stores as NULL.
    Real(f64),
    /// TEXT, as bytes.
    Text(&'a [u8]),
    /// BLOB
    Blob(&'a [u8]),
}

impl Value<'_> {
    /// Equal in storage class and bytes, so that 1 and 1.0, 0.0 and -0.0, 'a' and 'A' all differ.
    #[must_use]
    pub fn same_bytes(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Integer(a), Value::Integer(b)) => a == b,
            (Self::Real(a), Value::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Value::Text(b)) | (Self::Blob(a), Value::Blob(b)) => a == b,
            _ => false,
        }
    }

    /// Whether this is NULL.
    #[must_use]
    pub const fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// An owned copy.
    #[must_use]
    pub fn to_owned(&self) -> OwnedValue {
        match *self {
            Self::Null => OwnedValue::Null,
            Self::Integer(i) => OwnedValue::Integer(i),
            Self::Real(r) => OwnedValue::Real(r),
            Self::Text(t) => OwnedValue::Text(t.into()),
            Self::Blob(b) => OwnedValue::Blob(b.into()),
        }
    }
}

/// An owned value.
#[derive(Debug, Clone)]
pub enum OwnedValue {
    /// NULL
    Null,
    /// INTEGER
    Integer(i64),
    /// REAL
    Real(f64),
    /// TEXT, as bytes.
    Text(Box<[u8]>),
    /// BLOB
    Blob(Box<[u8]>),
}

impl OwnedValue {
    /// A borrowed view.
    #[must_use]
    pub fn as_value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Integer(i) => Value::Integer(*i),
            Self::Real(r) => Value::Real(*r),
            Self::Text(t) => Value::Text(t),
            Self::Blob(b) => Value::Blob(b),
        }
    }
}

impl PartialEq for OwnedValue {
    fn eq(&self, other: &Self) -> bool {
        self.as_value().same_bytes(&other.as_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_of_bytes() {
        assert!(!Value::Integer(1).same_bytes(&Value::Real(1.0)));
        assert!(!Value::Real(0.0).same_bytes(&Value::Real(-0.0)));
        assert!(!Value::Text(b"a").same_bytes(&Value::Blob(b"a")));
        assert!(Value::Text(b"\xff\0").same_bytes(&Value::Text(b"\xff\0")));
        assert!(!Value::Null.same_bytes(&Value::Blob(b"")));
    }
}
