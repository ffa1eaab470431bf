"""Our parts on upstream's kube-apiserver with etcd: the loops, the scheduler, and the agent that runs the pods."""

import contextlib
import sys

from suite import build
from swap import control, programs, workloads
from swap.cluster import FLAGS, RANGES, Cluster, folder, free_port, mirror, program, run, until
from swap.nodes import registries
from swap.table import Failed, Swap

sys.path.insert(0, str(build.ROOT / "bench"))

import peers  # noqa: E402

_NODE = "swapped"


@contextlib.contextmanager
def upstream(name):
    """kube-apiserver and etcd with their defaults; authorization is Node and RBAC."""
    etcd = programs.go("etcd-static", "./cmd/etcd", build.HERE, static=True)
    server = programs.upstream("kube-apiserver")
    place = folder(name)
    peers.certificates(place)
    port, client, peer = free_port(), f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    store = [etcd, f"--data-dir={place}/etcd", f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
             f"--listen-peer-urls={peer}", "--log-level=error"]
    serve = [server, f"--etcd-servers={client}", "--bind-address=127.0.0.1", f"--secure-port={port}", f"--cert-dir={place}/run",
             f"--tls-cert-file={place}/server.crt", f"--tls-private-key-file={place}/server.key", f"--client-ca-file={place}/ca.crt",
             f"--kubelet-client-certificate={place}/admin.crt", f"--kubelet-client-key={place}/admin.key",
             "--kubelet-preferred-address-types=InternalIP,Hostname",  # as kubeadm sets it
             "--service-account-issuer=https://swap.invalid", f"--service-account-key-file={place}/sa.pub",
             f"--service-account-signing-key-file={place}/server.key", f"--service-cluster-ip-range={RANGES['service-cidr']}",
             "--authorization-mode=Node,RBAC"]
    with program(place, "etcd", store), program(place, "kube-apiserver", serve) as process:
        peers.wait_ready(f"https://127.0.0.1:{port}/readyz", place, process)
        cluster = Cluster(place, peers.kubeconfig(place, port))
        cluster.authority = (place / "ca.crt", place / "ca.key")
        cluster.token_key = place / "server.key"
        yield cluster


@contextlib.contextmanager
def our_controllers(cluster):
    certificate, key = cluster.authority
    command = [build.plim(), "controllers", "--kubeconfig", cluster.kubeconfig,
               "--cluster-signing-cert-file", certificate, "--cluster-signing-key-file", key]
    with program(cluster.place, "plim-controllers", command) as process:
        yield process


@contextlib.contextmanager
def our_scheduler(cluster):
    command = [build.plim(), "scheduler", "--kubeconfig", cluster.user("system:kube-scheduler")]
    with program(cluster.place, "plim-scheduler", command) as process:
        yield process


@contextlib.contextmanager
def our_node(cluster, *more):
    """This machine as a node."""
    data = cluster.place / "node"
    plim = [build.plim(), "--data", data]
    kubeconfig = cluster.user(f"system:node:{_NODE}", ["system:nodes"])
    _may_watch_services(cluster)
    with mirror() as address:
        registries(data, address)
        try:
            run([*plim, "agent", "--detach", "--kubeconfig", kubeconfig, "--node-name", _NODE, *FLAGS, *more], seconds=120)
            yield
        finally:
            run([*plim, "down"])


def _may_watch_services(cluster):
    """A node of ours does what kube-proxy does elsewhere, and keeps network policies."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "plimsoll:node"}, "rules": [
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies", "servicecidrs"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["list", "watch"]}]}
    group = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}

    def bind(name):
        return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"nodes-{name.rpartition(':')[2]}"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}, "subjects": [group]}

    cluster.apply(role, bind("plimsoll:node"), bind("system:node-proxier"))


def _controllers(result):
    with upstream("plim-controllers") as cluster, control.scheduler(cluster), our_controllers(cluster), our_node(cluster):
        control.loops(result, cluster)


def _scheduler(result):
    with upstream("plim-scheduler") as cluster, control.controller_manager(cluster), our_scheduler(cluster), our_node(cluster):
        control.placing(result, cluster)


def _agent(result):
    with upstream("plim-agent") as cluster, control.controller_manager(cluster), control.scheduler(cluster), our_node(cluster):
        space = "node"
        cluster.apply(workloads.namespace(space))
        until("the namespace's service account", lambda: cluster.get("serviceaccount", "default", "-n", space))
        result.check("the node is Ready, with its lease", lambda: _is_there(cluster))
        result.check("logs and exec of a pod", lambda: workloads.talks(cluster, space))
        result.check("a Deployment rolls out and is changed", lambda: workloads.rolls_out(cluster, space))
        result.check("a Service answers by name", lambda: workloads.service_answers(cluster, space))
        result.check("a Job completes", lambda: workloads.completes(cluster, space))
        result.check("a namespace is emptied and goes", lambda: workloads.namespace_goes(cluster, space))


def _is_there(cluster):
    cluster.kubectl("wait", f"node/{_NODE}", "--for=condition=Ready", "--timeout=60s")
    holder = cluster.get("lease", _NODE, "-n", "kube-node-lease")["spec"]["holderIdentity"]
    if holder != _NODE:
        raise Failed(f"the lease is held by {holder!r}")


SWAPS = [
    Swap("plim-controllers", "our loops on upstream's kube-apiserver and etcd, with upstream's scheduler and our agent", _controllers),
    Swap("plim-scheduler", "our scheduler on upstream's kube-apiserver and etcd, with upstream's controller manager and our agent", _scheduler),
    Swap("plim-agent", "our agent as a node of upstream's kube-apiserver, controller manager and scheduler", _agent),
]
