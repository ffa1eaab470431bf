"""Upstream's kube-controller-manager and kube-scheduler on our server, ours off."""

import contextlib

from swap import programs, workloads
from swap.cluster import RANGES, free_port, ours, program, until
from swap.table import Failed, Swap


# Flags for measurements: as many requests as there is work.
UNTHROTTLED = ("--kube-api-qps=1000", "--kube-api-burst=2000")


@contextlib.contextmanager
def controller_manager(cluster, *more):
    """It acts for each loop as that loop's own service account, as kubeadm sets it up. `more`: flags."""
    kubeconfig = cluster.user("system:kube-controller-manager")
    certificate, key = cluster.authority
    with program(cluster.place, "kube-controller-manager", [
        programs.upstream("kube-controller-manager"), "--kubeconfig", kubeconfig,
        "--authentication-kubeconfig", kubeconfig, "--authorization-kubeconfig", kubeconfig,
        "--bind-address", "127.0.0.1", "--secure-port", free_port(), "--cert-dir", cluster.place / "kcm",
        "--root-ca-file", certificate, "--cluster-signing-cert-file", certificate, "--cluster-signing-key-file", key,
        "--service-account-private-key-file", cluster.token_key, "--use-service-account-credentials",
        "--service-cluster-ip-range", RANGES["service-cidr"], "--allocate-node-cidrs=false",
        *more,
    ]) as process:
        yield process


@contextlib.contextmanager
def scheduler(cluster, *more):
    kubeconfig = cluster.user("system:kube-scheduler")
    with program(cluster.place, "kube-scheduler", [
        programs.upstream("kube-scheduler"), "--kubeconfig", kubeconfig, "--authentication-kubeconfig", kubeconfig,
        "--authorization-kubeconfig", kubeconfig, "--bind-address", "127.0.0.1", "--secure-port", free_port(),
        "--cert-dir", cluster.place / "scheduler", *more,
    ]) as process:
        yield process


def holds_lease(cluster, name):
    """The program has been made leader."""
    until(f"the lease {name}", lambda: cluster.get("lease", name, "-n", "kube-system")["spec"]["holderIdentity"])


def loops(result, cluster, space="swapped"):
    """What control loops do."""
    cluster.apply(workloads.namespace(space))
    until("the namespace's service account", lambda: cluster.get("serviceaccount", "default", "-n", space))
    until("the authority for pods", lambda: cluster.get("configmap", "kube-root-ca.crt", "-n", space))
    result.check("a Deployment rolls out and is changed", lambda: workloads.rolls_out(cluster, space))
    result.check("a Service gets endpoints and answers", lambda: workloads.service_answers(cluster, space))
    result.check("a Job completes", lambda: workloads.completes(cluster, space))
    result.check("a DaemonSet is on every node", lambda: workloads.runs_on_every_node(cluster, space))
    result.check("a StatefulSet comes up in order", lambda: workloads.replicas_in_order(cluster, space))
    result.check("what a deleted Deployment owned is collected", lambda: workloads.is_collected(cluster, space))
    result.check("a namespace is emptied and goes", lambda: workloads.namespace_goes(cluster, space))


def placing(result, cluster, space="placed"):
    """What a scheduler does."""
    cluster.apply(workloads.namespace(space))
    until("the namespace's service account", lambda: cluster.get("serviceaccount", "default", "-n", space))
    result.check("pods are bound, apart from each other", lambda: workloads.are_bound(cluster, space))
    result.check("a pod with an impossible request stays Pending, with the event", lambda: workloads.stays_pending(cluster, space))
    result.check("a pod of more weight takes another's place", lambda: workloads.makes_room(cluster, space))


def _controllers(result):
    programs.upstream("kube-controller-manager")
    with ours("controller-manager", disable=["controllers"]) as cluster:
        cluster.apply(workloads.namespace("before"))
        cluster.apply(workloads.workload("Deployment", "idle", "before", workloads.pod_spec(), replicas=1))
        with controller_manager(cluster):
            result.check("it is elected", lambda: holds_lease(cluster, "kube-controller-manager"))
            loops(result, cluster)
            idle = ["rollout", "status", "deployment/idle", "-n", "before", "--timeout=90s"]
            result.check("a Deployment that was there before it comes up", lambda: cluster.kubectl(*idle))


def _scheduler(result):
    programs.upstream("kube-scheduler")
    with ours("scheduler", disable=["scheduler"]) as cluster, scheduler(cluster):
        result.check("it is elected", lambda: holds_lease(cluster, "kube-scheduler"))
        placing(result, cluster)
        result.check("its name is on the binding's event", lambda: _names_itself(cluster, "placed"))


def _names_itself(cluster, space):
    events = cluster.items("events", "-n", space, "--field-selector", "reason=Scheduled")
    names = {event.get("reportingComponent") for event in events}
    if names != {"default-scheduler"}:
        raise Failed(f"the events are of {names}")


SWAPS = [
    Swap("controller-manager", "upstream's kube-controller-manager on our server, our loops off", _controllers),
    Swap("scheduler", "upstream's kube-scheduler on our server, ours off", _scheduler),
]
