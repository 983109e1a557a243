"""Python packages for the tests, of pinned versions and hashes, in a folder of their own under .tools/: nothing is installed on the machine.

pip fetches them from PyPI (following this machine's own index settings) and compares each file with its SHA-256. Whoever comes while
another fetches the same waits for it, and what lies under the final name is always whole.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

TOOLS = Path(__file__).resolve().parent.parent / ".tools"


def fail(message):
    """Ends the script with this sentence."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    sys.exit(1)


def need_python(purpose):
    """Debian 12 has 3.11; the applications want that or newer."""
    if sys.version_info < (3, 11):
        fail(f"Python 3.11 or later is needed for {purpose}; this is {sys.version.split()[0]}")


@contextmanager
def made_once(name):
    """Yields (target, folder to make it in), or (target, None) where it is there. What lies in the folder then becomes the target."""
    target = TOOLS / name
    if target.is_dir():
        yield target, None
        return
    TOOLS.mkdir(parents=True, exist_ok=True)
    with open(TOOLS / f".{name.split('-')[0]}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            yield target, None
            return
        print(f"{Path(sys.argv[0]).name}: fetching {name} once", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=TOOLS) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            yield target, made
            os.rename(made, target)


def install(requirements, folder, build_with=None):
    """Installs wheels of pinned hashes into a folder; with `build_with`, a folder of build tools, also what PyPI has only as sources."""
    environment = dict(os.environ)
    if build_with:
        environment["PYTHONPATH"] = str(build_with)
        sources = ["--no-build-isolation", "--use-pep517"]
    else:
        sources = ["--only-binary", ":all:"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore", "--no-deps",
            "--require-hashes", *sources, "--target", str(folder), "-r", file.name,
        ]
        if subprocess.run(command, stdout=sys.stderr, env=environment).returncode != 0:
            names = ", ".join(line.split("==")[0] for line in requirements.splitlines() if "==" in line)
            fail(f"pip could not install {names}; its message is above (no pip? Debian: apt-get install python3-pip)")
        # Programs of the packages; the next call's would be refused.
        shutil.rmtree(Path(folder) / "bin", ignore_errors=True)
