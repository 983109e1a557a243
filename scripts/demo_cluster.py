"""Three nodes on this machine: an app's database and a harmonylite daemon each. The first daemon runs the nats-server,
the other two connect to it.
"""

import ctypes
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import time

import demo_apps

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)

CONFIG = """\
db_path = {database}
node_id = {number}

[replication_log]
# The demo keeps the whole history; it is small.
max_entries = 1000000

[nats]
{nats}

[prometheus]
enable = true
bind = "127.0.0.1:{metrics_port}"

[health_check]
enable = true
bind = "127.0.0.1:{health_port}"
"""


class NodeError(Exception):
    """A node does not do what it should; the message says which and what."""


def free_ports(count):
    """Ports that nobody uses now, and that no outgoing connection can take: below those that the kernel chooses from."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        low = int(file.read().split()[0])
    held = []
    try:
        for port in random.sample(range(max(1024, low - 12000), low), low - max(1024, low - 12000)):
            if len(held) == count:
                break
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
                continue
            held.append(one)
        if len(held) < count:
            raise NodeError(f"no {count} free ports below {low}")
        return [s.getsockname()[1] for s in held]
    finally:
        for s in held:
            s.close()


def die_with_parent():
    """Called in the child: the kernel ends it should this program be killed with SIGKILL."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Node:
    """One node. `number` is its node_id."""

    def __init__(self, number, folder, binary, ports, nats):
        self.number = number
        self.binary = binary
        self.metrics_port, self.health_port = ports
        self.database = os.path.join(folder, f"node-{number}", "app.db")
        os.makedirs(os.path.dirname(self.database))
        self.log = os.path.join(folder, f"node-{number}", "harmonylite.log")
        self.config = os.path.join(folder, f"node-{number}", "config.toml")
        with open(self.config, "w") as file:
            # A TOML basic string and a JSON string are written alike.
            database = json.dumps(self.database)
            file.write(CONFIG.format(
                number=number, database=database, nats=nats,
                metrics_port=self.metrics_port, health_port=self.health_port,
            ))
        self.process = None

    def app(self):
        """A connection of this node's app."""
        return demo_apps.connect(self.database)

    def start(self):
        with open(self.log, "ab") as log:
            # A session of its own: Ctrl-C reaches this program alone, which then stops the daemons in order.
            self.process = subprocess.Popen(
                [self.binary, "-config", self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent,
            )

    def check(self):
        """Raises if the daemon has ended."""
        if self.process is not None and self.process.poll() is not None:
            raise NodeError(f"the daemon of node {self.number} ended with code {self.process.returncode}")

    def get(self, port, path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def health(self):
        """(healthy, what it says); a node that does not answer yet is not healthy."""
        self.check()
        try:
            status, body = self.get(self.health_port, "/health")
        except (OSError, http.client.HTTPException) as error:
            return False, str(error)
        try:
            reasons = json.loads(body).get("reasons", [])
        except (ValueError, AttributeError):
            reasons = [body]
        return status == 200, "; ".join(reasons)

    def metrics(self):
        """{name: sum over its series} of the daemon's numbers; empty while it does not answer."""
        self.check()
        try:
            status, body = self.get(self.metrics_port, "/metrics")
        except (OSError, http.client.HTTPException):
            return {}
        found = {}
        if status == 200:
            for name, value in re.findall(r"^([a-z_:]+)(?:\{[^}]*\})? (\S+)$", body, re.MULTILINE):
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def stop(self, seconds):
        """Asks the daemon to stop and waits. Returns its exit code, or None if it had to be killed."""
        process, self.process = self.process, None
        if process is None:
            return None
        if process.poll() is None:
            process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def last_lines(self, count):
        try:
            with open(self.log, errors="replace") as file:
                return file.read().splitlines()[-count:]
        except OSError:
            return []


class Cluster:
    """Three nodes in a folder of their own."""

    def __init__(self, folder, binary, nats_server):
        nats_port, *ports = free_ports(7)
        managed = (
            f'# No urls: this daemon runs the nats-server.\nserver_path = {json.dumps(nats_server)}\n'
            f'bind_address = "127.0.0.1:{nats_port}"'
        )
        remote = f'urls = ["nats://127.0.0.1:{nats_port}"]'
        self.nodes = [
            Node(number, folder, binary, pair, managed if number == 1 else remote)
            for number, pair in enumerate(zip(ports[::2], ports[1::2]), start=1)
        ]

    def start(self, healthy_within):
        for node in self.nodes:
            node.start()
        deadline = time.monotonic() + healthy_within
        waiting = list(self.nodes)
        while waiting:
            healthy, said = waiting[0].health()
            if healthy:
                waiting.pop(0)
            elif time.monotonic() > deadline:
                raise NodeError(f"node {waiting[0].number} is not healthy after {healthy_within} s: {said}")
            else:
                time.sleep(0.05)

    def stop(self, seconds=30):
        """Stops all daemons, the one with the server last. Returns their exit codes in the order of the nodes."""
        return [node.stop(seconds) for node in reversed(self.nodes)][::-1]
