"""The images that the suite's pods run, built by `plim build` from conformance/images and served by a registry here.

Their names are those that the suite asks for; the cluster is told that a registry on loopback mirrors theirs.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from . import build

_E2E = "registry.k8s.io/e2e-test-images"
_BASE = "plimsoll.test/debian:1"
_AGNHOST = "plimsoll.test/agnhost:1"
_PACKAGES = ("bash,curl,dnsutils,netcat-openbsd,iproute2,iperf,util-linux,socat,procps,ca-certificates,perl-base,"
             "iptables,nginx-light,passwd,stress")

# Dockerfile, the names its image gets. In order: some are made from others.
_IMAGES = [
    ("agnhost", [_AGNHOST, f"{_E2E}/agnhost:2.66.1", f"{_E2E}/agnhost:2.55"]),
    ("kitten", [f"{_E2E}/kitten:1.8"]),
    ("nautilus", [f"{_E2E}/nautilus:1.8"]),
    ("nonroot", [f"{_E2E}/nonroot:1.5"]),
    ("busybox", [f"{_E2E}/busybox:1.37.0-2"]),
    ("debian", [f"{_E2E}/ipc-utils:1.4", f"{_E2E}/perl:5.26", f"{_E2E}/glibc-dns-testing:2.1.1"]),
    ("nginx", [f"{_E2E}/nginx:1.27.0-2", f"{_E2E}/nginx:1.28.0-2"]),
    ("nonewprivs", [f"{_E2E}/nonewprivs:1.4"]),
    ("regression-issue-74839", [f"{_E2E}/regression-issue-74839:1.5"]),
    ("resource-consumer", [f"{_E2E}/resource-consumer:1.14"]),
    ("sample-apiserver", [f"{_E2E}/sample-apiserver:1.29.2"]),
    ("etcd", ["registry.k8s.io/etcd:3.7.0-0"]),
    ("pause", ["registry.k8s.io/pause:3.10.2"]),
]


@contextlib.contextmanager
def registry(programs):
    """A registry on loopback that holds every image, for as long as the context lasts. Gives its address."""
    storage = build.CACHE / "conformance-images" / _recipe(programs)
    ready = storage / "complete"
    if not ready.exists():
        shutil.rmtree(storage.parent, ignore_errors=True)
        storage.mkdir(parents=True)
    with _serve(storage) as address:
        if not ready.exists():
            _fill(programs, address)
            ready.touch()
        yield f"http://{address}"


def _recipe(programs):
    """Changes when an image would."""
    digest = hashlib.sha256(_PACKAGES.encode())
    for path in sorted((build.HERE / "images").iterdir()):
        digest.update(path.read_bytes())
    for name in ["agnhost", "coredns", "sample-apiserver", "etcd-static"]:
        digest.update(str((programs / name).stat().st_size).encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def _serve(storage):
    program = shutil.which("docker-registry")
    if program is None:
        sys.exit("the images are served by docker-registry: make deps")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="plimsoll-registry-") as folder:
        config = pathlib.Path(folder) / "config.yml"
        config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {storage}}}}}\nhttp: {{addr: {address}}}\n")
        with open(pathlib.Path(folder) / "log", "w") as log:
            process = subprocess.Popen([program, "serve", config], stdout=log, stderr=log)
        try:
            _wait(f"http://{address}/v2/", process)
            yield address
        finally:
            process.terminate()
            process.wait()


def _wait(url, process):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("docker-registry ended")
        try:
            opener.open(url, timeout=2)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    sys.exit("docker-registry does not answer")


def _fill(programs, address):
    with tempfile.TemporaryDirectory(prefix="plimsoll-images-", dir=build.CACHE) as folder:
        folder = pathlib.Path(folder)
        data, context = folder / "data", folder / "context"
        _gather(programs, context, folder)
        plim = [str(build.plim()), "--data", str(data)]
        root = folder / "root.tar"
        build.say("making the root file system of the test images")
        _debian("bookworm", root, ["--variant=minbase", f"--include={_PACKAGES}"])
        _quiet([*plim, "image", "import", str(root), "--rootfs", "--tag", _BASE, "--cmd", "bash",
                "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
        for dockerfile, names in _IMAGES:
            build.say(f"building the image {names[-1]}")
            tags = [word for name in names for word in ("--tag", name)]
            _quiet([*plim, "build", *tags, "--file", str(build.HERE / f"images/{dockerfile}.Dockerfile"), str(context)])
            for name in names:
                registry, _, path = name.partition("/")
                if registry != "plimsoll.test":
                    _quiet([*plim, "image", "push", name, f"{address}/{path}"])


def _gather(programs, context, folder):
    """The files that the Dockerfiles copy."""
    context.mkdir(parents=True)
    for name in ["agnhost", "coredns", "nonewprivs", "regression-issue-74839", "consumer", "consume-cpu",
                 "sample-apiserver", "hostname"]:
        shutil.copy(programs / name, context / name)
    shutil.copy(programs / "etcd-static", context / "etcd")
    sources = build.module("k8s.io/kubernetes") / "test/images"
    shutil.copytree(sources / "agnhost/porter", context / "porter")
    for animal in ["kitten", "nautilus"]:
        shutil.copytree(sources / animal, context / animal)
    for path in context.rglob("*"):
        os.chmod(path, 0o755)
    for package, file in [("busybox-static", "usr/bin/busybox"), ("bash-static", "usr/bin/bash-static")]:
        archive = folder / f"{package}.tar"
        _debian("trixie", archive, ["--variant=extract", f"--include={package}"])
        strip = f"--strip-components={file.count('/') + 1}"
        subprocess.run(["tar", "-xf", archive, "-C", context, strip, "--no-same-owner", f"./{file}"], check=True)
    (context / "bash-static").rename(context / "bash")


def _debian(suite, target, options):
    _quiet(["mmdebstrap", "--quiet", *options, suite, str(target)])


def _quiet(command):
    """Runs a command; what it wrote is shown when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")
