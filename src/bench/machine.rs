//! What it was measured on.

use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde_json::{Value, json};

/// Processor, memory, kernel, the file system of `folder`, and how busy it all is.
#[must_use]
pub fn machine(folder: &Path) -> Value {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        let value = line.and_then(|l| l.split(':').nth(1)).unwrap_or_default();
        value.trim().to_owned()
    };
    let in_memory = statfs(folder).is_ok_and(|about| about.filesystem_type() == TMPFS_MAGIC);
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "disk": if in_memory { "tmpfs, in memory" } else { "a file system on a disk" },
        "load_before": load(),
    })
}

/// The load averages.
#[must_use]
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let parts: Vec<&str> = text.split_whitespace().take(3).collect();
    parts.join(" ")
}

/// Versions of what was measured.
#[must_use]
pub fn versions(nats_server: &str) -> Value {
    json!({
        "harmonylite": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "sqlite": rusqlite::version(),
        "nats-server": nats_server,
    })
}

/// Now, RFC 3339.
#[must_use]
pub fn now() -> String {
    let form = &time::format_description::well_known::Rfc3339;
    let now = time::OffsetDateTime::now_utc();
    let now = now.replace_nanosecond(0).unwrap_or(now);
    now.format(form).unwrap_or_default()
}
