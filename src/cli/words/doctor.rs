//! `harmonylite doctor`: the report, for people and for programs.
//!
//! Invariant: colours only on a terminal whose owner has not asked for none; nothing from outside reaches it as a control character.

use std::io::IsTerminal as _;
use std::time::Duration;

use super::{Done, Verb, Word};
use crate::cli::args::Args;
use crate::cli::flags::{flag, switch};
use crate::cli::table::{WIDTH, escaped};
use crate::cli::usage::UsageError;
use crate::config::Config;
use crate::doctor::{self, Finding, Level, Options, Report};
use crate::engine::Fatal;
use crate::runtime::duration;

/// How it is to be looked, and shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doctor {
    /// How it is to be looked.
    pub options: Options,
    /// As JSON.
    pub json: bool,
}

/// How long all of it may take, and how long where all of the database is read.
pub(super) const USUAL: Duration = Duration::from_secs(30);
const DEEP: Duration = Duration::from_secs(600);

/// Where a finding's text begins.
const INDENT: usize = 25;

pub(super) const VERBS: &[Verb] = &[Verb {
    group: "doctor",
    verb: None,
    operands: "",
    options: &[
        switch("deep", "read all of the database (PRAGMA integrity_check)"),
        switch(
            "no-probe",
            "write no object to the snapshot store to see whether that works",
        ),
        flag(
            "timeout",
            "TIME",
            "how long all of it may take (30s; 10m with --deep)",
        ),
        switch("json", "for programs"),
    ],
    about: "look at everything that replication depends on, and say what to do about what is wrong",
    more: "With a running daemon or without. Changes nothing. Exit code 0: all is well; 1: there are warnings; otherwise\n\
           that of the first failure. docs/doctor.md tells cause and remedy of each finding, by the name in brackets.",
    parse: |given| {
        given.no_operands()?;
        let deep = given.switch("deep")?;
        let timeout = match given.text("timeout")? {
            None if deep => DEEP,
            None => USUAL,
            Some(text) => {
                duration::parse(&text)
                    .filter(|t| !t.is_zero())
                    .ok_or(UsageError::BadValue {
                        flag: "timeout",
                        expected: "a time such as 30s or 2m",
                    })?
            }
        };
        Ok(Word::Doctor(Doctor {
            options: Options {
                deep,
                probe: !given.switch("no-probe")?,
                timeout,
            },
            json: given.switch("json")?,
        }))
    },
}];

/// Looks; a configuration with faults is a finding.
pub(super) fn run(command: Doctor, args: &Args) -> Result<Done, Fatal> {
    let report = match Config::load(args.config.as_deref(), &args.overrides) {
        Ok(loaded) => doctor::run(loaded, command.options)?,
        Err(faults) => doctor::of_faults(&faults),
    };
    Ok(shown(&report, command.json, colours()))
}

/// What is found is escaped where its lines are made; the colours around it are ours.
fn shown(report: &Report, json: bool, colours: bool) -> Done {
    let text = match json {
        true => Done::json(report).text,
        false => text(report, colours),
    };
    Done {
        text,
        code: report.exit(),
    }
}

fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
    std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
}

/// The report for people.
pub(super) fn text(report: &Report, colours: bool) -> String {
    let mut out = format!("doctor of harmonylite {}, {}", report.version, report.time);
    if let (Some(node), Some(database)) = (report.node_id, &report.database) {
        out.push_str(&format!("\nnode {node}, database {}", escaped(database)));
    }
    out.push('\n');
    let mut heading = "";
    let mut label = "";
    for finding in &report.findings {
        let (place, name) = finding.check.place();
        if place != heading {
            heading = place;
            label = "";
            out.push_str(&format!("\n{}\n", painted(place, "1", colours)));
        }
        // The same name once for all its lines.
        let shown = if name == label { "" } else { name };
        label = name;
        line(&mut out, finding, shown, colours);
    }
    let many = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let (fails, warns) = (report.count(Level::Fail), report.count(Level::Warn));
    out.push('\n');
    out.push_str(&match (fails, warns) {
        (0, 0) => painted("all is well", "32", colours),
        _ => {
            let told = format!("{}, {}", many(fails, "failure"), many(warns, "warning"));
            let colour = if fails > 0 { "31" } else { "33" };
            format!(
                "{}: docs/doctor.md tells more, by the name in brackets",
                painted(&told, colour, colours)
            )
        }
    });
    out.push('\n');
    out
}

fn line(out: &mut String, finding: &Finding, name: &str, colours: bool) {
    let colour = match finding.level {
        Level::Ok => "32",
        Level::Note => "2",
        Level::Warn => "33",
        Level::Fail => "31;1",
    };
    let level = painted(&format!("{:<4}", finding.level.word()), colour, colours);
    let mut found = escaped(&finding.found);
    if let Some(problem) = finding.problem {
        found.push_str(&format!(" [{}]", problem.name()));
    }
    let mut lines = wrapped(&found, WIDTH - INDENT);
    let first = if lines.is_empty() {
        String::new()
    } else {
        lines.remove(0)
    };
    out.push_str(&format!("  {level}  {name:<15}  {first}\n"));
    for more in lines {
        out.push_str(&format!("{:INDENT$}{more}\n", ""));
    }
    let remedy = finding.remedy.as_deref().map(escaped).unwrap_or_default();
    for (at, part) in wrapped(&remedy, WIDTH - INDENT - 3).iter().enumerate() {
        let mark = if at == 0 { "-> " } else { "   " };
        out.push_str(&format!("{:INDENT$}{mark}{part}\n", ""));
    }
}

fn painted(text: &str, colour: &str, colours: bool) -> String {
    match colours {
        true => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
        false => text.to_owned(),
    }
}

/// Lines of at most so many characters; a word that is longer has one of its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Check, Notes, Problem};

    #[test]
    fn lines_fit_and_nothing_reaches_the_terminal_as_a_command() {
        let notes = Notes::default();
        notes.ok(Check::Disk, "room ".repeat(40));
        notes.problem(Problem::NotWal, "a\u{1b}[2Jb", "word ".repeat(30));
        let report = Report::new(Some(1), Some("a.db".to_owned()), notes.all());
        let plain = text(&report, false);
        assert!(plain.lines().all(|l| l.chars().count() <= WIDTH), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(plain.contains("a\\u{1b}[2Jb [not-wal]"), "{plain}");
        assert!(plain.contains("0 failures, 1 warning:"), "{plain}");
        let coloured = shown(&report, false, true).text;
        assert!(coloured.contains("\u{1b}[33mwarn\u{1b}[0m"), "{coloured}");
        let well = Report::new(Some(1), None, Vec::new());
        assert!(text(&well, false).ends_with("all is well\n"));
    }

    #[test]
    fn words_are_never_cut() {
        assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrapped("abcdefgh i", 3), ["abcdefgh", "i"]);
        assert!(wrapped("", 3).is_empty());
    }
}
