//! What others can do to the stream: messages that mean nothing, consumers that vanish, streams that stand in the way.

use crate::harness::http::{get, observed};
use crate::harness::jetstream::Outsider;
use crate::harness::{Cluster, Node, eventually, node};

const STREAM: &str = "harmonylite-changes-1";
const SUBJECT: &str = "harmonylite-change-log-1";
const SCHEMA: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";

#[test]
fn messages_that_cannot_be_read_go_to_the_dead_letters_and_stop_nobody() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'first')");
    cluster.converge();
    let outsider = Outsider::new(&cluster.server.url());
    let real = outsider.message(STREAM, 1);
    let mut bent = real.clone();
    *bent.last_mut().unwrap() ^= 1;
    let mut unknown_kind = real.clone();
    unknown_kind[3] = 200;
    let garbage: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"garbage".to_vec(),
        b"{\"json\": true}".to_vec(),
        b"HL".to_vec(),
        b"HL\x01".to_vec(),
        vec![0xff; 100_000],
        real[..real.len() / 2].to_vec(),
        real[..real.len() - 1].to_vec(),
        bent,
        unknown_kind,
    ];
    for (number, bytes) in garbage.iter().enumerate() {
        outsider.publish(SUBJECT, bytes);
        // Real changes before, between and behind.
        cluster[number % 3].sql(&format!("INSERT INTO t VALUES({number} + 10, 'between')"));
    }
    // A late duplicate is no dead letter, and changes nothing.
    cluster[1].sql("UPDATE t SET v = 'newer' WHERE id = 1");
    cluster.converge();
    outsider.publish(SUBJECT, &real);
    cluster[2].sql("INSERT INTO t VALUES(99, 'last')");
    let dump = cluster.converge();
    assert_eq!(dump["t"].len(), garbage.len() + 2);
    for node in &cluster.nodes {
        assert_eq!(
            node.integer("SELECT count(*) FROM t WHERE id = 1 AND v = 'newer'"),
            1
        );
        eventually("all dead letters are kept", || {
            node.integer("SELECT count(*) FROM __harmonylite__dead_letters") == garbage.len() as i64
        });
        assert_eq!(
            node.integer(
                "SELECT count(*) FROM __harmonylite__dead_letters WHERE reason = '' OR sequence = 0"
            ),
            0
        );
        assert_eq!(node.integer("SELECT count(*) FROM __harmonylite__dead_letters WHERE bytes = CAST('garbage' AS BLOB)"), 1);
    }
    cluster[0].wait_log("dead-letter");
    // They are passed once: a restart does not count them again.
    cluster[1].kill();
    cluster[1].start();
    cluster[1].sql("INSERT INTO t VALUES(100, 'after the restart')");
    cluster.converge();
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM __harmonylite__dead_letters"),
        garbage.len() as i64
    );
    cluster.assert_running();
}

#[test]
fn unreadable_messages_in_other_shards_harm_nobody() {
    let mut cluster = Cluster::new(
        2,
        4,
        "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v); CREATE TABLE c(id INTEGER PRIMARY KEY, v)",
    );
    let write = |cluster: &Cluster, id: i64| {
        cluster[0].sql(&format!("BEGIN; INSERT INTO a VALUES({id}, 1); INSERT INTO b VALUES({id}, 1); INSERT INTO c VALUES({id}, 1); COMMIT"));
    };
    write(&cluster, 1);
    cluster.converge();
    let outsider = Outsider::new(&cluster.server.url());
    for shard in 1..=4 {
        outsider.publish(&format!("harmonylite-change-log-{shard}"), b"garbage");
    }
    write(&cluster, 2);
    assert_eq!(cluster.converge()["b"].len(), 2);
    cluster.assert_running();
}

#[test]
fn a_message_of_a_newer_version_pauses_visibly_and_loses_nothing() {
    let mut cluster = Cluster::new(2, 1, SCHEMA);
    cluster[0].sql("INSERT INTO t VALUES(1, 'first')");
    cluster.converge();
    let outsider = Outsider::new(&cluster.server.url());
    let mut newer = outsider.message(STREAM, 1);
    newer[2] = 2;
    let sequence = outsider.publish(SUBJECT, &newer);
    for node in &mut cluster.nodes {
        node.wait_log("format version 2");
    }
    cluster[0].sql("INSERT INTO t VALUES(2, 'waits')");
    assert_eq!(cluster[1].integer("SELECT count(*) FROM t"), 1);
    assert_eq!(
        cluster[1].integer("SELECT count(*) FROM __harmonylite__dead_letters"),
        0
    );
    cluster.assert_running();
    // The operator finds it was none of ours and removes it.
    outsider.remove(STREAM, sequence);
    for node in &mut cluster.nodes {
        node.stop();
        node.start();
    }
    assert_eq!(cluster.converge()["t"].len(), 2);
}

#[test]
fn a_batch_whose_stream_was_removed_stops_visibly_and_the_remedy_is_named() {
    let tables = ["a", "b", "c", "d", "e", "f"];
    let schema = tables.map(|t| format!("CREATE TABLE {t}(id INTEGER PRIMARY KEY, v);"));
    let mut cluster = Cluster::prepared(2, &schema.concat());
    let usual = cluster[0].sections.clone();
    cluster[0].sections = format!("{usual}[replication_log]\nshards = 2\n");
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[0].sql("INSERT INTO a VALUES(1, 'first')");
    cluster.converge();
    cluster[1].stop();
    // Of these tables some are sure to lie in shard 2.
    let writes = tables.map(|t| format!("INSERT INTO {t} VALUES(2, 'lost');"));
    cluster[0].sql(&format!("BEGIN; {} COMMIT", writes.concat()));
    cluster[0].wait_published();
    cluster[0].stop();
    let outsider = Outsider::new(&cluster.server.url());
    outsider.delete_stream("harmonylite-changes-2");
    let (health, _) = observed(&mut cluster[1]);
    cluster[1].start();
    cluster[1].wait_log("stream harmonylite-changes-2 does not exist");
    let (_, body) = get(health, "/health").unwrap();
    let remedy = "harmonylite skip 1 ";
    let batch = body.split(remedy).nth(1).expect(&body);
    let batch = batch.split(' ').next().unwrap();
    let skipped = cluster[1].run(&["skip", "1", batch]);
    assert_eq!(skipped.code, Some(0), "{}", skipped.said);
    eventually("the node goes on", || {
        get(health, "/health").is_some_and(|(code, _)| code == 200)
    });
    assert_eq!(cluster[1].integer("SELECT count(*) FROM a"), 1);
}

#[test]
fn consumers_that_vanish_are_made_anew() {
    let mut cluster = Cluster::new(3, 1, SCHEMA);
    let outsider = Outsider::new(&cluster.server.url());
    let mut deleted = 0;
    for round in 0..5 {
        cluster[round % 3].sql(&format!("INSERT INTO t VALUES({round}, 'x')"));
        cluster.converge();
        deleted += outsider.delete_consumers(STREAM);
    }
    assert!(
        deleted >= 3,
        "only {deleted} consumers were there to delete"
    );
    cluster[0].sql("INSERT INTO t VALUES(100, 'last')");
    assert_eq!(cluster.converge()["t"].len(), 6);
    cluster.assert_running();
}

#[test]
fn a_stream_of_the_go_program_in_the_way_is_named() {
    let server = node::broker();
    let outsider = Outsider::new(&server.url());
    outsider.create_stream("harmonylite-changes-c-1", SUBJECT);
    let mut node = Node::new(1, &server.url(), SCHEMA);
    node.spawn();
    let ended = node.wait_end();
    assert_eq!(ended.code, Some(78), "{}", ended.said);
    assert!(
        ended.said.contains("harmonylite-changes-c-1"),
        "{}",
        ended.said
    );
}
