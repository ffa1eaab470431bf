"""What a swap is, what its run has shown, and docs/swap.md."""

import dataclasses
import subprocess
import time
import typing

from suite import build
from suite.build import say

DOCUMENT = build.ROOT / "docs/swap.md"
_HEAD = """# Swapping components

Upstream's programs and other people's clients in place of ours, and ours in place of upstream's, each a real run with
real pods on one machine. `make swap` runs them all and writes this table; `conformance/swap/run NAME` runs one.

| swap | what ran | what was checked | result |
|---|---|---|---|
"""


class Failed(Exception):
    """A check that has not come true, with its cause."""


@dataclasses.dataclass
class Swap:
    """`run` is given a Result, on which it makes its checks."""

    name: str
    what: str
    run: typing.Callable


class Result:
    """The checks of a run."""

    def __init__(self, swap):
        self.swap = swap
        self.checks = []
        self.failures = []

    @property
    def passed(self):
        return bool(self.checks) and not self.failures

    def check(self, what, work):
        """Does `work`, which raises what is wrong. The checks after one that fails are made all the same."""
        began = time.monotonic()
        self.checks.append(what)
        try:
            work()
        except (Failed, subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError, KeyError, ValueError) as error:
            self.failures.append((what, cause(error)))
            say(f"FAILED {what}\n       {cause(error)}")
            return
        say(f"ok     {what} ({time.monotonic() - began:.1f} s)")

    def report(self, lines):
        """Takes over checks that another program has made: `ok WHAT`, or `failed WHAT: CAUSE`."""
        seen = 0
        for line in lines.splitlines():
            word, _, rest = line.partition(" ")
            if word not in ("ok", "failed"):
                continue
            seen += 1
            what, _, why = rest.partition(": ") if word == "failed" else (rest, "", "")
            self.checks.append(what)
            say(f"{word:6} {what} {why}")
            if word == "failed":
                self.failures.append((what, why))
        if not seen:
            raise Failed(f"the program made no check: {lines[-400:]}")

    def cannot_go_on(self, error):
        """The run has ended early."""
        self.failures.append(("the run", cause(error)))
        say(f"FAILED {self.swap.name}: {cause(error)}")


def cause(error):
    """One line that tells what went wrong."""
    if isinstance(error, (subprocess.CalledProcessError, subprocess.TimeoutExpired)):
        said = [part.decode(errors="replace") if isinstance(part, bytes) else part for part in (error.stderr, error.output) if part]
        command = " ".join(str(word) for word in error.cmd[1:6])
        text = f"`{command} …`: {' '.join(said) or type(error).__name__}"
    else:
        text = str(error) or type(error).__name__
    text = " ".join(text.split()).replace(f"{build.ROOT}/", "")
    return text if len(text) <= 300 else f"… {text[-300:]}"


def write(swaps, result):
    """Replaces the row of a swap in the document."""
    rows = _rows()
    why = "; ".join(f"{what}: {why}" for what, why in result.failures)
    verdict = "pass" if result.passed else f"**fail**: {why or 'nothing was checked'}"
    rows[result.swap.name] = [result.swap.what, "; ".join(result.checks), verdict]
    lines = []
    for name, swap in swaps.items():
        cells = rows.get(name, [swap.what, "", "not run"])
        lines.append(f"| {name} | " + " | ".join(_cell(cell) for cell in cells) + " |\n")
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(_HEAD + "".join(lines))


def _rows():
    """The rows of the document, by the name of the swap."""
    rows = {}
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    for line in text.splitlines():
        cells = [cell.strip().replace("&#124;", "|").replace("&lt;", "<") for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "swap":
            rows[cells[0]] = cells[1:]
    return rows


def _cell(text):
    return text.replace("|", "&#124;").replace("<", "&lt;")
