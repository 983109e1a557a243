//! The files beside the database: who may read and write them, and what they say.
//!
//! Invariant: they are looked up, and the database with its log is opened by nobody but SQLite.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::daemon::Daemon;
use super::problem::{Check, Problem};
use super::process::{self, Who};
use super::report::Notes;
use crate::brakes::Brakes;
use crate::codec::sequence_map::{self, SequenceMapError};
use crate::config::Config;
use crate::sqlite::leftover::Leftover;

/// What stands behind the database's name in the names of our files, which are for their owner alone. `.kept-` has a number behind it.
const OURS: [&str; 4] = [
    "-harmonylite.lock",
    "-harmonylite.sock",
    "-harmonylite.brakes",
    "-harmonylite.left",
];

/// Files that are looked at in one folder.
const MOST: usize = 10_000;

/// Read and write; and search, for a folder.
const READ_WRITE: u32 = 6;
const FOLDER: u32 = 7;

/// Looks, in the name of the daemon's user where one runs. Whether a log that is another's lies beside the database, so that nothing may open it.
pub fn look(config: &Config, daemon: &Daemon, notes: &Notes) -> bool {
    let Some(who) = Who::of(daemon.pid.unwrap_or_else(std::process::id)) else {
        notes.note(Check::Files, "owners and modes: /proc cannot be read");
        return false;
    };
    let database = real(&config.db_path);
    let folder = match database.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let Ok(of_folder) = fs::metadata(folder) else {
        notes.problem(
            Problem::Access,
            format!("the folder {} of the database cannot be reached by {}", folder.display(), who.name()),
            format!("let that user search every folder on the way: chmod, or a group that they share; or correct db_path (now {})", config.db_path.display()),
        );
        return false;
    };
    access(
        &who,
        folder,
        &of_folder,
        FOLDER,
        "SQLite makes files beside the database",
        notes,
    );
    open_folder(folder, &of_folder, notes);
    let of_database = fs::metadata(&database).ok();
    let mut seen = 1;
    for (path, file, ours) in beside(folder, &database) {
        seen += 1;
        let name = path.display();
        access(
            &who,
            &path,
            &file,
            READ_WRITE,
            "the daemon writes to it",
            notes,
        );
        if let Some(of_database) = of_database.as_ref().filter(|_| !ours) {
            owner(&path, &file, of_database, notes);
        }
        let mode = file.mode();
        if !ours && mode & 0o002 != 0 {
            notes.problem(
                Problem::OpenToAll,
                format!("every user of this machine may change {name}"),
                format!("chmod o-w {name}"),
            );
        } else if ours && mode & 0o007 != 0 {
            notes.problem(
                Problem::OpenToAll,
                format!("{name} is the daemon's own, and every user of this machine may use it (mode {:o})", mode & 0o777),
                format!("chmod o= {name}"),
            );
        }
    }
    if let Err(e) = Brakes::open(&config.db_path) {
        notes.problem(
            Problem::BrakesDamaged,
            e.to_string(),
            "remove the file, start, then harmonylite pause or limit what should be held back",
        );
    }
    // A daemon has settled this at its start.
    let leftover = match daemon.may_run {
        true => None,
        false => Leftover::find(&config.db_path),
    };
    if let Some(leftover) = &leftover {
        notes.problem(
            Problem::ForeignLog,
            leftover.to_string(),
            "start harmonylite, which moves it aside before SQLite can replay it; until then do not open the database with anything else",
        );
    }
    if !notes.has(Check::Files) {
        notes.ok(
            Check::Files,
            format!("{seen} files and folders, as {} may use them", who.name()),
        );
    }
    leftover.is_some()
}

/// The file that a path leads to, with its folder's links followed; also where it is not there yet.
pub(super) fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        match (folder, path.file_name()) {
            (Ok(folder), Some(name)) => folder.join(name),
            _ => path.to_owned(),
        }
    })
}

/// The database, SQLite's files and ours, as far as they are there, and whether it is one of ours.
fn beside(folder: &Path, database: &Path) -> Vec<(PathBuf, Metadata, bool)> {
    let Some(name) = database.file_name().and_then(|n| n.to_str()) else {
        return Vec::new();
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut out: Vec<_> = entries
        .take(MOST)
        .filter_map(|entry| {
            let file = entry.file_name();
            let rest = file.to_str()?.strip_prefix(name)?;
            let sqlite = ["", "-wal", "-shm", "-journal"].contains(&rest);
            let ours = OURS.contains(&rest) || rest.starts_with(".kept-");
            let metadata = entry.metadata().ok()?;
            (sqlite || ours).then_some((entry.path(), metadata, ours))
        })
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn access(who: &Who, path: &Path, file: &Metadata, wanted: u32, why: &str, notes: &Notes) {
    let me = nix::unistd::geteuid().as_raw() == who.uid;
    let flags = if file.is_dir() {
        nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK
    } else {
        nix::unistd::AccessFlags::R_OK | nix::unistd::AccessFlags::W_OK
    };
    // The system's own answer knows lists of access rights and file systems that are mounted read-only.
    let allowed = match me {
        true => nix::unistd::access(path, flags).is_ok(),
        false => who.may(file, wanted),
    };
    if !allowed {
        notes.problem(
            Problem::Access,
            format!(
                "{} may not read and write {} (of {}, mode {:o}): {why}",
                who.name(),
                path.display(),
                process::user_name(file.uid()),
                file.mode() & 0o7777
            ),
            format!(
                "give it to the user of the daemon (chown {} {}), or let both share a group, as docs/production.md shows",
                who.name(),
                path.display()
            ),
        );
    }
}

/// SQLite makes its files with the mode and, as root, the owner of the database; another owner means that somebody else has made them, who may shut others out.
fn owner(path: &Path, file: &Metadata, database: &Metadata, notes: &Notes) {
    let shared = file.gid() == database.gid() && file.mode() & 0o060 == 0o060;
    if file.uid() != database.uid() && !shared {
        let its = process::user_name(database.uid());
        notes.problem(
            Problem::Owner,
            format!(
                "{} belongs to {}, and the database to {its}, who cannot be sure to write to it",
                path.display(),
                process::user_name(file.uid())
            ),
            format!("chown {its} {}", path.display()),
        );
    }
}

fn open_folder(folder: &Path, file: &Metadata, notes: &Notes) {
    const STICKY: u32 = 0o1000;
    if file.mode() & 0o002 != 0 && file.mode() & STICKY == 0 {
        let name = folder.display();
        notes.problem(
            Problem::OpenToAll,
            format!("every user of this machine may replace files in {name}, the database too"),
            format!("chmod o-w {name}"),
        );
    }
}

/// The sequence map. `position`: where the database says that this node is; `None`: it holds no state, or could not be read.
pub fn sequence_map(config: &Config, position: Option<u64>, notes: &Notes) {
    let path = config.seq_map_path.display();
    match sequence_map::read(&config.seq_map_path) {
        Ok(None) => match position {
            Some(at) if at > 0 => notes.problem(
                Problem::MapRemoved,
                format!("{path} is not there, and this node is at position {at}"),
                "nothing, if a full recovery from a snapshot is wanted: the next start begins it; otherwise leave the daemon running, which writes the file anew",
            ),
            _ => notes.note(Check::SequenceMap, "not written yet: nothing was folded here"),
        },
        Ok(Some(map)) => {
            let at = map.sequences.get(&1).map_or(0, |s| s.0);
            notes.ok(Check::SequenceMap, format!("{path}: position {at}"));
        }
        Err(e @ SequenceMapError::Newer { .. }) => {
            notes.problem(Problem::MapNewer, e.to_string(), "upgrade harmonylite on this node");
        }
        Err(e) => notes.problem(
            Problem::MapDamaged,
            e.to_string(),
            "start harmonylite, or let it run: it writes the file anew; removing it instead asks for a full recovery",
        ),
    }
}
