//! A real Django application migrates: on SQLite that makes tables anew, and takes our triggers away with the old ones.

use std::path::Path;
use std::process::Command;

use crate::apps::server::{fetched, python};
use crate::harness::{Cluster, Node, eventually};

/// The application's `manage.py` on a database.
pub fn manage(database: &Path, arguments: &[&str]) -> Command {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/django");
    let mut command = python(&fetched("get-django"));
    command
        .arg(project.join("manage.py"))
        .arg(database)
        .args(arguments);
    command
}

/// Runs a command of it.
pub fn django(database: &Path, arguments: &[&str]) {
    run(manage(database, arguments));
}

/// Runs it to its end.
pub fn run(mut command: Command) {
    let ran = command.output().unwrap();
    assert!(
        ran.status.success(),
        "{command:?}: {}{}",
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
        django(&node.database(), &["migrate", "shop", "0001"]);
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
        // What the migration itself has put into a row is sent by both, and the same on both.
        let conflicts = "SELECT count(*) FROM __harmonylite__conflicts";
        assert_eq!(node.integer(conflicts), 0, "node {}", node.id);
    }
}

const ELSEWHERE: &str = "UPDATE shop_product SET stock = 77 WHERE id = 2; UPDATE shop_order SET note = 'changed elsewhere' WHERE id = 3";

#[test]
fn a_migration_while_the_daemon_is_down() {
    let mut cluster = migrated();
    cluster[0].stop();
    // Where it runs, the daemon goes on.
    django(&cluster[1].database(), &["migrate", "shop"]);
    django(&cluster[1].database(), &["write", "2"]);
    cluster[1].sql(ELSEWHERE);
    certain(&cluster[1]);
    django(&cluster[0].database(), &["migrate", "shop"]);
    django(&cluster[0].database(), &["write", "1"]);
    cluster[0].start_replicating();
    check(&cluster);
    cluster.assert_running();
}

#[test]
fn a_migration_while_all_daemons_run() {
    let mut cluster = migrated();
    django(&cluster[1].database(), &["migrate", "shop"]);
    django(&cluster[1].database(), &["write", "2"]);
    cluster[1].sql(ELSEWHERE);
    django(&cluster[0].database(), &["migrate", "shop"]);
    django(&cluster[0].database(), &["write", "1"]);
    check(&cluster);
    cluster.assert_running();
}

/// Why `exclude = ["django_migrations"]`: Django would take a migration that ran elsewhere for done here.
#[test]
fn a_node_that_is_told_of_migrations_elsewhere_leaves_out_its_own() {
    let mut cluster = Cluster::prepared(2, "");
    for node in &cluster.nodes {
        django(&node.database(), &["migrate", "shop", "0002"]);
    }
    for node in &mut cluster.nodes {
        node.start_replicating();
    }
    let known = "SELECT count(*) FROM django_migrations WHERE name = '0003_unique_names'";
    let unique = "SELECT count(*) FROM pragma_index_list('shop_product') WHERE origin = 'u'";
    django(&cluster[0].database(), &["migrate", "shop"]);
    eventually("the other node is told", || cluster[1].integer(known) == 1);
    django(&cluster[1].database(), &["migrate", "shop"]);
    assert_eq!(
        (cluster[0].integer(unique), cluster[1].integer(unique)),
        (1, 0)
    );
}

/// Everything that Django makes for a project, on nodes that run: its content types and permissions too, which each node's `migrate` makes for itself.
#[test]
fn a_whole_project_is_migrated_on_one_node_after_the_other() {
    let mut cluster = Cluster::prepared(2, "CREATE TABLE before(id INTEGER PRIMARY KEY, v)");
    for node in &mut cluster.nodes {
        node.sections
            .push_str("[replication]\nexclude = [\"django_migrations\"]\n");
        node.start_replicating();
    }
    django(&cluster[0].database(), &["migrate"]);
    django(&cluster[0].database(), &["staff", "ann"]);
    cluster[1].sql("INSERT INTO before VALUES(1, 'meanwhile')");
    django(&cluster[1].database(), &["migrate"]);
    eventually("what the first has written comes", || {
        cluster[1].integer("SELECT count(*) FROM auth_user") == 1
    });
    django(&cluster[1].database(), &["staff", "bob"]);
    eventually("both are everywhere", || {
        cluster
            .nodes
            .iter()
            .all(|node| node.pending() == 0 && node.integer("SELECT count(*) FROM auth_user") == 2)
    });
    let made = |node: &Node| {
        let mut dump = node.dump();
        dump.retain(|name, _| name != "django_migrations");
        dump
    };
    eventually("the nodes are equal", || {
        made(&cluster[0]) == made(&cluster[1])
    });
    for node in &cluster.nodes {
        let all = "SELECT count(*) FROM __harmonylite__conflicts";
        assert_eq!(node.integer(all), 0, "node {}", node.id);
    }
    cluster.assert_running();
}
