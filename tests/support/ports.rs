//! Ports for servers of tests.
//!
//! Invariants: none is of the range from which the kernel takes ports for outgoing connections, so that no connection has it before the server listens, or while it is being restarted; none is
//! handed out twice to processes that run at once. A lock on a file says whose a port is: it goes with the process, however that ends.
#![allow(dead_code)]

use std::fs::File;
use std::net::TcpListener;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The ports of this process, by their locks.
static OURS: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// How many ports below the kernel's are used.
const MANY: u16 = 12_000;

/// A port that nobody listens on.
pub fn free() -> u16 {
    first(1)
}

/// One that is free together with the next.
pub fn pair() -> u16 {
    first(2)
}

fn first(count: u16) -> u16 {
    let ports = range();
    let many = ports.end - ports.start - count;
    // Processes that begin at once begin at different places.
    let begin = rand::random::<u16>() % many;
    for n in 0..many {
        let port = ports.start + (begin + n) % many;
        let taken: Option<Vec<File>> = (port..port + count).map(take).collect();
        if let Some(taken) = taken {
            OURS.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(taken);
            return port;
        }
    }
    panic!("no free port among {ports:?}");
}

/// Below those that the kernel chooses from; above, where nothing is left below.
fn range() -> Range<u16> {
    const FIRST: u16 = 1024;
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let bounds: Vec<u16> = text
        .split_whitespace()
        .map(|bound| bound.parse().unwrap())
        .collect();
    let [low, high] = bounds[..] else {
        panic!("two bounds, not {text:?}");
    };
    if low.saturating_sub(FIRST) >= 1000 {
        low.saturating_sub(MANY).max(FIRST)..low
    } else {
        assert!(
            high < u16::MAX - 1000,
            "the kernel leaves no ports: {text:?}"
        );
        high + 1..u16::MAX
    }
}

/// The lock on a port that nobody has and nobody listens on.
fn take(port: u16) -> Option<File> {
    let folder = folder();
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::options()
        .create(true)
        .append(true)
        .open(folder.join(port.to_string()))
        .unwrap();
    lock.try_lock().ok()?;
    TcpListener::bind(("0.0.0.0", port)).ok()?;
    Some(lock)
}

fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("harmonylite-ports-{}", nix::unistd::getuid()))
}
