//! Commands that are words: `harmonylite conflicts list --json`. Flags that hold for every command may stand before and after the words; a
//! word's own options follow it.
//!
//! Invariant: `VERBS` is the one list of words: parsing, the help and the nearest name all come from it. To add a word: a file here with its
//! arguments, how they are parsed and run; a line in `VERBS`; a variant of [`Word`].

mod bench;
mod brakes;
mod conflicts;
mod dead_letters;
mod diagnose;
mod doctor;
mod given;
mod leave;
mod nats;
mod nodes;
mod output;
mod ping;
mod purge;
mod reload;
mod schema;
pub mod snapshot;
mod span;
mod streams;
mod verify;
mod wait;

use std::ffi::OsString;
use std::time::Duration;

pub use bench::Measure;
pub use conflicts::Conflicts;
pub use dead_letters::DeadLetters;
pub use diagnose::Diagnose;
pub use doctor::Doctor;
pub use given::Given;
pub use nodes::Nodes;
pub use output::Done;
pub use ping::Ping;
pub use purge::Purge;
pub use schema::Schema;
pub use snapshot::Snapshot;
pub use verify::Verify;
pub use wait::Wait;

use super::args::Args;
use super::exit::ExitCode;
use super::flags::{self, FLAGS, Flag};
use super::usage::{UsageError, shown};
use crate::config::{Config, nearest};
use crate::control::cluster::BrakeArguments;
use crate::control::{Request, Span};
use crate::engine::Fatal;

/// What words ask for, with their arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The conflict journal.
    Conflicts(Conflicts),
    /// The dead-letter journal.
    DeadLetters(DeadLetters),
    /// Messages that are not to be folded here.
    Skip(Span),
    /// Messages that are to be folded again.
    Replay(Span),
    /// Snapshots.
    Snapshot(Snapshot),
    /// Positions.
    Wait(Wait),
    /// Comparing nodes.
    Verify(Verify),
    /// Schemas.
    Schema(Schema),
    /// Who is there.
    Nodes(Nodes),
    /// What the streams hold.
    Streams {
        /// As JSON.
        json: bool,
    },
    /// How long it takes to each node.
    Ping(Ping),
    /// Leaving the cluster.
    Leave {
        /// How long publishing what is pending may take.
        timeout: Duration,
    },
    /// Holding this node back.
    Brake(BrakeArguments),
    /// Looking at everything.
    Doctor(Doctor),
    /// A bundle for whoever helps.
    Diagnose(Diagnose),
    /// Reading the configuration again.
    Reload,
    /// Measuring.
    Bench(Box<Measure>),
}

/// One command of words.
pub struct Verb {
    /// Its first word.
    group: &'static str,
    /// Its second word, where it has one.
    verb: Option<&'static str>,
    /// What stands behind the words without a dash, for the help.
    operands: &'static str,
    /// Its own options.
    pub(super) options: &'static [Flag],
    /// One line that says what it does.
    about: &'static str,
    /// What else its help says.
    more: &'static str,
    /// Reads its arguments.
    pub(super) parse: fn(&Given<'_>) -> Result<Word, UsageError>,
}

/// Every command of words, in the order of the help.
const VERBS: &[&[Verb]] = &[
    conflicts::VERBS,
    dead_letters::VERBS,
    span::VERBS,
    wait::VERBS,
    verify::VERBS,
    schema::VERBS,
    nodes::VERBS,
    streams::VERBS,
    ping::VERBS,
    leave::VERBS,
    brakes::VERBS,
    reload::VERBS,
    snapshot::VERBS,
    doctor::VERBS,
    diagnose::VERBS,
    bench::VERBS,
];

/// Groups whose first verb is meant where none is named.
const USUAL: [&str; 2] = ["nodes", "bench"];

/// What the words of a command line come to.
pub(super) enum Found {
    /// There are none.
    Flags,
    /// A question for help, answered.
    Help(String),
    /// A command, and the command line without its words.
    Verb(&'static Verb, Vec<OsString>),
}

/// Looks for words.
pub(super) fn find(arguments: &[OsString]) -> Result<Found, UsageError> {
    let Some(first) = flags::next_word(arguments, 0, &[]) else {
        return Ok(Found::Flags);
    };
    let word = |at: usize| arguments.get(at).map(|a| a.to_string_lossy().into_owned());
    let group = word(first).unwrap_or_default();
    if group == "help" {
        let topic = flags::next_word(arguments, first + 1, &[]).and_then(word);
        return match topic {
            None => Ok(Found::Help(help())),
            Some(topic) => group_help(&topic).map(Found::Help),
        };
    }
    let verbs = verbs_of(&group)?;
    if let Some(alone) = verbs.iter().find(|v| v.verb.is_none()) {
        return Ok(Found::Verb(alone, without(arguments, &[first])));
    }
    let options: Vec<&'static [Flag]> = verbs.iter().map(|v| v.options).collect();
    let usage = || {
        let all: Vec<&str> = verbs.iter().filter_map(|v| v.verb).collect();
        format!("{group} {}", all.join("|"))
    };
    let Some(second) = flags::next_word(arguments, first + 1, &options) else {
        let asks = |a: &OsString| ["-h", "-help", "--help"].iter().any(|h| a == h);
        if arguments.iter().any(asks) {
            return group_help(&group).map(Found::Help);
        }
        if let Some(usual) = verbs.first().filter(|v| USUAL.contains(&v.group)) {
            return Ok(Found::Verb(usual, without(arguments, &[first])));
        }
        return Err(UsageError::MissingOperand {
            usage: usage(),
            command: group,
            what: "a second word",
        });
    };
    let name = word(second).unwrap_or_default();
    match verbs.iter().find(|v| v.verb == Some(name.as_str())) {
        Some(verb) => Ok(Found::Verb(verb, without(arguments, &[first, second]))),
        None if name == "help" => group_help(&group).map(Found::Help),
        None => Err(UsageError::UnknownWord {
            word: shown(&format!("{group} {name}")),
            remedy: match nearest(&name, verbs.iter().filter_map(|v| v.verb)) {
                Some(near) => format!("did you mean {group} {near}?"),
                None => format!("write harmonylite {}", usage()),
            },
        }),
    }
}

fn verbs_of(group: &str) -> Result<Vec<&'static Verb>, UsageError> {
    let found: Vec<&'static Verb> = all().filter(|v| v.group == group).collect();
    if found.is_empty() {
        return Err(UsageError::UnknownWord {
            word: shown(group),
            remedy: match nearest(group, all().map(|v| v.group)) {
                Some(near) => format!("did you mean {near}?"),
                None => "see harmonylite help for all commands".to_owned(),
            },
        });
    }
    Ok(found)
}

fn all() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().copied().flatten()
}

fn without(arguments: &[OsString], words: &[usize]) -> Vec<OsString> {
    let rest = arguments.iter().enumerate();
    rest.filter(|(at, _)| !words.contains(at))
        .map(|(_, a)| a.clone())
        .collect()
}

impl Verb {
    /// Its words.
    pub(super) fn name(&self) -> String {
        match self.verb {
            Some(verb) => format!("{} {verb}", self.group),
            None => self.group.to_owned(),
        }
    }

    /// Its words and what follows them.
    fn usage(&self) -> String {
        let mut usage = self.name();
        if !self.operands.is_empty() {
            usage.push(' ');
            usage.push_str(self.operands);
        }
        if !self.options.is_empty() {
            usage.push_str(" [options]");
        }
        usage
    }

    /// The text that `--help` behind its words shows.
    pub(super) fn help(&self) -> String {
        let mut text = format!(
            "{}\n\nUsage: harmonylite [flags] {}\n",
            sentence(self.about),
            self.usage()
        );
        if !self.options.is_empty() {
            text.push_str("\nOptions:\n");
            text.push_str(&flags::lines(self.options, "--"));
        }
        if !self.more.is_empty() {
            text.push_str(&format!("\n{}\n", self.more));
        }
        text.push_str("\nFlags such as -config FILE and -db FILE may stand anywhere; harmonylite help lists them.\n");
        text
    }
}

fn sentence(about: &str) -> String {
    let mut letters = about.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

fn group_help(group: &str) -> Result<String, UsageError> {
    let texts: Vec<String> = verbs_of(group)?.iter().map(|v| v.help()).collect();
    Ok(texts.join("\n---\n\n"))
}

/// The text of `-help`: every flag and every word.
pub(super) fn help() -> String {
    let mut text = "Replicates an SQLite database between nodes through NATS JetStream.\n\n\
                    Usage: harmonylite [flags]              run the daemon\n       \
                           harmonylite [flags] COMMAND ...  do one thing\n\n\
                    Commands:\n"
        .to_owned();
    for verb in all() {
        let mut left = verb.name();
        if !verb.operands.is_empty() {
            left = format!("{left} {}", verb.operands);
        }
        text.push_str(&format!("  {left:<28} {}\n", verb.about));
    }
    text.push_str("  help COMMAND                 how a command is used\n");
    text.push_str("\nFlags, one dash or two, -flag VALUE or -flag=VALUE:\n");
    text.push_str(&flags::lines(&FLAGS, "-"));
    text
}

/// Does what words ask for that load the configuration by themselves, since one with faults is a finding to them, and that touch nothing; `None`: any other.
#[must_use]
pub fn by_themselves(word: &Word, args: &Args) -> Option<Result<Done, Fatal>> {
    match word {
        Word::Doctor(command) => Some(doctor::run(*command, args)),
        Word::Diagnose(command) => Some(diagnose::run(command, args)),
        Word::Bench(command) => bench::run(command),
        _ => None,
    }
}

/// Does what words ask for.
///
/// # Errors
/// The sentence for the person who asked, with the exit code.
pub fn run(word: Word, config: &Config) -> Result<Done, Fatal> {
    match word {
        Word::Conflicts(command) => conflicts::run(command, config),
        Word::DeadLetters(command) => dead_letters::run(command, config),
        Word::Skip(range) => span::run(Request::Skip(range), config),
        Word::Replay(range) => span::run(Request::Replay(range), config),
        Word::Snapshot(command) => snapshot::run(command, config),
        Word::Wait(command) => wait::run(command, config),
        Word::Verify(command) => verify::run(command, config),
        Word::Schema(command) => schema::run(command, config),
        Word::Nodes(command) => nodes::run(command, config),
        Word::Streams { json } => streams::run(json, config),
        Word::Ping(command) => ping::run(&command, config),
        Word::Leave { timeout } => leave::run(timeout, config),
        Word::Brake(arguments) => brakes::run(arguments, config),
        // What it does without a configuration, it does before there is one.
        Word::Bench(command) => bench::live(&command, config),
        Word::Doctor(_) | Word::Diagnose(_) => Err(Fatal::new(
            ExitCode::Software,
            "this command loads the configuration by itself",
        )),
        Word::Reload => reload::run(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Args, Command};

    fn parse(line: &str) -> Result<Args, UsageError> {
        let words = std::iter::once("harmonylite").chain(line.split(' '));
        Args::parse(words.map(OsString::from))
    }

    #[test]
    fn flags_stand_before_between_and_after_the_words() {
        let expected = parse("-db d.db -config c.toml conflicts list --limit 3").unwrap();
        assert!(matches!(expected.command, Command::Word(_)));
        assert_eq!(expected.overrides.db, Some("d.db".into()));
        for other in [
            "conflicts list --limit 3 --db d.db -config=c.toml",
            "--db=d.db conflicts -config c.toml list -limit=3",
            "conflicts -limit 3 list -db d.db -config c.toml",
        ] {
            assert_eq!(parse(other).as_ref(), Ok(&expected), "{other}");
        }
    }

    #[test]
    fn what_is_wrong_gets_one_sentence() {
        for (line, text) in [
            (
                "conflict list",
                "\"conflict\" is not a known command; did you mean conflicts?",
            ),
            (
                "conflicts lst",
                "\"conflicts lst\" is not a known command; did you mean conflicts list?",
            ),
            (
                "conflicts",
                "conflicts needs a second word; write harmonylite conflicts list|",
            ),
            (
                "conflicts list --limt 3",
                "-limt is not a known flag; did you mean -limit?",
            ),
            ("conflicts list --limit", "-limit needs a value"),
            ("conflicts list extra", "\"extra\" is not expected here"),
            (
                "conflicts list -stop",
                "-stop and conflicts list cannot be used together",
            ),
            ("conflicts list --json=perhaps", "-json has an unusable"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.starts_with(text), "{line}: {error}");
        }
    }

    fn word(line: &str) -> Word {
        match parse(line).unwrap().command {
            Command::Word(word) => word,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn arguments_are_typed() {
        let span = |first, last| Span {
            shard: 1,
            first,
            last,
        };
        assert_eq!(word("nodes --json"), word("nodes list --json"));
        assert_eq!(
            word("nodes forget 3"),
            Word::Nodes(Nodes::Forget { node: 3 })
        );
        assert_eq!(word("skip 1 7"), Word::Skip(span(7, Some(7))));
        assert_eq!(word("replay 1 7-9"), Word::Replay(span(7, Some(9))));
        assert_eq!(word("replay 1 7-"), Word::Replay(span(7, None)));
        let purge = |line: &str| match word(line) {
            Word::Conflicts(Conflicts::Purge(purge)) => purge,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(purge("conflicts purge 3 4"), Purge::These(vec![3, 4]));
        assert_eq!(purge("conflicts purge --all"), Purge::All);
        assert_eq!(
            purge("conflicts purge -before=2h"),
            Purge::Before(std::time::Duration::from_secs(7200))
        );
        match word("conflicts restore 5 -as-new-row --column a,b --key -1,x") {
            Word::Conflicts(Conflicts::Restore { id: 5, how }) => {
                assert!(how.as_new_row);
                assert_eq!(
                    (how.columns.join("|"), how.key.join("|")),
                    ("a|b".into(), "-1|x".into())
                );
            }
            other => panic!("{other:?}"),
        }
        for (line, text) in [
            ("conflicts purge", "purge: give one or more IDs"),
            ("conflicts purge 3 --all", "purge: give one or more IDs"),
            ("dead-letters purge x", "an ID cannot be read"),
            (
                "conflicts purge --before 30",
                "-before has an unusable value",
            ),
            ("conflicts restore", "conflicts restore needs an ID"),
            ("conflicts restore 1 2", "\"2\" is not expected here"),
            (
                "conflicts restore 1 --key 4",
                "conflicts restore: --key goes with --as-new-row",
            ),
            ("replay 1 9-7", "the RANGE cannot be read"),
            ("replay 1 +7", "the RANGE cannot be read"),
            ("replay 1 -7", "-7 is not a known flag"),
            ("replay 1 0-", "the RANGE cannot be read"),
            ("replay 1 99999999999999999999", "the RANGE cannot be read"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.starts_with(text), "{line}: {error}");
        }
    }

    #[test]
    fn help_is_there_for_all_and_for_each() {
        let help = |line: &str| match parse(line).unwrap().command {
            Command::Help(text) => text,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(help("help"), help("-help"));
        for verb in all() {
            assert!(help("help").contains(&verb.name()));
            for line in [
                format!("{} --help", verb.name()),
                format!("-h {}", verb.name()),
            ] {
                assert_eq!(help(&line), verb.help());
            }
            for line in ["help GROUP", "GROUP --help", "GROUP help"] {
                if verb.verb.is_some() || line.starts_with("help") {
                    let text = help(&line.replace("GROUP", verb.group));
                    assert!(text.contains(&verb.help()), "{line}");
                }
            }
            // What clap would refuse to build fails here, not at a person's first try.
            flags::command(verb.options, true).debug_assert();
            assert!(verb.help().lines().all(|l| l.chars().count() <= 120));
        }
    }
}
