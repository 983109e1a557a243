//! SQL literals of values, exact and printable, for the journals that people read.

use std::fmt::Write as _;

use super::value::Value;

/// The value as an SQL literal that evaluates to the same storage class and bytes.
#[must_use]
pub fn sql_literal(value: &Value<'_>) -> String {
    match *value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(i64::MIN) => "(-9223372036854775807 - 1)".to_owned(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) if r == f64::INFINITY => "9e999".to_owned(),
        Value::Real(r) if r == f64::NEG_INFINITY => "-9e999".to_owned(),
        // `{:?}` is the shortest form that reads back to the same bits, and always has a dot or an exponent.
        Value::Real(r) => format!("{r:?}"),
        Value::Text(t) => match std::str::from_utf8(t) {
            Ok(s) if !s.contains('\0') => format!("'{}'", s.replace('\'', "''")),
            _ => format!("CAST({} AS TEXT)", hex(t)),
        },
        Value::Blob(b) => hex(b),
    }
}

/// Several values, with commas.
#[must_use]
pub fn sql_literals(values: &[Value<'_>]) -> String {
    let parts: Vec<String> = values.iter().map(sql_literal).collect();
    parts.join(", ")
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + 3);
    out.push_str("x'");
    for b in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_exact() {
        assert_eq!(sql_literal(&Value::Text(b"it's")), "'it''s'");
        assert_eq!(
            sql_literal(&Value::Text(b"a\0b")),
            "CAST(x'610062' AS TEXT)"
        );
        assert_eq!(sql_literal(&Value::Blob(b"")), "x''");
        assert_eq!(sql_literal(&Value::Real(1.0)), "1.0");
        assert_eq!(sql_literals(&[Value::Null, Value::Integer(-3)]), "NULL, -3");
    }
}
