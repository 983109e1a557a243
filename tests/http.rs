//! The HTTP endpoints over real sockets: what probes and scrapers see, and what strangers cannot do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "support/ports.rs"]
mod ports;

use std::net::SocketAddr;
use std::time::Duration;

use harmonylite::change::position::NodeId;
use harmonylite::config::{HealthCheckConfig, PrometheusConfig};
use harmonylite::http::status::{Component, Loop};
use harmonylite::http::{HttpError, HttpServers, PositionDesk, Status};
use harmonylite::runtime::Shutdown;
use harmonylite::telemetry::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Site {
    prometheus: PrometheusConfig,
    health: HealthCheckConfig,
    metrics: Metrics,
    status: Status,
    stop: Shutdown,
}

impl Site {
    fn new(metrics_at: &str, health_at: &str) -> Self {
        let prometheus = PrometheusConfig {
            enable: true,
            bind: metrics_at.to_owned(),
            namespace: "harmonylite".to_owned(),
            subsystem: String::new(),
        };
        Self {
            metrics: Metrics::new(&prometheus, NodeId(7)).unwrap(),
            prometheus,
            health: HealthCheckConfig {
                enable: true,
                bind: health_at.to_owned(),
                path: "/health".to_owned(),
                detailed: true,
                ready_lag_messages: 100,
                min_free_bytes: 0,
            },
            status: Status::new(NodeId(7), true, true),
            stop: Shutdown::new(),
        }
    }

    async fn start(&self) -> Result<HttpServers, HttpError> {
        HttpServers::start(
            &self.prometheus,
            &self.health,
            &self.metrics,
            &self.status,
            &PositionDesk::new(&self.metrics.queues),
            &self.stop,
        )
        .await
    }

    fn make_healthy(&self) {
        self.status.set_started();
        self.status.set_db_connected(true);
        self.status.set_nats_connected(true);
        self.status.set_capture(true, 5);
        self.status.progress(Loop::Publish);
        self.status.progress(Loop::Consume);
    }
}

/// Sends `request` as it is and returns head and body of the answer.
async fn send(to: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // A bound for a server that hangs, far above what any answer takes.
    let _ = tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("an answer");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

async fn get(to: SocketAddr, path: &str) -> (String, String) {
    send(
        to,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn probes_and_scrapes_are_answered_while_others_hold_connections_and_send_nothing() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    site.make_healthy();
    let servers = site.start().await.unwrap();
    let (health, metrics) = (
        servers.health_address().unwrap(),
        servers.metrics_address().unwrap(),
    );
    // More than places: to wait for the deadlines of all before would take minutes.
    let all = Duration::from_secs(60);
    let answered = tokio::time::timeout(all, answered_beside_slow_clients(health, metrics));
    answered.await.expect("answers");
    site.stop.request("test");
    servers.finished().await;
}

async fn answered_beside_slow_clients(health: SocketAddr, metrics: SocketAddr) {
    let mut slow = Vec::new();
    for at in [health, metrics].into_iter().cycle().take(600) {
        let mut stream = TcpStream::connect(at).await.unwrap();
        // It may have been cut already, for the next.
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost:").await;
        slow.push(stream);
    }
    for path in ["/livez", "/health", "/readyz", "/metrics"] {
        let at = if path == "/metrics" { metrics } else { health };
        let (head, body) = get(at, path).await;
        let told = head.starts_with("HTTP/1.1 200") || path == "/readyz";
        assert!(told && !body.is_empty(), "{path}: {head}");
    }
}

#[tokio::test]
async fn health_is_503_with_reasons_until_the_node_works_and_200_then() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    let servers = site.start().await.unwrap();
    let health = servers.health_address().unwrap();

    site.status.failed(Component::Broker, "connection refused");
    let (head, body) = get(health, "/health").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["status"], "unhealthy");
    assert_eq!(json["errors"][0]["component"], "broker");
    let reasons = json["reasons"].as_array().unwrap();
    assert!(
        reasons
            .iter()
            .any(|r| r.as_str().unwrap().contains("connection refused")),
        "{json}"
    );

    site.make_healthy();
    site.status.recovered(Component::Broker);
    site.status.set_schema("abc");
    site.status.replicated();
    let (head, body) = get(health, "/health?probe=1").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/json"), "{head}");
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["status"], "healthy");
    assert_eq!(json["node_id"], 7);
    assert!(json["uptime_seconds"].is_u64());
    assert_eq!(json["db_connected"], true);
    assert_eq!(json["nats_connected"], true);
    assert_eq!(json["cdc_installed"], true);
    assert_eq!(json["tables_tracked"], 5);
    assert_eq!(json["schema"]["hash"], "abc");
    assert_eq!(json["schema"]["previous_hash"], "");
    assert_eq!(json["schema"]["paused"], false);
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["last_published_event_timestamp"].is_null());
    let at = json["last_replicated_event_timestamp"].as_str().unwrap();
    assert!(at.starts_with("20") && at.ends_with('Z'), "{at}");

    site.status
        .set_schema_paused(Some("table orders lacks column vat".to_owned()));
    let (head, body) = get(health, "/health").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(json["schema"]["paused"], true);
    assert!(json["apply_paused"].as_str().unwrap().contains("vat"));
}

#[tokio::test]
async fn without_detail_only_the_code_answers_and_any_path_can_be_chosen() {
    let mut site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    site.prometheus.enable = false;
    site.health.detailed = false;
    site.health.path = "/live/{node}*".to_owned();
    site.make_healthy();
    let servers = site.start().await.unwrap();
    assert_eq!(servers.metrics_address(), None);
    let health = servers.health_address().unwrap();
    let (head, body) = get(health, "/live/{node}*").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && body.is_empty(),
        "{head} {body}"
    );
    assert!(get(health, "/health").await.0.starts_with("HTTP/1.1 404"));
    assert!(get(health, "/metrics").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    let servers = site.start().await.unwrap();
    site.metrics.rows_published.inc_by(12);
    let (head, body) = get(servers.metrics_address().unwrap(), "/metrics").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        body.contains("harmonylite_published{node_id=\"7\"} 12\n"),
        "{body}"
    );
}

#[tokio::test]
async fn one_address_serves_both_and_an_empty_host_is_every_interface() {
    let port = ports::free();
    let site = Site::new(&format!(":{port}"), &format!("0.0.0.0:{port}"));
    let servers = site.start().await.unwrap();
    site.make_healthy();
    let address = servers.health_address().unwrap();
    assert_eq!(servers.metrics_address(), Some(address));
    assert!(address.ip().is_unspecified() && address.is_ipv4());
    let here = SocketAddr::from(([127, 0, 0, 1], address.port()));
    assert!(get(here, "/health").await.0.starts_with("HTTP/1.1 200"));
    assert!(
        get(here, "/metrics")
            .await
            .1
            .contains("harmonylite_pending_publish")
    );
}

#[tokio::test]
async fn faulty_addresses_are_named_with_their_key() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = Site::new("127.0.0.1:0", &address.to_string())
        .start()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::InUse {
                key: "[health_check] bind",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let error = Site::new("3010", "127.0.0.1:0").start().await.unwrap_err();
    assert!(
        matches!(
            error,
            HttpError::Address {
                key: "[prometheus] bind",
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.to_string().contains("\"3010\""), "{error}");

    // TEST-NET-1 is no address of any machine.
    let error = Site::new("192.0.2.1:0", "127.0.0.1:0")
        .start()
        .await
        .unwrap_err();
    assert!(matches!(error, HttpError::Listen { .. }), "{error:?}");

    let port = ports::free();
    let mut site = Site::new(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{port}"));
    site.health.path = "/metrics".to_owned();
    assert!(matches!(site.start().await, Err(HttpError::SamePath)));
}

#[tokio::test]
async fn requests_that_are_none_of_ours_are_turned_away() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    let servers = site.start().await.unwrap();
    let metrics = servers.metrics_address().unwrap();

    // The announced gigabyte never comes, and is not waited for.
    let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    let (head, _) = send(metrics, post).await;
    assert!(
        head.starts_with("HTTP/1.1 405") && head.contains("allow: GET, HEAD"),
        "{head}"
    );

    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(64 * 1024));
    let (head, _) = send(metrics, &long).await;
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");

    // And everybody else is still served.
    assert!(get(metrics, "/metrics").await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_connections_take_places_only_up_to_the_bound_and_stopping_ends_them() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    let servers = site.start().await.unwrap();
    let address = servers.metrics_address().unwrap();
    let mut silent = Vec::new();
    // More than the bound, fewer than the bound and the kernel's queue of 128 together hold.
    for _ in 0..150 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    site.stop.request("test");
    servers.finished().await;
    for mut stream in silent {
        let mut buffer = [0; 1];
        // Closed or reset, never data.
        assert!(!matches!(stream.read(&mut buffer).await, Ok(1..)));
    }
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_its_time_or_goes_on_and_on_is_let_go() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    let servers = site.start().await.unwrap();
    let metrics = servers.metrics_address().unwrap();

    // The clock runs ahead while nobody has anything to do: the other end is given up by its time, not by ours.
    let began = tokio::time::Instant::now();
    let (head, _) = send(metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\nA: ").await;
    assert!(
        head.is_empty() || head.starts_with("HTTP/1.1 408"),
        "{head}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(40),
        "{:?}",
        began.elapsed()
    );

    // A connection that is kept open, one request after the other, ends too.
    let mut kept = TcpStream::connect(metrics).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(600);
    loop {
        assert!(tokio::time::Instant::now() < until, "it is still open");
        let written = kept
            .write_all(b"GET /none HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let mut answer = [0; 4096];
        match kept.read(&mut answer).await {
            Ok(1..) if written.is_ok() => {}
            _ => break,
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    let many: String = (0..200).map(|n| format!("H{n}: x\r\n")).collect();
    let (head, _) = send(metrics, &format!("GET /metrics HTTP/1.1\r\n{many}\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 431"), "{head}");
    assert!(get(metrics, "/metrics").await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn alive_and_ready_are_answered_each_by_its_own_rule() {
    let site = Site::new("127.0.0.1:0", "127.0.0.1:0");
    site.make_healthy();
    let servers = site.start().await.unwrap();
    let health = servers.health_address().unwrap();
    let answer = |path: &'static str| async move {
        let (head, body) = get(health, path).await;
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), json)
    };
    // Nobody knows yet how far behind it is.
    let (code, body) = answer("/readyz").await;
    assert_eq!(
        (code.as_str(), &body["status"]),
        ("503", &"not ready".into())
    );
    site.status.set_lag(Some(101));
    let (code, body) = answer("/readyz").await;
    assert_eq!((code.as_str(), &body["lag_messages"]), ("503", &101.into()));
    site.status.set_lag(Some(100));
    assert_eq!(answer("/readyz").await.0, "200");
    // A broker that is away is no reason to restart.
    site.status.set_nats_connected(false);
    assert_eq!(answer("/readyz").await.0, "503");
    let (code, body) = answer("/livez").await;
    assert_eq!((code.as_str(), &body["status"]), ("200", &"alive".into()));
    assert_eq!(body["reasons"], serde_json::json!([]));

    let mut hidden = Site::new("127.0.0.1:0", "127.0.0.1:0");
    hidden.health.path = "/readyz".to_owned();
    let error = hidden.start().await.unwrap_err().to_string();
    assert!(error.contains("/readyz"), "{error}");
}
