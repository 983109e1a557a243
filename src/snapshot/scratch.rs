//! Database files of ours beside the app's: copies on their way to the store and back.
//!
//! Invariants: such a file goes with its [`Scratch`]; what a killed process has left is removed at the next start on the same database, and no file of a
//! living process or of another database in the same folder ever is.

use std::path::{Path, PathBuf};

/// How the names of such files begin: `.harmonylite-<database>-<process id>-<what>-<random>.db`.
const PREFIX: &str = ".harmonylite-";

/// What SQLite puts beside a database.
const SUFFIXES: [&str; 4] = ["", "-journal", "-wal", "-shm"];

/// What follows the name of a file whose download is not whole.
const DOWNLOAD: &str = ".download-";

/// A file that goes with this value.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A name for a file that does not exist yet, beside `database`; `what` is letters only.
    #[must_use]
    pub fn new(database: &Path, what: &str) -> Self {
        Self(folder(database).join(format!(
            "{}{}-{what}-{:08x}.db",
            prefix(database),
            std::process::id(),
            rand::random::<u32>()
        )))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for suffix in SUFFIXES {
            let mut name = self.0.as_os_str().to_owned();
            name.push(suffix);
            let _ = std::fs::remove_file(name);
        }
    }
}

fn folder(database: &Path) -> &Path {
    match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn prefix(database: &Path) -> String {
    let name = database.file_name().unwrap_or_default().to_string_lossy();
    format!("{PREFIX}{name}-")
}

/// The process that has made a file with this name for the database; `None` where it is something else.
fn maker(prefix: &str, name: &str) -> Option<u32> {
    let rest = name.strip_prefix(prefix)?;
    let rest = rest.split_once(DOWNLOAD).map_or(rest, |(whole, _)| whole);
    let rest = SUFFIXES
        .iter()
        .find_map(|suffix| rest.strip_suffix(&format!(".db{suffix}")))?;
    let mut parts = rest.split('-');
    let (pid, what, random) = (parts.next()?, parts.next()?, parts.next()?);
    let letters = what.bytes().all(|b| b.is_ascii_lowercase()) && !what.is_empty();
    let hex = random.len() == 8 && random.bytes().all(|b| b.is_ascii_hexdigit());
    (letters && hex && parts.next().is_none())
        .then(|| pid.parse().ok())
        .flatten()
}

/// Removes what killed processes have left beside `database`. For a daemon's start, when this process has made none. Returns how many went.
///
/// # Errors
/// The folder's.
pub fn sweep(database: &Path) -> std::io::Result<usize> {
    let prefix = prefix(database);
    let mut removed = 0;
    for entry in std::fs::read_dir(folder(database))? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = maker(&prefix, &name.to_string_lossy()) else {
            continue;
        };
        // In a container every start has the same id.
        let lives = pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists();
        if !lives && std::fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_for_this_database_goes() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        // No process has such an id.
        let dead = u32::MAX;
        let living = 1;
        let gone = [
            format!(".harmonylite-app.db-{dead}-snapshot-0123abcd.db"),
            format!(".harmonylite-app.db-{dead}-verify-0123abcd.db-journal"),
            format!(".harmonylite-app.db-{dead}-verify-0123abcd.db.download-x9Y"),
            format!(
                ".harmonylite-app.db-{}-restore-0123abcd.db",
                std::process::id()
            ),
        ];
        let stays = [
            format!(".harmonylite-app.db-{living}-snapshot-0123abcd.db"),
            format!(".harmonylite-app.db-2-{dead}-snapshot-0123abcd.db"),
            format!(".harmonylite-other.db-{dead}-snapshot-0123abcd.db"),
            ".harmonylite-app.db-old.db".to_owned(),
            "app.db".to_owned(),
            ".app.db.download-abc".to_owned(),
        ];
        for name in gone.iter().chain(&stays) {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(sweep(&database).unwrap(), gone.len());
        for name in &stays {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        let mine = Scratch::new(&database, "snapshot");
        let name = mine
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        assert_eq!(maker(&prefix(&database), &name), Some(std::process::id()));
    }
}
