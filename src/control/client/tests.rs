use super::*;
use crate::control::Outcome;
use crate::control::lock::InstanceLock;
use crate::control::lock::tests::Locker;
use crate::control::server::{ControlServer, Reply};
use std::fs;
use std::os::unix::net::UnixListener;
use std::thread;

use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

fn database() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap().join("app.db");
    (folder, path)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A lock that does not name its holder: on a machine that stalls, `stop` must not signal this very process.
fn unnamed_lock(path: &Path) -> InstanceLock {
    let lock = InstanceLock::acquire(path).unwrap();
    fs::write(&lock.paths().lock, "").unwrap();
    lock
}

fn ping(path: &Path, wait: Duration) -> Result<Answer, ClientError> {
    request(path, Request::Ping, wait, |_| ())
}

#[test]
fn no_daemon_is_said_with_the_database() {
    let (_folder, path) = database();
    let sentence = format!("no daemon is running for {}", path.display());
    let remedy = format!("{sentence}: start harmonylite, then try again");
    let error = ping(&path, LONG).unwrap_err();
    assert!(matches!(error, ClientError::NotRunning { .. }));
    assert_eq!(error.to_string(), remedy);
    assert_eq!(stop(&path, LONG, |_| ()).unwrap().to_string(), sentence);
    // A killed daemon leaves files.
    drop(InstanceLock::acquire(&path).unwrap());
    drop(UnixListener::bind(path.with_file_name("app.db-harmonylite.sock")).unwrap());
    assert_eq!(ping(&path, LONG).unwrap_err().to_string(), remedy);
    assert_eq!(stop(&path, LONG, |_| ()).unwrap().to_string(), sentence);
    // One that starts has only the lock.
    let _lock = InstanceLock::acquire(&path).unwrap();
    assert!(matches!(
        ping(&path, LONG),
        Err(ClientError::NotListening { pid, .. }) if pid == Some(std::process::id())
    ));
}

#[test]
fn a_daemon_answers_also_where_paths_are_longer_than_a_socket_address() {
    let (folder, _) = database();
    let deep = folder.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    let path = deep.join(format!("{}.db", "f".repeat(230)));
    let runtime = runtime();
    let lock = unnamed_lock(&path);
    let server = runtime
        .block_on(ControlServer::start(&lock, |request, reply: Reply| {
            reply.progress("thinking");
            reply.done(match request {
                Request::Ping => Ok(Outcome {
                    message: "pong".to_owned(),
                    // Far more than a line holds.
                    result: Some((0..100_000).map(|n| n.to_string()).collect()),
                }),
                _ => Err(Refusal::new("not now", 75)),
            });
        }))
        .unwrap();
    let mut said = Vec::new();
    let answer = request(&path, Request::Ping, LONG, |text| {
        said.push(text.to_owned())
    })
    .unwrap();
    assert_eq!(answer.message, "pong");
    let list = answer.result.unwrap();
    assert_eq!(list.as_array().unwrap().len(), 100_000);
    assert_eq!(list[99_999], "99999");
    assert_eq!(said, ["thinking"]);
    match request(&path, Request::Cleanup, LONG, |_| ()) {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal, Refusal::new("not now", 75)),
        other => panic!("{other:?}"),
    }
    // A refusal to stop is final: no signal follows it.
    assert!(matches!(
        stop(&path, LONG, |_| ()),
        Err(ClientError::Refused(_))
    ));
    runtime.block_on(server.stop()).unwrap();
    assert!(matches!(
        ping(&path, LONG),
        Err(ClientError::NotListening { .. })
    ));
}

#[test]
fn stop_waits_until_the_lock_is_released() {
    let (_folder, path) = database();
    let runtime = runtime();
    let lock = unnamed_lock(&path);
    let (asked, hear) = std::sync::mpsc::sync_channel(1);
    let server = runtime
        .block_on(ControlServer::start(&lock, move |request, reply| {
            asked.send(request).unwrap();
            reply.done(Ok("stopping".to_owned()));
        }))
        .unwrap();
    let handle = runtime.handle().clone();
    let daemon = thread::spawn(move || {
        assert_eq!(hear.recv().unwrap(), Request::Stop);
        handle.block_on(server.stop()).unwrap();
        drop(lock);
    });
    let mut said = Vec::new();
    let stopped = stop(&path, LONG, |text| said.push(text.to_owned())).unwrap();
    assert_eq!(said.first().unwrap(), "stopping");
    assert_eq!(
        stopped.to_string(),
        format!("the daemon of {} has stopped", path.display())
    );
    // Released, not merely answered.
    InstanceLock::acquire(&path).unwrap();
    daemon.join().unwrap();
}

#[test]
fn stop_gives_up_on_a_daemon_that_does_not_end() {
    let (_folder, path) = database();
    let runtime = runtime();
    let lock = unnamed_lock(&path);
    let _server = runtime
        .block_on(ControlServer::start(&lock, |_, reply| {
            reply.done(Ok("stopping".to_owned()));
        }))
        .unwrap();
    assert!(matches!(
        stop(&path, Duration::from_secs(3), |_| ()),
        Err(ClientError::StillRunning { pid: None, .. })
    ));
}

#[test]
fn a_daemon_without_a_socket_gets_sigterm() {
    use std::os::unix::process::ExitStatusExt;
    let (_folder, path) = database();
    let mut child = Locker::start(&path);
    let mut said = Vec::new();
    let stopped = stop(&path, LONG, |text| said.push(text.to_owned())).unwrap();
    assert_eq!(
        stopped.to_string(),
        format!(
            "the daemon (process {}) of {} has stopped",
            child.pid(),
            path.display()
        )
    );
    assert!(said.first().unwrap().ends_with("sending SIGTERM"));
    assert_eq!(child.wait().signal(), Some(15));
}

#[test]
fn a_daemon_that_hangs_times_out_also_with_a_full_queue() {
    let (_folder, path) = database();
    let _lock = InstanceLock::acquire(&path).unwrap();
    let paths = Paths::of(&path).unwrap();
    let _listener = socket::listen(&paths).unwrap();
    let mut queued = Vec::new();
    let last = loop {
        match socket::connect(&paths.socket, SHORT) {
            Ok(stream) => queued.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(last.kind(), io::ErrorKind::WouldBlock);
    // Nobody takes the connection.
    assert!(matches!(
        ping(&path, SHORT),
        Err(ClientError::Timeout { waited, .. }) if waited == SHORT
    ));
    // It is taken, and nothing is said.
    queued.truncate(1);
    assert!(matches!(
        ping(&path, SHORT),
        Err(ClientError::Timeout { .. })
    ));
}

/// Answers one connection with `bytes`, closes it, and gives what the client makes of that.
fn answered(bytes: Vec<u8>) -> ClientError {
    let (_folder, path) = database();
    let listener = UnixListener::bind(path.with_file_name("app.db-harmonylite.sock")).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // The client may hang up on what it does not understand.
        let _ = stream.write_all(&bytes);
    });
    let error = ping(&path, LONG).unwrap_err();
    server.join().unwrap();
    error
}

#[test]
fn an_answer_that_is_none_is_told_apart_from_no_answer() {
    for bytes in [
        b"garbage\n".to_vec(),
        b"{}\n".to_vec(),
        vec![b' '; 2 * LINE],
    ] {
        let error = answered(bytes);
        assert!(
            matches!(error, ClientError::NotUnderstood { .. }),
            "{error}"
        );
    }
    for bytes in ["", "{\"ok\":true", "{\"progress\":\"a\"}\n"] {
        let error = answered(bytes.into());
        assert!(matches!(error, ClientError::Lost { .. }), "{error}");
    }
}
