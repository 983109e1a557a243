//! Quoting, so that any name and any text is safe inside SQL.

/// A name as an SQL identifier.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as a comma-separated list of identifiers.
#[must_use]
pub fn quote_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let parts: Vec<String> = names.into_iter().map(quote).collect();
    parts.join(", ")
}

/// The quoted name that the text begins with, and what follows it.
#[must_use]
pub fn quoted(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('"')?;
    let mut name = String::new();
    let mut chars = body.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            return Some((name, body.get(at + 1..)?));
        }
    }
    None
}

/// A text as an SQL string literal.
#[must_use]
pub fn text(s: &str) -> String {
    format!("'{}'", s.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes() {
        assert_eq!(super::quote("a\"b c"), "\"a\"\"b c\"");
        assert_eq!(super::quote_list(["x", "select"]), "\"x\", \"select\"");
        assert_eq!(super::text("it's"), "'it''s'");
    }
}
