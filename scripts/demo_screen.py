"""What the demo shows while it runs: one live screen on a terminal, else a line a second."""

import shutil
import sys
import time

BAR = 20


def number(value):
    return "-" if value is None else f"{value:,.0f}"


def milliseconds(value):
    return "-" if value is None else f"{value * 1000:.1f} ms"


class Screen:
    """Shows the phase and a line per node."""

    def __init__(self):
        self.live = sys.stdout.isatty()
        self.began = time.monotonic()
        self.phase = ""
        self.drawn = 0
        self.last_line = 0.0

    def say(self, text):
        """A lasting line."""
        self.clear()
        print(text, flush=True)

    def enter(self, phase):
        """A new phase of the demo."""
        self.phase = phase
        self.last_line = 0.0
        self.say(f"[{time.monotonic() - self.began:5.1f} s] {phase}")

    def clear(self):
        if self.live and self.drawn:
            sys.stdout.write(f"\x1b[{self.drawn}F\x1b[J")
        self.drawn = 0

    def show(self, samples, total):
        """`samples`: per node a dict with rows, pending, behind, lag. `total`: the rows that are to come."""
        now = time.monotonic()
        if self.live:
            self.clear()
            lines = [
                f"  node {number(s['node'])} {bar(s['rows'], total)} {number(s['rows']):>9} rows   "
                f"pending {number(s['pending']):>9}   behind {number(s['behind']):>5}   lag {milliseconds(s['lag']):>10}"
                for s in samples
            ]
            # A line that wraps would count as two when the screen is drawn anew.
            width = shutil.get_terminal_size().columns - 1
            sys.stdout.write("".join(f"{line[:width]}\x1b[K\n" for line in lines))
            sys.stdout.flush()
            self.drawn = len(lines)
        elif now - self.last_line >= 1.0:
            self.last_line = now
            nodes = " | ".join(
                f"node {s['node']}: {number(s['rows'])} rows, pending {number(s['pending'])}, lag {milliseconds(s['lag'])}"
                for s in samples
            )
            print(f"[{now - self.began:5.1f} s]   {nodes}", flush=True)


def bar(rows, total):
    share = min(1.0, rows / total) if rows is not None and total else 0.0
    return "[" + ("#" * int(share * BAR)).ljust(BAR, ".") + f"] {share:4.0%}"


def table(rows):
    """Rows of cells as aligned text; the first is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        lines.append("  " + "   ".join(cells).rstrip())
    lines.insert(1, "  " + "   ".join("-" * w for w in widths))
    return "\n".join(lines)
