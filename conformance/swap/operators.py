"""Operators on controller-runtime and on kube-rs, which turn a custom resource into a Deployment."""

import base64

from swap import programs
from swap.cluster import AGNHOST, free_port, ours, program, until
from swap.table import Failed, Swap

_SPACE = "default"
_COUNT = {"type": "integer", "format": "int64"}
_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "shops.swap.plimsoll.dev"},
    "spec": {"group": "swap.plimsoll.dev", "scope": "Namespaced", "names": {"kind": "Shop", "plural": "shops", "singular": "shop"},
             "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                           "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                               "spec": {"type": "object", "properties": {"clerks": {"type": "integer", "minimum": 0}}},
                               "status": {"type": "object", "properties": {"ready": _COUNT, "observedGeneration": _COUNT}}}}}}]}}


def _shop(name, clerks=None):
    spec = {} if clerks is None else {"clerks": clerks}
    return {"apiVersion": "swap.plimsoll.dev/v1", "kind": "Shop", "metadata": {"name": name, "namespace": _SPACE}, "spec": spec}


def _is_reconciled(cluster):
    """The Deployment is made, and the status follows its pods and the spec's changes."""
    for clerks in (1, 3):
        cluster.apply(_shop("corner", clerks))

        def ready():
            found = cluster.get("shop", "corner", "-n", _SPACE)
            status = found.get("status", {})
            return status.get("ready") == clerks and status["observedGeneration"] == found["metadata"]["generation"]

        until(f"a status with {clerks} ready pods", ready)


def _owned_comes_back(cluster):
    """The Deployment is made again when somebody deletes it."""
    uid = cluster.get("deployment", "corner", "-n", _SPACE)["metadata"]["uid"]
    cluster.kubectl("delete", "deployment", "corner", "-n", _SPACE)
    until("another Deployment", lambda: cluster.get("deployment", "corner", "-n", _SPACE)["metadata"]["uid"] != uid)


def _goes_in_order(cluster):
    """The finalizer holds the Shop until its Deployment is gone."""
    if not cluster.get("shop", "corner", "-n", _SPACE)["metadata"].get("finalizers"):
        raise Failed("the Shop has no finalizer")
    cluster.kubectl("delete", "shop", "corner", "-n", _SPACE, "--timeout=60s")
    if cluster.items("deployments", "-n", _SPACE, "-l", "shop=corner") or cluster.items("deployments", "-n", _SPACE):
        raise Failed("the Deployment is still there")


def _controller_runtime(result):
    operator = programs.go("shop-operator", ".", programs.HERE / "operator")
    with ours("operator-go") as cluster:
        cluster.apply(_CRD)
        cluster.kubectl("wait", "crd/shops.swap.plimsoll.dev", "--for=condition=Established", "--timeout=30s")
        certificate = _certificate(cluster)
        ports = [free_port(), free_port()]
        commands = [[operator, "--image", AGNHOST, "--webhook-port", port, "--cert-dir", cluster.place] for port in ports]
        with program(cluster.place, "first", commands[0], cluster.environment) as first:
            until("a leader", lambda: _leader(cluster))
            _webhook(cluster, ports[0], certificate)
            result.check("a reconciler makes a Deployment and tells its status", lambda: _is_reconciled(cluster))
            result.check("what it owns comes back when deleted", lambda: _owned_comes_back(cluster))
            result.check("its webhook gives defaults", lambda: _defaults(cluster))
            result.check("its webhook refuses", lambda: _refuses(cluster))
            with program(cluster.place, "second", commands[1], cluster.environment):
                result.check("a second instance leads when the first ends", lambda: _succession(cluster, first, ports[1], certificate))
                result.check("a finalizer holds the object until the Deployment is gone", lambda: _goes_in_order(cluster))
            _unhook(cluster)


def _leader(cluster):
    return cluster.get("lease", "shops.swap.plimsoll.dev", "-n", "default")["spec"].get("holderIdentity")


def _certificate(cluster):
    """Makes that of the webhook on loopback; gives its authority."""
    cluster.certificate("tls", [], "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth")
    return base64.b64encode(cluster.authority[0].read_bytes()).decode()


def _webhook(cluster, port, certificate):
    cluster.apply({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": "shops"},
        "webhooks": [{"name": "shops.swap.plimsoll.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                      "clientConfig": {"url": f"https://127.0.0.1:{port}/mutate", "caBundle": certificate},
                      "rules": [{"apiGroups": ["swap.plimsoll.dev"], "apiVersions": ["v1"], "resources": ["shops"],
                                 "operations": ["CREATE", "UPDATE"]}]}]})


def _unhook(cluster):
    cluster.kubectl("delete", "mutatingwebhookconfiguration", "shops")


def _defaults(cluster):
    cluster.apply(_shop("plain"))
    clerks = cluster.get("shop", "plain", "-n", _SPACE)["spec"].get("clerks")
    cluster.kubectl("delete", "shop", "plain", "-n", _SPACE, "--timeout=60s")
    if clerks != 1:
        raise Failed(f"{clerks} clerks and not one")


def _refuses(cluster):
    try:
        cluster.apply(_shop("crowd", 9))
    except Exception as error:
        if "a shop has room for five clerks" in str(getattr(error, "stderr", "")):
            return
        raise
    raise Failed("it was taken")


def _succession(cluster, first, port, certificate):
    before = _leader(cluster)
    first.terminate()
    first.wait(timeout=30)
    until("another leader", lambda: _leader(cluster) not in (None, "", before))
    _webhook(cluster, port, certificate)
    _is_reconciled(cluster)


def _kube_rs(result):
    operator = programs.example("kube_operator")
    with ours("operator-rust") as cluster:
        cluster.apply(_CRD)
        cluster.kubectl("wait", "crd/shops.swap.plimsoll.dev", "--for=condition=Established", "--timeout=30s")
        with program(cluster.place, "operator", [operator, AGNHOST], cluster.environment):
            result.check("a reconciler makes a Deployment and tells its status", lambda: _is_reconciled(cluster))
            result.check("what it owns comes back when deleted", lambda: _owned_comes_back(cluster))
            result.check("a finalizer holds the object until the Deployment is gone", lambda: _goes_in_order(cluster))


SWAPS = [
    Swap("operator-go", "an operator on controller-runtime 0.25", _controller_runtime),
    Swap("operator-rust", "an operator on kube 5", _kube_rs),
]
