//! `-pprof ADDR`.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::{SCHEMA, logging};
use crate::harness::http::{free_port, get};
use crate::harness::{Node, eventually, node};

/// A daemon with profiles. It ends with the test.
struct Profiled {
    node: Node,
    port: u16,
    daemon: std::process::Child,
}

impl Drop for Profiled {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn profiled(url: &str) -> Profiled {
    let (node, _) = logging(url, SCHEMA, "verbose = true");
    let port = free_port();
    let config = node.write_configuration();
    let daemon = node::bound(env!("CARGO_BIN_EXE_harmonylite"))
        .arg("-config")
        .arg(&config)
        .args(["-pprof", &format!(":{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(node.folder.join("daemon.log")).unwrap())
        .spawn()
        .unwrap();
    eventually("it replicates", || {
        node.log().contains("replicating position")
    });
    Profiled { node, port, daemon }
}

/// Bytes of a GET; the harness reads text only.
fn fetch(port: u16, path: &str) -> (u16, Vec<u8>) {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(90)))
        .unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[9..12]).parse().unwrap();
    (status, answer[head + 4..].to_vec())
}

/// Writes as an application until it is told that the profile is done.
fn busy<T>(node: &Node, work: impl FnOnce() -> T + Send) -> T
where
    T: Send,
{
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        let app = node.app();
        let mut id = 0;
        while !work.is_finished() {
            app.execute_batch(&format!("INSERT INTO t VALUES(NULL, {id})"))
                .unwrap();
            id += 1;
        }
        work.join().unwrap()
    })
}

#[test]
fn profiles_are_served_and_read_by_the_usual_tool() {
    let server = node::broker();
    let site = profiled(&server.url());
    let port = site.port;
    let (status, folded) = busy(&site.node, || fetch(port, "/debug/pprof/folded?seconds=3"));
    let folded = String::from_utf8(folded).unwrap();
    assert_eq!(status, 200, "{folded}");
    // The loops of a daemon that works, by the names of threads and functions.
    assert!(
        folded
            .lines()
            .any(|l| l.starts_with("publish;") || l.starts_with("consume;")),
        "{folded}"
    );
    assert!(folded.contains("harmonylite::"), "{folded}");

    let (status, profile) = busy(&site.node, || fetch(port, "/debug/pprof/profile?seconds=3"));
    assert_eq!(status, 200);
    let text = String::from_utf8_lossy(&profile);
    for name in ["samples", "nanoseconds", "harmonylite::"] {
        assert!(text.contains(name), "{name}");
    }
    let file = site.node.folder.join("cpu.pb");
    std::fs::write(&file, &profile).unwrap();
    match Command::new("go")
        .args(["tool", "pprof", "-top", "-unit=ms"])
        .arg(&file)
        .output()
    {
        Ok(read) => {
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&read.stdout),
                String::from_utf8_lossy(&read.stderr)
            );
            assert!(
                read.status.success() && said.contains("Type: cpu"),
                "{said}"
            );
            assert!(
                said.contains("Duration: 3") && said.contains("harmonylite"),
                "{said}"
            );
        }
        Err(error) => eprintln!("NOT RUN: go tool pprof: {error}"),
    }

    let (status, svg) = busy(&site.node, || {
        fetch(port, "/debug/pprof/flamegraph?seconds=1")
    });
    let svg = String::from_utf8(svg).unwrap();
    assert!(
        status == 200 && svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
        "{svg}"
    );
    assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
    // The node has lost nothing by it.
    eventually("all is published", || site.node.pending() == 0);
}

#[test]
fn memory_and_threads_are_shown_and_bad_questions_refused() {
    let server = node::broker();
    let mut site = profiled(&server.url());
    let (status, heap) = get(site.port, "/debug/pprof/heap").unwrap();
    assert_eq!(status, 200);
    let number = |name: &str| -> u64 {
        let line = heap
            .lines()
            .find(|l| l.split(' ').next() == Some(name))
            .unwrap();
        line.split_ascii_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    assert!(
        number("VmRSS") > 1000 && number("VmHWM") >= number("RssAnon"),
        "{heap}"
    );
    let kinds = ["heap", "anonymous", "program", "stack", "files"].map(number);
    // Two looks, one after the other.
    let (sum, rss) = (kinds.iter().sum::<u64>(), number("VmRSS"));
    assert!(
        sum.abs_diff(rss) < rss / 4 && kinds[0] + kinds[1] > 0,
        "{heap}"
    );
    let (_, threads) = get(site.port, "/debug/pprof/threads").unwrap();
    for name in ["publish", "consume", "log"] {
        assert!(
            threads.lines().any(|l| l.ends_with(&format!("  {name}"))),
            "{threads}"
        );
    }
    assert!(
        get(site.port, "/debug/pprof/")
            .unwrap()
            .1
            .contains("flamegraph")
    );
    for bad in ["seconds=0", "seconds=x", "seconds=100000"] {
        let (status, said) = get(site.port, &format!("/debug/pprof/profile?{bad}")).unwrap();
        assert_eq!(status, 400, "{bad}: {said}");
    }
    // One at a time.
    let port = site.port;
    std::thread::scope(|scope| {
        // The one that is to be refused may be a moment before it.
        let first = scope.spawn(
            move || {
                while fetch(port, "/debug/pprof/folded?seconds=60").0 == 503 {}
            },
        );
        eventually("a second one is refused", || {
            get(port, "/debug/pprof/folded?seconds=1").is_some_and(|(status, _)| status == 503)
        });
        // A stop does not wait for it.
        let stopped = site.node.run(&["-stop"]);
        assert_eq!(stopped.code, Some(0), "{}", stopped.said);
        let _ = first.join();
    });
    assert!(site.daemon.wait().unwrap().success());
    // On loopback alone, unless a host is named.
    assert!(
        site.node
            .log()
            .contains(&format!("address=127.0.0.1:{port}"))
    );
}
