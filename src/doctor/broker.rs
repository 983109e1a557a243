//! The NATS servers: each in steps, so that a name, a port, a certificate and a login are told apart; then what the server is and grants.
//!
//! Invariant: no URL is shown with its login.

use std::time::{Duration, Instant};

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use url::Url;

use super::daemon::Daemon;
use super::machine::bytes;
use super::problem::{Check, Problem};
use super::report::Notes;
use super::{Look, within};
use crate::change::position::NodeId;
use crate::config::Config;
use crate::stream::{Broker, Refusal, ServerFacts, StreamError, managed};

/// How long a name, a port and a login may take, each.
const STEP: Duration = Duration::from_secs(3);
/// Servers that are tried.
const MOST: usize = 16;
/// Where NATS listens where a URL does not say.
const PORT: u16 = 4222;
/// The oldest server that is supported, and the first whose full streams refuse new messages as they are told.
const OLDEST: (u64, u64, u64) = (2, 9, 0);
const REFUSES: (u64, u64, u64) = (2, 10, 5);
/// Messages smaller than this make batches of many pieces.
const PAYLOAD: usize = 64 << 10;

/// What is wrong with a server.
struct Wrong {
    problem: Problem,
    found: String,
    remedy: String,
}

/// Looks at all servers; the first that lets us in.
pub async fn look(look: &Look, daemon: &Daemon) -> Option<Broker> {
    let (config, notes) = (&look.config, &look.notes);
    let urls = match (config.nats.urls.is_empty(), &daemon.nats_url) {
        (false, _) => config.nats.urls.clone(),
        (true, Some(url)) => vec![url.clone()],
        (true, None) => {
            without_server(config, daemon.may_run, notes);
            return None;
        }
    };
    let mut trying = JoinSet::new();
    for (at, url) in urls.into_iter().take(MOST).enumerate() {
        let config = config.clone();
        trying.spawn(async move { (at, server(&config, &url).await) });
    }
    let mut tried = Vec::new();
    // Those that answer count, also where one takes all the time there is.
    while let Some(Some(Ok(one))) = within(look.deadline, trying.join_next()).await {
        tried.push(one);
    }
    tried.sort_by_key(|(at, _)| *at);
    let any = tried.iter().any(|(_, t)| t.is_ok());
    let mut first = None;
    for (_, result) in tried {
        match result {
            Ok((broker, said)) => {
                notes.ok(Check::Server, said);
                first = first.or(Some(broker));
            }
            // Others make up for it.
            Err(w) if any => notes.warn(w.problem, w.found, w.remedy),
            Err(w) => notes.problem(w.problem, w.found, w.remedy),
        }
    }
    let broker = first?;
    if let Some(facts) = broker.server_facts() {
        judge(&facts, config.replication_log.replicas, notes);
    }
    let of_ours = config.nats.urls.is_empty().then(|| {
        let patience = STEP.min(look.remaining()).max(Duration::from_millis(1));
        tokio::task::block_in_place(|| {
            managed::sync_of(config.folder(), NodeId(config.node_id), patience)
        })
    });
    sync(of_ours.flatten(), config.replication_log.replicas, notes);
    Some(broker)
}

/// When the server writes to its disk, where it is the managed one; another tells no client.
fn sync(known: Option<managed::Sync>, copies: usize, notes: &Notes) {
    /// What a server may lose with the power of its machine, where nobody else has it.
    const LONG: Duration = Duration::from_secs(10);
    let Some(known) = known else {
        return notes.note(
            Check::Sync,
            "JetStream tells no client when it writes to its disk (2 minutes after it has acknowledged, unless its configuration says jetstream { sync_interval: … }): with one copy set it to always, or to a few seconds",
        );
    };
    match known {
        managed::Sync::Always => notes.ok(
            Check::Sync,
            "the managed server writes to its disk before it acknowledges",
        ),
        managed::Sync::Every(time) if copies > 1 || time <= LONG => notes.ok(
            Check::Sync,
            format!("the managed server writes to its disk every {} s", time.as_secs_f64()),
        ),
        managed::Sync::Every(time) => notes.note(
            Check::Sync,
            format!(
                "the managed server writes to its disk every {} s, and no other has a copy: what it loses with its machine's power is published again, by the nodes that have it; jetstream {{ sync_interval: always }} in the file that nats.server_config names makes that rare, at a third of the rate of publishing",
                time.as_secs_f64()
            ),
        ),
    }
}

/// The managed server, while none is there.
fn without_server(config: &Config, running: bool, notes: &Notes) {
    match managed::find_binary(&config.nats) {
        Err(e) => notes.problem(
            Problem::NoServerProgram,
            e.to_string(),
            "install nats-server, name it in nats.server_path, or name servers in nats.urls",
        ),
        Ok(path) if running => notes.note(
            Check::Server,
            format!(
                "the daemon has not started its own server ({}) yet, or does not say where it is",
                path.display()
            ),
        ),
        Ok(path) => notes.note(
            Check::Server,
            format!("managed: {} runs while the daemon does", path.display()),
        ),
    }
}

/// One server, step by step.
async fn server(config: &Config, url: &str) -> Result<(Broker, String), Wrong> {
    let begun = Instant::now();
    let wrong = |problem, found: String, remedy: &str| Wrong {
        problem,
        found,
        remedy: remedy.to_owned(),
    };
    let parsed = Url::parse(url).ok();
    let Some(host) = parsed.as_ref().and_then(Url::host_str) else {
        return Err(wrong(
            Problem::NotNats,
            "a URL of nats.urls names no host".to_owned(),
            "write it as nats://HOST:4222",
        ));
    };
    let port = parsed.as_ref().and_then(Url::port).unwrap_or(PORT);
    let name = format!("{host}:{port}");
    let bare = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let addresses: Vec<_> = match tokio::time::timeout(STEP, lookup_host((bare, port))).await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(e)) => {
            return Err(wrong(
                Problem::Dns,
                format!("{name}: the name has no address ({e})"),
                "correct the name in nats.urls, or the DNS and /etc/hosts of this machine",
            ));
        }
        Err(_) => {
            return Err(wrong(
                Problem::Dns,
                format!(
                    "{name}: the DNS does not answer within {} s",
                    STEP.as_secs()
                ),
                "see /etc/resolv.conf, or write the address in nats.urls",
            ));
        }
    };
    let mut last = "no address".to_owned();
    let mut reached = false;
    for address in addresses {
        match tokio::time::timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                reached = true;
                break;
            }
            Ok(Err(e)) => last = e.to_string(),
            Err(_) => last = format!("no answer within {} s", STEP.as_secs()),
        }
    }
    if !reached {
        return Err(wrong(
            Problem::Tcp,
            format!("{name}: {last}"),
            "start nats-server there, correct the port in nats.urls, or open the firewall between the two",
        ));
    }
    let urls = [url.to_owned()];
    match Broker::connect(&config.nats, &urls, NodeId(config.node_id)).await {
        Ok(broker) => {
            // A server without a name has its id for one.
            let named = broker.server_facts().filter(|f| f.name.len() < 40);
            let server = named.map_or_else(String::new, |f| format!(" as {}", f.name));
            let took = begun.elapsed().as_millis();
            let secure = if has_tls(config, url) { ", TLS" } else { "" };
            Ok((
                broker,
                format!("{name} lets this node in{server} ({took} ms{secure})"),
            ))
        }
        Err(error) => Err(refused(&name, &error)),
    }
}

fn has_tls(config: &Config, url: &str) -> bool {
    url.starts_with("tls:") || config.nats.ca_file.is_some() || config.nats.cert_file.is_some()
}

fn refused(name: &str, error: &StreamError) -> Wrong {
    let problem = match (error.refusal(), error) {
        (Some(Refusal::Login), _) | (None, StreamError::CredentialFile { .. }) => Problem::Login,
        (Some(_), _) => Problem::Tls,
        (None, _) => Problem::NotNats,
    };
    let (found, remedy) = match error {
        StreamError::Connect { source, remedy, .. } => (format!("{name}: {source}"), *remedy),
        StreamError::ConnectTimeout { after, .. } => (
            format!(
                "{name}: something listens, and does not answer as a NATS server within {after:?}"
            ),
            None,
        ),
        other => (other.to_string(), None),
    };
    let usual = match problem {
        Problem::Login => "correct the file that it names, or the key",
        _ => {
            "see that nats.urls names the client port of a NATS server (4222), not its monitoring or route port"
        }
    };
    Wrong {
        problem,
        found,
        remedy: remedy.unwrap_or(usual).to_owned(),
    }
}

/// A version's numbers.
fn numbers(version: &str) -> (u64, u64, u64) {
    let mut parts = version.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next())
}

/// Whether the server is fit.
fn judge(facts: &ServerFacts, replicas: usize, notes: &Notes) {
    let version = &facts.version;
    let old = numbers(version);
    if old < OLDEST {
        notes.problem(
            Problem::BrokerTooOld,
            format!("nats-server {version}"),
            "install 2.10.5 or later; 2.9 is the oldest that is supported",
        );
    } else if old < REFUSES {
        notes.problem(
            Problem::BrokerOld,
            format!("nats-server {version} drops the oldest message of a full stream although it is told to refuse the new one"),
            "install 2.10.5 or later, or keep replication_log.max_bytes far above what is ever needed",
        );
    }
    if facts.max_payload < PAYLOAD {
        notes.problem(
            Problem::MaxPayload,
            format!(
                "the server takes messages of {} at most: each batch goes in many pieces",
                bytes(facts.max_payload as u64)
            ),
            "max_payload: 1MB in the server's configuration, its default",
        );
    }
    if facts.lame_duck {
        notes.problem(
            Problem::LameDuck,
            format!("server {} is shutting down", facts.name),
            "nothing, if it is to be restarted: clients go to another server; otherwise start one",
        );
    }
    if !notes.has(Check::Broker) {
        notes.ok(
            Check::Broker,
            format!(
                "nats-server {version}, messages up to {}",
                bytes(facts.max_payload as u64)
            ),
        );
    }
    copies(facts, replicas, notes);
}

fn copies(facts: &ServerFacts, replicas: usize, notes: &Notes) {
    let servers = facts.servers;
    match &facts.cluster {
        None if replicas > 1 => notes.problem(
            Problem::TooManyCopies,
            format!("replication_log.replicas = {replicas}, and the NATS server stands alone"),
            "give NATS a cluster of that many servers, or set replication_log.replicas and snapshot.nats.replicas to 1",
        ),
        Some(cluster) if servers >= 3 && replicas < 3 => notes.problem(
            Problem::OneCopy,
            format!("NATS cluster {cluster} has {servers} servers, and replication_log.replicas is {replicas}: what one server loses is lost"),
            "replication_log.replicas = 3 (and snapshot.nats.replicas); update_existing = true changes streams that exist",
        ),
        Some(cluster) => notes.ok(Check::Copies, format!("replicas = {replicas}; NATS cluster {cluster} tells of {servers} servers")),
        None => notes.ok(Check::Copies, "one, of a NATS server that stands alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(change: impl FnOnce(&mut ServerFacts), replicas: usize) -> Vec<&'static str> {
        let mut facts = ServerFacts {
            name: "s".to_owned(),
            version: "2.11.4".to_owned(),
            cluster: None,
            servers: 1,
            max_payload: 1 << 20,
            lame_duck: false,
        };
        change(&mut facts);
        let notes = Notes::default();
        judge(&facts, replicas, &notes);
        notes
            .all()
            .iter()
            .filter_map(|f| f.problem.map(Problem::name))
            .collect()
    }

    #[test]
    fn servers_are_judged() {
        let version = |v: &'static str| found(|f| f.version = v.to_owned(), 1);
        assert!(
            version("2.11.4").is_empty()
                && version("2.10.5").is_empty()
                && version("3.0.0-beta.1").is_empty()
        );
        assert_eq!(version("2.10.4"), ["broker-old"]);
        assert_eq!(version("2.9.10"), ["broker-old"]);
        assert_eq!(version("2.8.4"), ["broker-too-old"]);
        assert_eq!(found(|f| f.max_payload = 4096, 1), ["max-payload"]);
        assert_eq!(found(|f| f.lame_duck = true, 1), ["lame-duck"]);
        assert_eq!(found(|_| {}, 3), ["too-many-copies"]);
        let cluster = |f: &mut ServerFacts| {
            f.cluster = Some("c".to_owned());
            f.servers = 3;
        };
        assert_eq!(found(cluster, 1), ["one-copy"]);
        assert!(found(cluster, 3).is_empty());
    }
}
