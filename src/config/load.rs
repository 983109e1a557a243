//! Loading: the file, the flags on top of it, and what the machine itself answers where neither says anything.

use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use super::node_id::Machine;
use super::outside::Outside;
use super::parse::{Parsed, line_of, parse};
use super::{
    Config, ConfigErrors, Fault, FaultKind, LeafUrl, ListenAddress, Origin, PeerUrl, notice,
    rights, validate,
};

/// No configuration is this long; what is, is another file.
const FILE_MOST: u64 = 1 << 20;

/// What the command line says on top of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `-db`: instead of `db_path`.
    pub db: Option<PathBuf>,
    /// `-node-id`: instead of `node_id`.
    pub node_id: Option<NonZeroU64>,
    /// `-cluster-addr`
    pub cluster_addr: Option<ListenAddress>,
    /// `-cluster-peers`
    pub cluster_peers: Vec<PeerUrl>,
    /// `-leaf-servers`
    pub leaf_servers: Vec<LeafUrl>,
    /// `-pprof`
    pub pprof: Option<ListenAddress>,
}

/// A configuration without faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Sentences to log at start: warnings, and keys that were set without effect.
    pub notices: Vec<String>,
}

impl Config {
    /// Loads the file at `path` (none: defaults only), puts `overrides` on top, and checks everything.
    ///
    /// Reads the file and the files that it refers to; binds nothing, opens no database, needs no network.
    ///
    /// # Errors
    /// Every fault found, each with its line, key and remedy.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Loaded, ConfigErrors> {
        let text = match path.map(read).transpose() {
            Ok(text) => text.unwrap_or_default(),
            Err(fault) => {
                return Err(ConfigErrors {
                    file: path.map(Path::to_owned),
                    faults: vec![fault],
                });
            }
        };
        from_text(&text, path, overrides, Machine::ask).map_err(|faults| ConfigErrors {
            file: path.map(Path::to_owned),
            faults,
        })
    }
}

/// The keys that the file at `path` sets, with their lines, in order of these; none of their values.
///
/// # Errors
/// The file does not read.
pub fn keys_in(path: &Path) -> Result<Vec<(String, usize)>, Fault> {
    let mut keys = parse(&read(path)?).source.keys();
    keys.sort_by_key(|(_, line)| *line);
    Ok(keys)
}

fn read(path: &Path) -> Result<String, Fault> {
    let fault = |kind| Fault {
        origin: Origin::File,
        kind,
    };
    let unreadable = |source| {
        fault(FaultKind::Unreadable {
            path: path.to_owned(),
            source,
        })
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MOST {
        return Err(fault(FaultKind::TooLarge { most: FILE_MOST }));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        Fault {
            origin: Origin::Line(line_of(&text, valid)),
            kind: FaultKind::NotText,
        }
    })
}

fn from_text(
    text: &str,
    path: Option<&Path>,
    overrides: &Overrides,
    ask: fn() -> Machine,
) -> Result<Loaded, Vec<Fault>> {
    let Parsed {
        file,
        source,
        mut faults,
        broken,
    } = parse(text);
    if broken {
        return Err(faults);
    }
    let is_named = source.line("node_id").is_some() || overrides.node_id.is_some();
    let machine = (!is_named).then(ask);
    let node_id = machine.as_ref().and_then(Machine::node_id);
    let mut config = Config::with_defaults("", node_id.unwrap_or_default());
    let filled = validate::fill(
        &mut config,
        file,
        overrides,
        &source,
        &Outside::of_process(),
    );
    faults.extend(filled.faults);
    if !faults.is_empty() {
        faults.sort_by_key(|fault| position(&fault.origin));
        return Err(faults);
    }
    let mut notices = notice::notices(&config, &source, overrides, machine.as_ref());
    notices.extend(filled.notices);
    notices.extend(path.and_then(|path| rights::of_configuration(path, &filled.secrets)));
    Ok(Loaded { config, notices })
}

/// Top to bottom as in the file, then what stands nowhere in it.
fn position(origin: &Origin) -> usize {
    match origin {
        Origin::File => 0,
        Origin::Line(line)
        | Origin::Key {
            line: Some(line), ..
        } => *line,
        Origin::Key { line: None, .. } => usize::MAX - 1,
        Origin::Flag(_) | Origin::Credential(_) | Origin::Variable(_) => usize::MAX,
    }
}
