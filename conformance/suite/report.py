"""What a run has shown: on the terminal, and in docs/conformance.md."""

import collections
import re

from . import build, tests

DOCUMENT = build.ROOT / "docs/conformance.md"
CAUSES = build.HERE / "causes.txt"
_BEGIN, _END = "<!-- suite -->", "<!-- end of suite -->"


def summary(wanted, results, minutes):
    """Prints the table and what failed. Returns the tests that passed before and do not now, not even alone."""
    print(_table(wanted, results))
    failed = [name for name in wanted if not _passed(results, name)]
    for name in failed:
        why = results[name].why if name in results else "it did not run"
        print(f"FAILED {name}{_alone(results, name)}\n       {_line(why)}")
    lost = sorted(name for name in set(failed) & set(tests.passing()) if not _alone(results, name))
    print(f"\nconformance: {len(wanted) - len(failed)} passed, {len(failed)} failed, {len(wanted)} wanted; {minutes:.1f} minutes")
    for name in lost:
        print(f"LOST {name}")
    return lost


def update(results):
    """Adds what passed to the list of tests that have to pass."""
    names = sorted(set(tests.passing()) | {name for name, result in results.items() if result.passed})
    head = "# Conformance tests that pass; one that fails makes a run fail. `conformance/run --update` adds new ones.\n"
    tests.PASSING.write_text(head + "".join(f"{name}\n" for name in names))


def write(wanted, results, minutes):
    """Replaces the part of docs/conformance.md that a run of everything knows."""
    causes = dict(line.split("\t", 1) for line in CAUSES.read_text().splitlines() if "\t" in line) if CAUSES.exists() else {}
    failed = [name for name in wanted if not _passed(results, name)]
    lines = [_BEGIN, "", _table(wanted, results), ""]
    lines.append(f"{len(wanted) - len(failed)} of {len(wanted)} pass; the run took {minutes:.0f} minutes.")
    if failed:
        lines += ["", "| fails | cause |", "|---|---|"]
        for name in failed:
            why = causes.get(name) or (_line(results[name].why) if name in results else "it did not run")
            why += _alone(results, name)
            lines.append(f"| {_cell(name.replace(' [Conformance]', ''))} | {_cell(why)} |")
    lines += ["", _END]
    text = DOCUMENT.read_text() if DOCUMENT.exists() else f"# Conformance\n\n{_BEGIN}\n{_END}\n"
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(before + "\n".join(lines) + after)


def _passed(results, name):
    return name in results and results[name].passed


def _alone(results, name):
    return " (passed when run alone afterwards)" if name in results and results[name].alone else ""


def _table(wanted, results):
    groups = collections.defaultdict(lambda: [0, 0])
    for name in wanted:
        group = groups[re.match(r"\[([^]]*)\]", name).group(1)]
        group[0] += _passed(results, name)
        group[1] += 1
    lines = ["| group | pass | of |", "|---|---|---|"]
    lines += [f"| {group} | {passed} | {count} |" for group, (passed, count) in sorted(groups.items())]
    return "\n".join(lines)


def _line(text):
    text = " ".join(text.split())
    return text if len(text) <= 240 else text[:240] + " …"


def _cell(text):
    return text.replace("|", "\\|").replace("<", "&lt;")
