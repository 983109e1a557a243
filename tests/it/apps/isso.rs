//! isso, a comment server: tables whose keys SQLite chooses, a trigger with replicated effects, its own secret in a table, Python's sqlite3 with its
//! defaults (rollback journal, 5 s of patience).

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::browser::{Answer, Browser};
use super::server::{Server, fetched, port, python};
use super::site::{Fair, Setup, Site, Weather};
use super::{assert_no_conflicts, lost, restore, schema, texts};
use crate::harness::node::folder;
use crate::harness::wait::Done;
use crate::harness::{Cluster, Node};

const ISSO: Setup = Setup {
    file: "comments.db",
    beside: &[],
    sections: "",
    prepare: |node| isso(node, port()).stop(),
    serve: isso,
};

/// Starts isso on a node's database.
fn isso(node: &Node, port: u16) -> Server {
    let url = format!("http://127.0.0.1:{port}");
    // Its protection against floods would refuse a test; the proxy's word says who a comment is from.
    let configuration = format!(
        "[general]\ndbpath = {}\nhost = {url}/\nnotify = stdout\n[admin]\nenabled = true\npassword = for-the-test\n\
         [guard]\nenabled = false\n[server]\nlisten = {url}\ntrusted-proxies = 127.0.0.1\n",
        node.database().display()
    );
    std::fs::write(node.folder.join("isso.cfg"), configuration).unwrap();
    let mut command = python(&fetched("get-isso"));
    command.args(["-c", "import isso; isso.main()", "-c", "isso.cfg", "run"]);
    Server::start(port, &node.folder, command)
}

/// Somebody at a server, with an address of their own: isso takes one vote from each.
fn reader(port: u16, who: u8) -> Browser {
    Browser::new(port).with("X-Forwarded-For", &format!("10.0.{who}.1"))
}

fn post(browser: &mut Browser, thread: &str, text: &str, parent: Option<u64>) -> Answer {
    let comment = json!({
        "text": text, "author": "somebody", "title": format!("About {thread}"), "parent": parent
    });
    browser.json("POST", &format!("/new?uri=/{thread}/"), &comment)
}

/// What stands in a thread, as a server shows it: number, text, state, votes, and the same of the replies.
fn shown(port: u16, thread: &str) -> Json {
    fn comments(list: &Json) -> Json {
        let Some(all) = list["replies"].as_array() else {
            return Json::Null;
        };
        let one = |c: &Json| {
            json!([
                c["id"],
                c["text"],
                c["mode"],
                c["likes"],
                c["dislikes"],
                comments(c)
            ])
        };
        all.iter().map(one).collect()
    }
    let answer = Browser::new(port).get(&format!("/?uri=/{thread}/"));
    match answer.status {
        200 => comments(&answer.json()),
        status => json!(status),
    }
}

/// What people do with comments, at one of two servers at a time; all that they see.
fn talk(here: u16, there: u16, weather: &mut impl Weather) -> Vec<Json> {
    let (mut ann, mut bob, mut admin) = (reader(here, 1), reader(there, 2), reader(here, 5));
    let mut seen = Vec::new();
    let mut step = |act: &mut dyn FnMut() -> Answer| {
        weather.before(seen.len());
        let status = act().status;
        weather.after(seen.len());
        let threads = ["a", "b"].map(|thread| {
            let (left, right) = (shown(here, thread), shown(there, thread));
            assert_eq!(left, right, "thread {thread} after step {}", seen.len());
            left
        });
        seen.push(json!([status, threads]));
    };
    step(&mut || post(&mut ann, "a", "first", None));
    step(&mut || post(&mut bob, "a", "second", None));
    step(&mut || post(&mut bob, "a", "of course", Some(1)));
    step(&mut || post(&mut ann, "b", "elsewhere", None));
    // What one server has signed the other one takes: the key lies in the database.
    let change = json!({"text": "first, mended", "author": "Ann"});
    step(&mut || ann.go(there).json("PUT", "/id/1", &change));
    step(&mut || reader(here, 3).request("POST", "/id/2/like", None, ""));
    step(&mut || reader(there, 4).request("POST", "/id/2/dislike", None, ""));
    // Who has voted is known there as well.
    step(&mut || reader(there, 3).request("POST", "/id/2/like", None, ""));
    let password = [("password", "for-the-test")];
    admin.form("/login/", &password).expect(302);
    let page = admin.go(there).get("/admin/?mode=1").expect(200).body;
    let key = between(&page, "delete_com(2, '", "'");
    let change = json!({"text": "second, by the moderator"});
    step(&mut || admin.json("POST", &format!("/id/2/edit/{key}"), &change));
    // A comment with a reply is emptied; it goes with its last reply, and a thread with its last comment (by a trigger).
    step(&mut || ann.go(here).request("DELETE", "/id/1", None, ""));
    step(&mut || bob.go(here).request("DELETE", "/id/3", None, ""));
    step(&mut || ann.go(there).request("DELETE", "/id/4", None, ""));
    step(&mut || post(bob.go(there), "b", "anew", None));
    seen
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    text.split_once(before)
        .and_then(|(_, rest)| rest.split_once(after))
        .unwrap_or_else(|| panic!("no {before:?} in {text}"))
        .0
}

#[test]
fn one_node_at_a_time_is_as_good_as_one_node() {
    let alone = folder();
    let mut node = Node::in_folder(1, "nats://127.0.0.1:1", alone.path());
    node.file = ISSO.file;
    let server = isso(&node, port());
    let expected = talk(server.port, server.port, &mut Fair);
    assert_eq!(
        expected.last(),
        Some(&json!([
            201,
            [
                [[2, "<p>second, by the moderator</p>", 1, 1, 1, []]],
                [[3, "<p>anew</p>", 1, 0, 0, []]]
            ]
        ])),
        "{expected:#?}"
    );
    server.stop();

    let mut site = Site::new(&ISSO);
    let (here, there) = site.ports();
    assert_eq!(talk(here, there, &mut site), expected);
    assert_no_conflicts(&site.cluster);

    // The trigger runs where the comment was deleted, and nowhere else: the other node has nothing to publish about threads.
    let logged = "SELECT coalesce(max(id), 0) FROM __harmonylite__threads_change_log";
    let mut ann = reader(here, 1);
    post(&mut ann, "c", "once", None).expect(201);
    site.cluster.converge();
    let before = (
        site.cluster[0].integer(logged),
        site.cluster[1].integer(logged),
    );
    ann.request("DELETE", "/id/4", None, "").expect(200);
    site.cluster.converge();
    for port in [here, there] {
        assert_eq!(shown(port, "c"), json!([]));
    }
    let threads = "SELECT count(*) FROM threads WHERE uri = '/c/'";
    assert_eq!(site.cluster[1].integer(threads), 0);
    let after = (
        site.cluster[0].integer(logged),
        site.cluster[1].integer(logged),
    );
    assert!(after.0 > before.0, "{before:?} {after:?}");
    assert_eq!(after.1, before.1);
    site.end("");
}

/// The comments that lost their number to another node's.
fn lost_comments(cluster: &Cluster) -> BTreeSet<String> {
    lost(cluster, "comments", "text")
}

fn standing(cluster: &Cluster) -> BTreeSet<String> {
    texts(&cluster[0], "SELECT text FROM comments")
}

#[test]
fn numbers_that_both_nodes_gave_are_in_the_journal_and_come_back() {
    let mut site = Site::new(&ISSO);
    let (here, there) = site.ports();
    let (mut ann, mut bob) = (reader(here, 1), reader(there, 2));
    post(&mut ann, "a", "opens a", None).expect(201);
    post(&mut ann, "b", "opens b", None).expect(201);
    site.cluster.converge();

    // Neither server knows what the other one takes.
    site.cluster.server.kill();
    let mut written = BTreeSet::from(["opens a".to_owned(), "opens b".to_owned()]);
    for number in 1..=4 {
        for (who, thread, of) in [(&mut ann, "a", "ann"), (&mut bob, "b", "bob")] {
            let text = format!("{of} {number}");
            post(who, thread, &text, None).expect(201);
            written.insert(text);
        }
    }
    // Both have given this comment the number 7, and mean different ones by 6.
    for (who, thread, of) in [(&mut ann, "a", "ann"), (&mut bob, "b", "bob")] {
        let text = format!("{of} to 4");
        post(who, thread, &text, Some(6)).expect(201);
        written.insert(text);
    }
    site.cluster.server.restart();
    site.cluster.converge();
    let stays = standing(&site.cluster);
    let journaled = lost_comments(&site.cluster);
    assert_eq!((stays.len(), journaled.len()), (7, 5), "{stays:?}");
    assert_eq!(&stays | &journaled, written);

    // Whoever wrote a comment that lost its number cannot change the one that has it now.
    let loser = if journaled.contains("ann 1") {
        &mut ann
    } else {
        &mut bob
    };
    let theft = loser.json("PUT", "/id/3", &json!({"text": "mine"}));
    theft.expect(403);

    restore(&site.cluster, &["--table", "comments"]);
    site.cluster.converge();
    assert_eq!(standing(&site.cluster), written);
    // A reply names its comment by the number that it had: only people know that it now has another.
    site.cluster[0].sql("UPDATE comments SET parent = (SELECT id FROM comments AS c WHERE c.text = substr(comments.text, 1, 3) || ' 4') WHERE text LIKE '% to 4'");
    site.cluster.converge();
    for port in [here, there] {
        for (thread, of) in [("a", "ann"), ("b", "bob")] {
            let comments = shown(port, thread);
            let answered = comments
                .as_array()
                .unwrap()
                .iter()
                .find(|c| c[1] == format!("<p>{of} 4</p>"));
            assert_eq!(answered.unwrap()[5][0][1], format!("<p>{of} to 4</p>"));
            let texts: BTreeSet<_> = comments
                .as_array()
                .unwrap()
                .iter()
                .map(|c| c[1].to_string())
                .collect();
            let expected: BTreeSet<_> = [format!("\"<p>opens {thread}</p>\"")]
                .into_iter()
                .chain((1..=4).map(|number| format!("\"<p>{of} {number}</p>\"")))
                .collect();
            assert_eq!(texts, expected);
        }
    }
    site.end("");
}

#[test]
fn threads_that_both_nodes_opened_must_be_told_apart_by_hand() {
    let mut site = Site::new(&ISSO);
    let (here, there) = site.ports();
    site.cluster.server.kill();
    post(&mut reader(here, 1), "same", "ann, same", None).expect(201);
    post(&mut reader(there, 2), "same", "bob, same", None).expect(201);
    post(&mut reader(here, 1), "ann", "ann, own", None).expect(201);
    post(&mut reader(there, 2), "bob", "bob, own", None).expect(201);
    site.cluster.server.restart();
    site.cluster.converge();
    // The thread of the same address is the same row on both; of the others one has lost its number, with its comment.
    let threads = site.cluster[0].integer("SELECT count(*) FROM threads");
    assert_eq!((threads, standing(&site.cluster).len()), (2, 2));
    assert_eq!(lost_comments(&site.cluster).len(), 2);
    restore(&site.cluster, &["--table", "threads"]);
    site.cluster.converge();
    restore(&site.cluster, &["--table", "comments"]);
    site.cluster.converge();
    assert_eq!(site.cluster[0].integer("SELECT count(*) FROM threads"), 3);
    // A comment names its thread by the number that the thread had: only people know that it now has another.
    site.cluster[0].sql(
        "UPDATE comments SET tid = (SELECT id FROM threads WHERE uri = '/' || substr(text, 1, 3) || '/') WHERE text LIKE '%, own'",
    );
    site.cluster.converge();
    for port in [here, there] {
        for who in ["ann", "bob"] {
            assert_eq!(shown(port, who)[0][1], format!("<p>{who}, own</p>"));
        }
        assert_eq!(shown(port, "same").as_array().unwrap().len(), 2);
    }
    site.end("");
}

/// All that can happen to two nodes at which people write at the same time: nobody is refused, and no comment goes unheard of.
#[test]
fn both_nodes_write_while_everything_fails() {
    let mut site = Site::new(&ISSO);
    let (here, there) = site.ports();
    for thread in ["a", "b"] {
        post(
            &mut reader(here, 9),
            thread,
            &format!("opens {thread}"),
            None,
        )
        .expect(201);
    }
    site.cluster.converge();
    let done = Done::default();
    let mut written: BTreeSet<String> = std::thread::scope(|scope| {
        let writers = [(here, "a", 1), (there, "b", 2)].map(|(port, thread, who)| {
            let done = &done;
            scope.spawn(move || {
                let mut writer = reader(port, who);
                let mut written = Vec::new();
                while !done.is_said() {
                    let text = format!("{thread} {}", written.len());
                    post(&mut writer, thread, &text, None).expect(201);
                    written.push(text);
                }
                written
            })
        });
        let _ends = done.on_drop();
        site.everything_fails(["SELECT count(*) FROM comments"; 2]);
        done.say();
        writers
            .into_iter()
            .flat_map(|w| w.join().unwrap())
            .collect()
    });
    written.extend(["opens a".to_owned(), "opens b".to_owned()]);
    site.cluster.converge();
    // While they were apart both have given the same numbers.
    let lost = lost_comments(&site.cluster);
    assert!(!lost.is_empty());
    let kept = &standing(&site.cluster) | &lost;
    let missing: Vec<_> = written.difference(&kept).collect();
    assert!(
        missing.is_empty(),
        "{} of {}: {missing:?}",
        missing.len(),
        written.len()
    );
    site.end("");
}

/// What not to do: each isso has made its database itself, and has a secret of its own in memory.
#[test]
fn an_isso_with_a_database_of_its_own_joins_and_must_be_started_again() {
    let mut site = Site::new(&ISSO);
    let (here, _) = site.ports();
    let mut ann = reader(here, 1);
    post(&mut ann, "a", "first", None).expect(201);
    site.join_with_its_own();
    let third = site.servers[2].port;
    // It shows what the others have, and takes no word of theirs.
    assert_eq!(shown(third, "a")[0][1], "<p>first</p>");
    let change = json!({"text": "first, mended"});
    ann.go(third).json("PUT", "/id/1", &change).expect(403);
    site.restart(2);
    ann.json("PUT", "/id/1", &change).expect(200);
    site.cluster.converge();
    assert_eq!(shown(here, "a")[0][1], "<p>first, mended</p>");
    site.end("");
}

/// The other way to a second node: isso never sees a database that is not its own, with its trigger, its version and its secret.
#[test]
fn a_node_without_a_database_is_filled_and_serves_at_once() {
    let mut site = Site::new(&ISSO);
    let (here, _) = site.ports();
    let mut ann = reader(here, 1);
    post(&mut ann, "a", "first", None).expect(201);
    reader(here, 2)
        .request("POST", "/id/1/like", None, "")
        .expect(200);
    site.join();
    let third = site.servers[2].port;
    // Signed elsewhere, and taken; who has voted is known.
    let change = json!({"text": "first, mended"});
    ann.go(third).json("PUT", "/id/1", &change).expect(200);
    reader(third, 2)
        .request("POST", "/id/1/like", None, "")
        .expect(200);
    site.cluster.converge();
    assert_eq!(
        shown(here, "a"),
        json!([[1, "<p>first, mended</p>", 1, 1, 0, []]])
    );
    assert_no_conflicts(&site.cluster);
    site.end("");
}

/// A thread goes with its last comment; another node may just have written the next one.
#[test]
fn a_comment_whose_thread_was_deleted_elsewhere_is_found_and_adopted() {
    let mut site = Site::new(&ISSO);
    let (here, there) = site.ports();
    let mut ann = reader(here, 1);
    post(&mut ann, "a", "first", None).expect(201);
    site.cluster.converge();
    site.cluster.server.kill();
    ann.request("DELETE", "/id/1", None, "").expect(200);
    post(&mut reader(there, 2), "a", "an answer", None).expect(201);
    site.cluster.server.restart();
    site.cluster.converge();
    for port in [here, there] {
        assert_eq!(shown(port, "a"), json!([]));
    }
    // Nobody shows it, but it is there, and SQLite names it.
    assert_eq!(standing(&site.cluster), ["an answer".to_owned()].into());
    let orphans = "SELECT count(*) FROM pragma_foreign_key_check WHERE \"table\" = 'comments' AND parent = 'threads'";
    assert_eq!(site.cluster[1].integer(orphans), 1);
    site.cluster[1].sql("INSERT INTO threads(id, uri, title) SELECT tid, '/a/', 'About a' FROM comments WHERE text = 'an answer'");
    site.cluster.converge();
    for port in [here, there] {
        assert_eq!(shown(port, "a")[0][1], "<p>an answer</p>");
    }
    site.end("");
}

/// As isso made its database before version 0.13: a comment may have no text.
const OLD_ISSO: &str = "
    BEGIN;
    DROP TABLE comments;
    CREATE TABLE comments (tid REFERENCES threads(id), id INTEGER PRIMARY KEY, parent INTEGER, created FLOAT NOT NULL, modified FLOAT, mode INTEGER,
        remote_addr VARCHAR, text VARCHAR, author VARCHAR, email VARCHAR, website VARCHAR, likes INTEGER DEFAULT 0, dislikes INTEGER DEFAULT 0,
        voters BLOB NOT NULL, notification INTEGER DEFAULT 0);
    CREATE TRIGGER remove_stale_threads AFTER DELETE ON comments BEGIN DELETE FROM threads WHERE id NOT IN (SELECT tid FROM comments); END;
    INSERT INTO threads VALUES(1, '/a/', 'About a');
    INSERT INTO comments(tid, created, mode, remote_addr, text, voters) VALUES(1, 1.5, 1, '10.0.1.0', 'kept', zeroblob(256)), (1, 2.5, 1, '10.0.1.0', NULL, zeroblob(256));
    PRAGMA user_version = 4;
    COMMIT";

fn old_isso(node: &Node) {
    isso(node, port()).stop();
    node.sql(OLD_ISSO);
}

/// A new isso makes the table of comments anew when it starts: first on one node, then on the other, while the first is written to already.
#[test]
fn an_upgrade_that_rebuilds_tables_on_one_node_after_the_other() {
    let alone = folder();
    let mut node = Node::in_folder(1, "nats://127.0.0.1:1", alone.path());
    node.file = ISSO.file;
    old_isso(&node);
    isso(&node, port()).stop();

    let mut setup = ISSO;
    setup.prepare = old_isso;
    setup.serve = |node, port| {
        let server = isso(node, port);
        let who = node.id as u8;
        post(&mut reader(port, who), "a", &format!("at {who}"), None).expect(201);
        server
    };
    let mut site = Site::new(&setup);
    site.cluster.converge();
    let written = ["", "kept", "at 1", "at 2"].map(str::to_owned);
    let kept = &standing(&site.cluster) | &lost_comments(&site.cluster);
    assert_eq!(kept, written.into());
    site.made = schema(&node);
    site.end("");
}
