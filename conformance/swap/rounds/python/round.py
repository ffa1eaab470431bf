"""The round of a client library, with Python's. NAMESPACE and IMAGE are its arguments; each step is told in a line."""

import sys
import threading

from kubernetes import client, config, watch
from kubernetes.stream import stream

NAMESPACE, IMAGE = sys.argv[1:]
config.load_kube_config()
core = client.CoreV1Api()


def step(what, work):
    try:
        work()
        print("ok", what, flush=True)
    except Exception as error:
        print(f"failed {what}: {type(error).__name__} {' '.join(str(error).split())}"[:400], flush=True)


def expect(found, wanted):
    if found != wanted:
        raise AssertionError(f"{found!r} and not {wanted!r}")


def config_map(**data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name="round", labels={"round": "python"}), data=data)


seen = []


def follow(version):
    for event in watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, label_selector="round=python",
                                      resource_version=version, timeout_seconds=30):
        seen.append((event["type"], event["object"].data.get("a")))
        if event["type"] == "DELETED":
            return


version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
follower = threading.Thread(target=follow, args=(version,))
follower.start()

step("create", lambda: expect(core.create_namespaced_config_map(NAMESPACE, config_map(a="1")).data, {"a": "1"}))
step("get", lambda: expect(core.read_namespaced_config_map("round", NAMESPACE).data, {"a": "1"}))
step("list by label", lambda: expect([m.metadata.name for m in core.list_namespaced_config_map(NAMESPACE, label_selector="round=python").items], ["round"]))
step("patch", lambda: expect(core.patch_namespaced_config_map("round", NAMESPACE, {"data": {"a": "2"}}).data, {"a": "2"}))


def replace():
    found = core.read_namespaced_config_map("round", NAMESPACE)
    found.data = {"a": "3"}
    core.replace_namespaced_config_map("round", NAMESPACE, found)
    found.metadata.resource_version = "1"
    try:
        core.replace_namespaced_config_map("round", NAMESPACE, found)
    except client.ApiException as error:
        expect(error.status, 409)
        return
    raise AssertionError("an old version was taken")


step("update, and a conflict for an old version", replace)
step("delete", lambda: core.delete_namespaced_config_map("round", NAMESPACE))
follower.join()
step("watch", lambda: expect(seen, [("ADDED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3"), ("DELETED", "3")]))


def pod():
    container = client.V1Container(name="main", image=IMAGE, args=["netexec"])
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1)
    core.create_namespaced_pod(NAMESPACE, client.V1Pod(metadata=client.V1ObjectMeta(name="python"), spec=spec))
    for event in watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, field_selector="metadata.name=python", timeout_seconds=60):
        if any(c.type == "Ready" and c.status == "True" for c in event["object"].status.conditions or []):
            return
    raise AssertionError("the pod is not ready after 60 s")


def logs():
    for line in watch.Watch().stream(core.read_namespaced_pod_log, "python", NAMESPACE):
        if "Started HTTP server" in line:
            return
    raise AssertionError("the log has ended")


def execute():
    said = stream(core.connect_get_namespaced_pod_exec, "python", NAMESPACE, command=["hostname"], stdout=True, stderr=True, stdin=False, tty=False)
    expect(said.strip(), "python")


step("a pod gets ready", pod)
step("logs, followed", logs)
step("exec", execute)
step("delete a pod", lambda: core.delete_namespaced_pod("python", NAMESPACE))
