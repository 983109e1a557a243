//! What the process costs, read at the time of the scrape under Prometheus's usual names.

use std::sync::{Mutex, PoisonError};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Opts};

/// Memory, open files and processor time of this process.
#[derive(Clone)]
pub(super) struct ProcessCollector {
    resident: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
    cpu: Counter,
    cpu_counted: std::sync::Arc<Mutex<f64>>,
    started: Gauge,
}

impl ProcessCollector {
    pub(super) fn new(node_id: &str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("node_id", node_id);
        let started = Gauge::with_opts(opts(
            "process_start_time_seconds",
            "When the process started, in Unix seconds.",
        ))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        started.set(now.map_or(0.0, |since| since.as_secs_f64()));
        Ok(Self {
            resident: IntGauge::with_opts(opts(
                "process_resident_memory_bytes",
                "Resident memory of the daemon in bytes.",
            ))?,
            open_fds: IntGauge::with_opts(opts(
                "process_open_fds",
                "Open file descriptors of the daemon.",
            ))?,
            max_fds: IntGauge::with_opts(opts(
                "process_max_fds",
                "File descriptors that the daemon may have open.",
            ))?,
            cpu: Counter::with_opts(opts(
                "process_cpu_seconds_total",
                "Processor time of the daemon in seconds, user and system.",
            ))?,
            cpu_counted: std::sync::Arc::new(Mutex::new(0.0)),
            started,
        })
    }

    fn measure(&self) {
        if let Some(bytes) = resident_bytes() {
            self.resident.set(bytes);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the descriptor that reads the folder.
            let open = entries.count().saturating_sub(1);
            self.open_fds.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_fds.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let spent = seconds(usage.user_time()) + seconds(usage.system_time());
            // Two scrapes at once must not count the same time twice.
            let mut counted = self
                .cpu_counted
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if spent > *counted {
                self.cpu.inc_by(spent - *counted);
                *counted = spent;
            }
        }
    }
}

fn seconds(time: nix::sys::time::TimeVal) -> f64 {
    std::time::Duration::new(
        u64::try_from(time.tv_sec()).unwrap_or(0),
        u32::try_from(time.tv_usec())
            .unwrap_or(0)
            .saturating_mul(1_000),
    )
    .as_secs_f64()
}

fn resident_bytes() -> Option<i64> {
    // `status` counts in kB whatever the machine's page size.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let mut all = self.resident.desc();
        all.extend(self.open_fds.desc());
        all.extend(self.max_fds.desc());
        all.extend(self.cpu.desc());
        all.extend(self.started.desc());
        all
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.measure();
        let mut all = self.resident.collect();
        all.extend(self.open_fds.collect());
        all.extend(self.max_fds.collect());
        all.extend(self.cpu.collect());
        all.extend(self.started.collect());
        all
    }
}
