"""The apps of the demo: ordinary SQLite programs that know nothing of the daemon beside them.

Each runs in a process of its own (spawned, not forked: SQLite's connections do not survive a fork).
"""

import multiprocessing
import signal
import sqlite3

import demo_data

TRANSACTION_ROWS = 1000
NEW_FLIGHTS = 1000


def connect(path):
    """A connection as an app opens it."""
    database = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    return database


def start(app, *arguments):
    """Starts an app; it ends with this program."""
    process = multiprocessing.get_context("spawn").Process(target=run, args=(app, arguments), daemon=True)
    process.start()
    return process


def run(app, arguments):
    # Ctrl-C reaches the whole terminal; the main program ends its apps itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    app(*arguments)


def load(path, archive):
    demo_data.load(connect(path), archive, TRANSACTION_ROWS)


# The three apps of the second half. They change the same rows at the same time: node 1 and node 2 different columns of
# the flights from JFK in June, node 3 the rows of other months.
DAYS = [(6, day) for day in range(1, 31)]


def rename_tails(path):
    database = connect(path)
    for month, day in DAYS:
        database.execute(
            "UPDATE flights SET tailnum = 'HL-' || tailnum WHERE month = ? AND day = ? AND origin = 'JFK'", (month, day)
        )


def delay_arrivals(path):
    database = connect(path)
    for month, day in DAYS:
        database.execute(
            "UPDATE flights SET arr_delay = arr_delay + 1000 WHERE month = ? AND day = ? AND origin = 'JFK'", (month, day)
        )
    database.execute("UPDATE planes SET seats = seats + 1")


def cancel_and_add(path):
    database = connect(path)
    for month in range(1, 13):
        if month != 6:
            database.execute("DELETE FROM flights WHERE month = ? AND dep_time IS NULL", (month,))
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT INTO airlines VALUES ('HL', 'Harmony Lines')")
    database.executemany(
        "INSERT INTO flights (year, month, day, carrier, flight, origin, dest) VALUES (2013, 12, 31, 'HL', ?, 'JFK', 'ATL')",
        [(flight,) for flight in range(1, NEW_FLIGHTS + 1)],
    )
    database.execute("COMMIT")


WRITERS = (rename_tails, delay_arrivals, cancel_and_add)

# What is true of the data before and after those apps ran; each query gives one number.
CHECKS = {
    "flights": "SELECT count(*) FROM flights",
    "cancelled": "SELECT count(*) FROM flights WHERE dep_time IS NULL AND month <> 6 AND carrier <> 'HL'",
    "new": "SELECT count(*) FROM flights WHERE carrier = 'HL'",
    "tails": "SELECT count(*) FROM flights WHERE month = 6 AND origin = 'JFK' AND tailnum IS NOT NULL",
    "renamed": "SELECT count(*) FROM flights WHERE tailnum LIKE 'HL-%'",
    "delays": "SELECT total(arr_delay) FROM flights WHERE month = 6 AND origin = 'JFK'",
    "delayed": "SELECT count(arr_delay) FROM flights WHERE month = 6 AND origin = 'JFK'",
    "seats": "SELECT total(seats) FROM planes",
    "planes": "SELECT count(seats) FROM planes",
}


def measure(database):
    return {name: database.execute(query).fetchone()[0] for name, query in CHECKS.items()}


def expected(before):
    after = dict(before)
    after["flights"] += NEW_FLIGHTS - before["cancelled"]
    after["cancelled"] = 0
    after["new"] = NEW_FLIGHTS
    after["renamed"] = before["tails"]
    after["delays"] += 1000 * before["delayed"]
    after["seats"] += before["planes"]
    return after
