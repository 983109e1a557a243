//! `harmonylite diagnose`: what somebody who helps needs to see, in one file.
//!
//! ```text
//!   parts (each collected by itself, each with its bound) ─▶ secrets taken out ─▶ tar, gzip, owner-only
//! ```
//!
//! Invariants: no secret of the configuration and no value or key of a row is in a bundle; what cannot be collected is said in its place and keeps nothing
//! else out; every part, and the whole, has its bound; the file is its owner's alone and appears when it is whole.

mod database;
mod logs;
mod scrub;
mod service;
mod system;

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::config::Config;
use crate::control::lock;
use crate::runtime::moment;
use scrub::Scrub;

/// Bytes of one part, and of the parts together. What is longer loses its beginning: the end of a log tells more.
const PART: usize = 2 << 20;
const WHOLE: usize = 24 << 20;

/// How long one thing may take that is asked of somebody else.
const ASK: Duration = Duration::from_secs(10);

/// A bundle that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("could not write the bundle {}: {source}; give another place with -o FILE", path.display())]
pub struct BundleError {
    /// The bundle.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// A file of the bundle.
#[derive(Debug)]
struct Part {
    name: String,
    about: &'static str,
    text: String,
}

/// What is put together.
#[derive(Debug, Default)]
pub struct Bundle {
    parts: Vec<Part>,
    scrub: Scrub,
}

impl Bundle {
    /// One with this in it already: the report of the doctor, for people and for programs.
    #[must_use]
    pub fn new(report: String, json: String) -> Self {
        let mut bundle = Self::default();
        bundle.add("doctor.txt", "the report of harmonylite doctor", report);
        bundle.add("doctor.json", "the same for programs", json);
        bundle
    }

    fn add(&mut self, name: impl Into<String>, about: &'static str, text: impl Into<String>) {
        self.parts.push(Part {
            name: name.into(),
            about,
            text: text.into(),
        });
    }

    /// Collects all that there is. `file`: the configuration file; `faults`: why it does not load, where it does not.
    pub fn collect(
        &mut self,
        config: Option<&Config>,
        file: Option<&Path>,
        faults: Option<String>,
    ) {
        self.scrub = config.map(Scrub::of).unwrap_or_default();
        self.add(
            "configuration.txt",
            "every key as it counts, secrets left out, and which keys the file sets",
            configuration(config, file, faults.as_deref()),
        );
        self.add(
            "system.txt",
            "operating system, memory, disks",
            system::about(config),
        );
        let Some(config) = config else {
            return;
        };
        let daemon = lock::holder(&config.db_path).ok().flatten();
        let pid = daemon.and_then(|d| d.pid());
        if let Some(pid) = pid {
            self.scrub.add_of_daemon(pid);
        }
        self.add(
            "version.txt",
            "versions of harmonylite, SQLite and nats-server",
            service::versions(config),
        );
        self.add(
            "process.txt",
            "the daemon's process: limits, memory, open files, names of variables",
            system::process(pid),
        );
        self.add(
            "files.txt",
            "the files beside the database: names, sizes, modes, owners",
            system::files(config),
        );
        for (name, about, text) in database::all(config) {
            self.add(name, about, text);
        }
        for (name, about, text) in service::all(config) {
            self.add(name, about, text);
        }
        for (name, about, text) in logs::all(file, pid) {
            self.add(name, about, text);
        }
    }

    /// Writes the bundle. Returns its size in bytes.
    ///
    /// # Errors
    /// [`BundleError`]; nothing stays then.
    pub fn write(mut self, to: &Path) -> Result<u64, BundleError> {
        let fault = |source| BundleError {
            path: to.to_owned(),
            source,
        };
        for part in &mut self.parts {
            part.text = tail(self.scrub.clean(std::mem::take(&mut part.text)), PART);
        }
        let mut room = WHOLE;
        for part in &mut self.parts {
            part.text = tail(std::mem::take(&mut part.text), room);
            room = room.saturating_sub(part.text.len());
        }
        self.parts.insert(
            0,
            Part {
                name: "README.txt".to_owned(),
                about: "this list",
                text: String::new(),
            },
        );
        let readme = self.readme();
        if let Some(first) = self.parts.first_mut() {
            first.text = readme;
        }
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Its mode is its owner's alone.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fault)?;
        self.pack(&mut file).map_err(fault)?;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o600))
            .map_err(fault)?;
        file.as_file().sync_all().map_err(fault)?;
        let size = file.as_file().metadata().map_err(fault)?.len();
        file.persist_noclobber(to).map_err(|e| fault(e.error))?;
        Ok(size)
    }

    fn pack(&self, to: &mut impl io::Write) -> io::Result<()> {
        let mut tar = tar::Builder::new(GzEncoder::new(to, Compression::default()));
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        for part in &self.parts {
            let mut header = tar::Header::new_gnu();
            header.set_size(part.text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(u64::try_from(now).unwrap_or_default());
            let name = format!("{FOLDER}/{}", part.name);
            tar.append_data(&mut header, name, part.text.as_bytes())?;
        }
        io::Write::flush(tar.into_inner()?.finish()?)
    }

    fn readme(&self) -> String {
        let mut text = format!(
            "What harmonylite diagnose {} has collected, {}.\n\n",
            env!("CARGO_PKG_VERSION"),
            moment::now()
        );
        for part in &self.parts {
            let size = if part.name == "README.txt" {
                String::new()
            } else {
                part.text.len().to_string()
            };
            // Writing to memory cannot fail.
            let _ = writeln!(text, "{:<24} {size:>9}  {}", part.name, part.about);
        }
        text.push_str(
            "\nBefore you send it to anybody, look through it. Left out are passwords, keys, tokens and logins of the configuration, the values and keys of\n\
             rows, and the values of environment variables. In it are: names of tables and columns and the statements that made them (a DEFAULT or a CHECK may\n\
             hold a value), paths, host names, addresses, user names, names of processes, and the daemon's log, in which there may be lines of other programs\n\
             where they share its standard error.\n",
        );
        text
    }
}

/// The folder in the bundle.
const FOLDER: &str = "harmonylite-diagnose";

/// The name of a bundle where none is given.
#[must_use]
pub fn usual_name() -> PathBuf {
    format!("{FOLDER}-{}.tar.gz", moment::compact()).into()
}

/// The end of a text, from the beginning of a line, and that its beginning is not there.
fn tail(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let mut from = text.len() - most;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let kept = text.get(from..).unwrap_or_default();
    let kept = kept.split_once('\n').map_or(kept, |(_, rest)| rest);
    format!(
        "[{} bytes are left out here]\n{kept}",
        text.len() - kept.len()
    )
}

/// Every key as it counts. Redaction is by type: what is secret has no form that could be shown.
fn configuration(config: Option<&Config>, file: Option<&Path>, faults: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(faults) = faults {
        let _ = writeln!(text, "It does not load:\n{faults}\n");
    }
    match file {
        None => text.push_str("No file was given.\n"),
        Some(path) => {
            let _ = writeln!(text, "{} sets, by line:", path.display());
            match crate::config::keys_in(path) {
                Ok(keys) => {
                    for (key, line) in keys {
                        let _ = writeln!(text, "{line:>6}  {key}");
                    }
                }
                Err(fault) => {
                    let _ = writeln!(text, "        {fault}");
                }
            }
        }
    }
    if let Some(config) = config {
        let _ = writeln!(
            text,
            "\nWhat counts, with flags, environment and credentials on top:\n{config:#?}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_keeps_its_end_from_a_line_on() {
        assert_eq!(tail("a\nb\n".to_owned(), 4), "a\nb\n");
        assert_eq!(
            tail("first\nsecond\nthird\n".to_owned(), 9),
            "[13 bytes are left out here]\nthird\n"
        );
        // Between two characters.
        assert!(tail("\u{fc}\u{fc}\u{fc}".to_owned(), 3).ends_with('\u{fc}'));
    }

    #[test]
    fn a_bundle_is_its_owners_alone_and_never_replaces_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.tar.gz");
        let bundle = || Bundle::new("report".to_owned(), "{}".to_owned());
        let size = bundle().write(&path).unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(
            (metadata.len(), metadata.permissions().mode() & 0o777),
            (size, 0o600)
        );
        let error = bundle().write(&path).unwrap_err().to_string();
        assert!(error.contains("give another place with -o FILE"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
