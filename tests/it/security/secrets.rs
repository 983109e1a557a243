//! Secrets: where they can come from, and that they go nowhere else.

use std::os::unix::fs::PermissionsExt as _;

use super::markers::{Watch, children, environment};
use super::{SCHEMA, node};
use crate::harness::http::{free_port, observed};
use crate::harness::nats::{self, NatsServer};
use crate::harness::{Node, eventually};

const PASSWORD: &str = "lovelace-1815";

/// A server that wants the password.
fn server() -> NatsServer {
    NatsServer::with(&format!(
        "authorization {{ user: ada, password: {PASSWORD} }}"
    ))
}

/// A file with these rights.
fn file(node: &Node, name: &str, text: &str, mode: u32) -> std::path::PathBuf {
    let path = node.folder.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_password_comes_from_a_credential_the_environment_or_a_file() {
    let server = server();
    let make = |id| node(id, &server.url(), "user_name = \"ada\"").0;
    let (mut one, mut two, mut three) = (make(1), make(2), make(3));
    file(&one, "nats.user_password", &format!("{PASSWORD}\n"), 0o400);
    let folder = one.folder.display().to_string();
    one.environment
        .push(("CREDENTIALS_DIRECTORY".to_owned(), folder));
    // It goes before what the environment says.
    let variable = |text: &str| ("HARMONYLITE_NATS_USER_PASSWORD".to_owned(), text.to_owned());
    one.environment.push(variable("byron-1788"));
    two.environment.push(variable(PASSWORD));
    let path = file(&three, "password", PASSWORD, 0o644);
    three.sections = three.sections.replace(
        "user_name = ",
        &format!("user_password_file = {path:?}\nuser_name = "),
    );
    let mut watch = Watch::new(&[PASSWORD, "byron-1788"]);
    for node in [&mut one, &mut two, &mut three] {
        node.start_replicating();
    }
    one.sql("INSERT INTO t VALUES(1, 'x')");
    for node in [&two, &three] {
        eventually("the row arrives", || {
            node.integer("SELECT count(*) FROM t") == 1
        });
    }
    for node in [&one, &two, &three] {
        watch.look_at(node, &[]);
    }
    let open = "every user of this machine may read";
    assert!(three.log().contains(open), "{}", three.log());
    assert!(!one.log().contains(open) && !two.log().contains(open));
    file(&three, "password", PASSWORD, 0o640);
    assert!(!three.run(&["-check"]).said.contains(open));
}

#[test]
fn what_the_configuration_and_its_files_lack_is_said_with_the_name() {
    let mut node = Node::new(1, "nats://127.0.0.1:1", SCHEMA);
    let two_lines = file(&node, "two", "hunter2\nhunter2\n", 0o600);
    let missing = node.folder.join("missing");
    node.sections.push_str(&format!(
        "user_name = \"ada\"\nuser_password_file = {two_lines:?}\n\
         [snapshot.s3]\naccess_key = \"hunter2\"\naccess_key_file = {two_lines:?}\nsecret_file = {missing:?}\n\
         [snapshot.webdav]\nurl_file = {:?}\n",
        file(&node, "url", "ftp://h/?secret=hunter2", 0o600)
    ));
    let ended = node.run(&["-check"]);
    assert_eq!(ended.code, Some(78), "{}", ended.said);
    for sentence in [
        "nats.user_password_file gives a secret that has more than one line",
        "snapshot.s3.access_key_file cannot be used together with snapshot.s3.access_key",
        "snapshot.s3.secret_file names ",
        "snapshot.webdav.url_file cannot be used: ",
    ] {
        assert!(ended.said.contains(sentence), "{sentence}: {}", ended.said);
    }
    assert_eq!(ended.said.trim().lines().count(), 4, "{}", ended.said);
    assert!(!ended.said.contains("hunter2"), "{}", ended.said);
    // What follows from a fault is no news.
    node.sections = format!(
        "[snapshot.s3]\naccess_key = \"hunter2\"\naccess_key_file = {two_lines:?}\nsecret = \"hunter2\"\n"
    );
    let said = node.run(&["-check"]).said;
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    // A configuration that every user may read is told of where it holds a secret.
    node.sections = "[nats]\nuser_name = \"ada\"\nuser_password = \"hunter2\"\n".to_owned();
    let path = node.write_configuration();
    for (mode, is_told) in [(0o644, true), (0o640, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = node.run(&["-check"]).said;
        assert_eq!(
            said.contains("holds nats.user_password, and every user"),
            is_told,
            "{said}"
        );
    }
}

/// A node with this store, which is not there.
fn a_store_fails<'a>(
    id: u64,
    url: &str,
    store: &str,
    closed: u16,
    planted: &[&'a str],
) -> Watch<'a> {
    let mut watch = Watch::new(planted);
    let mut node = Node::new(id, url, SCHEMA);
    node.sections.push_str(
        "user_name = \"ada\"\nuser_password = \"marker1-password\"\nconnect_retries = 0\n",
    );
    let ports = <[u16; 2]>::from(observed(&mut node));
    node.sections
        .push_str(&format!("[logging]\nverbose = true\n[snapshot]\n{store}"));
    node.environment = vec![("HARMONYLITE_LOG".to_owned(), "trace".to_owned())];
    watch.look("-check", &node.run(&["-check"]).said);
    node.start();
    // With its address, and so with whatever it says of its URL.
    node.wait_log(&closed.to_string());
    node.sql("INSERT INTO t VALUES(1, 'x')");
    watch.look_at(&node, &ports);
    for word in [
        &["position"][..],
        &["conflicts", "list"],
        &["verify"],
        &["-help"],
    ] {
        watch.look(&word.join(" "), &node.run(word).said);
    }
    watch.look_at(&node, &ports);
    node.terminate();
    watch.look("the log of the stop", &node.log());
    watch
}

#[test]
fn no_secret_shows_anywhere() {
    // One for each key that takes one; each begins with a word of its own, so that pieces show, too.
    let planted = [
        "marker1-password",
        "marker2-access",
        "marker3-secret",
        "marker4-token",
        "marker5-webdav",
        "marker6-sftp",
        "marker7-phrase",
        "marker8-url",
        "marker9-token",
    ];
    let mut watch = Watch::new(&planted);
    let closed = free_port();
    let stores = format!(
        "[snapshot.s3]\nbucket = \"bucket\"\nendpoint = \"127.0.0.1:{closed}\"\naccess_key = \"marker2-access\"\nsecret = \"marker3-secret\"\nsession_token = \"marker4-token\"\n\
         [snapshot.webdav]\nurl = \"http://127.0.0.1:{closed}/?dir=/s&login=me&secret=marker5-webdav\"\n\
         [snapshot.sftp]\nurl = \"sftp://me:marker6-sftp@127.0.0.1:{closed}/s\"\nhost_key = \"SHA256:{}\"\n",
        "A".repeat(43)
    );
    let server = NatsServer::with("authorization { user: ada, password: marker1-password }");
    // Stores that are not there fail again and again, with all that they have to say, and are waited for: all three at once.
    let url = server.url();
    std::thread::scope(|scope| {
        let failing: Vec<_> = [(1, "s3"), (2, "webdav"), (3, "sftp")]
            .map(|(id, store)| {
                let (url, stores, planted) = (&url, &stores, &planted);
                scope.spawn(move || {
                    a_store_fails(
                        id,
                        url,
                        &format!("store = \"{store}\"\n{stores}"),
                        closed,
                        planted,
                    )
                })
            })
            .into();
        for thread in failing {
            thread.join().unwrap().assert_places(30);
        }
    });
    // Logins that are refused, in URLs, and a broker that is not there.
    for urls in [
        server.url().replace("//", "//ada:marker8-url@"),
        server.url().replace("//", "//marker9-token@"),
        format!("nats://ada:marker8-url@127.0.0.1:{closed}"),
    ] {
        let (mut node, health) = node(4, &urls, "connect_retries = 0");
        node.start();
        node.wait_log("trying again");
        watch.look_at(&node, &[health]);
        watch.look("-check", &node.run(&["-check"]).said);
        watch.look("verify", &node.run(&["verify"]).said);
        node.stop();
    }
    // Faults name keys and show no values.
    let mut wrong = Node::new(5, "nats://ada:marker8-url@h:port", SCHEMA);
    wrong.sections.push_str("user_password = \"marker1-password\"\nuser_pasword = \"marker1-password\"\n[snapshot.s3]\nsecret = \"marker3-secret\"\nsession_token = 3\n[snapshot.sftp]\nurl = \"sftp://me:marker6-sftp@h:port/\"\npassphrase = \"marker7-phrase\"\n");
    let ended = wrong.run(&["-check"]);
    assert_eq!(ended.code, Some(78));
    watch.look("faults", &ended.said);
    watch.look("a broken file", &{
        wrong
            .sections
            .push_str("secret = \"marker3-secret\n[[nats]]\nuser_password = marker1-password\n");
        wrong.run(&["-check"]).said
    });
    watch.assert_places(20);
}

#[test]
fn logins_of_peers_stay_out_of_the_list_of_processes_and_of_others_sight() {
    let mut node = Node::bare(1, "");
    node.sections = format!(
        "[nats]\nserver_path = {:?}\n[logging]\nverbose = true\n",
        nats::binary()
    );
    crate::harness::app::create(&node.database(), SCHEMA);
    let peer = format!("nats://ada:marker1-peer@127.0.0.1:{}/", free_port());
    let ended = node.run(&["-check", "-leaf-servers", &peer]);
    assert!(
        ended.said.contains("-leaf-servers holds a login"),
        "{}",
        ended.said
    );
    node.environment = vec![("HARMONYLITE_LEAF_SERVERS".to_owned(), peer)];
    node.start_replicating();
    let mut watch = Watch::new(&["marker1-peer"]);
    watch.look_at(&node, &[]);
    // The server knows it from its configuration, which nobody else may read, nor its store.
    let started = children(node.pid());
    assert_eq!(started.len(), 1);
    assert!(!environment(started[0]).contains("marker1-peer"));
    let folder = node.folder.join("nats/harmonylite-node-1");
    let configuration = std::fs::read_to_string(folder.join("nats-server.conf")).unwrap();
    assert!(configuration.contains("marker1-peer"), "{configuration}");
    // A server of one node alone is for this machine alone.
    assert!(
        configuration.contains("host: \"127.0.0.1\""),
        "{configuration}"
    );
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("nats-server.conf")), 0o600);
    node.stop();
}
