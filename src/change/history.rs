//! Which history of the log a position is of. A cluster begins with the first; when the broker has lost what nodes have folded already, the nodes agree on the
//! next.

use std::fmt;
use std::str::FromStr;

/// A history: its number, and a random id that tells it from one of the same number that was proposed elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct History {
    /// From 1, rising.
    pub number: u64,
    /// 0 for the one that a cluster begins with.
    pub id: u64,
}

impl History {
    /// The one that a cluster begins with.
    pub const FIRST: Self = Self { number: 1, id: 0 };
}

impl Default for History {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.id)
    }
}

impl FromStr for History {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (number, id) = text.split_once('-').ok_or(())?;
        let number = number.parse().map_err(drop)?;
        let id = u64::from_str_radix(id, 16).map_err(drop)?;
        (number > 0).then_some(Self { number, id }).ok_or(())
    }
}

impl serde::Serialize for History {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for History {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        text.parse().map_err(|()| {
            serde::de::Error::invalid_value(
                serde::de::Unexpected::Str(&text),
                &"a number, a dash and 16 hexadecimal digits",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_survives_as_text_and_the_first_is_before_all_others() {
        let second = History { number: 2, id: 255 };
        assert_eq!(second.to_string(), "2-00000000000000ff");
        assert_eq!(second.to_string().parse(), Ok(second));
        let json = serde_json::to_string(&second).unwrap();
        assert_eq!(serde_json::from_str::<History>(&json).unwrap(), second);
        assert!(History::default() < second);
        for text in ["", "2", "0-00", "x-00", "2-x"] {
            assert_eq!(text.parse::<History>(), Err(()), "{text}");
        }
    }
}
