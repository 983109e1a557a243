//! Things planted where they belong, and looked for everywhere else.

use std::path::Path;

use crate::harness::Node;
use crate::harness::http::get;

/// Whether any of `planted` shows, and where.
pub struct Watch<'a> {
    planted: Vec<&'a str>,
    places: usize,
}

impl<'a> Watch<'a> {
    pub fn new(planted: &[&'a str]) -> Self {
        Self {
            planted: planted.to_vec(),
            places: 0,
        }
    }

    /// Fails if something planted is in this text.
    pub fn look(&mut self, place: &str, text: &str) {
        self.places += 1;
        for secret in &self.planted {
            assert!(!text.contains(secret), "{secret} shows in {place}:\n{text}");
        }
    }

    /// Looks at everything that a running daemon shows to others: its log since it started, what it answers over HTTP, its arguments.
    pub fn look_at(&mut self, node: &Node, ports: &[u16]) {
        self.look("the log", &node.log());
        for port in ports {
            for path in [
                "/health",
                "/metrics",
                "/position",
                "/livez",
                "/readyz",
                "/nothing",
            ] {
                if let Some((_, body)) = get(*port, path) {
                    self.look(path, &body);
                }
            }
        }
        for pid in [node.pid()].into_iter().chain(children(node.pid())) {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            self.look("the arguments", &String::from_utf8_lossy(&arguments));
        }
    }

    /// Enough was looked at.
    pub fn assert_places(&self, least: usize) {
        assert!(
            self.places >= least,
            "only {} places were looked at",
            self.places
        );
    }
}

/// The processes that a process has started.
pub fn children(of: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in brackets, may hold anything; then come the state and the parent.
            let parent: u32 = stat
                .rsplit_once(')')?
                .1
                .split_ascii_whitespace()
                .nth(1)?
                .parse()
                .ok()?;
            (parent == of).then_some(pid)
        })
        .collect()
}

/// The environment of a process.
pub fn environment(pid: u32) -> String {
    let bytes = std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ")).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
