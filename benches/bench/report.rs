//! What was measured, for people and as JSON.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::series::Series;

/// How a row is judged.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The ratio of baseline to ours may be at most this.
    Slowdown(f64),
    /// Ours is to be at least this share of the baseline.
    Share(f64),
    /// Ours is to be at most this many times the baseline, and at most this value if one is given.
    Times(f64, Option<f64>),
    /// Ours is to be at most this value; there is no baseline.
    AtMost(f64),
    /// Only shown.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub name: String,
    /// Of ours and the baseline.
    pub unit: &'static str,
    /// What the baseline did.
    pub baseline_is: &'static str,
    /// The baseline's values, one a round.
    pub baseline: Series,
    /// Ours.
    pub ours: Series,
    /// How it is judged.
    pub target: Target,
    /// More that was seen.
    pub notes: Vec<String>,
}

impl Row {
    /// An empty row.
    pub fn new(
        name: impl Into<String>,
        unit: &'static str,
        baseline_is: &'static str,
        target: Target,
    ) -> Self {
        Self {
            name: name.into(),
            unit,
            baseline_is,
            baseline: Series::default(),
            ours: Series::default(),
            target,
            notes: Vec::new(),
        }
    }

    /// Adds a round, and says so.
    pub fn round(&mut self, baseline: f64, ours: f64) {
        self.baseline.push(baseline);
        self.ours.push(ours);
        println!(
            "  {}: {} {} against {}: {}",
            self.name,
            number(ours),
            self.unit,
            number(baseline),
            self.ratio_text(self.ratios().0.last().copied().unwrap_or(f64::NAN))
        );
        let _ = std::io::stdout().flush();
    }

    /// Adds a value without a baseline.
    pub fn value(&mut self, ours: f64) {
        self.ours.push(ours);
        println!("  {}: {} {}", self.name, number(ours), self.unit);
        let _ = std::io::stdout().flush();
    }

    /// One ratio a round: neighbours in time are compared.
    pub fn ratios(&self) -> Series {
        Series(
            self.baseline
                .0
                .iter()
                .zip(&self.ours.0)
                .map(|(base, ours)| {
                    if matches!(self.target, Target::Slowdown(_)) {
                        base / ours
                    } else {
                        ours / base
                    }
                })
                .collect(),
        )
    }

    fn ratio_text(&self, ratio: f64) -> String {
        match self.target {
            Target::Share(_) => format!("{:.1}%", ratio * 100.0),
            _ => format!("x{ratio:.2}"),
        }
    }

    fn met(&self) -> Option<bool> {
        let (ratio, ours) = (self.ratios().median(), self.ours.median());
        match self.target {
            Target::Slowdown(most) => Some(ratio <= most),
            Target::Share(least) => Some(ratio >= least),
            Target::Times(most, value) => Some(ratio <= most && value.is_none_or(|v| ours <= v)),
            Target::AtMost(most) => Some(ours <= most),
            Target::None => None,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::Slowdown(most) => format!("<= x{most}"),
            Target::Share(least) => format!(">= {}%", least * 100.0),
            Target::Times(most, None) => format!("<= x{most}"),
            Target::Times(most, Some(value)) => format!("<= x{most}, <= {value} {}", self.unit),
            Target::AtMost(most) => format!("<= {most} {}", self.unit),
            Target::None => String::new(),
        }
    }

    fn json(&self) -> Value {
        let series = |s: &Series| json!({"median": rounded(s.median()), "min": rounded(s.min()), "max": rounded(s.max()), "rounds": s.0.iter().map(|v| rounded(*v)).collect::<Vec<_>>()});
        let mut row = json!({"name": self.name, "unit": self.unit, "ours": series(&self.ours), "notes": self.notes});
        if !self.baseline.0.is_empty() {
            row["baseline_is"] = json!(self.baseline_is);
            row["baseline"] = series(&self.baseline);
            row["ratio"] = series(&self.ratios());
        }
        if let Some(met) = self.met() {
            row["target"] = json!(self.target_text());
            row["met"] = json!(met);
        }
        row
    }
}

/// All rows of a run.
pub struct Report {
    rounds: usize,
    rows: Vec<Row>,
    machine: Value,
    revision: String,
    /// The broker's version.
    pub nats_server: String,
}

impl Report {
    /// An empty report.
    pub fn new(rounds: usize) -> Self {
        Self {
            rounds,
            rows: Vec::new(),
            machine: machine(),
            revision: command("git", &["describe", "--always", "--dirty"]),
            nats_server: String::new(),
        }
    }

    /// Adds a row.
    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Shows all rows.
    pub fn print(&self) {
        println!(
            "\n{:<58} {:>26} {:>26} {:>22}  target",
            "", "ours: median (min-max)", "baseline", "ratio"
        );
        for row in &self.rows {
            let span = |s: &Series| {
                if s.0.is_empty() {
                    String::new()
                } else {
                    format!(
                        "{} ({}-{})",
                        number(s.median()),
                        number(s.min()),
                        number(s.max())
                    )
                }
            };
            let ratios = row.ratios();
            let ratio = if ratios.0.is_empty() {
                String::new()
            } else {
                format!(
                    "{} ({}-{})",
                    row.ratio_text(ratios.median()),
                    row.ratio_text(ratios.min()),
                    row.ratio_text(ratios.max())
                )
            };
            let verdict = match row.met() {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            println!(
                "{:<58} {:>26} {:>26} {:>22}  {} {verdict}",
                format!("{} [{}]", row.name, row.unit),
                span(&row.ours),
                span(&row.baseline),
                ratio,
                row.target_text()
            );
            for note in &row.notes {
                println!("    {note}");
            }
        }
    }

    /// Writes docs/benchmarks/latest.json.
    pub fn write(&self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks/latest.json");
        let report = json!({
            "at": time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
            "machine": self.machine,
            "versions": {
                "harmonylite": env!("CARGO_PKG_VERSION"),
                "revision": self.revision,
                "sqlite": rusqlite::version(),
                "nats-server": self.nats_server,
                "rustc": command("rustc", &["--version"]),
            },
            "rounds": self.rounds,
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        let text = serde_json::to_string_pretty(&report).unwrap() + "\n";
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        println!("\nwritten to {}", path.display());
    }
}

fn machine() -> Value {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split(':').nth(1))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory": field(&read("/proc/meminfo"), "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_at_start": read("/proc/loadavg").trim(),
    })
}

fn command(program: &str, arguments: &[&str]) -> String {
    std::process::Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Three significant figures, thousands as k.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.0}k", value / 1e3),
        v if v >= 1e3 => format!("{:.1}k", value / 1e3),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
