"""Peers for the measurements: upstream's servers, built from the Go module conformance/, and ours.

Every server is a context manager that ends its processes by their numbers and removes its folder.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("PLIM_CACHE", pathlib.Path.home() / ".cache/plimsoll"))
UPSTREAM = CACHE / "upstream"


def say(text):
    print(text, file=sys.stderr, flush=True)


def go_build(package, name):
    """Builds a program of conformance/ once; the first build of an upstream server takes minutes."""
    target = UPSTREAM / name
    UPSTREAM.mkdir(parents=True, exist_ok=True)
    say(f"building {name} (minutes the first time)")
    subprocess.run(["go", "build", "-o", target, package], cwd=ROOT / "conformance", check=True)
    return target


def plim():
    """The release build of our own program."""
    path = ROOT / "target/release/plim"
    if not path.exists():
        sys.exit("build it first: make build")
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def openssl(*args):
    subprocess.run(["openssl", *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificates(folder):
    """An authority, a server certificate and one of an administrator."""
    f = str(folder)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=bench-ca", "-keyout", f"{f}/ca.key", "-out", f"{f}/ca.crt")
    for name, subject, extra in [
        ("server", "/CN=127.0.0.1", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth"),
        ("admin", "/O=system:masters/CN=admin", "extendedKeyUsage=clientAuth"),
    ]:
        pathlib.Path(f"{f}/{name}.ext").write_text(extra)
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
                "-keyout", f"{f}/{name}.key", "-out", f"{f}/{name}.csr")
        openssl("x509", "-req", "-days", "2", "-in", f"{f}/{name}.csr", "-CA", f"{f}/ca.crt",
                "-CAkey", f"{f}/ca.key", "-CAcreateserial", "-extfile", f"{f}/{name}.ext", "-out", f"{f}/{name}.crt")
    openssl("ec", "-in", f"{f}/server.key", "-pubout", "-out", f"{f}/sa.pub")


def kubeconfig(folder, port):
    path = folder / "kubeconfig"
    path.write_text(f"""apiVersion: v1
kind: Config
current-context: bench
clusters: [{{name: bench, cluster: {{server: "https://127.0.0.1:{port}", certificate-authority: {folder}/ca.crt}}}}]
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
users: [{{name: bench, user: {{client-certificate: {folder}/admin.crt, client-key: {folder}/admin.key}}}}]
""")
    return path


def wait_ready(url, folder, process, seconds=120):
    """Waits until `url` answers 200; tells how long it took."""
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended: see {folder}")
        try:
            if opener.open(url, timeout=2).status == 200:
                return time.monotonic() - begin
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    sys.exit(f"{url} is not ready after {seconds} s")


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def upstream():
    """kube-apiserver with etcd: (kubeconfig, pids, seconds until ready)."""
    etcd_program = go_build("./cmd/etcd", "etcd")
    server_program = go_build("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir=ROOT / "target"))
    certificates(folder)
    client_port, peer_port, port = free_port(), free_port(), free_port()
    with open(folder / "log", "w") as log:
        begin = time.monotonic()
        etcd = subprocess.Popen(
            [etcd_program, f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{client_port}",
             f"--advertise-client-urls=http://127.0.0.1:{client_port}",
             f"--listen-peer-urls=http://127.0.0.1:{peer_port}", "--log-level=error"], stdout=log, stderr=log)
        server = subprocess.Popen(
            [server_program, f"--etcd-servers=http://127.0.0.1:{client_port}", "--bind-address=127.0.0.1",
             f"--secure-port={port}", f"--cert-dir={folder}/run", f"--tls-cert-file={folder}/server.crt",
             f"--tls-private-key-file={folder}/server.key", f"--client-ca-file={folder}/ca.crt",
             "--service-account-issuer=https://bench.invalid", f"--service-account-key-file={folder}/sa.pub",
             f"--service-account-signing-key-file={folder}/server.key", "--service-cluster-ip-range=10.96.0.0/16",
             "--authorization-mode=RBAC", "--max-requests-inflight=0", "--max-mutating-requests-inflight=0",
             "--enable-priority-and-fairness=false"], stdout=log, stderr=log)
        try:
            wait_ready(f"https://127.0.0.1:{port}/readyz", folder, server)
            yield kubeconfig(folder, port), [etcd.pid, server.pid], time.monotonic() - begin
        finally:
            end(server)
            end(etcd)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ours(disable=("controllers", "scheduler")):
    """plim server, without what kube-apiserver has not: (kubeconfig, pids, seconds until ready)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir=ROOT / "target"))
    program = plim()
    begin = time.monotonic()
    subprocess.run([program, "server", "-d", "--data", folder, "--listen", "127.0.0.1", "--port", "0",
                    *(f"--disable={part}" for part in disable)], check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - begin
    try:
        yield folder / "kubeconfig", [int((folder / "run/plim.pid").read_text())], took
    finally:
        subprocess.run([program, "down", "--data", folder], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def ours_alone():
    """Our API server without the rest of plim, which builds in a fraction of the time: (kubeconfig, pids, seconds until ready)."""
    program = target() / "release/examples/serve"
    if not program.exists():
        sys.exit("build it first: cargo build --release --package apiserver --example serve")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir=ROOT / "target"))
    certificates(folder)
    port = free_port()
    with open(folder / "log", "w") as log:
        begin = time.monotonic()
        server = subprocess.Popen([program, folder, str(port)], stdout=log, stderr=log)
        try:
            wait_ready(f"https://127.0.0.1:{port}/readyz", folder, server)
            yield kubeconfig(folder, port), [server.pid], time.monotonic() - begin
        finally:
            end(server)
            shutil.rmtree(folder, ignore_errors=True)


TEST_IMAGE = "bench/busybox:1"


def target():
    """Where cargo puts what it builds."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def busybox_root(root):
    """A root file system of Debian's static busybox."""
    (root / "bin").mkdir(parents=True)
    for name in ("tmp", "proc", "dev", "sys", "etc"):
        (root / name).mkdir()
    busybox = shutil.which("busybox") or sys.exit("no busybox: make deps installs it")
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], check=True, stdout=subprocess.PIPE, text=True).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", root / "bin" / applet)
    return root


def busybox_image(program, folder):
    """An image of it in the cluster's store."""
    root = busybox_root(folder / "rootfs")
    archive = folder / "busybox.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    subprocess.run([program, "image", "import", archive, "--rootfs", "--tag", TEST_IMAGE, "--data", folder],
                   check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)


@contextlib.contextmanager
def our_node():
    """plim up, one node: (kubeconfig, folder, seconds until ready)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="plimsoll-bench-", dir=ROOT / "target"))
    program = plim()
    busybox_image(program, folder)
    begin = time.monotonic()
    subprocess.run([program, "up", "-d", "--data", folder, "--port", "0"], check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - begin
    try:
        yield folder / "kubeconfig", folder, took
    finally:
        subprocess.run([program, "down", "--delete", "--data", folder], check=False, stdout=subprocess.DEVNULL)


def processes_of(folder):
    """Numbers of our own processes for a state folder: the server and its holders."""
    server = int((folder / "run/plim.pid").read_text())
    found = [server]
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"__holder" in words and any(w.startswith(bytes(folder)) for w in words):
            found.append(int(entry.name))
    return found


def rss(pids):
    """Bytes of resident memory, pages shared between the processes counted once for each (as `ps` does)."""
    return sum(int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids) * os.sysconf("SC_PAGESIZE")


def cpu(pids):
    """Seconds of CPU so far."""
    total = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def machine():
    """The machine in a line."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = int(next(line.split()[1] for line in open("/proc/meminfo") if line.startswith("MemTotal"))) >> 20
    return f"{os.cpu_count()} cores ({cpu}), {memory} GiB, Linux {os.uname().release}"
