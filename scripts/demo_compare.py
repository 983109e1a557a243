"""Whether databases are equal to the byte: the schema, and of every row every value with its storage class.

Tables whose name begins with `__harmonylite__` are the daemon's own and differ by nature.
"""

import hashlib
import sqlite3

OURS = "__harmonylite__"


class Text(bytes):
    """The bytes of a TEXT value, told apart from a BLOB of the same bytes."""

    def __repr__(self):
        return f"text:{bytes(self)!r}"


def tables(database):
    """Name and CREATE statement of the app's tables, in order."""
    listed = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [(name, sql) for name, sql in listed if not name.startswith((OURS, "sqlite_"))]


def fingerprint(path):
    """{table: (rows, hash)} of one committed state of the database. Rows are taken in the order of their key."""
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    try:
        found = tables(database)
        database.text_factory = Text
        database.execute("BEGIN")
        return {name: table_hash(database, name, sql) for name, sql in found}
    finally:
        database.close()


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def table_hash(database, name, sql):
    columns = [(bytes(row[1]).decode(), row[5]) for row in database.execute(f"PRAGMA table_info({quoted(name)})")]
    key = [column for column, place in sorted(columns, key=lambda c: c[1]) if place]
    order = ", ".join(quoted(column) + " COLLATE BINARY" for column in key or [c for c, _ in columns])
    wanted = ", ".join(quoted(column) for column, _ in columns)
    total = hashlib.sha256(sql.encode() + b"\n")
    rows = 0
    # A row's repr is exact and tells the five storage classes apart: None, 1, 1.0, text:b'1', b'1'. Floats are
    # written in the shortest form that reads back as the same bits.
    for row in database.execute(f"SELECT {wanted} FROM {quoted(name)} ORDER BY {order}"):
        total.update(repr(row).encode() + b"\n")
        rows += 1
    return rows, total.hexdigest()


def differences(first, second):
    """What differs between two fingerprints, as sentences; empty: nothing."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            found.append(f"{name} exists on one side only")
        elif first[name] != second[name]:
            found.append(f"{name} differs ({first[name][0]} and {second[name][0]} rows)")
    return found
