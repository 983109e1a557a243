//! The node id of a machine whose configuration names none.
//!
//! Invariant: the same machine always gets the same id, never 0 and never above what an SQLite integer holds.

use std::fs;

use xxhash_rust::xxh3::xxh3_64;

/// Largest node id: state tables and JSON consumers keep it as a signed 64-bit integer.
pub(super) const NODE_ID_MOST: u64 = i64::MAX.unsigned_abs();

/// What identifies this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Machine {
    /// systemd's or D-Bus's machine id.
    Id(String),
    /// The host name, where there is no machine id.
    HostName(String),
    /// Neither could be read.
    Unknown,
}

impl Machine {
    /// Asks this machine.
    pub(super) fn ask() -> Self {
        let id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok())
            .map(|text| text.trim().to_owned())
            // systemd writes this word into images that have not booted yet.
            .find(|text| !text.is_empty() && text != "uninitialized");
        if let Some(id) = id {
            return Self::Id(id);
        }
        match nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()) {
            Ok(name) if !name.is_empty() => Self::HostName(name),
            _ => Self::Unknown,
        }
    }

    /// The node id that follows; `None` for a machine without identity.
    pub(super) fn node_id(&self) -> Option<u64> {
        match self {
            Self::Id(text) | Self::HostName(text) => {
                Some((xxh3_64(text.as_bytes()) & NODE_ID_MOST).max(1))
            }
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_stable_and_fits() {
        let id = Machine::Id("0123456789abcdef0123456789abcdef".into())
            .node_id()
            .unwrap();
        // Fixed for ever: another value would make every node without `node_id` a new node after an upgrade.
        assert_eq!(id, 77_156_422_110_593_109);
        assert!((1..=NODE_ID_MOST).contains(&id));
        assert_eq!(Machine::Unknown.node_id(), None);
    }
}
