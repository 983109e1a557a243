//! The server's configuration file: what goes into it, and its text.
//!
//! Invariant: everything that comes from the outside stands in it as a quoted string, so nothing can end its own setting and begin
//! another.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::ManagedError;
use super::ports::FIRST_MONITOR_PORT;
use crate::change::position::NodeId;
use crate::config::{ListenAddress, NatsConfig, PeerUrl, Secret};

/// The cluster's name; all nodes' servers must agree, and the Go program's use this one.
const CLUSTER_NAME: &str = "e-harmonylite";

/// Where, in its folder, the server writes which ports it listens on.
pub(super) const PORTS: &str = "ports";

fn server_name(node: NodeId) -> String {
    format!("harmonylite-node-{node}")
}

/// The folder of a node's server, below that of the database.
pub(super) fn folder_of(database_folder: &Path, node: NodeId) -> PathBuf {
    database_folder.join("nats").join(server_name(node))
}

/// A server's settings.
#[derive(Debug)]
pub(super) struct Settings {
    server_name: String,
    host: String,
    /// `None`: any free one, until the server has taken one.
    pub(super) port: Option<u16>,
    pub(super) monitor_port: u16,
    folder: PathBuf,
    cluster: Option<Cluster>,
    leaf_remotes: Vec<LeafRemote>,
    include: Option<String>,
    /// What a client must say to be let in; `None`: everybody is.
    login: Option<(String, Secret)>,
}

#[derive(Debug)]
struct Cluster {
    /// Where routes are accepted; `None`: only made, not accepted from outside this machine.
    listen: Option<(String, u16)>,
    routes: Vec<Secret>,
}

#[derive(Debug)]
struct LeafRemote {
    url: Secret,
    hub: bool,
}

impl Settings {
    /// Makes the server's folder and puts its settings together.
    pub(super) fn new(
        config: &NatsConfig,
        database_folder: &Path,
        node: NodeId,
        routes: Vec<Secret>,
    ) -> Result<Self, ManagedError> {
        let server_name = server_name(node);
        let folder = folder_of(database_folder, node);
        let file_error = |source| ManagedError::File {
            path: folder.clone(),
            source,
        };
        std::fs::create_dir_all(&folder).map_err(file_error)?;
        // The store holds rows, the configuration logins of peers.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))
            .map_err(file_error)?;
        // Absolute and without links, for the relative path to the included file.
        let folder = folder.canonicalize().map_err(file_error)?;
        let bind = listen_address("nats.bind_address", &config.bind_address)?;
        let cluster = match &config.cluster_addr {
            Some(_) if routes.is_empty() => return Err(ManagedError::ClusterWithoutPeers),
            Some(address) => {
                let listen = listen_address("-cluster-addr", address)?;
                let port = listen.port.ok_or_else(|| ManagedError::Address {
                    key: "-cluster-addr",
                    address: address.clone(),
                })?;
                Some(Cluster {
                    listen: Some((everywhere_if_empty(listen.host), port)),
                    routes,
                })
            }
            None if routes.is_empty() => None,
            None => Some(Cluster {
                listen: None,
                routes,
            }),
        };
        // The login that the daemon has is the one that its server demands. An included file says for itself whom it lets in.
        let demands = !config.user_name.is_empty() && config.server_config.is_none();
        let login = demands.then(|| (config.user_name.clone(), config.user_password.clone()));
        Ok(Self {
            server_name,
            login,
            // The Go program's ":-1" means every interface. A server that only we use has no business there: anybody who
            // reaches it could write into the streams. In a cluster the operator has opened the machine's door already.
            host: if bind.host.is_empty() && config.cluster_addr.is_none() {
                "127.0.0.1".to_owned()
            } else {
                everywhere_if_empty(bind.host)
            },
            port: bind.port,
            monitor_port: FIRST_MONITOR_PORT,
            cluster,
            leaf_remotes: config
                .leaf_servers
                .iter()
                .map(|leaf| {
                    // The server itself tries every address of a name.
                    let (PeerUrl::Nats { host, .. } | PeerUrl::Dns { host, .. }) = &leaf.peer;
                    LeafRemote {
                        url: leaf.peer.server_url(host),
                        hub: leaf.hub,
                    }
                })
                .collect(),
            include: config
                .server_config
                .as_deref()
                .map(|path| relative(&folder, path))
                .transpose()?,
            folder,
        })
    }

    /// The configuration file.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("nats-server.conf")
    }

    /// Where the server writes its ports file.
    pub(super) fn ports_folder(&self) -> PathBuf {
        self.folder.join(PORTS)
    }

    /// Takes other routes. Returns whether they differ from those before.
    pub(super) fn set_routes(&mut self, routes: Vec<Secret>) -> bool {
        match &mut self.cluster {
            Some(cluster) if cluster.routes != routes => {
                cluster.routes = routes;
                true
            }
            _ => false,
        }
    }

    /// The configuration file's text.
    ///
    /// The included file comes after all that it may override, and before the two settings that we depend on. The store's folder
    /// stands outside the `jetstream` block, so that an included `jetstream { … }`, which replaces the whole block, does not move it.
    ///
    /// `sync_interval` is not among our settings, so the server's default of two minutes holds: an acknowledged message may be
    /// lost with the machine's power, though not with the process. That is affordable because an acknowledgement only counts
    /// as a hint here: each node keeps what it has published until a snapshot covers it. `always` costs two thirds of the publishing
    /// rate; who wants it includes `jetstream { sync_interval: always }`.
    pub(super) fn render(&self) -> String {
        let mut text =
            String::from("# Written by harmonylite at each start; changes here are lost.\n");
        let port = self.port.map_or(-1, i32::from);
        let _ = writeln!(text, "server_name: {}", quoted(&self.server_name));
        let _ = writeln!(text, "host: {}\nport: {port}", quoted(&self.host));
        let _ = writeln!(
            text,
            "http: {}",
            quoted(&format!("127.0.0.1:{}", self.monitor_port))
        );
        let _ = writeln!(text, "jetstream: enabled");
        if let Some((user, password)) = &self.login {
            let _ = writeln!(text, "authorization {{");
            let _ = writeln!(text, "  user: {}", quoted(user));
            let _ = writeln!(text, "  password: {}\n}}", quoted(password.expose()));
        }
        if let Some(cluster) = &self.cluster {
            let (host, port) = match &cluster.listen {
                Some((host, port)) => (host.as_str(), i32::from(*port)),
                None => ("127.0.0.1", -1),
            };
            let _ = writeln!(text, "cluster {{");
            let _ = writeln!(text, "  name: {}", quoted(CLUSTER_NAME));
            let _ = writeln!(text, "  host: {}\n  port: {port}", quoted(host));
            // Each node's clients use the server beside them.
            let _ = writeln!(text, "  no_advertise: true\n  routes: [");
            for route in &cluster.routes {
                let _ = writeln!(text, "    {}", quoted(route.expose()));
            }
            let _ = writeln!(text, "  ]\n}}");
        }
        let leaf_listen = self.cluster.as_ref().and_then(|it| it.listen.as_ref());
        if leaf_listen.is_some() || !self.leaf_remotes.is_empty() {
            let _ = writeln!(text, "leafnodes {{");
            // Leaf nodes are accepted at the next port up from the cluster's; none above the last.
            if let Some((host, port)) = leaf_listen
                && let Some(port) = port.checked_add(1)
            {
                let _ = writeln!(text, "  host: {}\n  port: {port}", quoted(host));
            }
            let _ = writeln!(text, "  remotes: [");
            for remote in &self.leaf_remotes {
                let _ = write!(text, "    {{ url: {}", quoted(remote.url.expose()));
                let _ = writeln!(text, "{} }}", if remote.hub { ", hub: true" } else { "" });
            }
            let _ = writeln!(text, "  ]\n}}");
        }
        if let Some(include) = &self.include {
            let _ = writeln!(text, "include {include}");
        }
        let store = self.folder.display().to_string();
        let ports = self.ports_folder().display().to_string();
        let _ = writeln!(text, "store_dir: {}", quoted(&store));
        let _ = writeln!(text, "ports_file_dir: {}", quoted(&ports));
        text
    }
}

fn listen_address(key: &'static str, address: &str) -> Result<ListenAddress, ManagedError> {
    ListenAddress::parse(address).map_err(|_| ManagedError::Address {
        key,
        address: address.to_owned(),
    })
}

fn everywhere_if_empty(host: String) -> String {
    if host.is_empty() {
        "0.0.0.0".to_owned()
    } else {
        host
    }
}

/// A string as the server's configuration language takes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            control if control.is_ascii_control() => {
                let _ = write!(quoted, "\\x{:02X}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The file to include, as the server finds it: it takes every such path as relative to the folder of the including file.
fn relative(folder: &Path, path: &Path) -> Result<String, ManagedError> {
    let include_error = |source| ManagedError::Include {
        path: path.to_path_buf(),
        source,
    };
    std::fs::File::open(path).map_err(include_error)?;
    let target = path.canonicalize().map_err(include_error)?;
    let up = "../".repeat(folder.components().count().saturating_sub(1));
    let target = target.display().to_string();
    let path = format!("{up}{}", target.trim_start_matches('/'));
    // The language knows no escapes here, only the two kinds of quotes.
    Ok(if path.contains('"') {
        format!("'{path}'")
    } else {
        format!("\"{path}\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_quotes() {
        assert_eq!(quoted("a\"b\\c\nd é"), r#""a\"b\\c\x0Ad é""#);
    }

    #[test]
    fn an_included_file_is_found_from_the_servers_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let file = root.join("extra.conf");
        std::fs::write(&file, "").unwrap();
        let deep = root.join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let path = relative(&deep, &file).unwrap();
        let found = deep.join(path.trim_matches('"')).canonicalize().unwrap();
        assert_eq!(found, file);
        let error = relative(&deep, &root.join("missing")).unwrap_err();
        assert!(error.to_string().contains("nats.server_config"), "{error}");
    }
}
