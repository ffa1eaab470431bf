"""The basic round of a user, with the client libraries of five languages."""

import shutil
import subprocess
import sys

from suite import build
from suite.build import say
from swap import programs, workloads
from swap.cluster import AGNHOST, ours, run, until
from swap.table import Failed, Swap

_ROUNDS = programs.HERE / "rounds"


def _go():
    return [programs.go("clientround", "./cmd/clientround", build.HERE)]


def _python():
    place = _place("python", "requirements.txt")
    if place.fresh:
        subprocess.run([sys.executable, "-m", "venv", place.path], check=True)
        subprocess.run([place.path / "bin/pip", "install", "-q", "-r", _ROUNDS / "python/requirements.txt"], check=True)
        place.done()
    return [place.path / "bin/python", _ROUNDS / "python/round.py"]


def _javascript():
    _need("npm")
    place = _place("javascript", "package.json")
    if place.fresh:
        place.path.mkdir(parents=True)
        shutil.copy(_ROUNDS / "javascript/package.json", place.path)
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=place.path, check=True)
        place.done()
    shutil.copy(_ROUNDS / "javascript/round.js", place.path)
    return ["node", place.path / "round.js"]


def _java():
    _need("mvn")
    place = _place("java", "pom.xml")
    if place.fresh:
        shutil.copytree(_ROUNDS / "java", place.path)
        subprocess.run(["mvn", "-q", "-B", "package"], cwd=place.path, check=True)
        place.done()
    target = place.path / "target"
    return ["java", "-cp", f"{target / 'round-1.jar'}:{target / 'dependency'}/*", "plimsoll.Round"]


def _rust():
    """As an example of our own command line's crate, whose tests use the same library."""
    return [programs.example("kube_round")]


class _place:
    """A folder outside the checkout, made anew when what it is made from has changed."""

    def __init__(self, name, recipe):
        self.path = programs.CACHE / name
        self._mark = programs.CACHE / f"{name}.made"
        source = _ROUNDS / name
        files = sorted(p for p in source.rglob("*") if p.is_file() and p.suffix in (".java",)) + [source / recipe]
        self._recipe = "".join(path.read_text() for path in files)
        self.fresh = not (self._mark.exists() and self._mark.read_text() == self._recipe)
        if self.fresh:
            say(f"making {name}'s round")
            shutil.rmtree(self.path, ignore_errors=True)
            programs.CACHE.mkdir(parents=True, exist_ok=True)

    def done(self):
        self._mark.write_text(self._recipe)


def _need(name):
    if shutil.which(name) is None:
        raise Failed(f"{name} is not installed here")


def _round(name, made):
    def work(result):
        command = made()
        with ours(f"client-{name}") as cluster:
            space = "round"
            cluster.apply(workloads.namespace(space))
            until("the namespace's service account", lambda: cluster.get("serviceaccount", "default", "-n", space))
            said = run([*command, space, AGNHOST], env=cluster.environment)
            result.report(said)

    return work


SWAPS = [
    Swap("client-go", "Go: client-go 0.37.2", _round("go", _go)),
    Swap("client-python", "Python: kubernetes 37.0.2", _round("python", _python)),
    Swap("client-javascript", "JavaScript: @kubernetes/client-node 1.4.0", _round("javascript", _javascript)),
    Swap("client-java", "Java: io.kubernetes:client-java 27.0.0", _round("java", _java)),
    Swap("client-rust", "Rust: kube 5", _round("rust", _rust)),
]
