//! What is known of a snapshot: a small JSON object beside it, written last.

use serde::{Deserialize, Serialize};

use crate::change::history::History;
use crate::change::position::Sequence;
use crate::state::node::Position;

/// The format that this program writes and reads.
pub const FORMAT: u32 = 1;

/// How the names of snapshots begin.
const PREFIX: &str = "snapshot-";

/// A snapshot's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The manifest's format.
    pub format: u32,
    /// The object that is the snapshot: an SQLite database.
    pub file: String,
    /// The cluster that it is of.
    pub cluster: String,
    /// The node that made it.
    pub node: String,
    /// The history that its position is of.
    #[serde(default)]
    pub history: History,
    /// How far it has folded the order stream.
    pub sequence: u64,
    /// The hash of the message there, hexadecimal.
    pub hash: String,
    /// The last message that counted.
    pub folded: u64,
    /// The hash of the schema.
    pub schema: String,
    /// Tables that it holds though its maker has none of them, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// When it was made, RFC 3339. For people.
    pub time: String,
    /// The program that made it.
    pub harmonylite: String,
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no manifest.
    #[error("does not read: {0}")]
    Damaged(#[from] serde_json::Error),
    /// A newer program has written it.
    #[error("has format {0}, which this program does not know: upgrade harmonylite on this node")]
    Newer(u32),
    /// It names something that is no snapshot of ours, or not the one of its position.
    #[error("names {0:?}, which is no snapshot of its position")]
    Foreign(String),
}

impl Manifest {
    /// Where a node stands that has restored it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            sequence: Sequence(self.sequence),
            hash: u64::from_str_radix(&self.hash, 16).unwrap_or_default(),
            folded: Sequence(self.folded),
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// See [`ManifestError`].
    pub fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(bytes)?;
        if format > FORMAT {
            return Err(ManifestError::Newer(format));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        // What it names is fetched and, one day, removed: it must be a snapshot, and this one's.
        let named = manifest.file.strip_suffix(".db").and_then(position_in_name);
        if named != Some(Sequence(manifest.sequence)) {
            return Err(ManifestError::Foreign(manifest.file));
        }
        Ok(manifest)
    }

    /// Its bytes.
    #[must_use]
    pub fn write(&self) -> Vec<u8> {
        // Structs of strings and numbers always have a JSON form.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// A new name for a snapshot at this position, without its ending. Names of later positions sort behind.
#[must_use]
pub fn new_name(at: Sequence) -> String {
    format!("{PREFIX}{:020}-{:08x}", at.0, rand::random::<u32>())
}

/// A name without its ending in the form that people read and type: position and random part.
#[must_use]
pub fn short_name(name: &str) -> &str {
    let short = name.strip_prefix(PREFIX).unwrap_or(name);
    let trimmed = short.trim_start_matches('0');
    // Position 0 keeps one of its zeros.
    if trimmed.starts_with('-') {
        let zeros = short.len() - trimmed.len();
        short.get(zeros.saturating_sub(1)..).unwrap_or(short)
    } else {
        trimmed
    }
}

/// The position that a snapshot's or a manifest's name tells; `None` for any other object.
#[must_use]
pub fn position_in_name(name: &str) -> Option<Sequence> {
    let (digits, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
    digits.parse().ok().map(Sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            file: format!("{}.db", new_name(Sequence(12))),
            cluster: "c".to_owned(),
            node: "7".to_owned(),
            history: History { number: 2, id: 3 },
            sequence: 12,
            hash: format!("{:016x}", u64::MAX),
            folded: 11,
            schema: "s".to_owned(),
            absent: vec!["t".to_owned()],
            size: 4096,
            sha256: "0".repeat(64),
            time: "2026-01-01T00:00:00Z".to_owned(),
            harmonylite: "0".to_owned(),
        }
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let m = manifest();
        assert_eq!(Manifest::read(&m.write()).unwrap(), m);
        assert_eq!(m.position().hash, u64::MAX);
        // One that says nothing of it is of the first.
        let mut json: serde_json::Value = serde_json::from_slice(&m.write()).unwrap();
        json.as_object_mut().unwrap().remove("history");
        let read = Manifest::read(json.to_string().as_bytes()).unwrap();
        assert_eq!(read.history, History::FIRST);
    }

    #[test]
    fn what_is_damaged_or_newer_is_told_apart() {
        let bytes = manifest().write();
        assert!(matches!(
            Manifest::read(&bytes[..bytes.len() / 2]),
            Err(ManifestError::Damaged(_))
        ));
        assert!(matches!(
            Manifest::read(b"{\"format\":2,\"what\":1}"),
            Err(ManifestError::Newer(2))
        ));
    }

    #[test]
    fn a_manifest_names_a_snapshot_of_its_position_and_nothing_else() {
        for file in ["latest.db", "../app.db", "snapshot-12.db", "x", ""] {
            let m = Manifest {
                file: file.to_owned(),
                ..manifest()
            };
            assert!(
                matches!(Manifest::read(&m.write()), Err(ManifestError::Foreign(f)) if f == file)
            );
        }
        let other = Manifest {
            sequence: 13,
            ..manifest()
        };
        assert!(matches!(
            Manifest::read(&other.write()),
            Err(ManifestError::Foreign(_))
        ));
    }

    #[test]
    fn names_sort_by_position() {
        let (a, b) = (new_name(Sequence(9)), new_name(Sequence(10)));
        assert!(a < b);
        assert_eq!(position_in_name(&b), Some(Sequence(10)));
        assert_eq!(position_in_name("latest.db"), None);
        assert_eq!(short_name(&a).split_once('-').unwrap().0, "9");
        let zero = new_name(Sequence(0));
        assert_eq!(short_name(&zero).len(), "0-01234567".len(), "{zero}");
    }
}
