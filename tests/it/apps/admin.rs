//! Django's admin: sessions and sign-ins in the database, keys that SQLite chooses (AUTOINCREMENT), a log of what each administrator does, cascades that
//! Django does itself.

use std::collections::BTreeSet;
use std::process::Command;

use super::browser::{Answer, Browser};
use super::server::{Server, port};
use super::site::{Setup, Site};
use super::{assert_no_conflicts, lost, restore, texts};
use crate::django::{manage, run};
use crate::harness::node::folder;
use crate::harness::wait::Done;
use crate::harness::{Cluster, Node, eventually, tables};

/// The database's OPTIONS as docs/apps.md advises them: a write-ahead log, and transactions that take the write lock when they begin.
const ADVISED: Setup = office(
    |node| prepare(node, advised),
    |node, port| serve(node, port, advised),
);

/// None of them: a rollback journal, 5 s of patience, and transactions that begin to write in the middle.
const DEFAULTS: Setup = office(
    |node| prepare(node, defaults),
    |node, port| serve(node, port, defaults),
);

fn advised(command: &mut Command) {
    command.env("SHOP_OPTIONS", r#"{"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"}"#);
}

fn defaults(_: &mut Command) {}

const fn office(prepare: fn(&Node), serve: fn(&Node, u16) -> Server) -> Setup {
    Setup {
        file: "app.db",
        beside: &[],
        sections: "[replication]\nexclude = [\"django_migrations\"]\n",
        prepare,
        serve,
    }
}

/// What the project does once.
fn prepare(node: &Node, options: fn(&mut Command)) {
    for arguments in [&["migrate"][..], &["staff", "ann", "bob"]] {
        let mut command = manage(&node.database(), arguments);
        options(&mut command);
        run(command);
    }
}

fn serve(node: &Node, port: u16, options: fn(&mut Command)) -> Server {
    let mut command = manage(&node.database(), &["serve", &port.to_string()]);
    options(&mut command);
    Server::start(port, &node.folder, command)
}

/// A form of the admin, with the token that Django wants to see.
fn submit(browser: &mut Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
    let token = browser.cookie("csrftoken").unwrap_or_default().to_owned();
    let mut all = vec![("csrfmiddlewaretoken", token.as_str())];
    all.extend(fields);
    browser.form(path, &all)
}

/// Signs in; 302 if the password is right.
fn sign_in(browser: &mut Browser, name: &str, password: &str) -> Answer {
    browser.get("/admin/login/").expect(200);
    let fields = [
        ("username", name),
        ("password", password),
        ("next", "/admin/"),
    ];
    submit(browser, "/admin/login/", &fields)
}

/// What two administrators do, at one of two servers at a time; all that they see.
fn work(here: u16, there: u16, known: &mut dyn FnMut()) -> Vec<(u16, u16, bool)> {
    let mut seen = Vec::new();
    // What was done, and whether the same person sees it on the other server, with the same cookies.
    let mut step = |who: &mut Browser,
                    at: u16,
                    act: &dyn Fn(&mut Browser) -> Answer,
                    look: &str,
                    text: &str| {
        let status = loop {
            let status = act(who.go(at)).status;
            // Only with the defaults; the log is looked at in the end.
            if status != 500 {
                break status;
            }
        };
        known();
        let page = who.go(if at == here { there } else { here }).get(look);
        seen.push((status, page.status, page.body.contains(text)));
    };
    let (mut ann, mut bob, mut again) =
        (Browser::new(here), Browser::new(here), Browser::new(here));
    let product = "/admin/shop/product/";
    let order = "/admin/shop/order/";
    step(
        &mut ann,
        here,
        &|b| sign_in(b, "ann", "ann-password"),
        "/admin/",
        "ann",
    );
    let tea = [("name", "tea"), ("price", "2.50"), ("stock", "3")];
    step(
        &mut ann,
        there,
        &|b| submit(b, &format!("{product}add/"), &tea),
        product,
        "tea",
    );
    let green = [("name", "green tea"), ("price", "3.00"), ("stock", "3")];
    step(
        &mut ann,
        here,
        &|b| submit(b, &format!("{product}1/change/"), &green),
        product,
        "green tea",
    );
    let two = [
        ("product", "1"),
        ("amount", "2"),
        ("note", "for the office"),
    ];
    step(
        &mut ann,
        there,
        &|b| submit(b, &format!("{order}add/"), &two),
        "/admin/shop/order/1/change/",
        "for the office",
    );
    // Refused by both: another product of this name, as a form that is shown again.
    step(
        &mut ann,
        here,
        &|b| submit(b, &format!("{product}add/"), &green),
        product,
        "1 product",
    );
    step(
        &mut bob,
        there,
        &|b| sign_in(b, "bob", "bob-password"),
        "/admin/",
        "bob",
    );
    step(
        &mut again,
        here,
        &|b| sign_in(b, "bob", "bob-password"),
        "/admin/",
        "bob",
    );
    let new = [
        ("old_password", "bob-password"),
        ("new_password1", "another-word"),
        ("new_password2", "another-word"),
    ];
    step(
        &mut bob,
        there,
        &|b| submit(b, "/admin/password_change/", &new),
        "/admin/",
        "bob",
    );
    // Whoever else was signed in as bob no longer is, on either server.
    step(&mut again, here, &|b| b.get(product), "/admin/", "bob");
    step(
        &mut again,
        there,
        &|b| sign_in(b, "bob", "bob-password"),
        "/admin/",
        "bob",
    );
    step(
        &mut again,
        there,
        &|b| sign_in(b, "bob", "another-word"),
        "/admin/",
        "bob",
    );
    // Django deletes the order with its product, in a transaction of its own.
    step(
        &mut bob,
        there,
        &|b| submit(b, &format!("{product}1/delete/"), &[("post", "yes")]),
        order,
        "0 orders",
    );
    // Signed out there is signed out here: somebody has kept the cookies.
    let mut kept = ann.clone();
    step(
        &mut ann,
        there,
        &|b| submit(b, "/admin/logout/", &[]),
        "/admin/login/",
        "Log in",
    );
    step(&mut kept, there, &|b| b.get("/admin/"), "/admin/", "ann");
    seen
}

fn as_good_as_one_node(setup: &Setup, excused: &str) {
    let alone = folder();
    let node = Node::in_folder(1, "nats://127.0.0.1:1", alone.path());
    (setup.prepare)(&node);
    let server = (setup.serve)(&node, port());
    let expected = work(server.port, server.port, &mut || ());
    server.stop();
    let out = (302, 302, false);
    let shown = |status| (status, 200, true);
    assert_eq!(
        expected,
        [
            shown(302),
            shown(302),
            shown(302),
            shown(302),
            shown(200),
            shown(302),
            shown(302),
            shown(302),
            out,
            (200, 302, false),
            shown(302),
            shown(302),
            shown(200),
            out,
        ]
    );

    let office = Site::new(setup);
    let (here, there) = office.ports();
    let mut known = || drop(office.cluster.converge());
    assert_eq!(work(here, there, &mut known), expected);
    assert_no_conflicts(&office.cluster);
    let log = "SELECT action_flag, object_repr FROM django_admin_log";
    assert_eq!(
        tables::rows(&office.cluster[1].app(), log),
        tables::rows(&node.app(), log)
    );
    office.end(excused);
}

/// A transaction of Django's defaults that has read may be refused when it begins to write, however long it would wait: the administrator tries again.
const LOCKED: &str = "database is locked";

#[test]
fn one_node_at_a_time_with_the_defaults() {
    as_good_as_one_node(&DEFAULTS, LOCKED);
}

#[test]
fn one_node_at_a_time_with_what_is_advised() {
    as_good_as_one_node(&ADVISED, "");
}

#[test]
fn products_that_both_nodes_added_at_once_come_back() {
    let mut office = Site::new(&ADVISED);
    let (here, there) = office.ports();
    let cluster = &mut office.cluster;
    let (mut ann, mut bob) = (Browser::new(here), Browser::new(there));
    sign_in(&mut ann, "ann", "ann-password").expect(302);
    sign_in(&mut bob, "bob", "bob-password").expect(302);
    cluster.converge();
    cluster.server.kill();
    for (who, name) in [(&mut ann, "coffee"), (&mut bob, "cocoa")] {
        let fields = [("name", name), ("price", "1"), ("stock", "0")];
        submit(who, "/admin/shop/product/add/", &fields).expect(302);
    }
    cluster.server.restart();
    cluster.converge();
    // AUTOINCREMENT does not help: both nodes have counted on from the same number. So has the admin's log.
    assert_eq!(lost(cluster, "shop_product", "name").len(), 1);
    assert_eq!(lost(cluster, "django_admin_log", "object_repr").len(), 1);
    restore(cluster, &[]);
    cluster.converge();
    for who in [&mut ann, &mut bob] {
        for port in [here, there] {
            let page = who.go(port).get("/admin/shop/product/").expect(200).body;
            assert!(page.contains("2 products"), "{page}");
        }
    }
    assert_eq!(
        cluster[0].integer("SELECT count(DISTINCT object_repr) FROM django_admin_log"),
        2
    );
    office.end("");
}

/// One node's people keep the products, the other's the orders: their tables have one writer each, and all that they are told was done is everywhere.
#[test]
fn both_nodes_write_while_everything_fails() {
    let mut office = Site::new(&ADVISED);
    let (here, there) = office.ports();
    let (mut ann, mut bob) = (Browser::new(here), Browser::new(there));
    sign_in(&mut ann, "ann", "ann-password").expect(302);
    let fields = [("name", "coffee"), ("price", "1"), ("stock", "0")];
    submit(&mut ann, "/admin/shop/product/add/", &fields).expect(302);
    sign_in(&mut bob, "bob", "bob-password").expect(302);
    office.cluster.converge();
    let done = Done::default();
    let mut written: BTreeSet<String> = std::thread::scope(|scope| {
        let writers = [("product", ann), ("order", bob)].map(|(what, mut who)| {
            let done = &done;
            scope.spawn(move || {
                let mut written = Vec::new();
                while !done.is_said() {
                    let text = format!("{what} {}", written.len());
                    let fields = match what {
                        "product" => [("name", text.as_str()), ("price", "1"), ("stock", "0")],
                        _ => [("note", text.as_str()), ("product", "1"), ("amount", "2")],
                    };
                    submit(&mut who, &format!("/admin/shop/{what}/add/"), &fields).expect(302);
                    written.push(text);
                }
                written
            })
        });
        let _ends = done.on_drop();
        office.everything_fails([
            "SELECT count(*) FROM shop_product",
            "SELECT count(*) FROM shop_order",
        ]);
        done.say();
        writers
            .into_iter()
            .flat_map(|w| w.join().unwrap())
            .collect()
    });
    office.cluster.converge();
    written.insert("coffee".to_owned());
    let all = "SELECT name FROM shop_product UNION SELECT note FROM shop_order";
    assert_eq!(texts(&office.cluster[1], all), written);
    // The admin's log has two writers: what lost its number is in the journal.
    let logged = texts(
        &office.cluster[0],
        "SELECT object_repr FROM django_admin_log",
    );
    let journaled = lost(&office.cluster, "django_admin_log", "object_repr");
    assert_eq!(&logged | &journaled, written);
    office.end("");
}

/// Why the advice: SQLite refuses at once what could never succeed, a transaction that has read and then wants to write where another one has written.
#[test]
fn a_transaction_that_reads_before_it_writes_takes_the_lock_first() {
    let cluster = Cluster::new(2, 1, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let count = "SELECT count(*) FROM t";
    let app = cluster[0].app();
    app.execute_batch(&format!("BEGIN; {count}")).unwrap();
    cluster[1].sql("INSERT INTO t VALUES(1, 'elsewhere')");
    eventually("the other node's row comes", || {
        cluster[0].integer(count) == 1
    });
    let refused = app
        .execute("INSERT INTO t VALUES(2, 'late')", [])
        .unwrap_err();
    let code = refused.sqlite_error().unwrap().extended_code;
    assert_eq!(code, rusqlite::ffi::SQLITE_BUSY_SNAPSHOT, "{refused}");
    app.execute_batch("ROLLBACK").unwrap();

    app.execute_batch(&format!("BEGIN IMMEDIATE; {count}"))
        .unwrap();
    cluster[1].sql("INSERT INTO t VALUES(3, 'elsewhere')");
    cluster[1].wait_published();
    app.execute_batch("INSERT INTO t VALUES(2, 'in time'); COMMIT")
        .unwrap();
    cluster.converge();
    assert_eq!(cluster[1].integer(count), 3);
}

/// Sessions and the admin's log need not travel.
#[test]
fn what_is_excluded_stays_on_its_node() {
    let mut setup = ADVISED;
    setup.sections = "[replication]\nexclude = [\"django_migrations\", \"django_session\", \"django_admin_log\"]\n";
    let office = Site::new(&setup);
    let (here, there) = office.ports();
    let (mut ann, mut bob) = (Browser::new(here), Browser::new(there));
    sign_in(&mut ann, "ann", "ann-password").expect(302);
    sign_in(&mut bob, "bob", "bob-password").expect(302);
    let tea = [("name", "tea"), ("price", "1"), ("stock", "0")];
    submit(&mut ann, "/admin/shop/product/add/", &tea).expect(302);
    eventually("the product comes", || {
        office.cluster[1].integer("SELECT count(*) FROM shop_product") == 1
    });
    let order = [("note", "one"), ("product", "1"), ("amount", "1")];
    submit(&mut bob, "/admin/shop/order/add/", &order).expect(302);
    eventually("the nodes are equal but for that", || {
        let dumps = office.cluster.nodes.iter().map(|node| {
            let mut dump = node.dump();
            dump.retain(|name, _| !["django_session", "django_admin_log"].contains(&&**name));
            (node.pending(), dump)
        });
        let dumps: Vec<_> = dumps.collect();
        dumps[0].1["shop_order"].len() == 1 && dumps[0] == dumps[1] && dumps[0].0 == 0
    });
    assert_no_conflicts(&office.cluster);
    for (node, done) in office.cluster.nodes.iter().zip(["tea", "one"]) {
        let log = "SELECT object_repr FROM django_admin_log";
        assert_eq!(texts(node, log), [done.to_owned()].into());
    }
    ann.go(there).get("/admin/").expect(302);
    office.end("");
}
