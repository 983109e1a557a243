"""The lag that an app would see: from the end of its commit on one node until a reader on another node sees the row."""

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
        self.label = None
        # By the number of the row: (label, when its commit was done), and (reader, when seen) of each reader.
        self.committed = {}
        self.sightings = {}
        self.readers = len(readers)
        # {(label, node): [seconds]}, and the last one of each node.
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
            return sum(1 for n in self.committed if len(self.sightings.get(n, ())) < self.readers)

    def guarded(self, run, node):
        try:
            database = node.app()
            try:
                run(node, database)
            finally:
                database.close()
        except Exception as error:  # the main thread looks at `trouble` and ends the demo
            self.trouble.append(f"the lag probe on node {node.number}: {error}")

    def write(self, node, database):
        n = 0
        while not self.stopping.wait(INTERVAL):
            n += 1
            database.execute(f"INSERT INTO {TABLE} VALUES (?, ?)", (n, node.number))
            done = time.perf_counter()
            with self.lock:
                self.committed[n] = (self.label, done)
                # A reader may be faster than the writer's call comes back.
                for reader, at in self.sightings.get(n, ()):
                    self.count(n, reader, at)

    def watch(self, node, database):
        version = None
        last = 0
        while not self.stopping.wait(LOOK):
            now = database.execute("PRAGMA data_version").fetchone()[0]
            if now == version:
                continue
            version = now
            top = database.execute(f"SELECT max(n) FROM {TABLE}").fetchone()[0] or 0
            at = time.perf_counter()
            with self.lock:
                for n in range(last + 1, top + 1):
                    self.sightings.setdefault(n, []).append((node.number, at))
                    if n in self.committed:
                        self.count(n, node.number, at)
            last = max(last, top)

    def count(self, n, reader, at):
        label, done = self.committed[n]
        lag = max(0.0, at - done)
        self.latest[reader] = lag
        if label is not None:
            self.lags.setdefault((label, reader), []).append(lag)


def percentile(values, share):
    """The value that `share` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
