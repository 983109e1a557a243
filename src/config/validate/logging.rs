//! `[logging]`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::checker::{Checker, DAY_MS, given};
use crate::config::defaults::folder_of;
use crate::config::file::Logging;
use crate::config::{Config, FaultKind, LogFormat};

pub(super) fn logging(check: &mut Checker<'_>, file: Logging, config: &mut Config) {
    let Logging {
        verbose,
        format,
        file,
        repeat_interval,
    } = file;
    check.set(verbose, &mut config.logging.verbose);
    check.word(
        "logging.format",
        format,
        &[("console", LogFormat::Console), ("json", LogFormat::Json)],
        "\"console\" or \"json\"",
        &mut config.logging.format,
    );
    if let Some(path) = given(file).map(PathBuf::from) {
        let key = "logging.file";
        check.folder(check.source.origin(key), folder_of(&path));
        if let Some(problem) = problem(&path, config) {
            check.fault(key, FaultKind::LogFile { path, problem });
        } else {
            config.logging.file = Some(path);
        }
    }
    check.millis(
        "logging.repeat_interval",
        repeat_interval,
        0..=DAY_MS,
        &mut config.logging.repeat_interval,
    );
}

/// Why this file cannot be the log. A file of SQLite's that we opened and closed would lose its locks in this process.
fn problem(path: &Path, config: &Config) -> Option<&'static str> {
    if path.is_dir() {
        return Some("is a folder");
    }
    let beside = |suffix: &str| {
        let mut name = config.db_path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    let taken = ["", "-wal", "-shm", "-journal"].map(beside);
    if taken.iter().any(|file| is_same(path, file)) {
        return Some("is a file of the database");
    }
    is_same(path, &config.seq_map_path).then_some("is the sequence map")
}

/// Whether both are one file, by whatever names; or would be, if they were there.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| path.metadata().ok().map(|m| (m.dev(), m.ino()));
    let place = |path: &Path| {
        (
            folder_of(path).canonicalize().ok(),
            path.file_name().map(ToOwned::to_owned),
        )
    };
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one == other,
        _ => place(one) == place(other),
    }
}
