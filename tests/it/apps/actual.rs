//! The server of Actual Budget, through better-sqlite3 in Node.js: keys are UUIDs and names, one connection, a rollback journal, 5 s of patience.

use serde_json::{Value as Json, json};

use super::browser::{Answer, Browser};
use super::server::{Server, fetched, port};
use super::site::{Fair, Setup, Site, Weather};
use super::{assert_no_conflicts, texts};
use crate::harness::Node;
use crate::harness::node::{bound, folder};
use crate::harness::wait::Done;

/// Which migrations have been run stands in a file beside the database.
const ACTUAL: Setup = Setup {
    file: "account.sqlite",
    beside: &[".migrate"],
    sections: "",
    prepare: |node| {
        let server = actual(node, port());
        let password = json!({"password": "for-the-test"});
        Browser::new(server.port)
            .json("POST", "/account/bootstrap", &password)
            .expect(200);
        server.stop();
    },
    serve: actual,
};

/// Starts Actual on a node's database.
fn actual(node: &Node, port: u16) -> Server {
    let app = fetched("get-actual");
    let files = node.folder.join("user-files");
    std::fs::create_dir_all(&files).unwrap();
    let mut command = bound(app.join("node"));
    command
        .arg(app.join("node_modules/@actual-app/sync-server/build/app.js"))
        .env("NODE_ENV", "production")
        .env("ACTUAL_DATA_DIR", &node.folder)
        .env("ACTUAL_SERVER_FILES", &node.folder)
        .env("ACTUAL_USER_FILES", &files)
        .env("ACTUAL_HOSTNAME", "127.0.0.1")
        .env("ACTUAL_PORT", port.to_string())
        // It takes 500 requests a minute from one address.
        .env("ACTUAL_TRUSTED_PROXIES", "127.0.0.1/32");
    Server::start(port, &node.folder, command)
}

fn sign_in(browser: &mut Browser, password: &str) -> Answer {
    browser.json("POST", "/account/login", &json!({"password": password}))
}

/// Somebody who has signed in.
fn signed_in(port: u16, address: u8) -> Browser {
    let mut browser = Browser::new(port).with("X-Forwarded-For", &format!("10.0.0.{address}"));
    let answer = sign_in(&mut browser, "for-the-test").expect(200).json();
    let token = answer["data"]["token"].as_str().unwrap();
    browser.with("X-Actual-Token", token)
}

fn upload(browser: &Browser, id: &str, name: &str) -> Answer {
    browser
        .clone()
        .with("X-Actual-File-Id", id)
        .with("X-Actual-Name", name)
        .with("X-Actual-Format", "2")
        .request(
            "POST",
            "/sync/upload-user-file",
            Some("application/encrypted-file"),
            "a budget",
        )
}

/// All that a server knows of its budgets, its settings and its keys.
fn shown(browser: &Browser, port: u16) -> Json {
    let mut browser = browser.clone();
    let mut ask = |path: &str| browser.go(port).get(path).body;
    let validated: Json = serde_json::from_str(&ask("/account/validate")).unwrap();
    let listed: Json = serde_json::from_str(&ask("/sync/list-user-files")).unwrap();
    let mut files: Vec<_> = listed["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            json!([
                file["fileId"],
                file["name"],
                file["deleted"],
                file["encryptKeyId"]
            ])
        })
        .collect();
    files.sort_by_key(Json::to_string);
    let secret = browser.go(port).get("/secret/simplefin_token").status;
    json!([
        validated["data"]["permission"],
        validated["data"]["prefs"],
        files,
        secret
    ])
}

/// What people do, at one of two servers at a time; all that they see.
fn work(here: u16, there: u16, weather: &mut impl Weather) -> Vec<Json> {
    let mut ann = signed_in(here, 1);
    weather.after(3);
    let mut seen = Vec::new();
    let mut step = |ann: &mut Browser, at: u16, act: &dyn Fn(&mut Browser) -> Answer| {
        weather.before(seen.len());
        let status = act(ann.go(at)).status;
        weather.after(seen.len());
        let (left, right) = (shown(ann, here), shown(ann, there));
        assert_eq!(left, right, "after step {}", seen.len());
        seen.push(json!([status, left]));
    };
    step(&mut ann, there, &|b| upload(b, "budget-1", "Household"));
    step(&mut ann, here, &|b| upload(b, "budget-2", "Travel"));
    let name = json!({"fileId": "budget-1", "name": "Home"});
    step(&mut ann, here, &|b| {
        b.json("POST", "/sync/update-user-filename", &name)
    });
    let key =
        json!({"fileId": "budget-1", "keyId": "key-1", "keySalt": "salt", "testContent": "test"});
    step(&mut ann, there, &|b| {
        b.json("POST", "/sync/user-create-key", &key)
    });
    let prefs = json!({"prefs": {"flags.plugins": "true"}});
    step(&mut ann, here, &|b| {
        b.json("POST", "/account/server-prefs", &prefs)
    });
    let prefs = json!({"prefs": {"flags.plugins": "false"}});
    step(&mut ann, there, &|b| {
        b.json("POST", "/account/server-prefs", &prefs)
    });
    let secret = json!({"name": "simplefin_token", "value": "for-the-test"});
    step(&mut ann, there, &|b| b.json("POST", "/secret", &secret));
    step(&mut ann, here, &|b| {
        b.json(
            "POST",
            "/sync/delete-user-file",
            &json!({"fileId": "budget-2"}),
        )
    });
    let password = json!({"password": "another-word"});
    step(&mut ann, there, &|b| {
        b.json("POST", "/account/change-password", &password)
    });
    step(&mut ann, here, &|b| sign_in(b, "for-the-test"));
    step(&mut ann, here, &|b| sign_in(b, "another-word"));
    seen
}

#[test]
fn one_node_at_a_time_is_as_good_as_one_node() {
    let alone = folder();
    let mut node = Node::in_folder(1, "nats://127.0.0.1:1", alone.path());
    node.file = ACTUAL.file;
    (ACTUAL.prepare)(&node);
    let server = actual(&node, port());
    let expected = work(server.port, server.port, &mut Fair);
    server.stop();
    let statuses: Vec<_> = expected.iter().map(|step| step[0].clone()).collect();
    assert_eq!(
        json!(statuses),
        json!([200, 200, 200, 200, 200, 200, 200, 200, 200, 400, 200])
    );
    let end = json!(["ADMIN", {"flags.plugins": "false"}, [["budget-1", "Home", 0, "key-1"]], 204]);
    assert_eq!(expected.last().unwrap()[1], end);

    let mut site = Site::new(&ACTUAL);
    let (here, there) = site.ports();
    assert_eq!(work(here, there, &mut site), expected);
    assert_no_conflicts(&site.cluster);
    // The budget itself is a file, of the node to which it was uploaded.
    for (port, status) in [(there, 200), (here, 404)] {
        let mut ann = Browser::new(port);
        let token = sign_in(&mut ann, "another-word").expect(200).json();
        let token = token["data"]["token"].as_str().unwrap();
        ann.with("X-Actual-Token", token)
            .with("X-Actual-File-Id", "budget-1")
            .get("/sync/download-user-file")
            .expect(status);
        site.cluster.converge();
    }
    site.end("");
}

/// Its keys are its own, so both nodes may write: nobody is refused, nothing collides, and different columns of one row both stay.
#[test]
fn both_nodes_write_while_everything_fails() {
    let mut site = Site::new(&ACTUAL);
    let (here, there) = site.ports();
    upload(&signed_in(here, 1), "shared", "Shared").expect(200);
    site.cluster.converge();
    let done = Done::default();
    let mut written: Vec<String> = std::thread::scope(|scope| {
        let writers = [(here, 1), (there, 2)].map(|(port, who)| {
            let (done, browser) = (&done, signed_in(port, who));
            scope.spawn(move || {
                let mut written = Vec::new();
                while !done.is_said() {
                    let number = written.len();
                    let id = format!("budget-{who}-{number}");
                    let address = format!("10.{who}.{}.{}", number / 250, number % 250);
                    let mut browser = browser.clone().with("X-Forwarded-For", &address);
                    upload(&browser, &id, "New").expect(200);
                    let (path, change) = match who {
                        1 => ("/sync/update-user-filename", json!({"fileId": "shared", "name": id})),
                        _ => ("/sync/user-create-key", json!({"fileId": "shared", "keyId": id, "keySalt": "s", "testContent": "t"})),
                    };
                    browser.json("POST", path, &change).expect(200);
                    written.push(id);
                }
                written
            })
        });
        let _ends = done.on_drop();
        site.everything_fails(["SELECT count(*) FROM files"; 2]);
        done.say();
        writers
            .into_iter()
            .flat_map(|w| w.join().unwrap())
            .collect()
    });
    site.cluster.converge();
    let last = |who: &str| {
        written
            .iter()
            .rfind(|id| id.starts_with(who))
            .unwrap()
            .clone()
    };
    let shared = texts(
        &site.cluster[1],
        "SELECT name || ' ' || encrypt_keyid FROM files WHERE id = 'shared'",
    );
    assert_eq!(
        shared,
        [format!("{} {}", last("budget-1-"), last("budget-2-"))].into()
    );
    written.push("shared".to_owned());
    assert_eq!(
        texts(&site.cluster[0], "SELECT id FROM files"),
        written.into_iter().collect()
    );
    assert_no_conflicts(&site.cluster);
    site.end("");
}
