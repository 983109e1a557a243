//! The page that shows all series.

use std::fmt::Write as _;

use serde_json::Value;

use super::curve::{Curve, count};
use crate::bench::series::number;

/// As Markdown, to stand beside the charts.
pub(super) fn markdown(curves: &[Curve], json: &Value) -> String {
    let text = |path: &str| {
        let found = json.pointer(path);
        found.map_or_else(String::new, |v| {
            v.as_str().map_or_else(|| v.to_string(), str::to_owned)
        })
    };
    let mut out = String::from("# Growth\n\n");
    let _ = writeln!(
        out,
        "Written by `harmonylite bench growth --output FOLDER`. How the rate from end to end (rows a second, from the first commit on one node until the last node has\n\
         the last row; 100 rows a transaction) changes when one thing grows and all else stays. Medians of {} rounds of {} s; the thin lines are the spread. Where SQLite itself\n\
         may be what changes, the grey line is the same writes on a database that nobody replicates, measured in turn.\n",
        text("/options/rounds"),
        text("/options/duration_seconds"),
    );
    let _ = writeln!(
        out,
        "Measured {} with harmonylite {} ({} build), SQLite {}, {}. Machine: {}, {} cores, {}, Linux {}, {}; load {} before, {} after. All nodes and the broker share it.",
        text("/at"),
        text("/versions/harmonylite"),
        text("/versions/build"),
        text("/versions/sqlite"),
        text("/versions/nats-server"),
        text("/machine/cpu"),
        text("/machine/cores"),
        text("/machine/memory"),
        text("/machine/kernel"),
        text("/machine/disk"),
        text("/machine/load_before"),
        text("/load_after"),
    );
    if cfg!(debug_assertions) {
        out.push_str("\n**This was a debug build: its figures say nothing about a release.**\n");
    }
    for curve in curves {
        let _ = writeln!(
            out,
            "\n## Against {}\n\n{}\n\n{}\n\n![Rate against {}]({})\n",
            curve.name,
            curve.sentence(),
            curve.how,
            curve.name,
            curve.file,
        );
        table(&mut out, curve);
    }
    out
}

fn table(out: &mut String, curve: &Curve) {
    let plain = curve.points.iter().any(|p| p.share().is_some());
    let (more, line) = match plain {
        true => (" plain SQLite | share |", "---|---|"),
        false => ("", ""),
    };
    let _ = writeln!(
        out,
        "| {} | rows/s | smallest | largest |{more}\n|---|---|---|---|{line}",
        curve.x
    );
    for point in &curve.points {
        let ours = &point.rates.ours;
        let _ = write!(
            out,
            "| {} | {} | {} | {} |",
            count(point.at),
            number(ours.median()),
            number(ours.min()),
            number(ours.max())
        );
        if let Some(share) = point.share() {
            let plain = number(point.rates.plain.median());
            let _ = write!(out, " {plain} | {:.0}% |", share * 100.0);
        }
        out.push('\n');
    }
}
