//! Where the lock and the control socket of a database are.
//!
//! Invariants: every spelling of one database (relative, through symbolic links) leads to the same files; the
//! database itself is looked up and never opened.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// As many links as Linux follows in one path.
const LINKS: usize = 40;

/// Why no lock or socket can belong to a path.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The path ends in no file name, or names a folder.
    #[error("{} is a folder, not a database file: give the path of the SQLite database", .0.display())]
    NotAFile(PathBuf),
    /// The database's folder is not there.
    #[error("the folder {} does not exist: create it, or correct db_path", .0.display())]
    NoFolder(PathBuf),
    /// The path cannot be followed.
    #[error("the path {} cannot be followed: correct db_path, or the owner and mode of its folders", .path.display())]
    Unreachable {
        /// As given.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
}

/// The files of ours beside a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Paths {
    /// The database, absolute, without symbolic links.
    pub(super) database: PathBuf,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The lock file.
    pub(super) lock: PathBuf,
    /// The control socket.
    pub(super) socket: PathBuf,
    /// What the socket is called until it listens: short enough for any socket address, hidden, and the
    /// same at each start, so that a crash leaves at most one.
    pub(super) new_socket: OsString,
}

impl Paths {
    /// The files of the database at `db_path`, which need not exist yet.
    pub(super) fn of(db_path: &Path) -> Result<Self, PathError> {
        let database = follow(db_path)?;
        if fs::metadata(&database).is_ok_and(|found| found.is_dir()) {
            return Err(PathError::NotAFile(db_path.to_owned()));
        }
        let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else {
            return Err(PathError::NotAFile(db_path.to_owned()));
        };
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_encoded_bytes());
        Ok(Self {
            folder: folder.to_owned(),
            lock: folder.join(joined(name, "-harmonylite.lock")),
            socket: folder.join(joined(name, "-harmonylite.sock")),
            new_socket: format!(".harmonylite-{hash:016x}.sock").into(),
            database,
        })
    }
}

fn joined(name: &OsStr, suffix: &str) -> OsString {
    let mut whole = name.to_owned();
    whole.push(suffix);
    whole
}

/// The absolute path without symbolic links. The last of them may lead to a file that is still missing:
/// SQLite would create the database there.
fn follow(db_path: &Path) -> Result<PathBuf, PathError> {
    let unreachable = |source| PathError::Unreachable {
        path: db_path.to_owned(),
        source,
    };
    let mut path = db_path.to_owned();
    for _ in 0..LINKS {
        match fs::canonicalize(&path) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreachable(error)),
        }
        let Some(name) = path.file_name() else {
            return Err(PathError::NotAFile(db_path.to_owned()));
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let folder = fs::canonicalize(folder).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PathError::NoFolder(folder.to_owned()),
            _ => unreachable(error),
        })?;
        let whole = folder.join(name);
        match fs::read_link(&whole) {
            Ok(target) => path = folder.join(target),
            Err(_) => return Ok(whole),
        }
    }
    Err(unreachable(io::Error::from(nix::errno::Errno::ELOOP)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_spelling_of_a_database_has_the_same_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("data")).unwrap();
        symlink(root.join("data"), root.join("other")).unwrap();
        symlink("data/app.db", root.join("link.db")).unwrap();
        let spellings = ["data/app.db", "other/app.db", "data/../link.db", "link.db"];
        // First while the database is missing, then with it in place.
        for _ in 0..2 {
            let first = Paths::of(&root.join("data/app.db")).unwrap();
            for spelling in spellings {
                assert_eq!(Paths::of(&root.join(spelling)).unwrap(), first);
            }
            assert!(first.lock.ends_with("data/app.db-harmonylite.lock"));
            assert!(first.socket.ends_with("data/app.db-harmonylite.sock"));
            fs::write(root.join("data/app.db"), "").unwrap();
        }
    }

    #[test]
    fn what_cannot_be_a_database_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        symlink("loop.db", root.join("loop.db")).unwrap();
        let refused = |path: &Path| Paths::of(path).unwrap_err().to_string();
        assert!(
            refused(root).ends_with(
                "is a folder, not a database file: give the path of the SQLite database"
            )
        );
        assert!(
            refused(&root.join("none/app.db"))
                .ends_with("none does not exist: create it, or correct db_path")
        );
        assert!(refused(&root.join("loop.db")).contains("loop.db cannot be followed"));
    }
}
