//! The managed nats-server: started, killed, stopped, misconfigured and clustered for real.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use harmonylite::change::position::{NodeId, Sequence, ShardId};
use harmonylite::config::{NatsConfig, PeerUrl, Secret};
use harmonylite::stream::Broker;
use harmonylite::stream::managed::{ManagedError, ManagedServer};
use support::nats::{log_config, nats_config};

const LIMIT: Duration = Duration::from_secs(60);
const SHARD: ShardId = ShardId(1);

fn config() -> NatsConfig {
    NatsConfig {
        urls: Vec::new(),
        ..nats_config("nats://unused:1")
    }
}

async fn start(folder: &Path) -> Result<ManagedServer, ManagedError> {
    ManagedServer::start(&config(), folder, NodeId(7)).await
}

async fn connect(server: &ManagedServer) -> Broker {
    Broker::connect(&config(), &[server.client_url()], NodeId(7))
        .await
        .unwrap()
}

async fn publish_until_stored(broker: &Broker, text: &'static str) {
    let stored = async {
        while broker
            .publish(SHARD, text.into(), Duration::from_secs(5))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, stored)
        .await
        .expect("not stored");
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back_at_the_same_place_with_what_it_held() {
    // A folder whose name has to be escaped.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a \"b\" \\c $d 'é");
    let server = start(&folder).await.unwrap();
    let url = server.client_url();
    assert!(url.starts_with("nats://127.0.0.1:"), "{url}");
    assert!(
        server
            .monitor_url()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );
    assert!(folder.join("nats/harmonylite-node-7/jetstream").is_dir());
    let broker = connect(&server).await;
    broker.ensure_streams(&log_config(1), false).await.unwrap();
    let mut reader = broker.reader(SHARD, Sequence(1));
    publish_until_stored(&broker, "before").await;
    assert_eq!(reader.next().await.unwrap().payload, "before");
    for round in 1..=2 {
        let pid = server.pid().unwrap();
        signal(pid, nix::sys::signal::Signal::SIGKILL);
        let mut link = broker.on_reconnect();
        let back = link.wait_for(|link| link.generation > round);
        tokio::time::timeout(LIMIT, back).await.unwrap().unwrap();
        assert_eq!(server.client_url(), url);
        publish_until_stored(&broker, "after").await;
        assert_eq!(server.restarts(), round);
        // The first may stand there twice, when only its acknowledgement was lost.
        let message = tokio::time::timeout(LIMIT, reader.next()).await.unwrap();
        assert_eq!(message.unwrap().payload, "after");
    }
    let state = broker.stream_state(SHARD).await.unwrap();
    assert_eq!(state.first, Sequence(1));

    let pid = server.pid().unwrap();
    server.stop().await;
    assert!(!is_alive(pid));
    // In good order: it has closed its store and gone; the next start finds the same.
    let server = start(&folder).await.unwrap();
    let broker = connect(&server).await;
    let again = broker.stream_state(SHARD).await.unwrap();
    assert_eq!((again.last, again.created), (state.last, state.created));
    let pid = server.pid().unwrap();
    drop(server);
    assert!(!is_alive(pid));
}

/// Not a test of its own: run by the next one in a process that it kills.
#[test]
fn child_that_runs_a_server() {
    let Some(folder) = std::env::var_os("HARMONYLITE_TEST_SERVER_FOLDER") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = start(Path::new(&folder)).await.unwrap();
        let file = Path::new(&folder).join("pid");
        std::fs::write(
            file.with_extension("new"),
            server.pid().unwrap().to_string(),
        )
        .unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
        std::future::pending::<()>().await;
    });
}

#[test]
fn the_server_dies_with_a_daemon_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_runs_a_server"])
        .env("HARMONYLITE_TEST_SERVER_FOLDER", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let started = std::time::Instant::now();
        while !done() {
            assert!(started.elapsed() < LIMIT, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let file = folder.path().join("pid");
    wait("the server did not start", &|| file.exists());
    let server: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    assert!(is_alive(server));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait("the server outlived its daemon", &|| !is_alive(server));
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_said_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut with_port = config();
    with_port.bind_address = taken.local_addr().unwrap().to_string();
    let error = ManagedServer::start(&with_port, folder.path(), NodeId(1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("address already in use"),
        "{error}"
    );

    let mut with_include = config();
    let extra = folder.path().join("extra.conf");
    std::fs::write(&extra, "no_such_setting: 1\n").unwrap();
    with_include.server_config = Some(extra.clone());
    let error = ManagedServer::start(&with_include, folder.path(), NodeId(1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    std::fs::remove_file(&extra).unwrap();
    let error = ManagedServer::start(&with_include, folder.path(), NodeId(1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("nats.server_config"), "{error}");

    let mut alone = config();
    alone.cluster_addr = Some("127.0.0.1:4221".to_owned());
    let error = ManagedServer::start(&alone, folder.path(), NodeId(1))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("-cluster-peers"), "{error}");
    let mut nowhere = config();
    nowhere.server_path = Some(folder.path().join("missing"));
    let error = ManagedServer::start(&nowhere, folder.path(), NodeId(1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("apt-get install nats-server"),
        "{error}"
    );
}

#[tokio::test]
async fn the_operators_file_is_included_and_does_not_move_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let extra = folder.path().join("the operator's.conf");
    std::fs::write(
        &extra,
        "max_payload: 2MB\njetstream { max_file_store: 64MB }\n",
    )
    .unwrap();
    let mut config = config();
    config.server_config = Some(extra);
    let server = ManagedServer::start(&config, folder.path(), NodeId(3))
        .await
        .unwrap();
    let broker = connect(&server).await;
    assert_eq!(broker.max_payload(), 2 << 20);
    assert!(
        folder
            .path()
            .join("nats/harmonylite-node-3/jetstream")
            .is_dir()
    );
    let mut log = log_config(1);
    log.max_bytes = 128 << 20;
    let error = broker.ensure_streams(&log, false).await.unwrap_err();
    assert!(
        error.to_string().starts_with("Failed to create stream"),
        "{error}"
    );
    log.max_bytes = 1 << 20;
    broker.ensure_streams(&log, false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_demands_the_login_that_its_daemon_has() {
    let folder = tempfile::tempdir().unwrap();
    let with = |user: &str, password: &str| NatsConfig {
        user_name: user.to_owned(),
        user_password: Secret::new(password.to_owned()),
        ..config()
    };
    // What would be something else in the server's own language.
    let login = with("a \"b\" }", "$HOME \\ # '1\" }");
    let server = ManagedServer::start(&login, folder.path(), NodeId(7))
        .await
        .unwrap();
    let urls = [server.client_url()];
    let broker = Broker::connect(&login, &urls, NodeId(7)).await.unwrap();
    broker.ensure_streams(&log_config(1), false).await.unwrap();
    for stranger in [config(), with("a \"b\" }", "other"), with("b", "")] {
        let refused = Broker::connect(&stranger, &urls, NodeId(8)).await;
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("authorization violation"), "{said}");
    }
    server.stop().await;
    // The operator's file says for itself whom it lets in.
    let file = folder.path().join("extra.conf");
    std::fs::write(&file, "authorization { user: other, password: words }").unwrap();
    let included = NatsConfig {
        server_config: Some(file),
        ..with("other", "words")
    };
    let server = ManagedServer::start(&included, folder.path(), NodeId(7))
        .await
        .unwrap();
    let urls = [server.client_url()];
    assert!(Broker::connect(&included, &urls, NodeId(7)).await.is_ok());
    assert!(Broker::connect(&login, &urls, NodeId(7)).await.is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_start_at_once_find_monitoring_ports_of_their_own() {
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let starts = folders.iter().map(|folder| start(folder.path()));
    let servers: Vec<_> = futures_util::future::join_all(starts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let mut urls: Vec<_> = servers.iter().map(|it| it.monitor_url().unwrap()).collect();
    urls.sort();
    urls.dedup();
    assert_eq!(urls.len(), servers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_form_a_cluster_that_survives_the_loss_of_one() {
    let ports: Vec<u16> = (0..3).map(|_| support::ports::pair()).collect();
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let configs: Vec<NatsConfig> = (0..3)
        .map(|me| {
            let mut config = config();
            config.bind_address = "127.0.0.1:-1".to_owned();
            config.cluster_addr = Some(format!("127.0.0.1:{}", ports[me]));
            config.cluster_peers = (0..3)
                .filter(|peer| *peer != me)
                .map(|peer| {
                    // One of them by name.
                    let text = if me == 0 && peer == 1 {
                        format!("dns://localhost:{}/?min=1&interval_ms=50", ports[peer])
                    } else {
                        format!("nats://127.0.0.1:{}/", ports[peer])
                    };
                    PeerUrl::parse(&text).unwrap()
                })
                .collect();
            config
        })
        .collect();
    let starts = (0..3)
        .map(|me| ManagedServer::start(&configs[me], folders[me].path(), NodeId(me as u64 + 1)));
    let mut servers: Vec<_> = futures_util::future::join_all(starts)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let broker = connect(&servers[0]).await;
    let mut log = log_config(1);
    log.replicas = 3;
    let made = async {
        loop {
            match broker.ensure_streams(&log, false).await {
                Ok(_) => return,
                Err(error) => assert!(error.is_transient(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, made).await.expect("no quorum");
    let mut reader = broker.reader(SHARD, Sequence(1));
    publish_until_stored(&broker, "with three").await;
    assert_eq!(reader.next().await.unwrap().payload, "with three");
    drop(servers.pop().unwrap());
    publish_until_stored(&broker, "with two").await;
    let message = tokio::time::timeout(LIMIT, reader.next()).await.unwrap();
    assert_eq!(message.unwrap().payload, "with two");
    let fetched = broker.fetch(SHARD, Sequence(1), LIMIT).await.unwrap();
    assert_eq!(fetched.unwrap().payload, "with three");
    for server in servers {
        server.stop().await;
    }
}
