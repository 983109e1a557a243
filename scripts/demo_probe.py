"""The lag that an app would see: from the end of its commit on one node until a reader on another node sees the row."""

import sqlite3
import threading
import time

TABLE = "lag_probe"
SCHEMA = f"CREATE TABLE {TABLE} (n INTEGER NOT NULL PRIMARY KEY, written_by INTEGER NOT NULL)"
INTERVAL = 0.05
# Between two looks; half of it is added to a lag on average.
LOOK = 0.001


class Probe:
    """Writes a row now and then on the first node and watches for it on the others."""

    def __init__(self, writer, readers):
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.written = {}
        self.label = None
        # {(label, node): [seconds]}
        self.lags = {}
        self.latest = {}
        self.trouble = []
        self.threads = [threading.Thread(target=self.guarded, args=(self.write, writer))]
        self.threads += [threading.Thread(target=self.guarded, args=(self.watch, reader)) for reader in readers]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            if thread.ident is not None:
                thread.join()

    def measure(self, label):
        """Rows written from now on count under `label`; None: under nothing."""
        with self.lock:
            self.label = label

    def outstanding(self):
        """How many written rows some reader has not seen."""
        with self.lock:
            return sum(1 for _, _, waiting in self.written.values() if waiting)

    def guarded(self, run, node):
        try:
            database = node.app()
            try:
                run(node, database)
            finally:
                database.close()
        except Exception as error:  # shown by the main thread, which checks `trouble`
            self.trouble.append(f"the lag probe on node {node.number}: {error}")

    def write(self, node, database):
        readers = len(self.threads) - 1
        n = 0
        while not self.stopping.wait(INTERVAL):
            n += 1
            try:
                database.execute(f"INSERT INTO {TABLE} VALUES (?, ?)", (n, node.number))
            except sqlite3.OperationalError as error:
                if "locked" in str(error):
                    continue
                raise
            committed = time.perf_counter()
            with self.lock:
                label, seen_early, waiting = self.written.get(n, (None, [], readers))
                del label
                self.written[n] = (self.label, committed, waiting)
                for reader, seen in seen_early:
                    self.count(self.label, reader, max(0.0, seen - committed))

    def watch(self, node, database):
        version = None
        last = 0
        while not self.stopping.wait(LOOK):
            now = database.execute("PRAGMA data_version").fetchone()[0]
            if now == version:
                continue
            version = now
            top = database.execute(f"SELECT max(n) FROM {TABLE}").fetchone()[0] or 0
            seen = time.perf_counter()
            for n in range(last + 1, top + 1):
                self.seen(n, node.number, seen)
            last = max(last, top)

    def seen(self, n, reader, at):
        with self.lock:
            label, committed, waiting = self.written.get(n, (None, [], len(self.threads) - 1))
            if isinstance(committed, list):
                # Seen before the writer's call came back.
                committed.append((reader, at))
            else:
                self.count(label, reader, max(0.0, at - committed))
            self.written[n] = (label, committed, waiting - 1)

    def count(self, label, reader, lag):
        self.latest[reader] = lag
        if label is not None:
            self.lags.setdefault((label, reader), []).append(lag)


def percentile(values, share):
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
