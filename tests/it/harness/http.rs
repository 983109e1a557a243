//! Asking a daemon over HTTP.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::node::Node;

pub use super::ports::free as free_port;

/// Status and body of a GET; `None` where nobody answers.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    // More than any answer takes.
    stream
        .set_read_timeout(Some(Duration::from_secs(90)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// The value of a metric with these labels among others.
pub fn metric(port: u16, name: &str) -> Option<f64> {
    let (_, text) = get(port, "/metrics")?;
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Lets a node answer for its health and its metrics; the ports of both.
pub fn observed(node: &mut Node) -> (u16, u16) {
    let (health, metrics) = (free_port(), free_port());
    node.sections.push_str(&format!(
        "[health_check]\nenable = true\nbind = \"127.0.0.1:{health}\"\n[prometheus]\nenable = true\nbind = \"127.0.0.1:{metrics}\"\n"
    ));
    (health, metrics)
}
