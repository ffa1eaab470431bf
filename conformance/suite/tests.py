"""Which tests there are, and running them."""

import dataclasses
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as xml

from . import build, cluster

PASSING = build.HERE / "passing.txt"
_ALONE = re.compile(r"\[Serial\]|\[Disruptive\]")
# As far as ginkgo goes; single tests have limits of their own.
_LIMIT = "3h"


@dataclasses.dataclass
class Result:
    passed: bool
    seconds: float
    # The first lines of what was wrong.
    why: str
    # It failed beside others and passed when it was run alone after them.
    alone: bool = False


def alone(name):
    """Whether nothing else may run beside this test."""
    return bool(_ALONE.search(name))


def all_names():
    """Every conformance test of the version, from upstream's own list."""
    path = build.module("k8s.io/kubernetes") / "test/conformance/testdata/conformance.yaml"
    # The file is regular enough: one folded string a test.
    found = re.findall(r"^  codename: (.*?)\n  description:", path.read_text(), re.S | re.M)
    names = [" ".join(text.split()).strip("'").replace("''", "'") for text in found]
    names = [name[1:-1].replace('\\"', '"') if name.startswith('"') else name for name in names]
    if len(names) != path.read_text().count("codename:"):
        sys.exit(f"{path} has another form than expected")
    return sorted(names)


def passing():
    """Tests that have to pass."""
    if not PASSING.exists():
        return []
    return [line for line in PASSING.read_text().splitlines() if line and not line.startswith("#")]


def wanted(_programs, focus, listed, parallel):
    """The tests of this run."""
    names = passing() if listed else all_names()
    if focus:
        pattern = re.compile(focus)
        names = [name for name in names if pattern.search(name)]
    if parallel:
        names = [name for name in names if not alone(name)]
    if not names:
        sys.exit("no test matches")
    return names


def run(programs, kubeconfig, names, processes, verbose):
    """Runs the tests, those that have to be alone at last. Gives the result of each by name.

    What fails beside others is run once more, alone: that tells a machine too small for so many at once from a lost test.
    Such a test counts as failed all the same.
    """
    beside = [name for name in names if not alone(name)]
    serial = [name for name in names if alone(name)]
    results = {}
    if beside:
        results |= _ginkgo(programs, kubeconfig, "parallel", beside, min(processes, len(beside)), verbose)
        again = [name for name in beside if name in results and not results[name].passed]
        if again:
            for name, result in _ginkgo(programs, kubeconfig, "again", again, 1, verbose).items():
                results[name].alone = result.passed
    if serial:
        results |= _ginkgo(programs, kubeconfig, "serial", serial, 1, verbose)
    return results


def _ginkgo(programs, kubeconfig, title, names, processes, verbose):
    folder = cluster.DATA / title
    folder.mkdir(parents=True, exist_ok=True)
    focus = "|".join(re.escape(name).replace("\\ ", " ") for name in names)
    if len(focus) > 100_000:
        # Longer than one argument may be: the rest is filtered by its label.
        focus = r"\[Conformance\]"
    skip = [] if processes == 1 else [r"--skip=\[Serial\]|\[Disruptive\]"]
    kubectl = build.CACHE / "bin/kubectl"
    command = [
        programs / "ginkgo", f"-procs={processes}", "--no-color", "-v" if verbose else "--succinct",
        f"--timeout={_LIMIT}", f"--focus={focus}", *skip, programs / "e2e.test", "--",
        "--provider=skeleton", f"--kubeconfig={kubeconfig}", f"--kubectl-path={kubectl}",
        f"--report-dir={folder}", "--disable-log-dump=true",
    ]
    build.say(f"{len(names)} tests, {processes} at once: the output goes to {folder / 'output'}")
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", cwd=folder)
        for line in process.stdout:
            output.write(line)
            output.flush()
            if verbose or re.match(r"^\s*(Ran |\[FAIL\]|\[FAILED\]|• \[FAILED\])", line):
                print(line, end="", flush=True)
        process.wait()
    report = folder / "junit_01.xml"
    if not report.exists():
        sys.exit(f"the suite did not run: see {folder / 'output'}")
    return _read(report, set(names))


def _read(path, names):
    results = {}
    for case in xml.parse(path).getroot().iter("testcase"):
        name = re.sub(r"^\[It\] ", "", case.get("name"))
        if name not in names or case.find("skipped") is not None and case.get("status") == "skipped":
            continue
        failure = case.find("failure")
        failure = case.find("error") if failure is None else failure
        why = "" if failure is None else (failure.get("message") or failure.text or "failed")
        results[name] = Result(failure is None and case.get("status") == "passed", float(case.get("time", 0)), why)
    return results
