//! The file that the brakes are kept in.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Set;

/// The version that this program writes, and the newest that it reads.
const VERSION: u64 = 1;

/// What cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum BrakesError {
    /// The file is not what this program writes.
    #[error(
        "{} does not read ({reason}): it says whether publishing or applying is paused or limited on this node; remove it to go on without, then set what you want",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u64,
    #[serde(flatten)]
    set: Set,
}

/// Where those of a database are kept.
pub(super) fn path(database: &Path) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push("-harmonylite.brakes");
    path.into()
}

/// What the file says; nothing is held back where there is none.
pub(super) fn read(path: &Path) -> Result<Set, BrakesError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Set::default()),
        Err(source) => {
            return Err(BrakesError::Io {
                doing: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let damaged = |reason: String| BrakesError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
    if kept.version > VERSION {
        return Err(damaged(format!(
            "it is of version {}, and this program knows up to {VERSION}",
            kept.version
        )));
    }
    Ok(kept.set)
}

/// Writes the file, or removes it where nothing is held back.
pub(super) fn write(path: &Path, set: &Set) -> Result<(), BrakesError> {
    let io = |doing| {
        move |source| BrakesError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if *set == Set::default() {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io("remove")(e)),
            _ => {}
        }
    } else {
        let kept = Kept {
            version: VERSION,
            set: set.clone(),
        };
        // Texts and numbers always have a JSON form.
        let bytes = serde_json::to_vec(&kept).unwrap_or_default();
        let mut file = tempfile::Builder::new()
            .prefix(".brakes")
            .tempfile_in(folder)
            .map_err(io("write"))?;
        file.write_all(&bytes).map_err(io("write"))?;
        file.as_file().sync_all().map_err(io("write"))?;
        file.persist(path).map_err(|e| io("write")(e.error))?;
    }
    // The name is on the disk too before anybody is told.
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io("keep"))
}
