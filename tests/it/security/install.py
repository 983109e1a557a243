"""Follows the install steps of docs/production.md word for word, in mount and network namespaces of its own: what they write to /etc, /usr and /var
goes to a layer above the machine's files and disappears with this process.

Process 1 is not systemd here. So `systemctl` is a stand-in: it enables units as the real one does, and starts one as its unit and drop-ins say,
with their user, groups, credentials, and a file system that is read-only but for the paths that they open.
"""

import ctypes
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PROJECT, PROGRAM, NATS, SCRATCH = (Path(a) for a in sys.argv[1:5])
PASSWORD = "correct-horse-battery"


sys.path.insert(0, str(PROJECT / "tests/it/harness"))
import spaces
from spaces import run


def prepare():
    spaces.prepare(SCRATCH)
    spaces.stand_in("sudo", 'exec "$@"')
    spaces.stand_in("systemctl", f'exec {sys.executable} {__file__} {" ".join(sys.argv[1:5])} systemctl "$@"')
    # The checkout that the steps begin in, with a built program.
    checkout = spaces.checkout(PROJECT, PROGRAM, SCRATCH)
    # What is there before: the application with its user and its database, and the broker.
    run("useradd", "--system", "--home-dir", "/var/lib/shop", "shop")
    os.mkdir("/var/lib/shop", mode=0o700)
    shutil.chown("/var/lib/shop", "shop", "shop")
    app("PRAGMA journal_mode = WAL; CREATE TABLE orders(id INTEGER PRIMARY KEY, what TEXT); INSERT INTO orders VALUES(1, 'tea')")
    broker = SCRATCH / "broker"
    broker.mkdir()
    (broker / "conf").write_text(
        f'port: 4222\nhost: 127.0.0.1\njetstream {{ store_dir: "{broker}/store" }}\nauthorization {{ user: shop, password: "{PASSWORD}" }}\n'
    )
    log = open(broker / "log", "w")
    subprocess.Popen([str(NATS), "-c", str(broker / "conf")], stdout=log, stderr=log)
    return checkout


def app(sql):
    """As the application does it, under its user."""
    code = f"import sqlite3; sqlite3.connect('/var/lib/shop/shop.db', timeout=60, isolation_level=None).executescript({sql!r})"
    run("setpriv", "--reuid", "shop", "--regid", "shop", "--clear-groups", "python3", "-c", code)


def steps():
    text = (PROJECT / "docs/production.md").read_text()
    section = re.search(r"^## Install\n(.*?)^## ", text, re.M | re.S).group(1)
    return re.findall(r"^```bash\n(.*?)^```", section, re.M | re.S)


def setting(unit, name):
    """All values of a setting, of the template and the drop-ins in their order."""
    template, _, instance = unit.removesuffix(".service").partition("@")
    base = f"/etc/systemd/system/{template}@.service"
    files = [base, *sorted(glob.glob(f"/etc/systemd/system/{unit}.d/*.conf"))]
    values = []
    for file in files:
        for line in Path(file).read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals and key == name:
                values.append(value.replace("%i", instance))
    return values


def start(unit):
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert verified.returncode == 0 and not verified.stderr, verified.stderr
    user, group = setting(unit, "User")[-1], setting(unit, "Group")[-1]
    groups = ",".join([group, *setting(unit, "SupplementaryGroups")])
    credentials = SCRATCH / "credentials"
    credentials.mkdir(mode=0o500)
    shutil.chown(credentials, user, group)
    for given in setting(unit, "LoadCredential"):
        name, _, path = given.partition(":")
        copy = credentials / name
        shutil.copy(path, copy)
        copy.chmod(0o400)
        shutil.chown(copy, user, group)
    open_paths = [p for value in setting(unit, "ReadWritePaths") for p in value.split()]
    state = f"/var/lib/{setting(unit, 'StateDirectory')[-1]}"
    os.makedirs(state, exist_ok=True)
    shutil.chown(state, user, group)
    open_paths.append(state)
    lines = ["mount --make-rprivate /", f"mount -t tmpfs none {SCRATCH}/layer"]
    for point in ("/", "/etc", "/usr", "/var"):
        lines.append(f"mount -o remount,bind,ro {point}")
    for path in open_paths:
        lines.append(f"mount --bind {path} {path}")
        lines.append(f"mount -o remount,bind,rw {path}")
    lines.append(
        f"cd / && umask {setting(unit, 'UMask')[-1]} && exec setpriv --reuid {user} --regid {group} --groups {groups}"
        f" --no-new-privs --bounding-set -all --inh-caps -all env -i PATH=/usr/local/bin:/usr/bin:/bin CREDENTIALS_DIRECTORY={credentials} $COMMAND"
    )
    inside = ["unshare", "-m", "sh", "-ec", "\n".join(lines)]
    [check], [serve] = setting(unit, "ExecStartPre"), setting(unit, "ExecStart")
    checked = subprocess.run(inside, env={**os.environ, "COMMAND": check}, capture_output=True, text=True)
    (SCRATCH / "check").write_text(checked.stdout + checked.stderr)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    log = open(SCRATCH / "log", "w")
    process = subprocess.Popen(inside, env={**os.environ, "COMMAND": serve}, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    (SCRATCH / "pid").write_text(str(process.pid))


def systemctl(arguments):
    if arguments == ["daemon-reload"]:
        return
    if arguments[:2] == ["enable", "--now"]:
        [unit] = arguments[2:]
        unit = f"{unit}.service"
        run("/usr/bin/systemctl", "enable", "--quiet", unit)
        start(unit)
        return
    sys.exit(f"the stand-in for systemctl does not know {arguments}")


def health():
    try:
        with urllib.request.urlopen("http://127.0.0.1:8090/health", timeout=5) as answer:
            return json.load(answer)
    except (OSError, ValueError) as error:
        return {"status": str(error)}


def wait_for(what, condition):
    until = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < until, f"{what} did not come: {health()}\n{(SCRATCH / 'log').read_text()}"
        time.sleep(0.05)


def main():
    # All that is started here ends with this process, however that ends.
    ctypes.CDLL(None).prctl(36, 1)
    checkout = prepare()
    environment = spaces.environment(NATS)
    all_steps = steps()
    assert len(all_steps) >= 4, all_steps
    for step in all_steps:
        run("bash", "-euo", "pipefail", "-c", step, cwd=checkout, env=environment)
    wait_for("a healthy node", lambda: health().get("status") == "healthy")
    app("INSERT INTO orders VALUES(2, 'coffee')")
    wait_for("the order in the stream", lambda: health().get("pending") == 0 and health()["last_published_event_timestamp"])
    # Nothing complains about rights; the secret is nowhere to be seen.
    check = (SCRATCH / "check").read_text()
    assert check.strip().endswith("the configuration is valid") and "every user" not in check, check
    pid = int((SCRATCH / "pid").read_text())
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert arguments.startswith(b"/usr/local/bin/harmonylite"), arguments
    for seen in (arguments.decode(), check, (SCRATCH / "log").read_text(), json.dumps(health())):
        assert PASSWORD not in seen, seen
    # The daemon is the application's user, and so is all that it has left beside the database.
    status = Path(f"/proc/{pid}/status").read_text()
    shop = run("id", "-u", "shop", capture_output=True, text=True).stdout.strip()
    assert re.search(rf"^Uid:\t{shop}\t{shop}\t{shop}\t{shop}$", status, re.M) and re.search(r"^CapEff:\t0+$", status, re.M), status
    for path in Path("/var/lib/shop").iterdir():
        found = path.lstat()
        assert found.st_uid == int(shop), path
        # SQLite gives its files the mode of the database, which is the application's business.
        assert path.name in ("shop.db", "shop.db-wal", "shop.db-shm") or found.st_mode & 0o077 == 0, path
    linked = Path("/etc/systemd/system/multi-user.target.wants/harmonylite@shop.service")
    assert linked.is_symlink(), "the service does not start with the machine"
    os.kill(pid, 15)
    # It is a child of the stand-in, which has ended: ours now.
    _, ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended) == 0, (SCRATCH / "log").read_text()
    print("installed")


if len(sys.argv) > 5 and sys.argv[5] == "systemctl":
    systemctl(sys.argv[6:])
else:
    main()
