//! The sequence map file (`seq_map_path`): for each shard the sequence up to which everything is folded, for people and tools.
//!
//! Invariants: it mirrors what the database says and decides nothing but one question: removing it asks for a full recovery. It is
//! replaced in one step, so that a reader sees the old map or the new one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use minicbor::{Decode, Encode};

use crate::change::position::Sequence;
use crate::codec::bounds;

/// The version that this program writes.
pub const VERSION: u64 = 1;

/// The map.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SequenceMap {
    /// The format.
    #[n(0)]
    pub version: u64,
    /// The node, as text: ids are unsigned 64-bit numbers, which many tools cannot hold.
    #[n(1)]
    pub node_id: String,
    /// The database it belongs to.
    #[n(2)]
    pub database_id: String,
    /// By shard. A position is one number, that of the order stream (shard 1): its records say where everything else is.
    #[n(3)]
    pub sequences: BTreeMap<u64, Sequence>,
}

/// Why there is no map to be had.
#[derive(Debug, thiserror::Error)]
pub enum SequenceMapError {
    /// The file cannot be read or written.
    #[error("could not {doing} the sequence map {}: {source}", path.display())]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The file is no sequence map.
    #[error("the sequence map {} is damaged ({reason}): it is written anew from the positions in the database", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The file is of a newer program.
    #[error("the sequence map {} has format {found}, this program knows formats up to {VERSION}: upgrade harmonylite on this node", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
}

/// Reads the map; `None` where there is no file.
///
/// # Errors
/// See [`SequenceMapError`].
pub fn read(path: &Path) -> Result<Option<SequenceMap>, SequenceMapError> {
    // No honest map is larger: one entry a shard.
    const MAX_BYTES: u64 = 1 << 20;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(SequenceMapError::Io {
                doing: "read",
                path: path.to_owned(),
                source,
            });
        }
    }
    let damaged = |reason: String| SequenceMapError::Damaged {
        path: path.to_owned(),
        reason,
    };
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged("it is far too large".to_owned()));
    }
    let map: SequenceMap =
        bounds::decode(&bytes, bounds::ITEMS_OF_MESSAGE).map_err(|e| damaged(e.to_string()))?;
    if map.version > VERSION {
        return Err(SequenceMapError::Newer {
            path: path.to_owned(),
            found: map.version,
        });
    }
    Ok(Some(map))
}

/// Writes the map: a temporary file, fsync, rename.
///
/// # Errors
/// The system's.
pub fn write(path: &Path, map: &SequenceMap) -> Result<(), SequenceMapError> {
    let io = |source| SequenceMapError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    };
    // Writing CBOR to memory cannot fail.
    let bytes = minicbor::to_vec(map).unwrap_or_default();
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".seq-map")
        .tempfile_in(folder)
        .map_err(io)?;
    file.write_all(&bytes).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seq-map.cbor");
        assert!(read(&path).unwrap().is_none());
        let map = SequenceMap {
            version: VERSION,
            node_id: "7".into(),
            database_id: "d".into(),
            sequences: [(1, Sequence(9))].into(),
        };
        write(&path, &map).unwrap();
        assert_eq!(read(&path).unwrap(), Some(map.clone()));
        let whole = std::fs::read(&path).unwrap();
        for bytes in [&b""[..], b"garbage", &whole[..whole.len() - 1]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(
                matches!(read(&path), Err(SequenceMapError::Damaged { .. })),
                "{bytes:?}"
            );
        }
        write(
            &path,
            &SequenceMap {
                version: VERSION + 1,
                ..map
            },
        )
        .unwrap();
        assert!(matches!(read(&path), Err(SequenceMapError::Newer { .. })));
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }
}
