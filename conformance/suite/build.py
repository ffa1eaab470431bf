"""Upstream's suite and the programs that its pods run, built from Go modules; kept outside the checkout."""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent.parent
ROOT = HERE.parent
CACHE = pathlib.Path(os.environ.get("PLIM_CACHE", pathlib.Path.home() / ".cache/plimsoll"))
PROGRAMS = CACHE / "upstream"
VERSION = "1.37.2"
IMAGES = "k8s.io/kubernetes/test/images"

# What a test that looks for fixtures of its own version needs to know.
_LINK = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in [("gitVersion", f"v{VERSION}"), ("gitMajor", "1"), ("gitMinor", "37")]
)

# Name of the program, its package, the folder whose module it belongs to.
_STATIC = [
    ("agnhost", f"{IMAGES}/agnhost", HERE),
    ("nonewprivs", f"{IMAGES}/nonewprivs", HERE),
    ("regression-issue-74839", f"{IMAGES}/regression-issue-74839", HERE),
    ("consumer", f"{IMAGES}/resource-consumer", HERE),
    ("consume-cpu", f"{IMAGES}/resource-consumer/consume-cpu", HERE),
    ("sample-apiserver", "k8s.io/sample-apiserver", HERE),
    ("etcd-static", "./cmd/etcd", HERE),
    ("coredns", ".", HERE / "coredns"),
    ("hostname", "files:test/images/busybox", HERE),
]


def say(text):
    print(text, file=sys.stderr, flush=True)


def module(path):
    """The folder of a Go module, downloaded if need be."""
    out = subprocess.run(["go", "list", "-m", "-f", "{{.Dir}}", path], cwd=HERE, check=True, capture_output=True, text=True)
    if not out.stdout.strip():
        subprocess.run(["go", "mod", "download", path], cwd=HERE, check=True)
        return module(path)
    return pathlib.Path(out.stdout.strip())


def programs():
    """Builds what is missing or made from other versions. Returns the folder."""
    if shutil.which("go") is None:
        sys.exit("the suite is built with Go 1.26 or newer: https://go.dev/dl")
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    _build("e2e.test", ["go", "test", "-c", "-vet=off", "-ldflags", f"-s -w {_LINK}"], "k8s.io/kubernetes/test/e2e", HERE, static=False)
    _build("ginkgo", ["go", "build"], "github.com/onsi/ginkgo/v2/ginkgo", HERE, static=False)
    for name, package, folder in _STATIC:
        _build(name, ["go", "build", "-ldflags", "-s -w"], package, folder, static=True)
    return PROGRAMS


def _build(name, command, package, folder, static):
    """Builds a program unless it is there, made by the same command from the same versions."""
    target, stamp = PROGRAMS / name, PROGRAMS / f"{name}.stamp"
    versions = hashlib.sha256((folder / "go.sum").read_bytes()).hexdigest()
    recipe = " ".join([*command, package, versions])
    if target.exists() and stamp.exists() and stamp.read_text() == recipe:
        return
    say(f"building {name} (minutes the first time)")
    environment = dict(os.environ, CGO_ENABLED="0") if static else None
    with _place(package, folder) as (cwd, what):
        subprocess.run([*command, "-o", target, what], cwd=cwd, env=environment, check=True)
    stamp.write_text(recipe)


@contextlib.contextmanager
def _place(package, folder):
    """Where to build a package, and what it is called there."""
    if not package.startswith("files:"):
        yield folder, package
        return
    # A few files of a folder of Kubernetes that is no package.
    source = module("k8s.io/kubernetes") / package.removeprefix("files:")
    with tempfile.TemporaryDirectory(prefix="plimsoll-build-") as scratch:
        for path in source.glob("*.go"):
            shutil.copy(path, scratch)
        (pathlib.Path(scratch) / "go.mod").write_text("module scratch\n\ngo 1.26\n")
        yield scratch, "."


def plim():
    """The release build of our own program."""
    path = pathlib.Path(os.environ.get("PLIM", ROOT / "target/release/plim"))
    if not path.exists():
        sys.exit("build it first: make build")
    return path
