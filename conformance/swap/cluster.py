"""Clusters and programs of a swap: each has a folder, target/swap/NAME, and leaves nothing running."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

from suite import build, images
from swap.table import Failed

DATA = build.ROOT / "target/swap"
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.66.1"
BUSYBOX = "registry.k8s.io/e2e-test-images/busybox:1.37.0-2"
# Other ranges than a cluster has by default: one may be running here.
RANGES = {"service-cidr": "10.112.0.0/16", "pod-cidr": "10.250.0.0/16", "load-balancer-pool": "10.113.0.0/24"}
NODE_NETWORK = "10.88.0.0/24"
FLAGS = [word for name, value in RANGES.items() for word in (f"--{name}", value)]


def folder(name):
    """The empty folder of a swap; what a former run has left there is ended first."""
    path = DATA / name
    _end_leftovers(path)
    for state in path.glob("*/run"):
        subprocess.run([build.plim(), "--data", state.parent, "down"], check=False, stdout=subprocess.DEVNULL)
    unmount(path)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def unmount(path):
    """Takes away every mount at and under a folder, the last one first."""
    mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if f"{mount}/".startswith(f"{path}/"):
            subprocess.run(["umount", "-l", mount], check=False)


def _end_leftovers(path):
    for mark in path.glob("*.pid"):
        pid, _, program = mark.read_text().partition(" ")
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe") == program:
                os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def program(place, name, command, environment=None):
    """Runs a program for as long as the context lasts; what it says goes to NAME.log."""
    environment = {**os.environ, **(environment or {})}
    with open(place / f"{name}.log", "w") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, env=environment, cwd=place)
    mark = place / f"{name}.pid"
    mark.write_text(f"{process.pid} {os.path.realpath(str(command[0]))}")
    try:
        yield process
        if process.poll() not in (None, 0):
            raise Failed(f"{name} ended with {process.returncode}: {tail(place / f'{name}.log')}")
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        mark.unlink()


def tail(path, size=400):
    """The end of a log."""
    return path.read_text(errors="replace")[-size:] if path.exists() else ""


def until(what, condition, seconds=90):
    """Asks until the condition gives something; that is returned. What it raises is the cause when time is up."""
    end = time.monotonic() + seconds
    while True:
        why = ""
        try:
            if found := condition():
                return found
        except (subprocess.CalledProcessError, KeyError, ValueError, OSError) as error:
            why = getattr(error, "stderr", None) or str(error)
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what} {why}")
        time.sleep(0.3)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command, seconds=300, **options):
    """Runs a command to its end; what it says is returned, or is in the error."""
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, timeout=seconds, **options)
    return done.stdout


@contextlib.contextmanager
def mirror():
    """A registry on loopback with the images that pods of a swap run: those of the suite, of whichever build is there."""
    there = build.CACHE / "conformance-images"
    ready = sorted(there.glob("*/complete"), key=lambda path: path.stat().st_mtime)
    if ready:
        with images._serve(ready[-1].parent) as address:
            yield address
    elif there.exists():
        # Somebody may be making them; to begin anew would take theirs away.
        raise Failed(f"the images in {there} are not complete: conformance/run --build makes them")
    else:
        with images.registry(build.programs()) as address:
            yield address.removeprefix("http://")


class Cluster:
    """An API server and how to reach it."""

    def __init__(self, place, kubeconfig):
        self.place = place
        self.kubeconfig = kubeconfig
        self.authority = None  # certificate and key that sign clients
        self.token_key = None  # signs tokens of service accounts

    @property
    def environment(self):
        """For programs that look for the cluster where kubectl does. No proxy leads to it."""
        clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        return {**clean, "KUBECONFIG": str(self.kubeconfig), "PATH": f"{build.CACHE / 'bin'}:{os.environ['PATH']}"}

    def kubectl(self, *words, stdin=None, seconds=120):
        command = ["kubectl", *[str(word) for word in words]]
        return run(command, seconds, env=self.environment, input=stdin)

    def get(self, *words):
        """Objects as kubectl finds them."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def items(self, *words):
        return self.get(*words)["items"]

    def apply(self, *objects):
        """Applies objects; `kind`s and versions are in them."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def certificate(self, name, groups, extensions):
        """A certificate of the cluster's authority: the path without `.crt` and `.key`."""
        certificate, key = self.authority
        base = self.place / name.replace(":", "-").replace(".", "-")
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={name}"
        base.with_suffix(".ext").write_text(extensions)
        run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
             "-keyout", f"{base}.key", "-out", f"{base}.csr"])
        run(["openssl", "x509", "-req", "-days", "2", "-in", f"{base}.csr", "-CA", certificate, "-CAkey", key,
             "-set_serial", str(time.time_ns()), "-extfile", f"{base}.ext", "-out", f"{base}.crt"])
        return base

    def user(self, name, groups=()):
        """The kubeconfig of somebody else, with a certificate of the cluster's authority."""
        base = self.certificate(name, groups, "extendedKeyUsage=clientAuth")
        config = json.loads(self.kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
        for user in config["users"]:
            user["user"] = {"client-certificate": f"{base}.crt", "client-key": f"{base}.key"}
        path = base.with_suffix(".kubeconfig")
        path.write_text(json.dumps(config))
        return path


@contextlib.contextmanager
def ours(name, disable=(), nodes=2):
    """Our own cluster with so many nodes, without the parts that another program takes over."""
    place = folder(name)
    data = place / "data"
    data.mkdir()
    command = [build.plim(), "--data", data]
    without = [word for part in disable for word in ("--disable", part)]
    with mirror() as address:
        (data / "registries.yaml").write_text(json.dumps({"mirrors": {"registry.k8s.io": [f"http://{address}"]}}))
        if nodes:
            start = ["up", "--nodes", nodes, "--node-network", NODE_NETWORK]
        else:
            start = ["server"]
        try:
            run([*command, *start, "--detach", "--port", "0", *FLAGS, *without])
            cluster = Cluster(place, data / "kubeconfig")
            cluster.authority = (data / "pki/ca.crt", data / "pki/ca.key")
            cluster.token_key = data / "pki/sa.key"
            yield cluster
        finally:
            run([*command, "down"])
