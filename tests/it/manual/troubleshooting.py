"""Runs the blocks of docs/troubleshooting.md as they stand, in the situations that they are for.

A block follows a line `<!-- run: NAME -->`; the blocks of one name belong to one situation below, which makes the trouble, takes them in their order, and
looks at what they did. There are two nodes: this one, installed as the page assumes, and another that is only there to replicate with. Process 1 is not
systemd here: `systemctl` and `journalctl` are stand-ins that begin, end and show the daemon, under its user.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

PROJECT, PROGRAM, NATS, SCRATCH = (Path(a) for a in sys.argv[1:5])
sys.path.insert(0, str(PROJECT / "tests/it/harness"))
import spaces

PAGE = (PROJECT / "docs/troubleshooting.md").read_text()
CONFIG = Path("/etc/harmonylite/config.toml")
DATABASE = "/var/lib/harmonylite/data.db"
JOURNAL = SCRATCH / "journal"
MARKED = re.compile(r"^<!-- run: ([a-z-]+) -->\n(?:```(\w+)\n(.*?)^```|((?:\|[^\n]*\n)+))", re.M | re.S)

SYSTEMCTL = """
journal=JOURNAL pidfile=SCRATCH/pid
pid=$(cat $pidfile 2>/dev/null)
runs() { [ -n "$pid" ] && ! grep -qs '^State:.Z' /proc/$pid/status && [ -d /proc/$pid ]; }
stop() { if runs; then kill -TERM $pid; while runs; do sleep 0.05; done; fi; }
start() {
    if runs; then return; fi
    touch $journal; before=$(wc -c < $journal)
    if ! [ -x /usr/local/bin/harmonylite ]; then echo "harmonylite.service: Unable to locate executable: Permission denied" >> $journal; exit 1; fi
    cd /
    setsid setpriv --reuid harmonylite --regid harmonylite --init-groups /usr/local/bin/harmonylite -config /etc/harmonylite/config.toml >> $journal 2>&1 < /dev/null &
    pid=$!; echo $pid > $pidfile
    until tail -c +$((before + 1)) $journal | grep -q -e 'capturing changes' -e '"capturing changes"'; do
        if ! runs; then echo "Job for harmonylite.service failed."; exit 1; fi
        sleep 0.05
    done
}
[ "$2" = harmonylite ] || { echo "the stand-in for systemctl knows no unit $2"; exit 64; }
case $1 in
start) start ;; stop) stop ;; restart) stop; start ;;
status) if runs; then echo "     Active: active (running)"; else echo "     Active: failed"; exit 3; fi ;;
*) echo "the stand-in for systemctl does not know $1"; exit 64 ;;
esac
"""


class Machine:
    """The two nodes and their broker."""

    def __init__(self):
        # What lies on /tmp is hidden by a layer of its own, so it comes last.
        spaces.prepare(SCRATCH, ("etc", "usr", "var", "srv", "tmp"))
        spaces.stand_in("systemctl", SYSTEMCTL.replace("JOURNAL", str(JOURNAL)).replace("SCRATCH", str(SCRATCH)), "/bin/bash")
        spaces.stand_in("journalctl", f'[ "$1 $2" = "-u harmonylite" ] && shift 2 && if [ "$1" = -n ]; then tail -n "$2" {JOURNAL}; else cat {JOURNAL}; fi')
        spaces.stand_in("sudo", '[ "$1" = -u ] || exec "$@"\nuser=$2; shift 2\nexec setpriv --reuid "$user" --regid "$user" --init-groups "$@"')
        spaces.run("useradd", "--system", "--home-dir", "/var/lib/harmonylite", "harmonylite")
        for folder in ("/var/lib/harmonylite", "/srv/snapshots"):
            os.makedirs(folder, mode=0o750)
            shutil.chown(folder, "harmonylite", "harmonylite")
        shutil.copy(PROGRAM, "/usr/local/bin/harmonylite")
        os.makedirs("/etc/harmonylite")
        self.broker_lines = ""
        self.broker = None
        os.makedirs("/var/lib/nats")
        self.start_broker()
        CONFIG.write_text(
            f'db_path = "{DATABASE}"\nnode_id = 1\npublish = true\n\n[nats]\nurls = ["nats://127.0.0.1:4222"]\nreconnect_wait_seconds = 1\n\n'
            '[snapshot]\nstore = "file"\n\n[snapshot.file]\npath = "/srv/snapshots"\n\n'
            '[health_check]\nenable = true\nbind = "127.0.0.1:8090"\n\n[prometheus]\nenable = true\nbind = "127.0.0.1:3010"\n'
        )
        # The other node: root's, under another name, so that what looks for the service's process finds the service's.
        os.makedirs("/srv/two")
        shutil.copy(PROGRAM, "/srv/two/othernode")
        self.other_config = Path("/srv/two/config.toml")
        self.other_config.write_text(
            CONFIG.read_text().replace(DATABASE, "/srv/two/data.db").replace("node_id = 1", "node_id = 2").replace("8090", "8091").replace("3010", "3011")
        )
        self.other = None
        schema = "PRAGMA journal_mode = WAL; CREATE TABLE test_table(id INTEGER PRIMARY KEY, name TEXT)"
        self.sql(schema)
        self.sql(schema, "/srv/two/data.db")
        self.shell("systemctl start harmonylite")
        self.start_other()
        self.replicates()

    def start_broker(self):
        conf = SCRATCH / "broker.conf"
        conf.write_text(f'port: 4222\nhost: 127.0.0.1\nhttp: "127.0.0.1:8222"\njetstream {{ store_dir: "/var/lib/nats" }}\n{self.broker_lines}\n')
        log = open(SCRATCH / "broker.log", "a")
        self.broker = subprocess.Popen([str(NATS), "-c", str(conf)], stdout=log, stderr=log)
        spaces.listens(self.broker, 4222)

    def stop_broker(self):
        self.broker.kill()
        self.broker.wait()

    def start_other(self):
        log = open(SCRATCH / "other.log", "a")
        self.other = subprocess.Popen(["/srv/two/othernode", "-config", str(self.other_config)], stdout=log, stderr=log)

    def stop_other(self, signal=15):
        self.other.send_signal(signal)
        self.other.wait()

    def shell(self, block, codes=(0,), given=None, strict=True):
        """Runs a block as a person does; what it printed."""
        path = SCRATCH / "said"
        options = ["-euo", "pipefail"] if strict else []
        with open(path, "w") as said:
            done = subprocess.run(
                ["bash", *options, "-c", block], cwd=SCRATCH, env={**os.environ, "PATH": spaces.PATH},
                input=given, text=True, stdin=None if given else subprocess.DEVNULL, stdout=said, stderr=said,
            )
        text = path.read_text()
        assert done.returncode in codes, f"{block}\nended with {done.returncode}:\n{text}\n{self.logs()}"
        return text

    def sql(self, sql, database=DATABASE):
        user = "harmonylite" if database == DATABASE else "root"
        return self.shell(f'sudo -u {user} sqlite3 -cmd ".timeout 60000" {database}', given=sql).strip()

    def logs(self):
        paths = (JOURNAL, SCRATCH / "other.log", SCRATCH / "broker.log")
        return "".join(f"--- {p}\n{p.read_text()[-6000:]}" for p in paths if p.exists())

    def wait_for(self, what, condition, deadline=90):
        until = time.monotonic() + deadline
        while not condition():
            assert time.monotonic() < until, f"{what} did not come:\n{self.logs()}"
            time.sleep(0.05)

    def health(self, port=8090):
        said = self.shell(f"curl -s http://127.0.0.1:{port}/health", codes=(0, 7, 52, 56))
        try:
            return json.loads(said)
        except ValueError:
            return {"status": "no answer"}

    def replicates(self):
        """A row goes each way, and in the end both are equal."""
        self.wait_for("health", lambda: self.health()["status"] == "healthy" and self.health(8091)["status"] == "healthy")
        name = f"at {time.monotonic()}"
        for here, there in ((DATABASE, "/srv/two/data.db"), ("/srv/two/data.db", DATABASE)):
            self.sql(f"INSERT INTO test_table(name) VALUES('{name} in {here}')", here)
            arrived = f"SELECT count(*) FROM test_table WHERE name = '{name} in {here}'"
            self.wait_for(f"a row of {here} in {there}", lambda: self.sql(arrived, there) == "1")
        rows = "SELECT id, name FROM test_table ORDER BY id"
        self.wait_for("two equal databases", lambda: self.sql(rows) == self.sql(rows, "/srv/two/data.db"))


class Blocks:
    """The blocks of one situation, in their order."""

    def __init__(self, machine, name):
        self.machine = machine
        self.left = [m for m in MARKED.finditer(PAGE) if m.group(1) == name]
        assert self.left, f"the page has no block marked {name}"

    def take(self, language):
        block = self.left.pop(0)
        found = block.group(2) or "table"
        assert found == language, f"a block of {found} comes where one of {language} was expected: {block.group(0)}"
        return block.group(3) or block.group(4)

    def bash(self, *expected, codes=(0,), strict=True, given=None):
        said = self.machine.shell(self.take("bash"), codes, given, strict)
        for part in expected:
            assert re.search(part, said), f"{part!r} is not in {said}\n{self.machine.logs()}"
        return said

    def toml(self):
        """Puts the keys of a fragment into the configuration, which must take them."""
        CONFIG.write_text(merged(CONFIG.read_text(), self.take("toml")))
        self.machine.shell(f"sudo -u harmonylite harmonylite -config {CONFIG} -check")


def merged(text, fragment):
    """A configuration with the keys of a fragment in place of its own."""

    def sections(text):
        out, name = {"": {}}, ""
        for line in text.splitlines():
            if line.startswith("["):
                name = line.strip()
                out.setdefault(name, {})
            elif "=" in line and not line.startswith("#"):
                key, _, value = line.partition("=")
                out[name][key.strip()] = value.split("  #")[0].strip()
        return out

    into = sections(text)
    for name, keys in sections(fragment).items():
        into.setdefault(name, {}).update(keys)
    lines = []
    for name, keys in into.items():
        lines += [name, *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def look(m, b):
    b.bash(r"active \(running\)", '"status":"healthy"', r"1\*\s+running", r"\n2\s+running")
    b.bash("capturing changes")
    b.bash("doctor of harmonylite", "all is well|0 failures", codes=(0, 1))


def verbose(m, b):
    b.toml()
    b.bash(r'"message":"capturing changes"')


def metrics(m, b):
    b.toml()
    b.bash()
    names = [f"harmonylite_{name}" for name in ("pending_publish", "lag_messages", "broker_connected", "schema_mismatch_paused")]
    m.wait_for("the metrics", lambda: all(n in m.shell("curl -s http://localhost:3010/metrics") for n in names))


def nats(m, b):
    b.bash('"jetstream"', '"streams"', "harmonylite-changes-1", r"SHARD\s+ENTRIES", r"NODE\s+SHARD\s+OFFSET")


def database(m, b):
    command, sql = b.take("bash"), b.take("sql")
    m.wait_for("nothing pending", lambda: m.sql("SELECT count(*) FROM __harmonylite___global_change_log") == "0")
    said = m.shell(command, given=sql)
    assert "test_table|__harmonylite__test_table" in said and "__harmonylite__test_table_change_log" in said, said
    assert said.strip().endswith("\n0"), said


def start(m, b):
    m.shell("systemctl stop harmonylite")
    sound = CONFIG.read_text()
    CONFIG.write_text(sound.replace("node_id = 1", "node_id = 1\nreplicat = true"))
    m.shell("systemctl start harmonylite", codes=(1,))
    said = b.bash(codes=(78,))
    assert "line 3" in said and "did you mean replicate?" in said, said
    CONFIG.write_text(sound)
    os.chmod("/usr/local/bin/harmonylite", 0o644)
    m.shell("systemctl start harmonylite", codes=(1,))
    assert "Permission denied" in m.shell("journalctl -u harmonylite -n 20")
    b.bash(r"\d+\.\d+\.\d+")
    said = b.bash("libc")
    assert "not found" not in said, said
    shutil.chown("/var/lib/harmonylite", "root", "root")
    os.chmod("/var/lib/harmonylite", 0o700)
    m.shell("systemctl start harmonylite", codes=(1,))
    b.bash(r"data\.db")


def arrive(m, b):
    m.shell("harmonylite -config /etc/harmonylite/config.toml pause publish")
    said = m.shell(f"sudo -u harmonylite sqlite3 {DATABASE}", given=b.take("sql")).strip().split("\n")
    assert len(said) == 2 and said[1] == "1" and said[0].count("|") > 3, said
    m.shell("harmonylite -config /etc/harmonylite/config.toml resume publish")


def triggers(m, b):
    m.shell("systemctl stop harmonylite")
    names = m.sql("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '\\_\\_harmonylite%' ESCAPE '\\'").split("\n")
    m.sql(";".join(f'DROP TRIGGER "{name}"' for name in names))
    m.sql("INSERT INTO test_table(name) VALUES('unseen')")
    b.bash("were gone")
    m.wait_for("the row without capture", lambda: m.sql("SELECT count(*) FROM test_table WHERE name = 'unseen'", "/srv/two/data.db") == "1")


def publish(m, b):
    CONFIG.write_text(CONFIG.read_text().replace("publish = true", "publish = false"))
    m.shell("systemctl restart harmonylite")
    m.sql("INSERT INTO test_table(name) VALUES('not captured')")
    b.bash("publish = false", codes=(0, 1))
    CONFIG.write_text(CONFIG.read_text().replace("publish = false", "publish = true"))
    m.shell("systemctl restart harmonylite")
    m.wait_for("what was written meanwhile", lambda: m.sql("SELECT count(*) FROM test_table WHERE name = 'not captured'", "/srv/two/data.db") == "1")


def everywhere(m, b):
    b.bash("equal", "P50")


def reach(m, b):
    b.bash("the port is open")


def streams(m, b):
    m.shell("harmonylite -config /etc/harmonylite/config.toml wait")
    # By a file that the server loses with its store: nobody has to have the tool for it.
    m.stop_broker()
    for folder in Path("/var/lib/nats").rglob("streams/harmonylite-changes-1"):
        shutil.rmtree(folder)
    m.start_broker()
    said = b.bash(codes=(0, 69, 75))
    assert "server_id" in said, said


def late(m, b):
    b.bash("running", "P50", "harmonylite_pending_publish")
    b.bash("real", "some avg10")


def settings(m, b):
    b.toml()
    m.shell("systemctl restart harmonylite")


def locked(m, b):
    assert m.sql(b.take("sql")).split() == ["30000", "wal"]
    b.bash("harmonyli")
    [version] = re.findall(r"^(\d+\.\d+)", b.bash(), re.M)
    assert tuple(map(int, version.split("."))) >= (3, 35), version


def damaged(m, b):
    m.shell("harmonylite -config /etc/harmonylite/config.toml wait")
    m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot")
    m.shell("systemctl stop harmonylite")
    m.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    [page] = m.sql("SELECT rootpage FROM sqlite_master WHERE name = 'test_table'").split()
    with open(DATABASE, "r+b") as file:
        file.seek((int(page) - 1) * 4096)
        file.write(b"\xa5" * 2000)
    said = b.bash(codes=(0, 1, 11))
    assert said.strip() != "ok", said
    m.shell("systemctl start harmonylite", codes=(0, 1))
    b.bash("there is no database")
    m.wait_for("the rows", lambda: "filled=true" in JOURNAL.read_text())


def backup(m, b):
    m.shell(f"sudo -u harmonylite sqlite3 {DATABASE} \"VACUUM INTO '/var/lib/harmonylite/backup.db'\"")
    shutil.move("/var/lib/harmonylite/backup.db", "/var/backups/data.db")
    m.replicates()
    m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot")
    b.bash()


def snapshots(m, b):
    shutil.chown("/srv/snapshots", "root", "root")
    said = m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot", codes=(1,))
    assert "Failed to create snapshot" in said, said
    b.bash("Failed to create snapshot", codes=(0, 77))
    b.bash("Mounted on")
    b.bash("was taken and verified", "is whole")


def stores(m, b):
    for name in ("s3.access-key", "s3.secret"):
        path = CONFIG.parent / name
        path.write_text("something\n")
        path.chmod(0o640)
        shutil.chown(path, "root", "harmonylite")
    before = CONFIG.read_text()
    b.toml()
    CONFIG.write_text(before)


def restore(m, b):
    m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot")
    b.bash("POSITION", "is whole", "snapshot")
    b.bash("restoring")
    m.wait_for("a restore", lambda: JOURNAL.read_text().count("restored from the snapshot") > 0)
    m.replicates()
    m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot")
    before = JOURNAL.read_text().count("the sequence map was removed")
    b.bash()
    assert JOURNAL.read_text().count("the sequence map was removed") == before + 1


def by_hand(m, b):
    m.shell("harmonylite -config /etc/harmonylite/config.toml wait")
    m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot")
    b.bash("was written")
    assert "a snapshot that was put in place" in JOURNAL.read_text()


def load(m, b):
    b.bash(r"COMMAND\n.*harmony", "harmonylite_published", "harmonylite_rows_applied_total", "process_cpu_seconds_total")
    b.toml()
    m.shell("systemctl restart harmonylite")
    # Metrics are there a moment after the start.
    m.wait_for("metrics", lambda: "queue_depth" in m.shell("curl -s http://localhost:3010/metrics", codes=(0, 7)))
    b.bash(r"RSS", "process_resident_memory_bytes", "queue_depth")


def limits(m, b):
    text = b.take("ini")
    path = Path(text.split("\n")[0].removeprefix("# "))
    unit = path.parent.parent / path.parent.name.removesuffix(".d")
    shutil.copy(PROJECT / "systemd" / unit.name, unit)
    os.makedirs(path.parent)
    path.write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", unit.name], capture_output=True, text=True)
    assert said.returncode == 0 and not said.stderr, said.stderr


def no_nats(m, b):
    m.stop_broker()
    m.wait_for("unhealthy", lambda: m.health()["status"] == "unhealthy")
    b.bash("Connection refused|Couldn't connect", "not connected to NATS", codes=(0, 7, 22), strict=False)
    m.broker_lines = 'authorization { user: harmonylite, password: "your-password" }'
    m.start_broker()
    m.wait_for("a refusal", lambda: "the server wants a login" in json.dumps(m.health()))
    b.toml()
    m.stop_other()
    m.other_config.write_text(m.other_config.read_text().replace("[nats]", '[nats]\nuser_name = "harmonylite"\nuser_password = "your-password"'))
    m.start_other()
    b.bash('"status":"healthy"')


def jetstream(m, b):
    b.bash('"store_dir"|"config"', "Mounted on")
    b.toml()
    m.shell("systemctl restart harmonylite")


def full(m, b):
    b.bash('"status":"healthy"', "LIMIT", "was taken")


def gone(m, b):
    m.stop_other(9)
    m.wait_for("a lost node", lambda: re.search(r"\n2\s+lost", m.shell("harmonylite -config /etc/harmonylite/config.toml status", codes=(0, 1))))
    b.bash("lost", "node 2 is forgotten")
    m.start_other()


def journals(m, b):
    b.bash()


def cleanup(m, b):
    command = b.take("bash")
    first, second = command.strip().split("\n")
    m.shell(first)
    assert m.sql("SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_\\_harmonylite%' ESCAPE '\\'") == "0"
    m.sql("INSERT INTO test_table(name) VALUES('between')")
    m.shell(second)
    m.wait_for("what was written between", lambda: m.sql("SELECT count(*) FROM test_table WHERE name = 'between'", "/srv/two/data.db") == "1")


def schema(m, b):
    m.sql("ALTER TABLE test_table ADD COLUMN more", "/srv/two/data.db")
    m.sql("INSERT INTO test_table(name, more) VALUES('with more', 1)", "/srv/two/data.db")
    m.wait_for("a pause", lambda: "paused by a schema difference" in json.dumps(m.health()))
    b.bash('writes column "more"|more')
    b.bash("CREATE TABLE test_table")
    m.sql("ALTER TABLE test_table ADD COLUMN more")
    m.wait_for("the row", lambda: m.sql("SELECT more FROM test_table WHERE name = 'with more'") == "1")


def rebuild(m, b):
    m.shell("harmonylite -config /etc/harmonylite/config.toml wait")
    m.shell("harmonylite -config /etc/harmonylite/config.toml -save-snapshot")
    b.bash("there is no database")


def short(m, b):
    table = b.take("table")
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.strip().split("\n")[2:]]
    assert len(rows) > 10, rows
    m.wait_for("nothing pending", lambda: m.sql("SELECT count(*) FROM __harmonylite___global_change_log") == "0")
    for what, command, expected in rows:
        said = m.shell(command.strip("`"))
        assert any(part.strip("` ") in said for part in expected.split(", ")), f"{what}: {expected} is not in {said}"


def bundle(m, b):
    CONFIG.write_text(CONFIG.read_text().replace("[nats]", '[nats]\nuser_name = "x"\nuser_password = "hunter2"'))
    b.bash()
    for part in m.shell("tar -xzOf harmonylite.tar.gz"), m.shell("tar -tzf harmonylite.tar.gz"):
        assert "hunter2" not in part and len(part) > 100, part
    b.bash()
    listed = m.shell("tar -tzf harmonylite-diag.tar.gz")
    said = m.shell("cat /tmp/harmonylite-diag/*")
    assert listed.count("\n") == 10 and "hunter2" not in said and '"removed"' in said, listed
    for part in ("harmonylite_pending_publish", '"status":"healthy"', "harmonylite-changes-1", "capturing changes"):
        assert part in said, f"{part} is not in {said}"


SITUATIONS = {f.__name__.replace("_", "-"): f for f in (
    look, verbose, metrics, nats, database, start, arrive, triggers, publish, everywhere, reach, streams, late, settings, locked, damaged, backup,
    snapshots, stores, restore, by_hand, load, limits, no_nats, jetstream, full, gone, journals, cleanup, schema, rebuild, short, bundle,
)}


def main(names):
    machine = Machine()
    for name in names:
        print(f"--- {name}", flush=True)
        blocks = Blocks(machine, name)
        SITUATIONS[name](machine, blocks)
        assert not blocks.left, f"{name} leaves {len(blocks.left)} blocks of the page out"
        if name != "bundle":
            machine.replicates()
    print("all as the page says")


if sys.argv[5:] == ["names"]:
    print("\n".join(SITUATIONS))
else:
    main(sys.argv[5:])
