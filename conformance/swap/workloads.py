"""Objects that the swaps make, and how they come true."""

from swap.cluster import AGNHOST, BUSYBOX, until
from swap.table import Failed


def pod_spec(*args, **more):
    return {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": AGNHOST, "args": list(args) or ["pause"], **more}]}


def shell_spec(script, **more):
    return {"restartPolicy": "Never", "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], **more}]}


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def pod(name, namespace, spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}, "spec": spec}


def workload(kind, name, namespace, spec, **more):
    """A Deployment, DaemonSet or StatefulSet whose pods have the label `app: NAME`."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": template, **more}}


def job(name, namespace, script, **more):
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace},
            "spec": {"template": {"spec": shell_spec(script)}, **more}}


def rolls_out(cluster, namespace):
    """A Deployment comes up, and its change replaces every pod."""
    web = workload("Deployment", "web", namespace, pod_spec("netexec"), replicas=3)
    cluster.apply(web)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=90s")
    before = {item["metadata"]["uid"] for item in cluster.items("pods", "-n", namespace, "-l", "app=web")}
    web["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "CHANGED", "value": "yes"}]
    cluster.apply(web)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=90s")

    def replaced():
        now = {item["metadata"]["uid"] for item in cluster.items("pods", "-n", namespace, "-l", "app=web")}
        return len(now) == 3 and not now & before

    until("three other pods", replaced)


def completes(cluster, namespace):
    """A Job runs to its end, twice over, and its pods have said what they should."""
    cluster.apply(job("sum", namespace, "echo $((20 + 22))", completions=2))
    cluster.kubectl("wait", "job/sum", "-n", namespace, "--for=condition=Complete", "--timeout=90s")
    said = cluster.kubectl("logs", "-n", namespace, "-l", "job-name=sum")
    if said.split() != ["42", "42"]:
        raise Failed(f"the pods said {said!r}")


def is_collected(cluster, namespace):
    """The pods of a Deployment go with it."""
    cluster.kubectl("delete", "deployment/web", "-n", namespace, "--cascade=background")
    until("no ReplicaSet and no pod of the Deployment", lambda: not cluster.items("replicasets,pods", "-n", namespace, "-l", "app=web"))


def namespace_goes(cluster, namespace):
    """A namespace is emptied and goes."""
    cluster.kubectl("delete", "namespace", namespace, "--timeout=90s")
    if cluster.items("pods,configmaps,jobs", "-n", namespace):
        raise Failed("it has left objects")


def runs_on_every_node(cluster, namespace):
    cluster.apply(workload("DaemonSet", "each", namespace, pod_spec()))
    cluster.kubectl("rollout", "status", "daemonset/each", "-n", namespace, "--timeout=90s")
    nodes = {item["spec"]["nodeName"] for item in cluster.items("pods", "-n", namespace, "-l", "app=each")}
    if len(nodes) != len(cluster.items("nodes")):
        raise Failed(f"pods on {nodes}")


def replicas_in_order(cluster, namespace):
    cluster.apply(workload("StatefulSet", "ordered", namespace, pod_spec(), replicas=2, serviceName="ordered"))
    cluster.kubectl("rollout", "status", "statefulset/ordered", "-n", namespace, "--timeout=90s")
    names = sorted(item["metadata"]["name"] for item in cluster.items("pods", "-n", namespace, "-l", "app=ordered"))
    if names != ["ordered-0", "ordered-1"]:
        raise Failed(f"pods {names}")


def service_answers(cluster, namespace):
    """A Service gets endpoints, and a pod reaches it by name."""
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": namespace},
                   "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}})

    def ready():
        slices = cluster.items("endpointslices", "-n", namespace, "-l", "kubernetes.io/service-name=web")
        return sum(e["conditions"]["ready"] for s in slices for e in s["endpoints"] or []) == 3

    until("three ready endpoints", ready)
    url = f"http://web.{namespace}.svc.cluster.local/hostname"
    cluster.apply(pod("asks", namespace, shell_spec(f"wget -q -T 10 -O - {url}")))
    cluster.kubectl("wait", "pod/asks", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")


def are_bound(cluster, namespace):
    """Pods that do not want to be on one node get nodes of their own."""
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "apart"}}, "topologyKey": "kubernetes.io/hostname"}]}}
    nodes = cluster.items("nodes")
    spec = {**pod_spec(), "affinity": apart}
    cluster.apply(workload("Deployment", "apart", namespace, spec, replicas=len(nodes)))
    cluster.kubectl("rollout", "status", "deployment/apart", "-n", namespace, "--timeout=90s")
    used = {item["spec"]["nodeName"] for item in cluster.items("pods", "-n", namespace, "-l", "app=apart")}
    if len(used) != len(nodes):
        raise Failed(f"{len(nodes)} pods on {used}")


def stays_pending(cluster, namespace):
    """A pod that asks for more than any node has waits, and an event tells why."""
    spec = pod_spec(resources={"requests": {"cpu": "4000"}})
    cluster.apply(pod("huge", namespace, spec))

    def told():
        events = cluster.items("events", "-n", namespace, "--field-selector", "involvedObject.name=huge,reason=FailedScheduling")
        return any("Insufficient cpu" in event["message"] for event in events)

    until("an event that says: Insufficient cpu", told)
    found = cluster.get("pod", "huge", "-n", namespace)
    condition = next(c for c in found["status"]["conditions"] if c["type"] == "PodScheduled")
    if found["status"]["phase"] != "Pending" or condition.get("reason") != "Unschedulable":
        raise Failed(f"phase {found['status']['phase']}, condition {condition}")


def makes_room(cluster, namespace):
    """A pod of more weight takes the place of one of less on a full node."""
    node = cluster.items("nodes")[0]
    name = node["metadata"]["name"]
    most = node["status"]["allocatable"]["cpu"]
    cores = int(most[:-1]) if most.endswith("m") else int(most) * 1000
    cluster.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000})
    request = {"requests": {"cpu": f"{cores * 6 // 10}m"}}
    here = {"nodeSelector": {"kubernetes.io/hostname": name}}
    cluster.apply(pod("humble", namespace, {**pod_spec(resources=request), **here}))
    cluster.kubectl("wait", "pod/humble", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    cluster.apply(pod("urgent", namespace, {**pod_spec(resources=request), **here, "priorityClassName": "urgent"}))
    cluster.kubectl("wait", "pod/urgent", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    if cluster.items("pods", "-n", namespace, "--field-selector", "metadata.name=humble"):
        raise Failed("the other pod is still there")


def talks(cluster, namespace):
    """Logs, exec and port-forward reach a pod."""
    cluster.apply(pod("talks", namespace, pod_spec("netexec")))
    cluster.kubectl("wait", "pod/talks", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    until("what it says", lambda: "Started HTTP server" in cluster.kubectl("logs", "talks", "-n", namespace))
    if cluster.kubectl("exec", "talks", "-n", namespace, "--", "hostname").strip() != "talks":
        raise Failed("exec gave another name")
