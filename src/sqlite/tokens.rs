//! Cuts SQL into tokens, as far as it takes to find words outside of quotes and comments.

/// Where a token stands in its text, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// Its first byte.
    pub start: usize,
    /// The byte behind its last.
    pub end: usize,
}

impl Token {
    /// Its text.
    #[must_use]
    pub fn text(self, sql: &str) -> &str {
        sql.get(self.start..self.end).unwrap_or("")
    }

    /// Whether it is this word, unquoted, in any case.
    #[must_use]
    pub fn is_word(self, sql: &str, word: &str) -> bool {
        self.text(sql).eq_ignore_ascii_case(word)
    }
}

/// Words, quoted things and single marks; spaces and comments fall away. A name with what it is of (`new.body`) is one word. `None`: a quote does not end.
#[must_use]
pub fn tokens(sql: &str) -> Option<Vec<Token>> {
    let b = sql.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while let Some(&c) = b.get(i) {
        let start = i;
        match c {
            c if c.is_ascii_whitespace() => {
                i += 1;
                continue;
            }
            b'-' if b.get(i + 1) == Some(&b'-') => {
                i = b
                    .iter()
                    .skip(i)
                    .position(|&x| x == b'\n')
                    .map_or(b.len(), |p| i + p);
                continue;
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                i = sql
                    .get(i + 2..)?
                    .find("*/")
                    .map_or(b.len(), |p| i + 2 + p + 2);
                continue;
            }
            b'\'' | b'"' | b'`' => {
                i += 1;
                loop {
                    match b.get(i) {
                        None => return None,
                        Some(&x) if x == c && b.get(i + 1) == Some(&c) => i += 2,
                        Some(&x) if x == c => break,
                        Some(_) => i += 1,
                    }
                }
                i += 1;
            }
            b'[' => i = sql.get(i..)?.find(']').map(|p| i + p + 1)?,
            c if c.is_ascii_alphanumeric() || c == b'_' || c == b'$' || c >= 0x80 => {
                while b.get(i).is_some_and(|&x| {
                    x.is_ascii_alphanumeric() || x == b'_' || x == b'$' || x >= 0x80 || x == b'.'
                }) {
                    i += 1;
                }
            }
            _ => i += 1,
        }
        out.push(Token { start, end: i });
    }
    Some(out)
}

/// The name that a token stands for, without its quotes.
#[must_use]
pub fn unquote(token: &str) -> String {
    let inside = |close: char| {
        let bare = token.get(1..token.len().saturating_sub(1)).unwrap_or("");
        bare.replace(&format!("{close}{close}"), &close.to_string())
    };
    match token.chars().next() {
        Some(quote @ ('"' | '`' | '\'')) => inside(quote),
        Some('[') => inside(']'),
        _ => token.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_and_marks() {
        let sql = "a -- it's\n 'b''c' [d e] \"f\"\"\" /* ; */ new.x;é";
        let found = tokens(sql).unwrap();
        let texts: Vec<&str> = found.iter().map(|t| t.text(sql)).collect();
        assert_eq!(
            texts,
            ["a", "'b''c'", "[d e]", "\"f\"\"\"", "new.x", ";", "é"]
        );
        assert!(tokens("'open").is_none());
        let names: Vec<String> = texts.iter().skip(1).take(3).map(|t| unquote(t)).collect();
        assert_eq!(names, ["b'c", "d e", "f\""]);
    }
}
