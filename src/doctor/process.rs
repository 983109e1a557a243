//! What `/proc` tells of processes: whose they are, what they have open, which ports they listen on.
//!
//! Invariant: what this user may not see is told apart from what is not there.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;

/// Processes that are looked at, at most.
const PROCESSES: usize = 32_768;

/// In whose name a process acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The user.
    pub uid: u32,
    /// The group and the other groups.
    pub groups: BTreeSet<u32>,
}

impl Who {
    /// Of a process; `None` where it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Self::parse(&status)
    }

    fn parse(status: &str) -> Option<Self> {
        let numbers = |name: &str| -> Vec<u32> {
            let line = status.lines().find_map(|l| l.strip_prefix(name));
            let words = line.unwrap_or_default().split_ascii_whitespace();
            words.filter_map(|w| w.parse().ok()).collect()
        };
        // Real, effective, saved, of the file system.
        let uid = *numbers("Uid:").get(1)?;
        let mut groups: BTreeSet<u32> = numbers("Groups:").into_iter().collect();
        groups.extend(numbers("Gid:").get(1));
        Some(Self { uid, groups })
    }

    /// Whether mode and owner of a file allow this (4 read, 2 write, 1 search). Lists of access rights beside the mode are not known here.
    #[must_use]
    pub fn may(&self, file: &fs::Metadata, wanted: u32) -> bool {
        if self.uid == 0 {
            return true;
        }
        let mode = file.mode();
        let bits = if file.uid() == self.uid {
            mode >> 6
        } else if self.groups.contains(&file.gid()) {
            mode >> 3
        } else {
            mode
        };
        bits & wanted == wanted
    }

    /// For people.
    #[must_use]
    pub fn name(&self) -> String {
        user_name(self.uid)
    }
}

/// A user for people.
#[must_use]
pub fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("user {uid}"),
    }
}

/// The name of a process, as the system shows it.
#[must_use]
pub fn name(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn all() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .take(PROCESSES)
}

/// Whether a process was started with one of these words, with dashes before it or without.
#[must_use]
pub fn has_argument(pid: u32, words: &[&str]) -> bool {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut all = bytes.split(|b| *b == 0).skip(1);
    all.any(|argument| {
        let text = String::from_utf8_lossy(argument);
        words.contains(&text.trim_start_matches('-'))
    })
}

/// What a process has open, as links like `socket:[123]` or paths; `None` where this user may not see it.
fn open_files(pid: u32) -> Option<Vec<fs::DirEntry>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(entries.flatten().collect())
}

/// Processes that have this file open, and whether all could be seen.
#[must_use]
pub fn with_open(file: &fs::Metadata) -> (Vec<u32>, bool) {
    let mut found = Vec::new();
    let mut all_seen = true;
    for pid in all() {
        let Some(open) = open_files(pid) else {
            all_seen &= !std::path::Path::new(&format!("/proc/{pid}")).exists();
            continue;
        };
        // Looked up, never opened.
        let has = open
            .iter()
            .filter_map(|entry| fs::metadata(entry.path()).ok())
            .any(|m| (m.dev(), m.ino()) == (file.dev(), file.ino()));
        if has {
            found.push(pid);
        }
    }
    found.sort_unstable();
    (found, all_seen)
}

/// Who listens on a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listener {
    /// Nobody.
    Nobody,
    /// This process.
    Process(u32),
    /// Somebody whom this user may not see.
    Unknown,
}

/// Who listens on a port of an address; an empty host: of any.
#[must_use]
pub fn listener(host: &str, port: u16) -> Listener {
    let wanted = host
        .parse::<IpAddr>()
        .ok()
        .filter(|ip| !ip.is_unspecified());
    let mut inodes = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(
            text.lines()
                .skip(1)
                .filter_map(|l| listening(l, wanted, port)),
        );
    }
    if inodes.is_empty() {
        return Listener::Nobody;
    }
    for pid in all() {
        let open = open_files(pid).unwrap_or_default();
        let links = open.iter().filter_map(|e| fs::read_link(e.path()).ok());
        let mut sockets = links.filter_map(|link| {
            let text = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            text.parse::<u64>().ok()
        });
        if sockets.any(|inode| inodes.contains(&inode)) {
            return Listener::Process(pid);
        }
    }
    Listener::Unknown
}

/// The inode of a listening socket in a line of the kernel's table, if it stands in the way of `wanted`:`port`.
fn listening(line: &str, wanted: Option<IpAddr>, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, at) = words.get(1)?.split_once(':')?;
    if *words.get(3)? != LISTEN || u16::from_str_radix(at, 16).ok()? != port {
        return None;
    }
    let everywhere = address.bytes().all(|b| b == b'0');
    let meets = match wanted {
        None => true,
        Some(_) if everywhere => true,
        Some(IpAddr::V4(ip)) => {
            // The kernel shows the bytes of the address as a number of this machine's.
            let shown = format!("{:08X}", u32::from_ne_bytes(ip.octets()));
            address.ends_with(&shown)
        }
        Some(IpAddr::V6(_)) => address.len() > 8,
    };
    meets.then(|| words.get(9)?.parse().ok()).flatten()
}

/// A limit of a process, as the system tells it: the one that counts now.
#[must_use]
pub fn open_file_limit(pid: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether a variable is in the environment that a process was started with; `None` where this user may not see it.
#[must_use]
pub fn has_variable(pid: u32, name: &str) -> Option<bool> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut all = bytes.split(|b| *b == 0);
    Some(all.any(|v| {
        v.strip_prefix(name.as_bytes())
            .is_some_and(|v| v.starts_with(b"="))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let me = std::process::id();
        let who = Who::of(me).unwrap();
        assert_eq!(who.uid, nix::unistd::geteuid().as_raw());
        let listener_of = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener_of.local_addr().unwrap().port();
        assert_eq!(listener("127.0.0.1", port), Listener::Process(me));
        assert_eq!(listener("", port), Listener::Process(me));
        // Another loopback address is free.
        assert_eq!(listener("127.0.0.2", port), Listener::Nobody);
        drop(listener_of);
        let file = tempfile::NamedTempFile::new().unwrap();
        let (open, _) = with_open(&file.as_file().metadata().unwrap());
        assert_eq!(open, [me]);
        assert!(open_file_limit(me).is_some_and(|n| n > 0));
        assert_eq!(has_variable(me, "NO_SUCH_VARIABLE"), Some(false));
    }

    #[test]
    fn rights_are_those_of_the_first_class_that_fits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "").unwrap();
        let mode = |mode| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            fs::metadata(&path).unwrap()
        };
        let file = mode(0o046);
        let who = |uid, groups: &[u32]| Who {
            uid,
            groups: groups.iter().copied().collect(),
        };
        let (owner, group) = (file.uid(), file.gid());
        assert!(who(0, &[]).may(&file, 6));
        if owner != 0 {
            assert!(!who(owner, &[group]).may(&file, 4));
        }
        assert!(who(owner + 1, &[group]).may(&file, 4));
        assert!(!who(owner + 1, &[group]).may(&file, 2));
        assert!(who(owner + 1, &[group + 1]).may(&file, 6));
    }
}
