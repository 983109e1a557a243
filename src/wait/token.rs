//! Position tokens: a place in the order stream, as text that an app can carry from one node to another.
//!
//! Invariant: a token says which stream it is of, so that one of another cluster, or of a stream that was made anew, is refused at once
//! instead of being waited for in vain.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::Xxh3;

use crate::change::history::History;
use crate::change::position::Sequence;

/// Which stream a position is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamIdentity(u64);

impl StreamIdentity {
    /// Of the stream `name` that was made at `created` (nanoseconds since 1970), in this history: a stream made anew under its name is another, and so are the
    /// positions of another history.
    #[must_use]
    pub fn new(name: &str, created: u64, history: History) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&created.to_le_bytes());
        if history != History::FIRST {
            hash.update(&history.number.to_le_bytes());
            hash.update(&history.id.to_le_bytes());
        }
        hash.update(name.as_bytes());
        Self(hash.digest())
    }
}

impl fmt::Display for StreamIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The stream.
    pub stream: StreamIdentity,
    /// The place: everything up to this message.
    pub sequence: Sequence,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stream, self.sequence)
    }
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{shown:?} is no position: give what `harmonylite position` or GET /position returned, 16 hexadecimal digits, a dash and a number"
)]
pub struct NoToken {
    shown: String,
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        /// What of a wrong text is repeated, in characters.
        const SHOWN: usize = 64;
        let parsed = || {
            let (stream, sequence) = text.split_once('-')?;
            let digits = |s: &str, ok: fn(&u8) -> bool| s.bytes().all(|b| ok(&b));
            (stream.len() == 16
                && digits(stream, u8::is_ascii_hexdigit)
                && digits(sequence, u8::is_ascii_digit))
            .then_some(())?;
            Some(Self {
                stream: StreamIdentity(u64::from_str_radix(stream, 16).ok()?),
                sequence: Sequence(sequence.parse().ok()?),
            })
        };
        parsed().ok_or_else(|| NoToken {
            shown: text.chars().take(SHOWN).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_as_text_and_tells_streams_apart() {
        let stream = StreamIdentity::new(
            "harmonylite-changes-1",
            1_790_000_000_000_000_000,
            History::FIRST,
        );
        let token = Token {
            stream,
            sequence: Sequence(1284),
        };
        let text = token.to_string();
        assert_eq!(text.len(), 21);
        assert_eq!(text.parse(), Ok(token));
        assert_eq!(text.to_uppercase().parse(), Ok(token));
        for other in [
            StreamIdentity::new("harmonylite-changes-1", 1, History::FIRST),
            StreamIdentity::new(
                "harmonylite-changes-1",
                1_790_000_000_000_000_000,
                History { number: 2, id: 0 },
            ),
            StreamIdentity::new("other-1", 1_790_000_000_000_000_000, History::FIRST),
        ] {
            assert_ne!(other, stream);
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "5",
            "-5",
            "0123456789abcdef",
            "0123456789abcdef-",
            "0123456789abcdef-+5",
            "+123456789abcdef-5",
            "0123456789abcdef-18446744073709551616",
            "0123456789abcdef-5 ",
        ] {
            let refused = text.parse::<Token>().unwrap_err().to_string();
            assert!(refused.contains("is no position"), "{refused}");
        }
    }
}
