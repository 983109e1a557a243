//! Who else may read what is secret: a file that holds a secret is for its owner, or for its owner's group.
//!
//! Invariant: the rights are told of, never changed, and nothing is refused for them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Read, and written, by every user.
const READABLE: u32 = 0o004;
const WRITABLE: u32 = 0o002;

/// A sentence about the file that `key` names, if every user of the machine can read or replace what is secret in it.
pub(super) fn of_secret_file(key: &str, path: &Path) -> Option<String> {
    let what = open_to_all(path)?;
    let path = path.display();
    Some(format!(
        "{key} names {path}, which every user of this machine may {what}: take that right away with chmod o= {path}"
    ))
}

/// The same about the configuration file, if it holds the secrets of these keys.
pub(super) fn of_configuration(path: &Path, secrets: &[String]) -> Option<String> {
    let first = secrets.first()?;
    let what = open_to_all(path)?;
    let path = path.display();
    Some(format!(
        "the configuration file holds {first}, and every user of this machine may {what} it: take that right away with chmod o= {path}"
    ))
}

fn open_to_all(path: &Path) -> Option<&'static str> {
    let mode = path.metadata().ok()?.mode();
    if mode & WRITABLE != 0 {
        Some("change")
    } else if mode & READABLE != 0 {
        Some("read")
    } else {
        None
    }
}
