//! Just enough of Rust's grammar to find the texts in a source file: comments are left out, literals are told from code, brackets are matched.

/// A piece of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A name or a number.
    Word(String),
    /// One character of punctuation, brackets among them.
    Sign(char),
    /// A text, as the program has it in memory. Format strings keep their braces.
    Text(String),
}

impl Token {
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w == word)
    }
}

/// The tokens of a file, up to the module of its own tests.
pub fn tokens(source: &str) -> Vec<Token> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            while i < chars.len() && !(chars[i] == '*' && at(i + 1) == '/') {
                i += 1;
            }
            i += 2;
        } else if c == '"' {
            let (text, after) = escaped(&chars, i + 1);
            out.push(Token::Text(text));
            i = after;
        } else if c.is_alphanumeric() || c == '_' {
            let begin = i;
            while at(i).is_alphanumeric() || at(i) == '_' {
                i += 1;
            }
            let word: String = chars[begin..i].iter().collect();
            let hashes = (i..).take_while(|j| at(*j) == '#').count();
            if matches!(word.as_str(), "r" | "br") && at(i + hashes) == '"' {
                let (text, after) = raw(&chars, i + hashes + 1, hashes);
                out.push(Token::Text(text));
                i = after;
            } else if matches!(word.as_str(), "b" | "c") && at(i) == '"' {
                let (_, after) = escaped(&chars, i + 1);
                i = after;
            } else {
                out.push(Token::Word(word));
            }
        } else if c == '\'' {
            // A character, or a lifetime.
            if at(i + 1) == '\\' {
                i += 3;
                while at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            } else if at(i + 2) == '\'' {
                i += 3;
            } else {
                i += 1;
            }
        } else {
            if !c.is_whitespace() {
                out.push(Token::Sign(c));
            }
            i += 1;
        }
    }
    out
}

fn escaped(chars: &[char], mut i: usize) -> (String, usize) {
    let mut text = String::new();
    while chars[i] != '"' {
        if chars[i] != '\\' {
            text.push(chars[i]);
            i += 1;
            continue;
        }
        match chars[i + 1] {
            'n' => text.push('\n'),
            't' => text.push('\t'),
            '\n' => {
                i += 2;
                while chars[i].is_whitespace() {
                    i += 1;
                }
                continue;
            }
            'u' | 'x' => {}
            other => text.push(other),
        }
        i += 2;
    }
    (text, i + 1)
}

fn raw(chars: &[char], begin: usize, hashes: usize) -> (String, usize) {
    let mut i = begin;
    while !(chars[i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'))) {
        i += 1;
    }
    (chars[begin..i].iter().collect(), i + 1 + hashes)
}

/// What stands between the bracket at `open` and the one that closes it.
pub fn inside(tokens: &[Token], open: usize) -> &[Token] {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &tokens[open + 1..i];
        }
    }
    panic!("a bracket is not closed")
}
