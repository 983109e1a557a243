//! `pause`, `resume` and `limit`: what is held back is shown, kept over restarts, and lost never.

use std::time::Duration;

use super::{SCHEMA, done, json, of, refused, status, wait_state};
use crate::harness::http::{get, metric, observed};
use crate::harness::{Cluster, eventually};
use crate::snapshots::{TRIMMED, insert, position, prepared, start, stream_first};

fn running(count: u64) -> Cluster {
    let mut cluster = Cluster::prepared(count, SCHEMA);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster
}

#[test]
fn a_paused_publisher_loses_nothing_and_says_what_it_holds_back() {
    let mut cluster = Cluster::prepared(2, SCHEMA);
    let (health, metrics) = observed(&mut cluster[0]);
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    refused(
        &cluster[0].run(&["pause", "publish"]),
        0,
        &["publishing is paused"],
    );
    refused(
        &cluster[0].run(&["pause", "publish"]),
        0,
        &["paused already"],
    );
    cluster[0].sql("INSERT INTO t VALUES(1, 'held back')");
    // What others write comes in all the same.
    cluster[1].sql("INSERT INTO u VALUES(1, 'comes')");
    eventually("it comes", || {
        cluster[0].integer("SELECT count(*) FROM u") == 1
    });
    assert_eq!(
        (
            cluster[0].pending(),
            cluster[1].integer("SELECT count(*) FROM t")
        ),
        (1, 0)
    );
    let (code, body) = get(health, "/health").unwrap();
    assert_eq!(code, 503, "{body}");
    assert!(
        body.contains("resume publish") && body.contains("paused_since"),
        "{body}"
    );
    assert_eq!(metric(metrics, "harmonylite_publish_held_back"), Some(1.0));
    let seen = wait_state(&cluster[1], 1, "paused");
    assert!(of(&seen, 1)["brakes"]["publish"]["paused_since"].is_string());
    // What would wait for it is refused at once, and changes nothing.
    for command in [
        vec!["wait"],
        vec!["position"],
        vec!["leave"],
        vec!["-cleanup"],
    ] {
        refused(
            &cluster[0].run(&command),
            75,
            &["harmonylite resume publish"],
        );
    }
    refused(
        &cluster[0].run(&["snapshot", "save"]),
        1,
        &["harmonylite resume publish"],
    );
    // Another node is not held up.
    done(&cluster[1].run(&["wait"]));
    done(&cluster[1].run(&["snapshot", "save"]));
    // It outlives a crash and a stop, which does not wait for what is held back.
    cluster[0].kill();
    cluster[0].start_replicating();
    assert!(
        cluster[0]
            .log()
            .contains("an operator has paused publishing")
    );
    cluster[0].sql("INSERT INTO t VALUES(2, 'held back')");
    let ended = cluster[0].terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(
        ended
            .said
            .contains("what is pending is published when that is resumed")
    );
    refused(&cluster[0].run(&["-cleanup"]), 75, &["nothing was removed"]);
    refused(
        &cluster[0].run(&["-save-snapshot"]),
        1,
        &["harmonylite resume publish"],
    );
    refused(
        &cluster[0].run(&["resume", "publish"]),
        69,
        &["no daemon is running"],
    );
    cluster[0].start_replicating();
    assert_eq!(cluster[0].pending(), 2);
    refused(
        &cluster[0].run(&["resume", "publish"]),
        0,
        &["publishing goes on"],
    );
    refused(
        &cluster[0].run(&["resume", "publish"]),
        0,
        &["was not paused"],
    );
    assert_eq!(cluster.converge()["t"].len(), 2);
    done(&cluster[0].run(&["wait"]));
    eventually("it is healthy again", || {
        get(health, "/health").unwrap().0 == 200
    });
    assert_eq!(metric(metrics, "harmonylite_publish_held_back"), Some(0.0));
    done(&cluster[0].run(&["-cleanup"]));
    let left = crate::snapshots::names(&cluster[0].folder);
    assert!(!left.iter().any(|name| name.contains("brakes")), "{left:?}");
}

#[test]
fn a_paused_applier_goes_on_publishing_and_catches_up() {
    let mut cluster = running(3);
    refused(
        &cluster[1].run(&["pause", "apply"]),
        0,
        &["applying is paused"],
    );
    // Far more transactions of its own than may be on their way at once.
    let app = cluster[1].app();
    for n in 0..1500 {
        app.execute("INSERT INTO t VALUES(?1, 'own')", [n]).unwrap();
    }
    cluster[0].sql("INSERT INTO u VALUES(1, 'others')");
    eventually("its own changes reach the others", || {
        cluster[0].integer("SELECT count(*) FROM t") > 0
            && cluster[2].integer("SELECT count(*) FROM u") == 1
    });
    let waited = cluster[0].run(&["wait", "--timeout", "2s"]);
    refused(&waited, 75, &["node 2 is at ", "harmonylite resume apply"]);
    let pinged = cluster[0].run(&["ping", "--count", "1", "--timeout", "1s"]);
    refused(&pinged, 75, &["! node 2", "harmonylite resume apply"]);
    let seen = wait_state(&cluster[0], 2, "paused");
    assert!(of(&seen, 2)["lag_messages"].as_u64() > Some(0));
    assert!(of(&seen, 2)["lag_seconds"].as_f64() > Some(0.0));
    for command in [vec!["leave"], vec!["wait"], vec!["snapshot", "restore"]] {
        refused(&cluster[1].run(&command), 75, &["harmonylite resume apply"]);
    }
    let before = cluster[1].integer("SELECT count(*) FROM u");
    // A crash and a stop later it still holds.
    cluster[1].kill();
    cluster[1].start_replicating();
    app.execute("INSERT INTO t VALUES(5000, 'own')", [])
        .unwrap();
    cluster[1].stop();
    cluster[1].start_replicating();
    assert_eq!(cluster[1].integer("SELECT count(*) FROM u"), before);
    refused(
        &cluster[1].run(&["resume", "apply"]),
        0,
        &["applying goes on"],
    );
    let dump = cluster.converge();
    assert_eq!((dump["t"].len(), dump["u"].len()), (1501, 1));
    done(&cluster[0].run(&["wait"]));
    cluster.assert_running();
}

#[test]
fn what_a_paused_applier_needs_is_not_trimmed() {
    let mut cluster = prepared(3, TRIMMED);
    start(&mut cluster);
    for node in &cluster.nodes {
        insert(node, 20, 10);
    }
    cluster.converge();
    done(&cluster[2].run(&["pause", "apply"]));
    let held = position(&cluster[2]);
    let trimmed = || stream_first(&cluster, "harmonylite-changes-1");
    // It announces itself, however long it is paused: five snapshots and more than the time to be silent.
    let newest = || {
        let all = json(&cluster[0].run(&["snapshot", "list", "--json"]));
        all[0]["sequence"].as_u64().unwrap()
    };
    let begun = std::time::Instant::now();
    eventually("snapshots far beyond it are taken", || {
        insert(&cluster[0], 3, 10);
        insert(&cluster[1], 3, 10);
        std::thread::sleep(Duration::from_millis(200));
        newest() > held + 20 && begun.elapsed() > Duration::from_secs(8)
    });
    assert!(trimmed() <= held + 1);
    // Stopped, it is silent some day, and the stream goes on without it.
    cluster[2].stop();
    eventually("the stream is trimmed past it", || {
        insert(&cluster[0], 3, 10);
        insert(&cluster[1], 3, 10);
        std::thread::sleep(Duration::from_millis(200));
        stream_first(&cluster, "harmonylite-changes-1") > held + 1
    });
    // It must begin from a snapshot then, and does not before it may.
    insert(&cluster[2], 7, 10);
    cluster[2].spawn();
    cluster[2]
        .wait_log("this node must begin from a snapshot, and an operator has paused applying");
    assert_eq!(position(&cluster[2]), held);
    done(&cluster[2].run(&["resume", "apply"]));
    cluster[2].wait_log("restored from the snapshot");
    cluster.converge();
    assert_eq!(
        cluster[0].integer("SELECT count(*) FROM events WHERE node = 3"),
        27
    );
}

#[test]
fn a_limit_holds_back_what_is_above_it_until_it_ends() {
    let mut cluster = running(3);
    refused(
        &cluster[1].run(&["limit", "apply", "1"]),
        0,
        &["limited to 1 rows a second"],
    );
    for n in 0..300 {
        cluster[0].sql(&format!("INSERT INTO t VALUES({n}, 'x')"));
    }
    cluster[0].wait_published();
    eventually("the third has all", || {
        cluster[2].integer("SELECT count(*) FROM t") == 300
    });
    // At one row a second this takes five minutes.
    assert!(cluster[1].integer("SELECT count(*) FROM t") < 300);
    eventually("its limit is shown", || {
        of(&status(&cluster[0]), 2)["brakes"]["apply"]["rows_per_second"] == 1
    });
    let seen = wait_state(&cluster[0], 2, "running");
    let shown = of(&seen, 2);
    assert!(
        shown["warnings"][0]
            .as_str()
            .unwrap()
            .contains("limit apply off"),
        "{shown}"
    );
    refused(
        &cluster[1].run(&["limit", "apply", "off"]),
        0,
        &["has no limit"],
    );
    cluster.converge();

    // A transaction goes as a whole; the next one waits for its time.
    refused(
        &cluster[0].run(&["limit", "publish", "10"]),
        0,
        &["10 rows a second"],
    );
    cluster[0].sql(
        "WITH RECURSIVE c(n) AS (SELECT 1000 UNION ALL SELECT n + 1 FROM c WHERE n < 5999) INSERT INTO t SELECT n, 'whole' FROM c",
    );
    eventually("it is elsewhere", || {
        cluster[2].integer("SELECT count(*) FROM t") == 5300
    });
    cluster[0].sql("INSERT INTO u VALUES(1, 'waits')");
    // More than eight minutes would have to pass.
    cluster[1].sql("INSERT INTO u VALUES(2, 'passes')");
    eventually("another's change passes", || {
        cluster[2].integer("SELECT count(*) FROM u WHERE id = 2") == 1
    });
    assert_eq!(cluster[2].integer("SELECT count(*) FROM u WHERE id = 1"), 0);
    // A limit outlives a crash; a stop does not wait for it.
    cluster[0].kill();
    cluster[0].start_replicating();
    assert_eq!(
        of(&status(&cluster[0]), 1)["brakes"]["publish"]["rows_per_second"],
        10
    );
    cluster[0].sql(
        "WITH RECURSIVE c(n) AS (SELECT 10000 UNION ALL SELECT n + 1 FROM c WHERE n < 14999) INSERT INTO t SELECT n, 'whole' FROM c",
    );
    eventually("it is elsewhere", || {
        cluster[2].integer("SELECT count(*) FROM t") == 10_300
    });
    cluster[0].sql("INSERT INTO u VALUES(3, 'waits')");
    cluster[0].stop();
    assert_eq!(cluster[0].pending(), 0);
    cluster[0].start_replicating();
    done(&cluster[0].run(&["limit", "publish", "off"]));
    cluster.converge();
}

#[test]
fn brakes_that_cannot_be_set_or_read_are_refused() {
    let mut cluster = Cluster::prepared(1, SCHEMA);
    cluster[0].root = "publish = false".to_owned();
    cluster[0].start_replicating();
    refused(
        &cluster[0].run(&["pause", "publish"]),
        78,
        &["publish = false"],
    );
    for (command, words) in [
        (vec!["pause"], "pause needs publish or apply"),
        (vec!["pause", "all"], "write publish"),
        (vec!["pause", "apply", "now"], "not expected"),
        (vec!["limit", "apply"], "limit needs"),
        (vec!["limit", "apply", "0"], "a number of rows"),
        (vec!["limit", "apply", "-5"], "-5"),
        (
            vec!["limit", "apply", "99999999999999999999"],
            "a number of rows",
        ),
    ] {
        refused(&cluster[0].run(&command), 64, &[words]);
    }
    done(&cluster[0].run(&["limit", "apply", "18446744073709551615"]));
    cluster[0].stop();
    let file = cluster[0].folder.join("app.db-harmonylite.brakes");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    cluster[0].spawn();
    let ended = cluster[0].wait_end();
    assert_eq!(ended.code, Some(65), "{}", ended.said);
    assert!(
        ended
            .said
            .contains("app.db-harmonylite.brakes does not read")
    );
    std::fs::write(&file, &whole).unwrap();
    cluster[0].start_replicating();
    assert_eq!(
        of(&status(&cluster[0]), 1)["brakes"]["apply"]["rows_per_second"],
        u64::MAX
    );
}
