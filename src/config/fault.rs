//! What can be wrong with a configuration, one sentence a fault: the line, the key or flag, what is wrong with
//! it, and what to do.
//!
//! Invariant: no variant holds the value of a key that may be a secret; URLs are never held at all.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{AddressProblem, UrlProblem};

/// Every fault found in a configuration.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The configuration file, if one was given.
    pub file: Option<PathBuf>,
    /// The faults in the order of the file; never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigErrors {
    /// One line a fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            if let (Some(file), false) = (&self.file, fault.origin.is_outside()) {
                write!(f, "{}: ", file.display())?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let fault = self.faults.first()?;
        Some(fault)
    }
}

/// One fault.
#[derive(Debug)]
pub struct Fault {
    /// Where it is.
    pub origin: Origin,
    /// What it is.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.origin, self.kind)
    }
}

impl std::error::Error for Fault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.kind)
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The file as a whole.
    File,
    /// A line that could not be read as TOML (from 1).
    Line(usize),
    /// A key: set on that line (from 1), or not set in the file.
    Key {
        /// Dotted path, as in `nats.urls`.
        key: String,
        /// Its line.
        line: Option<usize>,
    },
    /// A command-line flag, with its dash.
    Flag(&'static str),
    /// A systemd credential.
    Credential(String),
    /// An environment variable.
    Variable(String),
}

impl Origin {
    /// Whether it is not the configuration file.
    const fn is_outside(&self) -> bool {
        matches!(
            self,
            Self::Flag(_) | Self::Credential(_) | Self::Variable(_)
        )
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the configuration file"),
            Self::Line(line) => write!(f, "line {line}"),
            Self::Key { key, line } => {
                if let Some(line) = line {
                    write!(f, "line {line}: ")?;
                }
                f.write_str(key)
            }
            Self::Flag(flag) => f.write_str(flag),
            Self::Credential(name) => write!(f, "the systemd credential {name}"),
            Self::Variable(name) => write!(f, "the environment variable {name}"),
        }
    }
}

/// What is wrong, as the rest of a sentence that begins with the key.
#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    /// Not TOML.
    #[error("cannot be read as TOML ({message}); correct that line")]
    Syntax {
        /// The parser's words, which quote nothing of the file.
        message: String,
    },
    /// Too large to be a configuration.
    #[error(
        "is larger than {most} bytes; give the path of a HarmonyLite configuration with -config"
    )]
    TooLarge {
        /// The bound in bytes.
        most: u64,
    },
    /// The file is not UTF-8.
    #[error("is not UTF-8 text; save it as UTF-8")]
    NotText,
    /// A key that we do not know.
    #[error("is not a known key; {}", did_you_mean(nearest.as_deref()))]
    UnknownKey {
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A value of another type.
    #[error("has a value of the wrong type; give {expected}")]
    WrongType {
        /// What belongs there, for a person.
        expected: &'static str,
    },
    /// A number outside its range.
    #[error("is {value}, which is out of range; give a number from {least} to {most}")]
    OutOfRange {
        /// As written.
        value: i128,
        /// Least that is allowed.
        least: i64,
        /// Most that is allowed.
        most: i64,
    },
    /// A word that is none of the known ones.
    #[error("is {value:?}, which is not known; give {allowed}")]
    NotAllowed {
        /// As written.
        value: String,
        /// The words, for a person.
        allowed: &'static str,
    },
    /// Not set, but needed.
    #[error("is missing; {remedy}")]
    Missing {
        /// How to give it.
        remedy: &'static str,
    },
    /// A path that cannot be a database file.
    #[error("is {path:?}, which {problem}; give the path of a database file")]
    NotAFile {
        /// As written.
        path: PathBuf,
        /// Why not.
        problem: &'static str,
    },
    /// A path that cannot be a log file.
    #[error("is {path:?}, which {problem}; give the log a file of its own")]
    LogFile {
        /// As written.
        path: PathBuf,
        /// Why not.
        problem: &'static str,
    },
    /// The folder of a path is not there.
    #[error("needs the folder {}, which {problem}; create it or give another path", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What it is instead.
        problem: &'static str,
        /// The system's answer, if it was asked and refused.
        source: Option<io::Error>,
    },
    /// A folder for other files that is the database's own.
    #[error("is the folder of the database; give it a folder of its own")]
    DatabaseFolder,
    /// A referenced file cannot be read.
    #[error("names {}, which cannot be read ({source}); correct the path or its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A secret that cannot be one.
    #[error("gives a secret that {problem}; give it as one line of text")]
    Secret {
        /// Why not.
        problem: &'static str,
    },
    /// A referenced program cannot be run.
    #[error("names {}, which is not executable; give the path of the nats-server program", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// A URL that cannot be used.
    #[error("{}cannot be used: {problem}; write {example}", entry_prefix(*entry))]
    Url {
        /// Which entry of a list (from 1).
        entry: Option<usize>,
        /// What is wrong with it.
        #[source]
        problem: UrlProblem,
        /// A right one.
        example: &'static str,
    },
    /// An address that cannot be listened on.
    #[error("is {value:?}, which is no address: {problem}; write HOST:PORT or :PORT")]
    Address {
        /// As written.
        value: String,
        /// What is wrong with it.
        #[source]
        problem: AddressProblem,
    },
    /// A port that must be a fixed one, with a free one after it.
    #[error(
        "needs a port from 1 to 65534, since the next one up listens for leaf nodes; write HOST:PORT"
    )]
    ClusterPort,
    /// Two listeners that would ask for one port.
    #[error("and {other} ask for the same port {port}; give one of them another port")]
    SamePort {
        /// The other key or flag.
        other: String,
        /// The port.
        port: u16,
    },
    /// Two keys that exclude each other.
    #[error("cannot be used together with {other}; remove one of the two")]
    Conflict {
        /// The other key.
        other: &'static str,
    },
    /// A key that is nothing without another.
    #[error("needs {other} as well; set it too, or remove this key")]
    Incomplete {
        /// The other key.
        other: &'static str,
    },
    /// A table pattern that cannot be one.
    #[error("holds the pattern {pattern:?}, {problem}; write a name with *, ? or [a-z]")]
    Glob {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name that its receiver would refuse.
    #[error("is {value:?}, which cannot be used; {rule}")]
    Name {
        /// As written.
        value: String,
        /// What is allowed.
        rule: &'static str,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "remove it, or look it up in config.example.toml".to_owned(),
        |name| format!("did you mean {name}?"),
    )
}

fn entry_prefix(entry: Option<usize>) -> String {
    entry.map_or_else(String::new, |entry| format!("entry {entry} "))
}
