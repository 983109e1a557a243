//! SSH servers, and what only SFTP has: host keys and ways to log in.

use std::path::PathBuf;

use harmonylite::config::{Secret, SnapshotStore as Kind};
use harmonylite::store::StoreError;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey};

use crate::cable::Cable;
use crate::memory;
use crate::site::{SECRET, Site, config, key, limits};
use crate::ssh_server::{Rules, serve};

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

fn rules() -> Rules {
    Rules {
        user: "me".to_owned(),
        password: SECRET.to_owned(),
        key: None,
        program: None,
    }
}

pub async fn site() -> Option<Site> {
    Some(with(new_key(), rules()).await)
}

/// With OpenSSH's program, where this machine has it.
pub async fn openssh_site() -> Option<Site> {
    let program = std::env::var_os("HARMONYLITE_SFTP_SERVER").map_or_else(
        || PathBuf::from("/usr/lib/openssh/sftp-server"),
        PathBuf::from,
    );
    if !program.exists() {
        println!("not run: there is no {}", program.display());
        return None;
    }
    let program = Some(program);
    Some(with(new_key(), Rules { program, ..rules() }).await)
}

async fn with(host_key: PrivateKey, rules: Rules) -> Site {
    let place = tempfile::tempdir().unwrap();
    let files = place.path().join("a b/c");
    std::fs::create_dir_all(&files).unwrap();
    let public = host_key.public_key().to_openssh().unwrap();
    let has_gaps = rules.program.is_none();
    let cable = Cable::to(serve(host_key, rules).await).await;
    let port = cable.port();
    let room = tempfile::tempdir().unwrap();
    let known_hosts = place.path().join("known_hosts");
    let line = format!("# hosts\n[127.0.0.1]:{port} {public} somebody\n");
    std::fs::write(&known_hosts, line).unwrap();
    let mut config = config(Kind::Sftp);
    let folder = files.display().to_string().replace(' ', "%20");
    config.sftp.url = Secret::new(format!("sftp://me:hun%26ter2@127.0.0.1:{port}{folder}"));
    config.sftp.known_hosts = Some(known_hosts);
    Site {
        config,
        broker: None,
        cable: Some(cable),
        files: Some(files),
        has_gaps,
        room,
        server: Box::new(place),
    }
}

/// What is refused, and said so without the secret.
async fn refused(site: &Site) -> String {
    let store = site.open(limits(8));
    let errors = [
        store.list().await.unwrap_err(),
        store.put_small(&key("a"), "text".into()).await.unwrap_err(),
    ];
    for error in &errors {
        let text = format!("{error} {error:?}");
        assert!(matches!(error, StoreError::Permanent { .. }), "{text}");
        assert!(!text.contains(SECRET) && !text.contains("guess"), "{text}");
    }
    errors[0].to_string()
}

async fn works(site: &Site) {
    let store = site.store();
    store.put_small(&key("a"), "text".into()).await.unwrap();
    assert_eq!(store.get_small(&key("a")).await.unwrap().unwrap(), "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_trusted_host_key_is_talked_to() {
    let _quiet = memory::shared().await;
    let host_key = new_key();
    let mut site = with(host_key.clone(), rules()).await;
    works(&site).await;
    let known_hosts = site.config.sftp.known_hosts.clone().unwrap();
    let port = site.cable.as_ref().unwrap().port();

    let other = new_key().public_key().to_openssh().unwrap();
    std::fs::write(&known_hosts, format!("[127.0.0.1]:{port} {other}\n")).unwrap();
    let text = refused(&site).await;
    assert!(text.contains("lists another in line 1"), "{text}");
    assert!(text.contains("somebody is between"), "{text}");

    std::fs::write(&known_hosts, format!("elsewhere {other}\n")).unwrap();
    let text = refused(&site).await;
    let shown = host_key
        .public_key()
        .fingerprint(HashAlg::Sha256)
        .to_string();
    assert!(text.contains(&shown), "{text}");
    assert!(text.contains("no known_hosts file lists"), "{text}");

    site.config.sftp.host_key = shown;
    works(&site).await;
    let other = new_key().public_key().fingerprint(HashAlg::Sha256);
    site.config.sftp.host_key = other.to_string();
    let text = refused(&site).await;
    assert!(text.contains("correct snapshot.sftp.host_key"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_logs_in_and_a_wrong_one_does_not() {
    let _quiet = memory::shared().await;
    let mine = new_key();
    let rules = Rules {
        key: Some(mine.public_key().clone()),
        ..rules()
    };
    let mut site = with(new_key(), rules).await;
    let url = site.config.sftp.url.expose().replace(":hun%26ter2@", "@");
    site.config.sftp.url = Secret::new(url);
    let file = |name: &str, key: &PrivateKey| {
        let text = key.to_openssh(LineEnding::LF).unwrap();
        Some(site.file(name, text.as_bytes()))
    };
    let (plain, wrong) = (file("plain", &mine), file("wrong", &new_key()));
    let locked = mine.encrypt(&mut rand::rng(), "guess").unwrap();
    let locked = file("locked", &locked);
    site.config.sftp.key_file = plain;
    works(&site).await;
    site.config.sftp.key_file = wrong;
    let text = refused(&site).await;
    assert!(
        text.contains("refuses the key of snapshot.sftp.key_file"),
        "{text}"
    );
    site.config.sftp.key_file = locked;
    let text = refused(&site).await;
    assert!(
        text.contains("correct snapshot.sftp.key_file and passphrase"),
        "{text}"
    );
    site.config.sftp.passphrase = Secret::new("guess");
    works(&site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_says_what_to_correct() {
    let _quiet = memory::shared().await;
    let mut site = site().await.unwrap();
    let url = site
        .config
        .sftp
        .url
        .expose()
        .replace(":hun%26ter2@", ":guess@");
    site.config.sftp.url = Secret::new(url);
    let text = refused(&site).await;
    assert!(text.contains("refuses the password"), "{text}");
    assert!(
        text.contains("correct the user, password or key_file"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_is_made_and_an_impossible_one_is_named() {
    let _quiet = memory::shared().await;
    let mut site = site().await.unwrap();
    let url = site.config.sftp.url.expose().to_owned();
    site.config.sftp.url = Secret::new(format!("{url}/x/y"));
    let store = site.store();
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.get_small(&key("a")).await.unwrap(), None);
    store.delete(&key("a")).await.unwrap();
    works(&site).await;
    site.config.sftp.url = Secret::new(format!("{url}/x/y/a/b"));
    let store = site.store();
    let error = store.put_small(&key("b"), "text".into()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("make the folder"), "{text}");
    assert!(matches!(error, StoreError::Permanent { .. }), "{text}");
}

/// What a process with an SSH agent does; run by the test below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the environment that another test gives it"]
async fn with_an_agent() {
    let public = std::env::var(AGENT_KEY).expect("set by the other test");
    let rules = Rules {
        key: Some(public.parse().unwrap()),
        ..rules()
    };
    let mut site = with(new_key(), rules).await;
    let url = site.config.sftp.url.expose().replace(":hun%26ter2@", "@");
    site.config.sftp.url = Secret::new(url);
    works(&site).await;
}

const AGENT_KEY: &str = "HARMONYLITE_TEST_AGENT_KEY";

#[test]
fn an_agent_logs_in() {
    use std::process::Command;
    let room = tempfile::tempdir().unwrap();
    let (socket, file) = (room.path().join("agent"), room.path().join("key"));
    let agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .spawn();
    let Ok(mut agent) = agent else {
        println!("not run: there is no ssh-agent");
        return;
    };
    let key = new_key();
    key.write_openssh_file(&file, LineEnding::LF).unwrap();
    while !socket.exists() {
        assert!(agent.try_wait().unwrap().is_none(), "ssh-agent ended");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let with_agent = |program: std::path::PathBuf, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("SSH_AUTH_SOCK", &socket);
        command.env(AGENT_KEY, key.public_key().to_openssh().unwrap());
        command.output().unwrap()
    };
    let added = with_agent("ssh-add".into(), &[file.to_str().unwrap()]);
    let me = std::env::current_exe().unwrap();
    let ran = with_agent(me, &["--exact", "sftp::with_an_agent", "--ignored"]);
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(added.status.success(), "{added:?}");
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(text.contains("1 passed"), "{text}");
}
