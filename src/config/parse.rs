//! TOML text to [`FileConfig`], with the line of every key.
//!
//! Invariants: one pass reports all unknown keys and wrong types, not only the first; no fault quotes a value,
//! since it may be a secret; text that is not TOML yields only the faults of its syntax, since what follows a
//! broken line cannot be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::file::{FileConfig, KnownKeys};
use super::nearest::nearest;
use super::{Fault, FaultKind, Origin};

/// After so many faults the rest of the file is not a configuration worth going through.
const FAULTS_MOST: usize = 100;

/// Where each key of the file stands.
#[derive(Default)]
pub(super) struct Source {
    lines: BTreeMap<String, usize>,
    faulty: BTreeSet<String>,
}

impl Source {
    /// The line of `key` (from 1), if the file sets it.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// All keys with their lines.
    pub(super) fn keys(self) -> Vec<(String, usize)> {
        self.lines.into_iter().collect()
    }

    /// Whether the value of `key` was refused, so that a fault which follows from its absence is no news.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.faulty.contains(key)
    }

    pub(super) fn origin(&self, key: &str) -> Origin {
        Origin::Key {
            key: key.to_owned(),
            line: self.line(key),
        }
    }
}

/// A file read as far as it could be.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) file: FileConfig,
    pub(super) source: Source,
    pub(super) faults: Vec<Fault>,
    /// Not TOML: `file` and `source` are empty.
    pub(super) broken: bool,
}

/// Reads `text`.
pub(super) fn parse(text: &str) -> Parsed {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Parsed {
            faults: syntax_faults(text, &errors),
            broken: true,
            ..Parsed::default()
        };
    }
    let span = root.span();
    let mut table = root.into_inner();
    let mut parsed = Parsed::default();
    note_lines(text, &table, "", &mut parsed.source.lines);

    let known = KnownKeys::list();
    refuse_non_sections(text, &mut table, &known, &mut parsed);
    // Serde stops at the first fault. So the entry at fault is noted, taken out, and the rest tried again.
    while parsed.faults.len() < FAULTS_MOST {
        let attempt = Deserializer::from(Spanned::new(span.clone(), table.clone()));
        let error = match FileConfig::deserialize(attempt) {
            Ok(file) => {
                parsed.file = file;
                break;
            }
            Err(error) => error,
        };
        let found = error
            .span()
            .and_then(|span| locate(&table, &[], span.start));
        let Some(found) = found else {
            parsed.faults.push(Fault {
                origin: Origin::File,
                kind: FaultKind::WrongType {
                    expected: "only keys and sections of config.example.toml",
                },
            });
            break;
        };
        let key = found.path.join(".");
        let kind = if found.on_key {
            let candidates = known.keys.iter().chain(&known.sections);
            FaultKind::UnknownKey {
                nearest: nearest(&key, candidates.map(String::as_str)).map(str::to_owned),
            }
        } else {
            FaultKind::WrongType {
                expected: expected(error.message()),
            }
        };
        parsed.refuse(key, line_of(text, found.key_span.start), kind);
        remove(&mut table, &found.path);
    }
    parsed
}

impl Parsed {
    fn refuse(&mut self, key: String, line: usize, kind: FaultKind) {
        self.source.faulty.insert(key.clone());
        self.faults.push(Fault {
            origin: Origin::Key {
                key,
                line: Some(line),
            },
            kind,
        });
    }
}

/// One fault a line: what follows the first one of a line mostly follows from it.
fn syntax_faults(text: &str, errors: &[toml::de::Error]) -> Vec<Fault> {
    let mut lines = BTreeMap::new();
    for error in errors {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        lines
            .entry(line)
            .or_insert_with(|| error.message().to_owned());
    }
    lines
        .into_iter()
        .take(FAULTS_MOST)
        .map(|(line, message)| Fault {
            origin: Origin::Line(line),
            kind: FaultKind::Syntax { message },
        })
        .collect()
}

/// Line (from 1) of the byte at `offset`.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

fn note_lines(text: &str, table: &DeTable<'_>, prefix: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) => note_lines(text, inner, &format!("{path}."), lines),
            _ => {
                lines.insert(path, line_of(text, key.span().start));
            }
        }
    }
}

/// Serde would read a list where a section belongs by position; nobody means that.
fn refuse_non_sections(
    text: &str,
    table: &mut DeTable<'_>,
    known: &KnownKeys,
    parsed: &mut Parsed,
) {
    for section in &known.sections {
        let path: Vec<String> = section.split('.').map(str::to_owned).collect();
        let Some((line, is_table)) = find(table, &path)
            .map(|(key, value)| (line_of(text, key.span().start), value.get_ref().is_table()))
        else {
            continue;
        };
        if !is_table {
            let expected = "a section in brackets with its keys on the lines below";
            parsed.refuse(section.clone(), line, FaultKind::WrongType { expected });
            remove(table, &path);
        }
    }
}

type Entry<'t, 'i> = (
    &'t Spanned<toml::de::DeString<'i>>,
    &'t Spanned<DeValue<'i>>,
);

fn find<'t, 'i>(table: &'t DeTable<'i>, path: &[String]) -> Option<Entry<'t, 'i>> {
    let (first, rest) = path.split_first()?;
    let entry = table.get_key_value(first.as_str())?;
    if rest.is_empty() {
        return Some(entry);
    }
    find(entry.1.get_ref().as_table()?, rest)
}

fn remove(table: &mut DeTable<'_>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        table.remove(first.as_str());
    } else if let Some(DeValue::Table(inner)) = table.get_mut(first.as_str()).map(Spanned::get_mut)
    {
        remove(inner, rest);
    }
}

struct Located {
    path: Vec<String>,
    key_span: Range<usize>,
    /// The key is at fault, not its value.
    on_key: bool,
}

/// The innermost entry whose key or value stands at byte `at`.
fn locate(table: &DeTable<'_>, above: &[String], at: usize) -> Option<Located> {
    for (key, value) in table {
        let mut path = above.to_vec();
        path.push(key.get_ref().to_string());
        // The span of a section is that of its header: its entries lie outside.
        if let Some(found) = value
            .get_ref()
            .as_table()
            .and_then(|inner| locate(inner, &path, at))
        {
            return Some(found);
        }
        let on_key = key.span().contains(&at);
        if on_key || value.span().contains(&at) {
            return Some(Located {
                path,
                key_span: key.span(),
                on_key,
            });
        }
    }
    None
}

/// What belongs where serde met another type, in words for a person. The message itself quotes the value.
fn expected(message: &str) -> &'static str {
    match message.rsplit_once(", expected ").map(|(_, tail)| tail) {
        Some("a string") => "text in quotes (in lists too)",
        Some("i64") => "a whole number without quotes",
        Some("a boolean") => "true or false without quotes",
        Some("a sequence") => "a list in brackets, as in [\"a\", \"b\"]",
        _ => "a value as in config.example.toml",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(text: &str) -> Vec<String> {
        parse(text).faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_unknown_keys_and_wrong_types_are_found_in_one_pass() {
        let text = "db_pth = 'x'\nnode_id = 'one'\n[nats]\nurls = 'a'\nuser_password = 77123\n\
                    [replication_log]\nshards = 1.5\ncompress = 'yes'\n[natz]\nx = 1\n\
                    [replication]\ninclude = [3]\n";
        let parsed = parse(text);
        let mut found: Vec<String> = parsed.faults.iter().map(ToString::to_string).collect();
        found.sort();
        let expected = [
            "line 12: replication.include has a value of the wrong type; give text in quotes (in lists too)",
            "line 1: db_pth is not a known key; did you mean db_path?",
            "line 2: node_id has a value of the wrong type; give a whole number without quotes",
            "line 4: nats.urls has a value of the wrong type; give a list in brackets, as in [\"a\", \"b\"]",
            "line 5: nats.user_password has a value of the wrong type; give text in quotes (in lists too)",
            "line 7: replication_log.shards has a value of the wrong type; give a whole number without quotes",
            "line 8: replication_log.compress has a value of the wrong type; give true or false without quotes",
            "line 9: natz is not a known key; did you mean nats?",
        ];
        let mut expected = expected.map(str::to_owned).to_vec();
        expected.sort();
        assert_eq!(found, expected);
        assert!(parsed.source.is_faulty("nats.urls"));
        assert_eq!(parsed.source.line("replication_log.compress"), Some(8));
    }

    #[test]
    fn sections_and_keys_are_not_mistaken_for_each_other() {
        for text in ["nats = 3", "nats = []", "[[nats]]\nurls = []"] {
            assert!(
                sentences(text)[0].contains("nats has a value of the wrong type; give a section")
            );
        }
        assert!(sentences("[db_path]\n")[0].starts_with("line 1: db_path has a value"));
        assert!(sentences("[nats.urls]\nx = 1")[0].contains("nats.urls has a value"));
    }

    #[test]
    fn a_number_past_64_bits_is_refused() {
        for number in [
            "9223372036854775808",
            "99999999999999999999999999999999999999999",
        ] {
            let text = format!("\nnode_id = {number}");
            assert!(sentences(&text)[0].starts_with("line 2: node_id has a value"));
        }
    }

    #[test]
    fn broken_lines_are_all_named_and_nothing_of_them_is_quoted() {
        let text = "db_path = 'a'\nnode_id = \n[nats]\nuser_password = hunter2\nuser_name = 'a'\n\
                    user_name = 'b'\nseed_file = \"hunter2\n";
        let parsed = parse(text);
        let found: Vec<String> = parsed.faults.iter().map(ToString::to_string).collect();
        assert!(parsed.broken);
        for (line, words) in [
            (2, "correct that line"),
            (4, "quote"),
            (6, "duplicate"),
            (7, "TOML"),
        ] {
            let sentence = found
                .iter()
                .find(|sentence| sentence.starts_with(&format!("line {line} ")))
                .unwrap_or_else(|| panic!("no line {line} in {found:?}"));
            assert!(sentence.contains(words), "{sentence}");
        }
        assert!(!found.iter().any(|sentence| sentence.contains("hunter2")));
    }

    #[test]
    fn the_number_of_faults_is_bounded() {
        let text: String = (0..1000).map(|n| format!("key{n} = 1\n")).collect();
        assert_eq!(parse(&text).faults.len(), FAULTS_MOST);
    }
}
