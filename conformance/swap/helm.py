"""Helm 4 with a chart that has what charts have: hooks, a custom resource and its definition, a test."""

import json

from swap import programs
from swap.cluster import ours, run, until
from swap.table import Failed, Swap

_CHART = programs.HERE / "chart"
_SPACE = "charts"


class _Helm:
    def __init__(self, cluster):
        self.cluster = cluster
        own = cluster.place / "helm"
        self.environment = {**cluster.environment, "HELM_CACHE_HOME": str(own), "HELM_CONFIG_HOME": str(own), "HELM_DATA_HOME": str(own)}

    def __call__(self, *words):
        return run([programs.helm(), *words, "--namespace", _SPACE], env=self.environment)

    def status(self):
        return json.loads(self("status", "greeter", "-o", "json"))


def _run(result):
    programs.helm()
    with ours("helm") as cluster:
        helm = _Helm(cluster)
        wait = ["--wait", "--timeout", "120s"]
        result.check("install with CRD and hooks, waits until ready", lambda: _install(helm, wait))
        result.check("test", lambda: helm("test", "greeter", "--timeout", "60s"))
        result.check("upgrade", lambda: _upgrade(helm, wait))
        result.check("test after the upgrade", lambda: helm("test", "greeter", "--timeout", "60s"))
        result.check("an upgrade that cannot become ready is rolled back", lambda: _fails(helm))
        result.check("rollback", lambda: _rollback(helm, wait))
        result.check("history", lambda: _history(helm))
        result.check("uninstall leaves the CRD alone", lambda: _uninstall(helm))


def _install(helm, wait):
    helm("install", "greeter", _CHART, "--create-namespace", *wait)
    if helm.status()["info"]["status"] != "deployed":
        raise Failed(f"status {helm.status()['info']}")
    _ran(helm, "pre-install")
    _ran(helm, "post-install")
    _greets(helm, "hello")


def _upgrade(helm, wait):
    helm("upgrade", "greeter", _CHART, "--set", "greeting=good day", "--set", "replicas=3", *wait)
    _ran(helm, "pre-upgrade")
    _greets(helm, "good day")
    ready = helm.cluster.get("deployment", "greeter", "-n", _SPACE)["status"]["readyReplicas"]
    if ready != 3:
        raise Failed(f"{ready} pods are ready after the upgrade")


def _fails(helm):
    command = ["upgrade", "greeter", _CHART, "--reuse-values", "--set", "broken=true", "--rollback-on-failure", "--wait", "--timeout", "20s"]
    try:
        helm(*command)
    except Exception as error:
        said = str(getattr(error, "stderr", error))
        if "rolled back" not in said:
            raise
    else:
        raise Failed("it was taken")
    _greets(helm, "good day")


def _rollback(helm, wait):
    helm("rollback", "greeter", "1", *wait)
    _ran(helm, "post-rollback")
    _greets(helm, "hello")


def _history(helm):
    history = json.loads(helm("history", "greeter", "-o", "json"))
    states = [entry["status"] for entry in history]
    if len(states) < 5 or states[-1] != "deployed" or "failed" not in states:
        raise Failed(f"revisions {states}")


def _uninstall(helm):
    helm("uninstall", "greeter", "--wait", "--timeout", "60s")
    _ran(helm, "pre-delete")
    cluster = helm.cluster
    until("nothing of the release", lambda: not cluster.items("deployments,services,greetings,pods", "-n", _SPACE, "-l", "app.kubernetes.io/managed-by=Helm"))
    if cluster.items("greetings", "-n", _SPACE):
        raise Failed("the custom resource is still there")
    cluster.get("crd", "greetings.swap.plimsoll.dev")


def _ran(helm, moment):
    job = helm.cluster.get("job", f"greeter-{moment}", "-n", _SPACE)
    if job["status"].get("succeeded") != 1:
        raise Failed(f"the hook {moment} has not run: {job['status']}")


def _greets(helm, text):
    found = helm.cluster.get("greeting", "greeter", "-n", _SPACE)
    if found["spec"]["text"] != text:
        raise Failed(f"the custom resource says {found['spec']['text']!r} and not {text!r}")


SWAPS = [Swap("helm", "Helm 4.3 with a chart of our own", _run)]
