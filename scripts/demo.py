#!/usr/bin/env python3
"""`make demo`: three nodes, real data, every node writes, and in the end all three databases are equal to the byte.

Builds the daemon, fetches nats-server and the data, starts three daemons on this machine in a temporary folder, and
removes all of it again, whatever happens. Exit code 0: equal; 1: not, or not in time; 130: interrupted.

HARMONYLITE_BIN=PATH takes a daemon that is built already; HARMONYLITE_DEMO_KEEP=1 keeps the folder.
"""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import demo_apps
import demo_compare
import demo_data
import demo_probe
from demo_cluster import Cluster, NodeError
from demo_screen import Screen, milliseconds, number, table

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = PROJECT / ".tools"
# From the start of the daemons to the end; some twenty times what it takes.
DEADLINE = 300
HEALTHY_WITHIN = 60
# How long the lag is measured while nothing else goes on.
QUIET = 3.0
TICK = 0.2
# Databases that have not changed for so long, while nothing is pending, will not become equal any more.
STANDSTILL = 20


class Unequal(Exception):
    """The demo has shown that something is wrong."""


def build():
    """The daemon's path.

    The profile `demo` is the release profile without link-time optimisation, which is ready sooner; so is a build without the
    stores (S3, WebDAV, SFTP) that the demo has no use for. The debug profile
    would be ready sooner still, but the speeds shown would not be those that people get.
    """
    chosen = os.environ.get("HARMONYLITE_BIN")
    if chosen:
        return os.path.abspath(chosen)
    print("building the daemon (the first time takes some minutes)", flush=True)
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "build", "--locked", "--profile", "demo", "--no-default-features", "--bin", "harmonylite"]
    if subprocess.run(command, cwd=PROJECT).returncode != 0:
        raise NodeError("cargo could not build the daemon; its message is above")
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    return str(PROJECT / target / "demo" / "harmonylite")


def nats_server():
    done = subprocess.run([sys.executable, PROJECT / "scripts" / "get-nats-server"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise NodeError("there is no nats-server; the message above says what to do")
    return done.stdout.strip()


class Demo:
    """The run from the start of the daemons to the verdict."""

    def __init__(self, cluster, archive, screen):
        self.nodes = cluster.nodes
        self.cluster = cluster
        self.archive = archive
        self.screen = screen
        self.apps = []
        self.readers = []
        self.probe = None
        self.torn = 0
        self.looks = 0
        self.still = None

    def run(self):
        screen = self.screen
        for node in self.nodes:
            database = node.app()
            for statement in [*demo_data.schema(), demo_probe.SCHEMA]:
                database.execute(statement)
            self.readers.append(database)
        screen.enter("starting three daemons; the first runs the nats-server")
        self.cluster.start(HEALTHY_WITHIN)

        total = demo_data.ROWS["flights"]
        screen.enter(f"node 1 loads {number(sum(demo_data.ROWS.values()))} rows, {demo_apps.TRANSACTION_ROWS} a transaction")
        began = time.monotonic()
        loader = demo_apps.start(demo_apps.load, self.nodes[0].database, str(self.archive))
        self.apps = [loader]
        self.probe = demo_probe.Probe(self.nodes[0], self.nodes[1:])
        self.probe.start()
        self.probe.measure("loading")
        self.wait(lambda rows: loader.exitcode is not None, total, whole=True)
        loaded = time.monotonic() - began
        self.wait(lambda rows: min(rows) == total, total, whole=True)
        arrived = time.monotonic() - began
        self.probe.measure(None)

        screen.enter(f"all rows are on all nodes; lag is measured for {QUIET:.0f} s")
        self.wait(lambda rows: self.probe.outstanding() == 0, total)
        self.probe.measure("quiet")
        until = time.monotonic() + QUIET
        self.wait(lambda rows: time.monotonic() > until, total)
        self.probe.stop()
        before = [demo_apps.measure(database) for database in self.readers]

        screen.enter("every node writes: 1 and 2 different columns of the same rows, 3 deletes and inserts")
        self.apps = [
            demo_apps.start(app, node.database) for app, node in zip(demo_apps.WRITERS, self.nodes)
        ]
        self.wait(lambda rows: all(app.exitcode is not None for app in self.apps), total)
        screen.enter("the apps are done; waiting for the nodes to agree")
        wanted = demo_apps.expected(before[0])
        self.wait(lambda rows: self.settled(rows, wanted), wanted["flights"])
        prints = self.agree(wanted["flights"])
        shown = demo_apps.measure(self.readers[0])
        if shown != wanted:
            raise Unequal(f"the nodes agree, but not on what the apps wrote: {shown}, not {wanted}")
        screen.enter("stopping the daemons")
        last = [node.metrics() for node in self.nodes]
        codes = self.cluster.stop()
        after_stop = fingerprints(self.nodes)
        self.summary(loaded, arrived, prints, last, codes)
        if after_stop != prints:
            raise Unequal("a database changed while the daemons stopped")
        if any(code != 0 for code in codes):
            raise Unequal(f"the daemons' exit codes are {codes}, not 0")

    def wait(self, done, total, whole=False):
        """Shows the nodes until `done(rows per node)`. `whole`: a replica's flights must come in whole transactions."""
        while True:
            rows = [database.execute("SELECT count(*) FROM flights").fetchone()[0] for database in self.readers]
            if whole:
                self.looks += len(rows) - 1
                self.torn += sum(1 for r in rows[1:] if r % demo_apps.TRANSACTION_ROWS and r != total)
                if self.torn:
                    raise Unequal(f"half a transaction is visible: {rows} rows, which came in {demo_apps.TRANSACTION_ROWS}s")
            self.show(rows, total)
            for app in self.apps:
                if app.exitcode not in (None, 0):
                    raise NodeError("an app could not write; its message is above")
            if self.probe.trouble:
                raise NodeError(self.probe.trouble[0])
            if done(rows):
                return
            time.sleep(TICK)

    def settled(self, rows, wanted):
        """Whether every node shows what the apps' writes must come to, or nothing moves any more."""
        # The cheap question first: the others read all rows.
        if all(count == wanted["flights"] for count in rows):
            rows = [demo_apps.measure(database) for database in self.readers]
            if all(measured == wanted for measured in rows):
                return True
        return self.stands_still(rows)

    def stands_still(self, state):
        """Whether nothing has been pending, and `state` has been the same, for STANDSTILL seconds."""
        now = time.monotonic()
        idle = all(node.metrics().get("harmonylite_pending_publish") == 0 for node in self.nodes)
        if not idle or self.still is None or self.still[0] != state:
            self.still = (state, now)
        return now - self.still[1] > STANDSTILL

    def show(self, rows, total):
        samples = []
        for node, count in zip(self.nodes, rows):
            metrics = node.metrics()
            samples.append({
                "node": node.number,
                "rows": count,
                "pending": metrics.get("harmonylite_pending_publish"),
                "behind": metrics.get("harmonylite_lag_messages"),
                "lag": self.probe.latest.get(node.number),
            })
        self.screen.show(samples, total)

    def agree(self, total):
        """Compares byte by byte until nothing is pending anywhere and all are equal.

        Nodes that neither have anything to do nor change, and are not equal, will never be.
        """
        self.still = None
        while True:
            idle = all(node.metrics().get("harmonylite_pending_publish") == 0 for node in self.nodes)
            prints = fingerprints(self.nodes)
            different = [
                f"nodes 1 and {node.number}: {difference}"
                for node, other in zip(self.nodes[1:], prints[1:])
                for difference in demo_compare.differences(prints[0], other)
            ]
            if idle and not different:
                return prints
            if self.stands_still(prints):
                raise Unequal("the databases differ and nothing moves any more: " + "; ".join(different))
            self.wait(lambda rows: True, total)

    def summary(self, loaded, arrived, prints, last, codes):
        rows = [["table", "rows", *(f"node {node.number}" for node in self.nodes)]]
        for name, (count, _) in sorted(prints[0].items()):
            rows.append([name, number(count), *(each[name][1][:16] for each in prints)])
        lags = [["commit to visible", "probes", "p50", "p99", "max"]]
        for (label, reader), values in sorted(self.probe.lags.items()):
            p50, p99 = (demo_probe.percentile(values, share) for share in (0.5, 0.99))
            lags.append([
                f"node 1 to {reader}, {label}", number(len(values)), *map(milliseconds, (p50, p99, max(values))),
            ])
        nodes = [["daemon", "rows published", "rows applied", "conflicts", "CPU", "memory", "exit code"]]
        for node, metrics, code in zip(self.nodes, last, codes):
            nodes.append([
                f"node {node.number}",
                number(metrics.get("harmonylite_rows_published_total")),
                number(metrics.get("harmonylite_rows_applied_total")),
                number(metrics.get("harmonylite_conflicts_total", 0)),
                f"{metrics.get('process_cpu_seconds_total', 0):.1f} s",
                f"{metrics.get('process_resident_memory_bytes', 0) / 2**20:.0f} MiB",
                str(code),
            ])
        total = sum(demo_data.ROWS.values())
        self.screen.say(
            f"\nSHA-256 of every row, value and storage class:\n{table(rows)}\n\n{table(lags)}\n\n{table(nodes)}\n\n"
            f"  The app's load took {loaded:.1f} s, and {arrived:.1f} s until all rows were on all nodes "
            f"({number(total / arrived)} rows/s).\n"
            f"  Half transactions seen in {number(self.looks)} looks at the replicas: {self.torn}.\n"
        )

    def end(self):
        """Ends what this run has started, whatever state it is in."""
        if self.probe is not None:
            self.probe.stop()
        for app in self.apps:
            if app.is_alive():
                app.kill()
            app.join()
        for database in self.readers:
            database.close()
        self.cluster.stop(seconds=10)


def fingerprints(nodes):
    """One per node, taken side by side."""
    with ProcessPoolExecutor(len(nodes), mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(demo_compare.fingerprint, [node.database for node in nodes]))


def on_alarm(_signal, _frame):
    raise TimeoutError(f"not done after {DEADLINE} s")


def on_terminate(_signal, _frame):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, on_terminate)
    signal.signal(signal.SIGALRM, on_alarm)
    screen = Screen()
    demo = folder = None
    try:
        binary, server, archive = build(), nats_server(), demo_data.archive(TOOLS)
        screen.began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, DEADLINE)
        folder = tempfile.mkdtemp(prefix="harmonylite-demo-")
        demo = Demo(Cluster(folder, binary, server), archive, screen)
        demo.run()
        screen.say("All three databases are equal to the byte.")
        return 0
    except KeyboardInterrupt:
        screen.say("interrupted; cleaning up")
        return 130
    except (Unequal, NodeError, TimeoutError, demo_data.DataError, OSError, sqlite3.Error) as error:
        screen.say(f"FAILED: {error}")
        for node in demo.nodes if demo else []:
            said = "\n".join(f"    {line}" for line in node.last_lines(15))
            print(f"  the last lines of node {node.number}'s log:\n{said}", flush=True)
        return 1
    finally:
        # A second Ctrl-C, or the deadline, must not leave half of it behind.
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if demo is not None:
            demo.end()
        if folder is not None:
            if os.environ.get("HARMONYLITE_DEMO_KEEP"):
                print(f"kept: {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
