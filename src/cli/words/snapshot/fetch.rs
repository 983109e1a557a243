//! Bringing a snapshot here, and looking whether it is whole.
//!
//! Invariant: a file that exists is never replaced, and nothing is ever put where the application's database is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::access::{Access, fault};
use super::size;
use crate::cli::commands::progress;
use crate::cli::exit::ExitCode;
use crate::cli::words::Done;
use crate::config::Config;
use crate::engine::Fatal;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::scratch::Scratch;
use crate::sqlite::connection;
use crate::store::Progress;

/// How often it is said how far a download is.
const SAY_EVERY: Duration = Duration::from_secs(1);

pub(super) fn verify(config: &Config, name: Option<&str>) -> Result<Done, Fatal> {
    let access = Access::open(config)?;
    let manifest = access.find(name.unwrap_or("latest"))?;
    let scratch = Scratch::new(&config.db_path, "verify");
    download(&access, &manifest, scratch.path())?;
    Ok(Done::ok(format!(
        "{} is whole: {}, position {}, SHA-256 {}",
        manifest.file,
        size(manifest.size),
        manifest.sequence,
        manifest.sha256
    )))
}

pub(super) fn fetch(config: &Config, name: &str, file: &Path) -> Result<Done, Fatal> {
    let exists = || {
        Fatal::new(
            ExitCode::CannotCreate,
            format!(
                "{} exists: give the path of a file that does not",
                file.display()
            ),
        )
    };
    if is_database(config, file) {
        return Err(Fatal::new(
            ExitCode::Usage,
            format!(
                "{} is the application's database: harmonylite snapshot restore, or a start of the daemon without the file, puts a snapshot there safely",
                file.display()
            ),
        ));
    }
    if file.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let folder = folder(file);
    let access = Access::open(config)?;
    let manifest = access.find(name)?;
    let temporary = tempfile::Builder::new()
        .prefix(".harmonylite-fetch-")
        .tempfile_in(&folder)
        .map_err(|e| {
            Fatal::new(
                ExitCode::CannotCreate,
                format!("could not make a file in {}: {e}", folder.display()),
            )
        })?
        .into_temp_path();
    download(&access, &manifest, &temporary)?;
    match temporary.persist_noclobber(file) {
        Ok(()) => Ok(Done::ok(format!(
            "{} was written: {}, {}, position {}, taken {} by node {}",
            file.display(),
            manifest.file,
            size(manifest.size),
            manifest.sequence,
            manifest.time,
            manifest.node
        ))),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists()),
        Err(e) => Err(Fatal::new(
            ExitCode::CannotCreate,
            format!("could not make {}: {}", file.display(), e.error),
        )),
    }
}

fn folder(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether a file would be the database, or what SQLite keeps beside it.
fn is_database(config: &Config, file: &Path) -> bool {
    let real = |path: &Path| {
        let folder = folder(path).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let Some(file) = real(file) else {
        return false;
    };
    ["", "-wal", "-shm", "-journal"].iter().any(|suffix| {
        let mut path = config.db_path.as_os_str().to_owned();
        path.push(suffix);
        real(Path::new(&path)).is_some_and(|path| path == file)
    })
}

/// Fetches, compares the hash, and has SQLite look through it.
fn download(access: &Access, manifest: &Manifest, to: &Path) -> Result<(), Fatal> {
    let said = std::sync::Mutex::new(std::time::Instant::now());
    let report = Progress::new(move |done, total| {
        let mut said = said
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.elapsed() >= SAY_EVERY {
            *said = std::time::Instant::now();
            progress(&format!("{} of {}", size(done), size(total)));
        }
    });
    access
        .runtime
        .block_on(access.catalog.fetch(manifest, to, &report))
        .map_err(|e| fault(&e))?;
    let checked = connection::open_reader(to).and_then(|conn| connection::quick_check(&conn));
    match checked {
        Ok(None) => Ok(()),
        Ok(Some(damage)) => Err(Fatal::new(
            ExitCode::DataError,
            format!(
                "the database in {} is damaged although its hash is right: {damage}; it was made from a damaged database, so check that of node {}",
                manifest.file, manifest.node
            ),
        )),
        Err(e) => Err(Fatal::new(
            ExitCode::DataError,
            format!("{}: {e}", manifest.file),
        )),
    }
}
