//! The table of flags, and the way from Go's spelling to clap's.
//!
//! Invariants: this table is the one list of flags that hold for every command (a word brings options of its own); normalising never changes a value, nor anything that does
//! not look like a long flag (`-h`, `-5`, `-`, what follows `--`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command, value_parser};

/// One flag.
pub(super) struct Flag {
    /// Without its dash.
    pub(super) name: &'static str,
    /// What its value stands for; `None`: a switch, which takes `=true` or `=false` only.
    pub(super) value: Option<&'static str>,
    /// One line for the help.
    pub(super) help: &'static str,
}

/// A flag with a value.
pub(super) const fn flag(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    let value = Some(value);
    Flag { name, value, help }
}

/// A flag that is on or off.
pub(super) const fn switch(name: &'static str, help: &'static str) -> Flag {
    let value = None;
    Flag { name, value, help }
}

/// Every flag, in the order of the help.
pub(super) const FLAGS: [Flag; 15] = [
    flag(
        "config",
        "FILE",
        "configuration (TOML); without it, defaults and -db",
    ),
    flag("db", "FILE", "database to replicate, instead of db_path"),
    flag("node-id", "N", "number of this node, instead of node_id"),
    flag(
        "cluster-addr",
        "HOST:PORT",
        "where the managed NATS server listens for routes; the next port up is for leaf nodes",
    ),
    flag(
        "cluster-peers",
        "URLS",
        "comma-separated: nats://host:port/ or dns://host:port/?min=N&interval_ms=N",
    ),
    flag(
        "leaf-servers",
        "URLS",
        "leaf-node remotes, as -cluster-peers, also with ?hub=true (or -leaf-server)",
    ),
    flag(
        "pprof",
        "ADDR",
        "where to serve profiles: :PORT on loopback, or HOST:PORT",
    ),
    switch(
        "check",
        "validate the configuration, say every fault, and exit",
    ),
    switch(
        "cleanup",
        "publish what is pending, remove everything of HarmonyLite, and exit",
    ),
    switch("save-snapshot", "take a snapshot, upload it, and exit"),
    switch(
        "stop",
        "ask the daemon of this database to stop, wait for it, and exit",
    ),
    switch("schema-status", "show the schema of this node and exit"),
    switch(
        "schema-status-cluster",
        "show the schemas of all nodes and exit",
    ),
    switch("version", "show the version and exit"),
    switch("help", "show this text and exit"),
];

/// What stands on a command line beside flags, once the words are taken away.
pub(super) const OPERANDS: &str = "operands";

/// The parser for normalised arguments. Every value stays as it was typed. `options`: those of the word; `operands`: whether it takes any.
pub(super) fn command(options: &'static [Flag], operands: bool) -> Command {
    let args = FLAGS.iter().chain(options).map(|flag| {
        let arg = Arg::new(flag.name)
            .long(flag.name)
            .action(ArgAction::Set)
            .value_parser(value_parser!(OsString));
        let arg = match flag.value {
            Some(name) => arg.value_name(name),
            None => arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        };
        match flag.name {
            "help" => arg.short('h'),
            "output" => arg.short('o'),
            _ => arg,
        }
    });
    Command::new("harmonylite")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        // As in Go: of a flag given twice the last one counts.
        .args_override_self(true)
        .args(args)
        .args(operands.then(|| {
            Arg::new(OPERANDS)
                .num_args(0..)
                .action(ArgAction::Append)
                .value_parser(value_parser!(OsString))
        }))
}

/// The lines of the help for these flags.
pub(super) fn lines(flags: &[Flag], dashes: &str) -> String {
    let mut text = String::new();
    for flag in flags {
        let left = match flag.value {
            Some(value) => format!("{dashes}{} {value}", flag.name),
            None => format!("{dashes}{}", flag.name),
        };
        text.push_str(&format!("  {left:<24} {}\n", flag.help));
    }
    text
}

/// Go's spelling to clap's: `-name` becomes `--name`, and `-name value` becomes `--name=value`, so that a value
/// may begin with a dash. `arguments` come without the program's name; `options` are those of the word.
pub(super) fn normalise(
    arguments: impl IntoIterator<Item = OsString>,
    options: &[Flag],
) -> Vec<OsString> {
    let mut normal = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            normal.push(argument);
            break;
        }
        let Some((name, has_value)) = long_name(&argument) else {
            normal.push(argument);
            continue;
        };
        let mut long = OsString::from("--");
        long.push(canonical(name));
        if let Some(value) = has_value {
            long.push("=");
            long.push(value);
        } else if takes_value(name, options)
            // A known flag is no value: the value was forgotten. (A file of such a name can be given with `=`.)
            && let Some(value) = arguments.next_if(|next| !is_known(next, options))
        {
            long.push("=");
            long.push(value);
        }
        normal.push(long);
    }
    normal.extend(arguments);
    normal
}

/// The name of a long flag, and the value after its `=`.
fn long_name(argument: &OsStr) -> Option<(&OsStr, Option<&OsStr>)> {
    let bytes = argument.as_bytes();
    let (body, dashes) = match (bytes.strip_prefix(b"--"), bytes.strip_prefix(b"-")) {
        (Some(body), _) => (body, 2),
        (None, Some(body)) => (body, 1),
        (None, None) => return None,
    };
    let mut halves = body.splitn(2, |byte| *byte == b'=');
    let name = halves.next().unwrap_or_default();
    let value = halves.next().map(OsStr::from_bytes);
    let is_long =
        name.first().is_some_and(u8::is_ascii_alphabetic) && (dashes == 2 || name.len() > 1);
    is_long.then(|| (OsStr::from_bytes(name), value))
}

/// The Go documentation uses both names.
fn canonical(name: &OsStr) -> OsString {
    if name == "leaf-server" {
        OsString::from("leaf-servers")
    } else {
        OsString::from_vec(name.as_bytes().to_vec())
    }
}

fn takes_value(name: &OsStr, options: &[Flag]) -> bool {
    let name = canonical(name);
    FLAGS
        .iter()
        .chain(options)
        .any(|flag| flag.value.is_some() && name == flag.name)
}

fn is_known(argument: &OsStr, options: &[Flag]) -> bool {
    long_name(argument).is_some_and(|(name, _)| {
        let name = canonical(name);
        FLAGS.iter().chain(options).any(|flag| name == flag.name)
    })
}

/// Where the next word stands at or after `from`: what is neither a flag nor a flag's value.
pub(super) fn next_word(
    arguments: &[OsString],
    from: usize,
    options: &[&'static [Flag]],
) -> Option<usize> {
    let sets = || {
        std::iter::once(&FLAGS[..])
            .chain(options.iter().copied())
            .flatten()
    };
    let mut at = from;
    while let Some(argument) = arguments.get(at) {
        if argument == "--" {
            return None;
        }
        match long_name(argument) {
            Some((name, value)) => {
                let name = canonical(name);
                let wants =
                    value.is_none() && sets().any(|flag| flag.value.is_some() && name == flag.name);
                let has = arguments
                    .get(at + 1)
                    .is_some_and(|next| !options.iter().any(|o| is_known(next, o)))
                    && arguments
                        .get(at + 1)
                        .is_some_and(|next| !is_known(next, &[]));
                at += if wants && has { 2 } else { 1 };
            }
            None if argument.as_bytes().starts_with(b"-") => at += 1,
            None => return Some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(arguments: &[&str]) -> Vec<String> {
        normalise(arguments.iter().map(OsString::from), &[])
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    #[test]
    fn one_dash_becomes_two_and_values_are_joined() {
        assert_eq!(
            normal(&[
                "-config",
                "a.toml",
                "--db",
                "b",
                "-node-id=7",
                "-check",
                "-leaf-server",
                "u"
            ]),
            [
                "--config=a.toml",
                "--db=b",
                "--node-id=7",
                "--check",
                "--leaf-servers=u"
            ]
        );
    }

    #[test]
    fn what_is_no_long_flag_survives() {
        assert_eq!(
            normal(&["-h", "-5", "-", "word", "-1.5", "--", "-check"]),
            ["-h", "-5", "-", "word", "-1.5", "--", "-check"]
        );
    }

    #[test]
    fn a_value_may_begin_with_a_dash_but_not_be_a_flag() {
        assert_eq!(normal(&["-node-id", "-5"]), ["--node-id=-5"]);
        assert_eq!(normal(&["-db", "-odd.db"]), ["--db=-odd.db"]);
        assert_eq!(normal(&["-db", "-check"]), ["--db", "--check"]);
        assert_eq!(normal(&["-db=-check"]), ["--db=-check"]);
    }

    #[test]
    fn the_table_is_a_command_that_clap_accepts() {
        command(&[], false).debug_assert();
    }
}
