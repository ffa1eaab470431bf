"""Other nodes and runtimes under our server: upstream's kubelet with containerd, and our agent with containerd."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess

from suite import build
from swap import programs, workloads
from swap.cluster import FLAGS, RANGES, free_port, mirror, ours, program, run, unmount, until
from swap.table import Failed, Swap

_CNI = pathlib.Path("/usr/lib/cni")
_BRIDGE = "swap-cni0"
_NODE = "swapped"
_PODS = "10.250.200.0/24"
_DNS = RANGES["service-cidr"].rpartition(".0/")[0] + ".10"


def registries(data, address):
    """Tells a state folder that a registry on loopback has upstream's images."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "registries.yaml").write_text(json.dumps({"mirrors": {"registry.k8s.io": [f"http://{address}"]}}))


@contextlib.contextmanager
def containerd(place, address):
    """containerd with Debian's runc and CNI plugins, in a folder of its own. Gives its socket."""
    if not (shutil.which("runc") and _CNI.is_dir()):
        raise Failed("it needs runc and CNI plugins: apt-get install runc containernetworking-plugins")
    module, tags = programs.HERE / "containerd", "no_btrfs,no_devmapper,no_zfs"
    for name in ["containerd-shim-runc-v2", "containerd"]:
        command = programs.go(name, f"github.com/containerd/containerd/v2/cmd/{name}", module, static=True, tags=tags)
    home = place / "containerd"
    _sweep(home)
    (home / "cni").mkdir(parents=True)
    hosts = home / "hosts/registry.k8s.io"
    hosts.mkdir(parents=True)
    (hosts / "hosts.toml").write_text(f'[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n')
    (home / "cni/10-swap.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "swap", "plugins": [
        {"type": "bridge", "bridge": _BRIDGE, "isGateway": True, "hairpinMode": True,
         "ipam": {"type": "host-local", "dataDir": str(home / "leases"), "ranges": [[{"subnet": _PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}},
        {"type": "loopback"}]}))
    (home / "config.toml").write_text(f"""version = 3
root = '{home}/root'
state = '{home}/state'
[grpc]
address = '{home}/c.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = 'registry.k8s.io/pause:3.10.2'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{home}/hosts'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{_CNI}']
conf_dir = '{home}/cni'
""")
    path = {"PATH": f"{build.PROGRAMS}:{os.environ['PATH']}"}
    try:
        with program(place, "containerd", [command, "--config", home / "config.toml"], path):
            until("containerd's socket", lambda: _answers(home / "c.sock"))
            yield home / "c.sock"
    finally:
        _sweep(home)


def _answers(path):
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        return True


def _sweep(home):
    """Ends the shims of a containerd, and removes what they have mounted and its bridge."""
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if b"containerd-shim" in words and str(home).encode() in words:
                _end_children(entry.name)
                os.kill(int(entry.name), signal.SIGKILL)
    unmount(home)
    subprocess.run(["ip", "link", "delete", _BRIDGE], check=False, stderr=subprocess.DEVNULL)


def _end_children(pid):
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


@contextlib.contextmanager
def kubelet(cluster, endpoint):
    """Upstream's kubelet as a node of the cluster, with the rights of a node and no others."""
    place, address = cluster.place, _own_address()
    serving = _serving(cluster, address)
    (place / "kubelet.json").write_text(json.dumps({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failCgroupV1": False, "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{endpoint}", "port": free_port(), "healthzPort": 0, "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [], "clusterDNS": [_DNS], "clusterDomain": "cluster.local", "localStorageCapacityIsolation": False,
        "tlsCertFile": f"{serving}.crt", "tlsPrivateKeyFile": f"{serving}.key", "podLogsDir": str(place / "pod-logs"),
        "authentication": {"x509": {"clientCAFile": str(cluster.authority[0])}, "anonymous": {"enabled": False}},
        "authorization": {"mode": "Webhook"}, "evictionHard": {"memory.available": "100Mi"}, "volumePluginDir": str(place / "plugins")}))
    command = [programs.upstream("kubelet"), "--config", place / "kubelet.json", "--hostname-override", _NODE, "--node-ip", address,
               "--kubeconfig", cluster.user(f"system:node:{_NODE}", ["system:nodes"]), "--root-dir", place / "kubelet"]
    try:
        with program(place, "kubelet", command) as process:
            yield process
    finally:
        unmount(place / "kubelet")


def _serving(cluster, address):
    """The certificate that the node shows to the API server: the path without `.crt` and `.key`."""
    return cluster.certificate(f"serving-{_NODE}", ["system:nodes"], f"subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth")


def _own_address():
    """The address of this machine towards the outside; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


def _works(result, cluster):
    space = "node"
    cluster.apply(workloads.namespace(space))
    until("the namespace's service account", lambda: cluster.get("serviceaccount", "default", "-n", space))
    until("the node", lambda: cluster.get("node", _NODE))
    result.check("the node is Ready", lambda: cluster.kubectl("wait", f"node/{_NODE}", "--for=condition=Ready", "--timeout=90s"))
    result.check("logs and exec of a pod", lambda: workloads.talks(cluster, space))
    result.check("a Deployment rolls out and is changed", lambda: workloads.rolls_out(cluster, space))
    result.check("a Job completes", lambda: workloads.completes(cluster, space))
    result.check("files of a ConfigMap and a token", lambda: _has_files(cluster, space))
    result.check("a namespace is emptied and goes", lambda: workloads.namespace_goes(cluster, space))


def _has_files(cluster, space):
    cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words", "namespace": space}, "data": {"word": "plimsoll"}})
    spec = workloads.shell_spec("cat /words/word && test -s /var/run/secrets/kubernetes.io/serviceaccount/token",
                                volumeMounts=[{"name": "words", "mountPath": "/words"}])
    spec["volumes"] = [{"name": "words", "configMap": {"name": "words"}}]
    cluster.apply(workloads.pod("reads", space, spec))
    cluster.kubectl("wait", "pod/reads", "-n", space, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    if cluster.kubectl("logs", "reads", "-n", space) != "plimsoll":
        raise Failed(cluster.kubectl("logs", "reads", "-n", space))


def _kubelet(result):
    programs.upstream("kubelet")
    with ours("kubelet", nodes=0) as cluster, mirror() as address, containerd(cluster.place, address) as endpoint:
        with kubelet(cluster, endpoint):
            _works(result, cluster)


def _containerd(result):
    with ours("containerd", nodes=0) as cluster, mirror() as address, containerd(cluster.place, address) as endpoint:
        data = cluster.place / "node"
        registries(data, address)
        plim = [build.plim(), "--data", data]
        serving = _serving(cluster, _own_address())
        try:
            run([*plim, "agent", "--detach", "--kubeconfig", cluster.kubeconfig, "--node-name", _NODE, *FLAGS,
                 "--tls-cert-file", f"{serving}.crt", "--tls-private-key-file", f"{serving}.key",
                 "--node-cidr", _PODS, "--container-runtime-endpoint", f"unix://{endpoint}"], seconds=120)
            _works(result, cluster)
        finally:
            run([*plim, "down"])


SWAPS = [
    Swap("kubelet", "upstream's kubelet with containerd 2.4 and runc on our server", _kubelet),
    Swap("containerd", "our agent with containerd 2.4 and runc on our server", _containerd),
]
