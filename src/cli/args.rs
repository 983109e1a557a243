//! The command line: Go-style flags (`-flag value`, `-flag=value`, one dash or two), and words with options of their own, to typed [`Args`].
//!
//! Invariants: a flag that is not known is never ignored; no error shows a flag's value, since URLs may hold
//! logins; values are read here, meaning that depends on the file is checked by `config`.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::ArgMatches;

use super::flags;
use super::usage::{UsageError, refusal};
use super::words::{self, Found, Word};
use crate::config::{LeafUrl, ListenAddress, Overrides, PeerUrl, UrlProblem};

/// What the process is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Replicate until asked to stop.
    Run,
    /// Validate the configuration and say every fault.
    Check,
    /// Publish what is pending, then remove everything of ours from the database.
    Cleanup,
    /// Take a snapshot and upload it.
    SaveSnapshot,
    /// Ask the daemon of this database to stop, and wait for it.
    Stop,
    /// Show this node's schema.
    SchemaStatus,
    /// Show the schemas of all nodes.
    SchemaStatusCluster,
    /// Show the version.
    Version,
    /// Show this text: the flags, or how a word is used.
    Help(String),
    /// What words ask for.
    Word(Word),
}

/// A command line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// The configuration file, if one is given.
    pub config: Option<PathBuf>,
    /// What goes on top of it.
    pub overrides: Overrides,
}

/// Switches that choose a command; without any of them, [`Command::Run`].
const COMMANDS: [(&str, Command); 6] = [
    ("check", Command::Check),
    ("cleanup", Command::Cleanup),
    ("save-snapshot", Command::SaveSnapshot),
    ("stop", Command::Stop),
    ("schema-status", Command::SchemaStatus),
    ("schema-status-cluster", Command::SchemaStatusCluster),
];

impl Args {
    /// Reads a command line as `std::env::args_os` gives it, the program's name first.
    ///
    /// # Errors
    /// The first thing that cannot be understood, as one sentence. Exit with [`super::exit::ExitCode::Usage`].
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let arguments: Vec<OsString> = arguments.into_iter().skip(1).collect();
        let (verb, rest) = match words::find(&arguments)? {
            Found::Flags => (None, arguments),
            Found::Help(text) => return Ok(Self::only(Command::Help(text))),
            Found::Verb(verb, rest) => (Some(verb), rest),
        };
        let options = verb.map_or(&[][..], |v| v.options);
        let normal = flags::normalise(rest, options);
        let matches = flags::command(options, verb.is_some())
            .try_get_matches_from(normal)
            .map_err(|error| refusal(&error, options))?;
        let command = match (command(&matches)?, verb) {
            (Command::Help(_), Some(verb)) => {
                return Ok(Self::only(Command::Help(verb.help())));
            }
            (Command::Run, Some(verb)) => Command::Word((verb.parse)(&words::Given {
                verb,
                matches: &matches,
            })?),
            (chosen, Some(verb)) => {
                let switch = COMMANDS.iter().find(|(_, c)| *c == chosen);
                return Err(UsageError::Conflict {
                    first: format!("-{}", switch.map_or("version", |(name, _)| name)),
                    second: verb.name(),
                });
            }
            (command, None) => command,
        };
        let path = |name| given(&matches, name).map(PathBuf::from);
        Ok(Self {
            command,
            config: path("config"),
            overrides: Overrides {
                db: path("db"),
                node_id: node_id(&matches)?,
                cluster_addr: address(&matches, "cluster-addr")?,
                cluster_peers: urls(
                    &matches,
                    "cluster-peers",
                    PeerUrl::parse,
                    "nats://host:port/ or dns://host:port/?min=N&interval_ms=N",
                )?,
                leaf_servers: urls(
                    &matches,
                    "leaf-servers",
                    LeafUrl::parse,
                    "nats://host:port/?hub=true or dns://host:port/?min=N&interval_ms=N",
                )?,
                pprof: address(&matches, "pprof")?,
            },
        })
    }

    fn only(command: Command) -> Self {
        Self {
            command,
            config: None,
            overrides: Overrides::default(),
        }
    }

    /// The text of `-help`: every flag and every word.
    pub fn help() -> String {
        words::help()
    }
}

/// The value of a flag; an empty one stands for a flag that is not given, as in Go.
pub(super) fn given<'m>(matches: &'m ArgMatches, name: &str) -> Option<&'m OsString> {
    matches
        .get_one::<OsString>(name)
        .filter(|value| !value.is_empty())
}

fn command(matches: &ArgMatches) -> Result<Command, UsageError> {
    if is_on(matches, "help")? {
        return Ok(Command::Help(words::help()));
    }
    if is_on(matches, "version")? {
        return Ok(Command::Version);
    }
    let mut chosen: Option<(&'static str, Command)> = None;
    for (second, command) in COMMANDS {
        if !is_on(matches, second)? {
            continue;
        }
        if let Some((first, _)) = chosen {
            return Err(UsageError::Conflict {
                first: format!("-{first}"),
                second: format!("-{second}"),
            });
        }
        chosen = Some((second, command));
    }
    Ok(chosen.map_or(Command::Run, |(_, command)| command))
}

/// A switch, with the words that Go takes for true and false.
pub(super) fn is_on(matches: &ArgMatches, flag: &'static str) -> Result<bool, UsageError> {
    match matches
        .get_one::<OsString>(flag)
        .map(|value| value.to_str())
    {
        None | Some(Some("0" | "f" | "F" | "false" | "FALSE" | "False")) => Ok(false),
        Some(Some("1" | "t" | "T" | "true" | "TRUE" | "True")) => Ok(true),
        Some(_) => Err(UsageError::BadValue {
            flag,
            expected: "=true or =false",
        }),
    }
}

fn node_id(matches: &ArgMatches) -> Result<Option<NonZeroU64>, UsageError> {
    let flag = "node-id";
    let Some(value) = given(matches, flag) else {
        return Ok(None);
    };
    value
        .to_str()
        .and_then(|text| text.parse::<NonZeroU64>().ok())
        // What state tables can hold; the same bound as that of node_id in the file.
        .filter(|id| i64::try_from(id.get()).is_ok())
        .map(Some)
        .ok_or(UsageError::BadValue {
            flag,
            expected: "a number from 1 to 9223372036854775807",
        })
}

fn address(matches: &ArgMatches, flag: &'static str) -> Result<Option<ListenAddress>, UsageError> {
    given(matches, flag)
        .map(|value| ListenAddress::parse(&value.to_string_lossy()))
        .transpose()
        .map_err(|problem| UsageError::BadAddress { flag, problem })
}

fn urls<T>(
    matches: &ArgMatches,
    flag: &'static str,
    parse: fn(&str) -> Result<T, UrlProblem>,
    example: &'static str,
) -> Result<Vec<T>, UsageError> {
    let Some(value) = given(matches, flag) else {
        return Ok(Vec::new());
    };
    value
        .to_string_lossy()
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .enumerate()
        .map(|(n, url)| {
            parse(url).map_err(|problem| UsageError::BadUrl {
                flag,
                entry: n + 1,
                problem,
                example,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Args, UsageError> {
        Args::parse(
            std::iter::once("harmonylite")
                .chain(arguments.iter().copied())
                .map(OsString::from),
        )
    }

    #[test]
    fn both_dash_forms_and_both_value_forms_mean_the_same() {
        let expected = parse(&[
            "-config", "c.toml", "-db", "d.db", "-node-id", "7", "-check",
        ])
        .unwrap();
        assert_eq!(expected.command, Command::Check);
        assert_eq!(expected.config, Some("c.toml".into()));
        assert_eq!(expected.overrides.db, Some("d.db".into()));
        assert_eq!(expected.overrides.node_id, NonZeroU64::new(7));
        for other in [
            &[
                "--config",
                "c.toml",
                "--db",
                "d.db",
                "--node-id",
                "7",
                "--check",
            ][..],
            &["-config=c.toml", "-db=d.db", "-node-id=7", "-check=true"],
            &["--config=c.toml", "--db=d.db", "--node-id=7", "--check=T"],
            &[
                "-node-id", "1", "-check", "-node-id", "7", "-db", "d.db", "-config", "c.toml",
            ],
        ] {
            assert_eq!(parse(other).as_ref(), Ok(&expected), "{other:?}");
        }
    }

    #[test]
    fn each_command_has_its_switch() {
        for (flag, command) in COMMANDS {
            assert_eq!(parse(&[&format!("-{flag}")]).unwrap().command, command);
            assert_eq!(
                parse(&[&format!("--{flag}=false")]).unwrap().command,
                Command::Run
            );
        }
        assert_eq!(parse(&[]).unwrap().command, Command::Run);
        for flag in ["-h", "-help", "--help"] {
            assert_eq!(
                parse(&[flag, "-stop"]).unwrap().command,
                Command::Help(Args::help())
            );
        }
        assert_eq!(parse(&["-version"]).unwrap().command, Command::Version);
    }

    #[test]
    fn peers_are_typed() {
        let args = parse(&[
            "-cluster-addr",
            ":6222",
            "-cluster-peers",
            "nats://a:6222/, dns://b:6222/?min=3,",
            "-leaf-server",
            "nats://c:7422/?hub=true",
        ]);
        let overrides = args.unwrap().overrides;
        assert_eq!(overrides.cluster_addr.unwrap().port, Some(6222));
        assert_eq!(overrides.cluster_peers.len(), 2);
        assert!(overrides.leaf_servers[0].hub);
    }

    #[test]
    fn what_is_wrong_gets_one_sentence() {
        for (arguments, sentence) in [
            (
                &["-clenup"][..],
                "-clenup is not a known flag; did you mean -cleanup?",
            ),
            (
                &["--nodeid=hunter2"],
                "-nodeid is not a known flag; did you mean -node-id?",
            ),
            (
                &["-x"],
                "-x is not a known flag; see harmonylite -help for all flags",
            ),
            (
                &["-5"],
                "-5 is not a known flag; see harmonylite -help for all flags",
            ),
            (
                &["start"],
                "\"start\" is not a known command; see harmonylite help for all commands",
            ),
            (
                &["-check", "true"],
                "\"true\" is not a known command; see harmonylite help for all commands",
            ),
            (
                &["nats://me:hunter2@h:1"],
                "a URL or value without its flag is not a known command; see harmonylite help for all commands",
            ),
            (&["-config"], "-config needs a value; write -config FILE"),
            (&["-db", "-check"], "-db needs a value; write -db FILE"),
            (
                &["-check=maybe"],
                "-check has an unusable value; write =true or =false",
            ),
            (
                &["-node-id", "0"],
                "-node-id has an unusable value; write a number from 1 to 9223372036854775807",
            ),
            (
                &["-node-id", "-5"],
                "-node-id has an unusable value; write a number from 1 to 9223372036854775807",
            ),
            (
                &["-node-id", "9223372036854775808"],
                "-node-id has an unusable value; write a number from 1 to 9223372036854775807",
            ),
            (
                &["-cleanup", "-stop"],
                "-cleanup and -stop cannot be used together; give one of them",
            ),
            (
                &["-cluster-addr", "host"],
                "-cluster-addr is no address: it has no port; write -cluster-addr HOST:PORT",
            ),
            (
                &["-cluster-peers", "nats://a:1,http://me:hunter2@b:1"],
                "-cluster-peers: URL 2 cannot be used: its scheme is not supported; write nats://host:port/ or dns://host:port/?min=N&interval_ms=N",
            ),
            (
                &["-leaf-servers", "nats://me:hunter2@b"],
                "-leaf-servers: URL 1 cannot be used: it has no port; write nats://host:port/?hub=true or dns://host:port/?min=N&interval_ms=N",
            ),
        ] {
            let error = parse(arguments).unwrap_err();
            assert_eq!(error.to_string(), sentence, "{arguments:?}");
            assert!(!format!("{error:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let path = OsString::from_vec(vec![b'd', 0xff]);
        let args = Args::parse(["harmonylite".into(), "-db".into(), path.clone()]).unwrap();
        assert_eq!(args.overrides.db, Some(path.into()));
    }

    #[test]
    fn the_help_names_every_flag() {
        let help = Args::help();
        for flag in &flags::FLAGS {
            assert!(help.contains(&format!("  -{}", flag.name)));
        }
    }
}
