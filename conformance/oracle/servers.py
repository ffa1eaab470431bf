"""The two servers: upstream's kube-apiserver with etcd, and ours alone (the example `serve` of the crate apiserver)."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from client import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import peers  # noqa: E402


def encoded(document):
    return json.dumps(document).encode()


def serve_program():
    peers.say("building our server")
    subprocess.run(["cargo", "build", "--quiet", "--package", "apiserver", "--example", "serve"], cwd=ROOT, check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/examples/serve"


@contextlib.contextmanager
def both(running=None):
    """(upstream, ours), ready, with the same certificates. `running` is a folder that `keep` was told."""
    program = serve_program()
    with contextlib.ExitStack() as stack:
        if running:
            folder = pathlib.Path(running)
            shutil.rmtree(folder / "store", ignore_errors=True)
            first = Server("upstream", int((folder / "port").read_text()), folder)
        else:
            folder = pathlib.Path(tempfile.mkdtemp(prefix="plimsoll-oracle-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            first = upstream(stack, folder)
        yield first, ours(stack, folder, program)


def keep(folder):
    """Runs upstream's servers until its standard input ends, for runs of the oracle one after another."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        (folder / "port").write_text(str(upstream(stack, folder).port))
        peers.say("ready")
        sys.stdin.read()


def start(stack, folder, name, *arguments):
    log = stack.enter_context(open(folder / f"{name}.log", "w"))
    process = subprocess.Popen([str(a) for a in arguments], stdout=log, stderr=log)
    stack.callback(peers.end, process)
    return process


def upstream(stack, folder, *more):
    """No controllers run beside it either, so what controllers would change stays as it was written."""
    etcd = peers.go_build("./cmd/etcd", "etcd")
    apiserver = peers.go_build("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver")
    peers.certificates(folder)
    client, peer, port = peers.free_port(), peers.free_port(), peers.free_port()
    start(stack, folder, "etcd", etcd, f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{client}",
          f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
          "--log-level=error", "--unsafe-no-fsync")
    process = start(
        stack, folder, "kube-apiserver", apiserver, f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1",
        f"--secure-port={port}", f"--cert-dir={folder}/run", f"--tls-cert-file={folder}/server.crt",
        f"--tls-private-key-file={folder}/server.key", f"--client-ca-file={folder}/ca.crt",
        "--service-account-issuer=https://bench.invalid", f"--service-account-key-file={folder}/sa.pub",
        f"--service-account-signing-key-file={folder}/server.key", "--service-cluster-ip-range=10.96.0.0/16",
        "--allow-privileged=true", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        "--endpoint-reconciler-type=none", *more)
    peers.wait_ready(f"https://127.0.0.1:{port}/readyz", folder, process)
    return Server("upstream", port, folder)


def ours(stack, folder, program):
    port = peers.free_port()
    process = start(stack, folder, "serve", program, folder, port)
    peers.wait_ready(f"https://127.0.0.1:{port}/readyz", folder, process)
    return Server("ours", port, folder)


if __name__ == "__main__":
    keep(pathlib.Path(sys.argv[1]))
