"""Follows docs/quick-start.md and README.md word for word: every block of commands, in its order, in a checkout and a home folder that hold nothing else.

One thing is not as for a newcomer: `make build` does not compile. The `cargo` that it finds puts the program under test in place, as a build would.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PROJECT, PROGRAM, NATS, SCRATCH = (Path(a) for a in sys.argv[1:5])
sys.path.insert(0, str(PROJECT / "tests/it/harness"))
import spaces

HOME = SCRATCH / "home"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (PROJECT / page).read_text(), re.M | re.S)


def follow(block, place):
    """Runs a block as it stands; what it begins in the background goes on. Returns what it printed."""
    path = SCRATCH / "said"
    with open(path, "w") as said:
        environment = spaces.environment(NATS, HOME=str(HOME))
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    text = path.read_text()
    assert done.returncode == 0, f"{block}\nended with {done.returncode}:\n{text}\n{logs()}"
    return text


def logs():
    return "".join(f"--- {path}\n{path.read_text()}" for path in sorted(SCRATCH.rglob("log")))


def wait_for(what, condition):
    until = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < until, f"{what} did not come:\n{logs()}"
        time.sleep(0.05)


def healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return json.load(answer)["status"] == "healthy"
    except (OSError, ValueError):
        return False


def quick_start(checkout):
    steps = blocks("docs/quick-start.md", "bash")
    assert len(steps) == 8, "docs/quick-start.md has another number of steps: say here what each of them shows"
    build, server, databases, configurations, start, write, look, end = steps
    assert "harmonylite" in follow(build, checkout)
    assert "nats-server" in follow(server, checkout)
    assert follow(databases, checkout).split() == ["wal", "wal"]
    assert follow(configurations, checkout).count("the configuration is valid") == 2
    assert follow(start, checkout).count('"status":"healthy"') == 2
    # The page says that a second is enough; on a machine that is busy with other tests it need not be.
    follow(write.partition("sqlite3 ~/hl/node2")[0], checkout)
    wait_for("the row on node 2", lambda: "written on node 1" in follow('sqlite3 ~/hl/node2/app.db "SELECT * FROM notes"', checkout))
    follow('sqlite3 ~/hl/node2/app.db "' + re.search(r'app\.db "(UPDATE[^"]+)"', write).group(1) + '"', checkout)
    wait_for("the stars on node 1", lambda: follow('sqlite3 ~/hl/node1/app.db "SELECT * FROM notes"', checkout).strip() == "a|written on node 1|5")
    wait_for("nothing pending", lambda: follow(look, checkout).split("\n")[0] == "0")
    seen = follow(look, checkout)
    for part in ("harmonylite_published{", "harmonylite_lag_messages{", "harmonylite_broker_connected{", "harmonylite-changes-1"):
        assert part in seen, f"{part} is not in {seen}"
    ended = follow(end, checkout)
    left = follow("sqlite3 ~/hl/node2/app.db \"SELECT count(*) FROM sqlite_schema WHERE name GLOB '__harmonylite__*'\"", checkout)
    assert left.strip() == "0", ended
    # Nobody has to look for processes afterwards. (What has ended is this process's to bury.)
    left = subprocess.run(["pgrep", "-a", "--runstates", "RSDT", "harmonylite|nats-server"], capture_output=True, text=True).stdout
    assert not left, f"still running: {left}"


def readme():
    """A second cluster, by the README alone: its configuration, then its commands in their order."""
    [configuration] = blocks("README.md", "toml")
    place = Path("/etc/harmonylite")
    place.mkdir(exist_ok=True)
    Path("/var/lib/app").mkdir()
    Path("/var/lib/app2").mkdir()
    with open("/etc/hosts", "a") as hosts:
        hosts.write("127.0.0.1 broker\n")
    store = SCRATCH / "store"
    log = open(SCRATCH / "broker.log", "w")
    broker = subprocess.Popen([str(NATS), "-js", "-sd", str(store), "-a", "127.0.0.1"], stdout=log, stderr=log)
    spaces.listens(broker, 4222)
    (place / "config.toml").write_text(configuration)
    other = configuration.replace("/var/lib/app/", "/var/lib/app2/").replace("node_id = 1 ", "node_id = 2 ")
    other = other.replace("[prometheus]\nenable = true", '[prometheus]\nenable = true\nbind = ":3011"')
    other = other.replace("[health_check]\nenable = true", '[health_check]\nenable = true\nbind = ":8091"')
    (place / "two.toml").write_text(other)
    for folder in ("app", "app2"):
        follow(f"sqlite3 /var/lib/{folder}/app.db 'PRAGMA journal_mode = WAL; CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT UNIQUE, seen)'", place)
    start, conflicts, cluster, snapshots, everywhere = blocks("README.md", "bash")
    check, run = start.strip().split("\n")
    assert "the configuration is valid" in follow(check, place)
    follow(f"{run} 2> {SCRATCH}/log &", place)
    follow(f"harmonylite -config two.toml 2> {SCRATCH}/two.log &", place)
    wait_for("two healthy nodes", lambda: healthy(8090) and healthy(8091))
    connected = 'harmonylite_broker_connected{node_id="1"} 1\n'
    wait_for("the metrics", lambda: connected in follow("curl -s http://127.0.0.1:3010/metrics", place))

    def write(folder, sql):
        follow(f'sqlite3 -cmd ".timeout 60000" /var/lib/{folder}/app.db "{sql}"', place)

    def rows(folder):
        return follow(f"sqlite3 /var/lib/{folder}/app.db 'SELECT * FROM users ORDER BY id'", place)

    def published(port):
        [line] = [line for line in follow(f"curl -s http://127.0.0.1:{port}/metrics", place).split("\n") if line.startswith("harmonylite_published{")]
        return float(line.split()[-1])

    # Two losers: a cell, and a row whose key another node has given too.
    write("app", "INSERT INTO users VALUES(1, 'ada', 0)")
    follow("harmonylite -config config.toml wait", place)
    for config in ("config.toml", "two.toml"):
        follow(f"harmonylite -config {config} pause apply", place)
    # One after the other in the stream: who overrides a value keeps it.
    for folder, port, row in (("app2", 3011, "eve"), ("app", 3010, "bob")):
        sql = f"UPDATE users SET seen = '{folder}'; INSERT INTO users VALUES(10, '{row}', 1)"
        before = published(port)
        write(folder, sql)
        wait_for("what was written in the stream", lambda: published(port) > before)
    for config in ("config.toml", "two.toml"):
        follow(f"harmonylite -config {config} resume apply", place)
    wait_for("one order on both", lambda: rows("app") == rows("app2") and rows("app").startswith("1|ada|app\n10|bob|"))
    lines = conflicts.strip().split("\n")
    listed = follow(lines[0], place)
    assert "users" in listed, listed
    for line in lines[1:]:
        # The page's numbers are examples: the number of an entry that fits is put in place.
        key = "10" if "--as-new-row" in line else "1"
        number = next((row.split()[0] for row in listed.split("\n") if row.split()[3:5] == ["users", key]), None)
        assert number, f"there is no entry of row {key}: {listed}"
        follow(re.sub(r"(show|restore) \d+", rf"\1 {number}", line), place)
    shown = (
        (cluster, ["running", "harmonylite-changes-1", "P50", "paused"]),
        (snapshots, ["was taken", "POSITION", "is whole", "was written", "restoring"]),
        (everywhere, ["equal"]),
    )
    # A node tells the others within a second or two that it applies again; `status` has something to look at until then.
    status = ["harmonylite", "-config", "config.toml", "status"]
    wait_for("nodes that go on", lambda: subprocess.run(status, cwd=place, env=spaces.environment(NATS, HOME=str(HOME)), capture_output=True).returncode == 0)
    for block, parts in shown:
        said = follow(block, place)
        for part in parts:
            assert part in said, f"{part!r} is not in what this says:\n{block}\n{said}"
        if block is snapshots:
            # The command says that the log tells how the restore goes.
            wait_for("the end of the restore", lambda: (SCRATCH / "log").read_text().count("INFO replicating position=") == 2)
    wait_for("equal nodes", lambda: rows("app") == rows("app2"))
    for config in ("config.toml", "two.toml"):
        follow(f"harmonylite -config {config} -stop", place)


def main():
    spaces.prepare(SCRATCH)
    HOME.mkdir()
    spaces.stand_in("sudo", 'exec "$@"')
    spaces.stand_in("cargo", f'test "$*" = "build --locked --release" && install -D {PROGRAM} target/release/harmonylite')
    checkout = spaces.checkout(PROJECT, PROGRAM, SCRATCH)
    (checkout / "target/release/harmonylite").unlink()
    quick_start(checkout)
    readme()
    print("followed")


main()
