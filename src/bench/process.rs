//! What a process uses, as `/proc` tells.

/// CPU seconds that a process has used.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    /// Linux has counted in hundredths of a second for as long as it has had /proc.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th field behind it.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    [11, 12]
        .iter()
        .filter_map(|&i| fields.get(i)?.parse::<f64>().ok())
        .sum::<f64>()
        / TICKS
}

/// Resident memory of a process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now, in MB.
    pub now: f64,
    /// At its highest, in MB.
    pub peak: f64,
}

/// Resident memory of a process; NaN where it has gone.
#[must_use]
pub fn memory(pid: u32) -> Memory {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let read = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok())
            .map_or(f64::NAN, |kb| kb / 1024.0)
    };
    Memory {
        now: read("VmRSS:"),
        peak: read("VmHWM:"),
    }
}

/// The peak is counted from now on. Where the system does not let us, it stays that since the start, which is never less.
pub fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
