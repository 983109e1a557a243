//! The name of an object in a store.
//!
//! Invariant: a [`Key`] means the same object in every store: it is one path segment, needs no escape that a server could read
//! differently, is never hidden, and is never the name of an upload under way.

use std::fmt;

/// Leaves room for the name of an upload under way where names end at 143 bytes, as in encrypted folders.
const MAX_LEN: usize = 100;

/// The name of an object, such as `latest.db`: letters, digits and `-_.+=@~,()`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

/// A text that cannot be a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of a snapshot object: use up to 100 letters, digits and -_.+=@~,() and begin with a letter or digit"
)]
pub struct InvalidKey(String);

impl Key {
    /// The key with this name.
    ///
    /// # Errors
    /// [`InvalidKey`].
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidKey> {
        let name = name.into();
        let begins = name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+=@~,()".contains(&b);
        if begins && name.len() <= MAX_LEN && name.bytes().all(plain) && !name.ends_with(PARTIAL) {
            Ok(Self(name))
        } else {
            Err(InvalidKey(name))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name for this object while it is being uploaded; no other upload has it, and no key can.
    pub(super) fn partial(&self) -> String {
        format!(".{}.{:08x}{PARTIAL}", self.0, rand::random::<u32>())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the name of an upload under way ends with.
const PARTIAL: &str = ".harmonylite-part";

/// Whether `name` is that of an upload under way, or of one that was cut off.
pub(super) fn is_partial(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PARTIAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_keys_and_traps_are_not() {
        for good in ["latest.db", "snapshot-1_a+b=c@d~e,(f).db", "9"] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".hidden",
            "..",
            "-x",
            "a/b",
            "a b",
            "a%2f",
            "a?b",
            "ä",
            "a.harmonylite-part",
        ] {
            assert_eq!(Key::new(bad), Err(InvalidKey(bad.to_owned())));
        }
        assert!(Key::new("a".repeat(101)).is_err());
    }

    #[test]
    fn an_upload_under_way_has_a_name_of_its_own() {
        let key = Key::new("latest.db").unwrap();
        assert!(is_partial(&key.partial()));
        assert_ne!(key.partial(), key.partial());
        assert!(!is_partial("latest.db"));
    }
}
