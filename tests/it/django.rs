//! A real Django application migrates: on SQLite that makes tables anew, and takes our triggers away with the old ones.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Cluster, Node, eventually};

/// Runs the application's `manage.py` on a database.
fn django(database: &Path, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = Command::new(root.join("scripts/get-django"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| {
            panic!("scripts/get-django does not run ({error}): this test needs python3 and pip")
        });
    assert!(
        found.status.success(),
        "there is no Django on this machine, see above: this test needs python3 and pip"
    );
    let packages = String::from_utf8(found.stdout).unwrap();
    let ran = Command::new("python3")
        .arg("-B")
        .arg(root.join("tests/it/django/manage.py"))
        .arg(database)
        .args(arguments)
        .env("PYTHONPATH", packages.trim())
        .output()
        .unwrap();
    assert!(
        ran.status.success(),
        "manage.py {arguments:?}: {}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}

fn certain(node: &Node) {
    eventually(
        &format!("node {} is certain of its tables", node.id),
        || {
            node.integer("SELECT count(*) FROM __harmonylite__unsure") == 0
            && node.integer("SELECT count(*) FROM sqlite_schema WHERE tbl_name IN ('shop_product', 'shop_order') AND name IN ('__harmonylite__shop_product_insert', '__harmonylite__shop_order_insert')") == 2
            && node.pending() == 0
        },
    );
}

fn migrated() -> Cluster {
    let mut cluster = Cluster::prepared(2, "");
    for node in &mut cluster.nodes {
        // Each node's own migrations have been run when its own Django says so.
        node.sections
            .push_str("[replication]\nexclude = [\"django_migrations\"]\n");
        django(&node.database(), &["migrate", "0001"]);
        node.sql("INSERT INTO shop_product VALUES(1, 'coffee', 5), (2, 'milk', 1.5), (3, 'sugar', 2), (4, 'salt', 1);
            INSERT INTO shop_order VALUES(1, 1, 10), (2, 2, 20), (3, 3, 30);");
    }
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    cluster[1].sql("UPDATE shop_product SET price = 9.75 WHERE id = 4");
    eventually("an update arrives", || {
        cluster[0].integer("SELECT count(*) FROM shop_product WHERE price = 9.75") == 1
    });
    cluster
}

/// What both have written is everywhere, and nothing is set back.
fn check(cluster: &Cluster) {
    eventually("what Django wrote is on every node", || {
        cluster.nodes.iter().all(|node| {
            node.integer("SELECT count(*) FROM shop_product WHERE (id, name, stock) IN (VALUES(1, 'renamed 1', 0), (2, 'renamed 2', 77), (3, 'sugar', 30), (4, 'salt', 0), (101, 'tea 1', 1), (102, 'tea 2', 2))") == 6
                && node.integer("SELECT count(*) FROM shop_order WHERE (id, product_id, note) IN (VALUES(3, 3, 'changed elsewhere'), (101, 101, 'from Django'), (102, 102, 'from Django'))") == 3
                && node.integer("SELECT (SELECT count(*) FROM shop_product) * 100 + (SELECT count(*) FROM shop_order)") == 603
        })
    });
    let shop = |node: &Node| {
        let mut dump = node.dump();
        dump.retain(|name, _| name.starts_with("shop"));
        dump
    };
    eventually("the nodes are equal", || {
        shop(&cluster[0]) == shop(&cluster[1])
    });
    for node in &cluster.nodes {
        certain(node);
        // What the migration itself has put into a row is the same on both, and sent by both.
        let conflicts = "SELECT count(*) FROM __harmonylite__conflicts WHERE (table_name, column_name, losing_value) <> ('shop_product', 'stock', 30)";
        assert_eq!(node.integer(conflicts), 0, "node {}", node.id);
    }
}

const ELSEWHERE: &str = "UPDATE shop_product SET stock = 77 WHERE id = 2; UPDATE shop_order SET note = 'changed elsewhere' WHERE id = 3";

#[test]
fn a_migration_while_the_daemon_is_down() {
    let mut cluster = migrated();
    cluster[0].stop();
    // Where it runs, the daemon goes on.
    django(&cluster[1].database(), &["migrate"]);
    django(&cluster[1].database(), &["write", "2"]);
    cluster[1].sql(ELSEWHERE);
    certain(&cluster[1]);
    django(&cluster[0].database(), &["migrate"]);
    django(&cluster[0].database(), &["write", "1"]);
    cluster[0].start_replicating();
    check(&cluster);
    cluster.assert_running();
}

#[test]
fn a_migration_while_all_daemons_run() {
    let mut cluster = migrated();
    django(&cluster[1].database(), &["migrate"]);
    django(&cluster[1].database(), &["write", "2"]);
    cluster[1].sql(ELSEWHERE);
    django(&cluster[0].database(), &["migrate"]);
    django(&cluster[0].database(), &["write", "1"]);
    check(&cluster);
    cluster.assert_running();
}
