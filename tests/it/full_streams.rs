//! Batches that take most of a stream: what they take comes back once a snapshot covers them, and publishing goes on by itself.

use harmonylite::codec::batch::Limits;

use crate::harness::{Cluster, Node, eventually};
use crate::snapshots::{SCHEMA, insert};

/// The least that a stream may be given.
const MAX_BYTES: u64 = 4 << 20;

/// Bytes of one row's filler.
const ROW: i64 = 300_000;

fn started(shards: u64) -> Cluster {
    with_schema(shards, SCHEMA)
}

fn with_schema(shards: u64, schema: &str) -> Cluster {
    let mut cluster = Cluster::prepared(2, schema);
    for node in &mut cluster.nodes {
        node.sections.push_str(&format!(
            "[replication_log]\nmax_bytes = {MAX_BYTES}\nshards = {shards}\n[snapshot]\nleader_ttl = 1000\n"
        ));
        node.start_replicating();
    }
    cluster
}

/// Every row is everywhere, and on a node that begins now.
fn all_arrive(mut cluster: Cluster, rows: usize) {
    let dump = cluster.converge();
    assert_eq!(dump["events"].len(), rows);
    let mut third = Node::bare(3, &cluster.server.url());
    third.sections.clone_from(&cluster[0].sections);
    third.start_replicating();
    eventually("a new node has all", || third.dump() == dump);
    insert(&third, 1, 10);
    eventually("and publishes", || cluster[1].dump() == third.dump());
    cluster.assert_running();
}

/// 86 % of the stream: above the soft limit at once.
fn one_above_the_soft_limit(shards: u64) {
    let cluster = started(shards);
    for rows in [12, 1, 12] {
        insert(&cluster[0], rows, ROW);
        cluster[0].wait_published();
    }
    all_arrive(cluster, 25);
}

#[test]
fn a_batch_above_the_soft_limit_does_not_stand_in_the_way() {
    one_above_the_soft_limit(1);
}

#[test]
fn a_batch_above_the_soft_limit_of_a_shard_does_not_either() {
    one_above_the_soft_limit(3);
}

#[test]
fn a_batch_that_finds_no_room_beside_the_last_one_gets_it() {
    let cluster = started(1);
    // 57 % of the stream each.
    for node in [0, 0, 1] {
        insert(&cluster[node], 8, ROW);
        cluster[node].wait_published();
    }
    all_arrive(cluster, 24);
}

#[test]
fn a_batch_over_two_shards_needs_room_for_each_share_and_not_for_the_sum() {
    const SHARDS: u64 = 2;
    let limits = Limits {
        max_payload: 1 << 20,
        shards: SHARDS,
        compress: false,
        compress_min_bytes: 0,
    };
    let tables = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"];
    let (first, second) = (
        tables[0],
        *tables
            .iter()
            .find(|t| limits.shard_of(t) != limits.shard_of(tables[0]))
            .unwrap(),
    );
    let schema = format!(
        "CREATE TABLE {first}(id INTEGER PRIMARY KEY, v); CREATE TABLE {second}(id INTEGER PRIMARY KEY, v);"
    );
    let cluster = with_schema(SHARDS, &schema);
    // 60 % of a stream for each table.
    cluster[0].sql(&format!(
        "BEGIN; INSERT INTO {first} VALUES(1, randomblob(2500000)); INSERT INTO {second} VALUES(1, randomblob(2500000)); COMMIT"
    ));
    let dump = cluster.converge();
    assert_eq!((dump[first].len(), dump[second].len()), (1, 1));
}
