//! What the documentation says of tests: each one that it names is there, and each case of the fidelity suite is named. And of the log: every event is listed, with its
//! level and its fields, and nothing else is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeSet;
use std::path::Path;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of tests with the file that each is said to be in: links like [`name`](../tests/file).
fn named(page: &str) -> BTreeSet<(String, String)> {
    page.split("[`")
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once("`](../")?;
            let (file, _) = rest.split_once(')')?;
            file.starts_with("tests/")
                .then(|| (name.to_owned(), file.to_owned()))
        })
        .collect()
}

/// What a file of tests holds: cases of SQL, test functions, and cases that a table or a function names.
fn has(file: &str, name: &str) -> bool {
    let text = text(file);
    text.lines().any(|line| line == format!("--- case {name}"))
        || text.contains(&format!("fn {name}()"))
        || text.contains(&format!("\"{name}\""))
}

#[test]
fn every_test_that_is_named_is_there() {
    let named = named(&text("docs/sqlite-support.md"));
    assert!(named.len() > 100, "{}", named.len());
    for (name, file) in named {
        assert!(has(&file, &name), "{file} has no test {name}");
    }
}

#[test]
fn every_case_is_named() {
    let named = named(&text("docs/sqlite-support.md"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fidelity");
    let mut found = 0;
    for folder in [folder.clone(), folder.join("cases")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            let cases = text
                .lines()
                .filter_map(|line| line.strip_prefix("--- case "));
            let functions = text.split("#[test]\nfn ").skip(1);
            let functions = functions.filter_map(|rest| rest.split_once('(').map(|(name, _)| name));
            for name in cases.chain(functions) {
                found += 1;
                assert!(
                    named.iter().any(|(there, _)| there == name),
                    "docs/sqlite-support.md does not name {name} of {}",
                    path.display()
                );
            }
        }
    }
    assert!(found > 90, "{found}");
}

/// Names of findings: the first column of the tables of `docs/doctor.md`.
fn findings(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(_, rest)| rest.starts_with("warn |") || rest.starts_with("fail, "))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_finding_of_the_doctor_is_documented_and_the_other_way_round() {
    use harmonylite::doctor::{Level, ORDER, Problem};
    let page = text("docs/doctor.md");
    let there = findings(&page);
    let known: BTreeSet<&str> = Problem::ALL.iter().map(|p| p.name()).collect();
    assert_eq!(there, known);
    for problem in Problem::ALL {
        // Cause and remedy, and how bad it is.
        let row = page
            .lines()
            .find(|l| l.starts_with(&format!("| `{}` |", problem.name())))
            .unwrap();
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        assert!(cells[2].len() > 10 && cells[3].len() > 10, "{row}");
        let code = match problem.level() {
            Level::Fail => format!("fail, {}", problem.exit().number()),
            _ => "warn".to_owned(),
        };
        assert_eq!(cells[1], code, "{row}");
    }
    // Each check is told of under its heading, in the order of the report.
    let mut rest = page.as_str();
    let mut heading = "";
    for check in ORDER {
        let (place, name) = check.place();
        for words in [
            (place != heading).then(|| format!("## {place}\n")),
            Some(format!("**{name}**")),
        ]
        .into_iter()
        .flatten()
        {
            let (_, after) = rest
                .split_once(words.as_str())
                .unwrap_or_else(|| panic!("{words} is not there, or not in its place"));
            rest = after;
        }
        heading = place;
    }
    // Each is provoked: by real files, databases, servers and daemons, or where that cannot be, in the judgement alone.
    let mut tests = String::new();
    for folder in ["src/doctor", "tests/it/doctor"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("problem.rs") {
                tests.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for name in known {
        assert!(tests.contains(&format!("{name:?}")), "no test finds {name}");
    }
}
/// An event as the code says it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Logged {
    part: String,
    level: String,
    message: String,
    fields: Vec<String>,
}

/// Every event that `src` logs.
fn logged() -> BTreeSet<Logged> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let inside = path.strip_prefix(&root).unwrap().with_extension("");
                let part = inside.display().to_string().replace('/', "::");
                events(code, part.trim_end_matches("::mod"), &mut found);
            }
        }
    }
    found
}

fn events(code: &str, part: &str, found: &mut BTreeSet<Logged>) {
    for level in ["error", "warn", "info", "debug", "trace"] {
        for (at, begin) in code.match_indices(&format!("tracing::{level}!(")) {
            let line = code[..at].rsplit('\n').next().unwrap();
            if line.trim_start().starts_with("//") {
                continue;
            }
            let arguments = arguments(&code[at + begin.len()..]);
            let (fields, message): (Vec<&String>, Vec<&String>) =
                arguments.iter().partition(|a| !a.starts_with('"'));
            // What stands behind the message are its own arguments.
            let before = arguments.iter().position(|a| a.starts_with('"')).unwrap();
            let target = fields.iter().find_map(|f| f.strip_prefix("target: "));
            let name = |field: &String| {
                let name = field.split(" = ").next().unwrap();
                let last = name.trim_start_matches(['%', '?']).rsplit('.').next();
                last.unwrap().trim_start_matches("r#").to_owned()
            };
            found.insert(Logged {
                part: target.map_or_else(|| part.to_owned(), |t| t.trim_matches('"').to_owned()),
                level: level.to_uppercase(),
                message: shown(message[0]),
                fields: arguments[..before]
                    .iter()
                    .filter(|a| !a.starts_with("target: "))
                    .map(name)
                    .collect(),
            });
        }
    }
}

/// The arguments of a call whose bracket has just been opened.
fn arguments(code: &str) -> Vec<String> {
    let (mut out, mut current, mut depth, mut text) = (Vec::new(), String::new(), 0, false);
    let mut letters = code.chars();
    while let Some(c) = letters.next() {
        match c {
            '\\' if text => {
                current.push(c);
                current.extend(letters.next());
                continue;
            }
            '"' => text = !text,
            '(' | '[' | '{' if !text => depth += 1,
            ')' if !text && depth == 0 => break,
            ')' | ']' | '}' if !text => depth -= 1,
            ',' if !text && depth == 0 => {
                out.push(current.trim().to_owned());
                current.clear();
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    out.push(current.trim().to_owned());
    out.retain(|a| !a.is_empty());
    out
}

/// A message as the page shows it: what is filled in are three dots.
fn shown(message: &str) -> String {
    let mut out = String::new();
    let mut filled = false;
    for c in message.trim_matches('"').chars() {
        match c {
            '{' => filled = true,
            '}' => {
                filled = false;
                out.push('\u{2026}');
            }
            '|' => out.push('/'),
            c if !filled => out.push(c),
            _ => {}
        }
    }
    out
}

/// The table of the page: `HARMONYLITE_WRITE_GOLDEN=1` writes it anew.
#[test]
fn every_event_of_the_log_is_listed() {
    const BEGIN: &str = "| Level | Message | Fields | Part |\n|---|---|---|---|\n";
    let found = logged();
    assert!(found.len() > 150, "{}", found.len());
    let rows: String = found
        .iter()
        .map(|e| {
            let fields: Vec<String> = e.fields.iter().map(|f| format!("`{f}`")).collect();
            format!(
                "| {} | {} | {} | `{}` |\n",
                e.level,
                e.message,
                fields.join(", "),
                e.part
            )
        })
        .collect();
    let page = text("docs/logging.md");
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let listed: String = rest
        .split_inclusive('\n')
        .take_while(|l| l.starts_with("| "))
        .collect();
    if std::env::var_os("HARMONYLITE_WRITE_GOLDEN").is_some() {
        let after = &rest[listed.len()..];
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logging.md");
        std::fs::write(path, format!("{before}{BEGIN}{rows}{after}")).unwrap();
        return;
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (listed, rows) = (lines(&listed), lines(&rows));
    let missing: Vec<&String> = rows.difference(&listed).collect();
    let gone: Vec<&String> = listed.difference(&rows).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "docs/logging.md lacks {missing:#?} and lists {gone:#?}; HARMONYLITE_WRITE_GOLDEN=1 cargo test --test documents writes it anew"
    );
}

/// Every field has its meaning in the page.
#[test]
fn every_field_of_the_log_is_explained() {
    let page = text("docs/logging.md");
    let (_, section) = page.split_once("\n## Fields\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let explained: BTreeSet<&str> = section
        .lines()
        .filter(|l| l.starts_with("| `"))
        .flat_map(|l| l.split(" | ").next().unwrap().split('`').skip(1).step_by(2))
        .collect();
    let mut used: BTreeSet<String> = logged().into_iter().flat_map(|e| e.fields).collect();
    // Of every line of JSON, and of repeats.
    for ours in ["timestamp", "level", "node", "target", "message", "repeats"] {
        used.insert(ours.to_owned());
    }
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    assert_eq!(explained, used);
}
