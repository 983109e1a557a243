"""A machine of a script's own, for pages that write to /etc, /usr and /var and begin services: mount, network and process namespaces, which whoever starts
the script has made (harness/spaces.rs). What is written goes to a layer above the machine's files and disappears with the script, and so do its processes.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, **options)


def listens(server, port, deadline=90):
    """Waits until a server that was just started takes connections: its port is the last thing that it opens."""
    until = time.monotonic() + deadline
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=deadline).close()
            return
        except ConnectionError:
            assert server.poll() is None, f"{server.args} ended with {server.returncode}"
            assert time.monotonic() < until, f"{server.args} does not listen on port {port}"
            time.sleep(0.05)


def mount(*arguments):
    run("mount", *arguments)


def prepare(scratch, folders=("etc", "usr", "var")):
    """Puts a layer above these folders, and brings the loopback of the new network up."""
    mount("--make-rprivate", "/")
    layer = scratch / "layer"
    layer.mkdir()
    mount("-t", "tmpfs", "none", layer)
    for folder in folders:
        upper, work = layer / folder, layer / f"{folder}.work"
        upper.mkdir(), work.mkdir()
        mount("-t", "overlay", "overlay", "-o", f"lowerdir=/{folder},upperdir={upper},workdir={work}", f"/{folder}")
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 1 | 64))


def stand_in(name, text, shell="/bin/sh"):
    """A program that is found before the machine's own."""
    path = Path("/usr/local/sbin") / name
    path.write_text(f"#!{shell}\n{text}\n")
    path.chmod(0o755)


def checkout(project, program, scratch):
    """The parts of the repository that pages use, with a built program."""
    place = scratch / "checkout"
    (place / "target/release").mkdir(parents=True)
    for part in ("systemd", "docs", "scripts"):
        shutil.copytree(project / part, place / part)
    shutil.copy(project / "Makefile", place)
    shutil.copy(program, place / "target/release/harmonylite")
    return place


def environment(nats, **more):
    # What cargo tells its tests no shell of a person has: make would take it for the cargo to build with.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CARGO")}
    return {**inherited, "PATH": PATH, "HARMONYLITE_NATS_SERVER": str(nats), **more}
