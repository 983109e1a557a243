use super::*;
use crate::control::protocol::{LINE, Refusal};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Mutex;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const LONG: Duration = Duration::from_secs(60);

/// A server with its lock, in a folder of its own.
struct Served {
    server: ControlServer,
    lock: InstanceLock,
    folder: TempDir,
}

impl Served {
    async fn start(handler: impl Fn(Request, Reply) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lock = InstanceLock::acquire(&folder.path().join("app.db")).unwrap();
        let server = ControlServer::start(&lock, handler).await.unwrap();
        Self {
            server,
            lock,
            folder,
        }
    }

    async fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("app.db-harmonylite.sock"))
            .await
            .unwrap()
    }

    /// Sends bytes, closes the sending side, and gives what comes back.
    async fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The server may close before it has read all.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        rest(stream).await
    }
}

async fn rest(mut stream: UnixStream) -> String {
    let mut all = Vec::new();
    // A connection that is closed with bytes unread ends by a reset, after what was sent.
    let _ = timeout(LONG, stream.read_to_end(&mut all)).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_request_is_answered_with_progress_and_an_end() {
    let served = Served::start(|request, reply| {
        // Later, from a thread that knows no runtime.
        std::thread::spawn(move || {
            reply.progress("one");
            reply.progress("two");
            reply.done(match request {
                Request::Ping => Ok("pong".to_owned()),
                _ => Err(Refusal::new("not now", 75)),
            });
        });
    })
    .await;
    let progress = "{\"progress\":\"one\"}\n{\"progress\":\"two\"}\n";
    assert_eq!(
        served.ask(b"{\"command\":\"ping\"}\n").await,
        format!("{progress}{{\"ok\":true,\"message\":\"pong\"}}\n")
    );
    // The newline may be missing.
    assert_eq!(
        served.ask(b"{\"command\":\"stop\"}").await,
        format!("{progress}{{\"ok\":false,\"error\":\"not now\",\"exit\":75}}\n")
    );
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_one_served() {
    let served = Served::start(|_, reply| reply.done(Ok("pong".to_owned()))).await;
    let long = vec![b' '; 4 * LINE];
    let mut nearly = vec![b' '; LINE - 20];
    nearly.extend(b"{\"command\":\"ping\"}\n");
    for (bytes, part) in [
        (&b"\xff\xfe\0garbage\n"[..], "the request is not understood"),
        (
            b"{\"command\":\"dance\"}\n",
            "known are stop, cleanup, ping",
        ),
        (&long, "the request is longer than 65536 bytes"),
    ] {
        let answer = served.ask(bytes).await;
        assert!(answer.starts_with("{\"ok\":false,"), "{answer}");
        assert!(
            answer.contains(part) && answer.contains("\"exit\":64"),
            "{answer}"
        );
    }
    assert_eq!(served.ask(b"").await, "");
    for bytes in [&nearly[..], b"{\"command\":\"ping\"}\n"] {
        assert!(served.ask(bytes).await.contains("pong"));
    }
}

#[tokio::test]
async fn a_handler_that_drops_its_reply_or_fails_is_told_to_the_client() {
    let served = Served::start(|request, reply| {
        if request == Request::Cleanup {
            panic!("on purpose");
        }
        drop(reply);
    })
    .await;
    for command in ["stop", "cleanup"] {
        let line = format!("{{\"command\":\"{command}\"}}\n");
        let answer = served.ask(line.as_bytes()).await;
        assert!(answer.contains("without an answer"), "{answer}");
        assert!(answer.contains("\"exit\":70"), "{answer}");
    }
}

#[tokio::test]
async fn the_socket_is_private_and_removed_at_the_end() {
    let served = Served::start(|_, reply| reply.done(Ok(String::new()))).await;
    let path = served.folder.path().join("app.db-harmonylite.sock");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    // Nothing else is left beside the database.
    let mut names: Vec<_> = fs::read_dir(served.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["app.db-harmonylite.lock", "app.db-harmonylite.sock"]
    );
    served.server.stop().await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_somebodys_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let lock = InstanceLock::acquire(&folder.path().join("app.db")).unwrap();
    let path = lock.paths().socket.clone();
    let pong = |_, reply: Reply| reply.done(Ok("pong".to_owned()));
    // A daemon that was killed leaves its socket, and perhaps a half-made one.
    drop(StdListener::bind(&path).unwrap());
    drop(StdListener::bind(folder.path().join(&lock.paths().new_socket)).unwrap());
    let server = ControlServer::start(&lock, pong).await.unwrap();
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"{\"command\":\"ping\"}\n").await.unwrap();
    assert!(rest(stream).await.contains("pong"));
    server.stop().await.unwrap();

    let target = folder.path().join("precious");
    fs::write(&target, "kept").unwrap();
    symlink(&target, &path).unwrap();
    let refused = ControlServer::start(&lock, pong).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("app.db-harmonylite.sock cannot be made")
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    assert!(!folder.path().join(&lock.paths().new_socket).exists());
}

#[tokio::test]
async fn another_servers_socket_is_not_removed() {
    let served = Served::start(|_, reply| reply.done(Ok(String::new()))).await;
    let path = served.lock.paths().socket.clone();
    let other = path.with_file_name("other");
    let _listener = StdListener::bind(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    served.server.stop().await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn an_answer_given_just_before_the_end_arrives() {
    let served = Served::start(|_, reply| {
        reply.progress("nearly");
        reply.done(Ok("done".to_owned()));
    })
    .await;
    for _ in 0..20 {
        assert!(
            served
                .ask(b"{\"command\":\"ping\"}\n")
                .await
                .ends_with("\"done\"}\n")
        );
    }
    let kept = Arc::new(Mutex::new(Vec::new()));
    let held = kept.clone();
    let served = Served::start(move |_, reply| held.lock().unwrap().push(reply)).await;
    let mut answered = served.connect().await;
    answered
        .write_all(b"{\"command\":\"stop\"}\n")
        .await
        .unwrap();
    while kept.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut forgotten = served.connect().await;
    forgotten
        .write_all(b"{\"command\":\"stop\"}\n")
        .await
        .unwrap();
    while kept.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let first = kept.lock().unwrap().remove(0);
    first.done(Ok("stopping".to_owned()));
    served.server.stop().await.unwrap();
    assert!(rest(answered).await.contains("stopping"));
    assert!(
        rest(forgotten)
            .await
            .contains("the daemon ended before the request was done")
    );
}

#[tokio::test]
async fn places_are_bounded_and_come_back() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let held = kept.clone();
    let served = Served::start(move |_, reply| held.lock().unwrap().push(reply)).await;
    let mut waiting = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = served.connect().await;
        stream.write_all(b"{\"command\":\"ping\"}\n").await.unwrap();
        waiting.push(stream);
    }
    while kept.lock().unwrap().len() < CONNECTIONS {
        tokio::task::yield_now().await;
    }
    let busy = served.ask(b"{\"command\":\"ping\"}\n").await;
    assert!(busy.contains("too many requests at once") && busy.contains("\"exit\":75"));
    // A client that only has nothing more to say keeps its place; those that went give theirs back.
    let mut patient = waiting.pop().unwrap();
    patient.shutdown().await.unwrap();
    drop(waiting);
    let took_a_place = timeout(LONG, async {
        loop {
            let mut stream = served.connect().await;
            let _ = stream.write_all(b"{\"command\":\"ping\"}\n").await;
            let before = kept.lock().unwrap().len();
            sleep(Duration::from_millis(50)).await;
            if kept.lock().unwrap().len() > before || before > CONNECTIONS {
                break;
            }
        }
    });
    took_a_place.await.unwrap();
    let replies = std::mem::take(&mut *kept.lock().unwrap());
    for reply in replies {
        reply.done(Ok("late".to_owned()));
    }
    assert!(rest(patient).await.contains("late"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_sent_away() {
    let served = Served::start(|_, reply| reply.done(Ok(String::new()))).await;
    let stream = served.connect().await;
    assert!(rest(stream).await.contains("no request came in time"));
}
