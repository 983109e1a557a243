//! Root keys that need more than a range: the database, the sequence map and the node id.

use std::path::{Path, PathBuf};

use super::checker::{Checker, given};
use crate::config::defaults::folder_of;
use crate::config::node_id::NODE_ID_MOST;
use crate::config::{Config, FaultKind, Origin, Overrides};

pub(super) fn paths(
    check: &mut Checker<'_>,
    db_path: Option<String>,
    seq_map_path: Option<String>,
    overrides: &Overrides,
    config: &mut Config,
) {
    let (origin, db) = match (&overrides.db, given(db_path)) {
        (Some(path), _) => (Origin::Flag("-db"), Some(path.clone())),
        (None, Some(path)) => (check.source.origin("db_path"), Some(path.into())),
        (None, None) => (check.source.origin("db_path"), None),
    };
    let mut is_usable = false;
    match db {
        Some(path) => {
            is_usable = database(check, origin, &path);
            config.db_path = path;
        }
        None if check.is_at_fault("db_path") => {}
        None => {
            let remedy = "set it to the path of the SQLite database, or give -db FILE";
            check.fault_at(origin, FaultKind::Missing { remedy });
        }
    }
    if let Some(path) = given(seq_map_path).map(PathBuf::from) {
        check.folder(check.source.origin("seq_map_path"), folder_of(&path));
        config.seq_map_path = path;
    } else if is_usable {
        config.seq_map_path = folder_of(&config.db_path).join("seq-map.cbor");
    }
}

/// A database that is not there yet is no fault: it will be rebuilt.
fn database(check: &mut Checker<'_>, origin: Origin, path: &Path) -> bool {
    let text = path.to_string_lossy();
    let problem = if text == ":memory:" {
        "lives in one process only, where nothing beside it can see it"
    } else if text.starts_with("file:") {
        "is a URI"
    } else if path.is_dir() {
        "is a folder"
    } else if text.is_empty() {
        "is empty"
    } else {
        let faults = check.faults.len();
        check.folder(origin, folder_of(path));
        return check.faults.len() == faults;
    };
    let path = path.to_owned();
    check.fault_at(origin, FaultKind::NotAFile { path, problem });
    false
}

pub(super) fn node_id(
    check: &mut Checker<'_>,
    node_id: Option<i64>,
    overrides: &Overrides,
    config: &mut Config,
) {
    check.number("node_id", node_id, 1..=i64::MAX, &mut config.node_id);
    if let Some(id) = overrides.node_id.map(std::num::NonZeroU64::get) {
        if id > NODE_ID_MOST {
            let (value, least, most) = (i128::from(id), 1, i64::MAX);
            check.fault_at(
                Origin::Flag("-node-id"),
                FaultKind::OutOfRange { value, least, most },
            );
        }
        config.node_id = id;
    }
    if config.node_id == 0 && !check.is_at_fault("node_id") {
        let remedy = "set it to a number that no other node has (this machine has neither a machine id nor a host name)";
        check.fault("node_id", FaultKind::Missing { remedy });
    }
}
