"""Cases about requests rather than objects: what is malformed, who may do what, what is told about the API."""

import json

from case import Case, Step
from examples import CONTAINER, complete, examples

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [CONTAINER]}}
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}
MAPS = "/api/v1/namespaces/oracle/configmaps"


def discovery():
    """Every document that tells what is served, once."""
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    steps = [Step("GET", path, headers={"Accept": accept}, what=f"{path} {accept}") for path, accept in [
        ("/api", "application/json"), ("/apis", "application/json"), ("/api/v1", "application/json"), ("/api", aggregated), ("/apis", aggregated),
        ("/apis", aggregated + ",application/json"), ("/apis", aggregated.replace("v=v2;", "v=v2beta1;")), ("/api/v1", "application/vnd.kubernetes.protobuf"), ("/apis", "application/vnd.kubernetes.protobuf"),
        ("/api/v1", "application/yaml"), ("/api/", ""), ("/apis/", ""), ("/api/v2", ""), ("/apis/apps", ""), ("/apis/apps/", ""), ("/apis/apps/v1/", ""), ("/apis/none", ""), ("/apis/apps/v2", ""),
        ("/", ""), ("/healthz", ""), ("/livez", ""), ("/readyz", ""), ("/healthz/ping", ""), ("/healthz/none", ""), ("/readyz?exclude=none", ""), ("/nothing", ""), ("/version/", ""), ("/openapi", ""), ("/openapi/v2/", ""),
        ("/openapi/v3/none", ""), ("/openapi/v2", "application/yaml"), ("/.well-known/openid-configuration", ""), ("/api/v1/", ""), ("/api/v1/nothing", ""), ("/apis/apps/v1/nothing", "")]]
    return [Case("discovery", "API", [step]) for step in steps]


def groups(table):
    """What each group and version says it serves, and how OpenAPI describes it."""
    versions = list(dict.fromkeys(r.version for r in table.resources))
    paths = [f"/apis/{g}" for g in dict.fromkeys(v.split("/")[0] for v in versions if "/" in v)]
    paths += [f"/apis/{v}" for v in versions if "/" in v]
    paths += [f"/openapi/v3/{'apis/' + v if '/' in v else 'api/' + v}" for v in versions]
    return [Case("discovery", path, [Step("GET", path, what=path)]) for path in paths]


class Requests:
    """Draws single requests."""

    def __init__(self, table, random):
        self.table, self.random = table, random
        self.kinds = [r for r in table.resources if examples(r)]
        self.families = [(self.malformed, 4), (self.names, 3), (self.denied, 3), (self.subresource, 4), (self.paths, 2), (self.watching, 0.3)]

    def draw(self, name):
        makers, weights = zip(*self.families)
        return self.random.choices(makers, weights)[0](name)

    def malformed(self, name):
        """Bodies that cannot be read, and content types that do not fit."""
        pick = self.random.choice
        text = json.dumps(pick([POD, MAP]))
        bodies = ["", " ", "{", text[:self.random.randrange(1, len(text))], text + "x", text + text, "[]", "null", "1", '"x"', "{}", "[" * 20000, '{"a":' * 20000, '{"kind":"Pod"}', '{"apiVersion":"v1"}',
                  '{"apiVersion":"v1","kind":"Pod"}', '{"apiVersion":"v2","kind":"ConfigMap"}', '{"apiVersion":"a/b/c","kind":"ConfigMap"}', '{"apiVersion":1,"kind":"ConfigMap"}', '{"apiVersion":"v1","kind":["a"]}',
                  '{"apiVersion":"apps/v1","kind":"Deployment"}', text.replace("v1", "apps/v1", 1), '{"apiVersion":"v1","kind":"ConfigMap","metadata":[]}', '{"apiVersion":"v1","kind":"ConfigMap","metadata":null}',
                  text.replace("{", '{"\\u0000":1,', 1), text.replace(":", "::", 1), text.replace('"a"', "'a'"), "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\n", "a: b: c", "\ta: b", "a: &x [*x]", "- a\n- b",
                  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: y, name: z}\n", "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: y}\n---\na: b", b"\xff\xfe", b"k8s\0\x0a", text.replace('"b"', "1e999"),
                  '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"y","generation":99999999999999999999}}', '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"y"},"data":{"a":"\\ud800"}}',
                  '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"y","labels":{"a":1}}}', '{"kind":"List","apiVersion":"v1","items":[]}', '{"kind":"Status","apiVersion":"v1"}', '{"KIND":"ConfigMap","apiversion":"v1"}']
        types = ["application/json", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain", "application/x-www-form-urlencoded", "", "nonsense", "application/json;charset=utf-8",
                 "application/cbor", "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"]
        method = pick(["POST", "POST", "POST", "PUT", "PATCH"])
        content = pick(types)
        if method == "PATCH":
            content = pick(types[-4:] + ["application/json", "application/merge-patch+json; charset=utf-8"])
        body, path = pick(bodies), pick([MAPS, "/api/v1/namespaces/oracle/pods"])
        if isinstance(body, str):
            body = body.encode()
        steps, cleanup = [], []
        if method != "POST":
            made = {**(MAP if path == MAPS else POD), "metadata": {"name": name}}
            steps, path = [Step("POST", path, made, what="base")], f"{path}/{name}"
            cleanup = [path]
        query = pick(["", "", "?fieldManager=m", "?fieldManager=m&force=true", "?dryRun=x", "?dryRun=All&dryRun=All", "?fieldValidation=x", "?fieldManager=" + "x" * 129, "?force=true", "?fieldManager=a%00", "?dryRun=", "?fieldValidation=Strict"])
        query += ("&" if query else "?") + "dryRun=All" if method == "POST" and "dryRun" not in query else ""
        headers = {"Content-Type": content} if content else {"Content-Type": ""}
        return Case("malformed", "request", [*steps, Step(method, path + query, body, headers, f"{method} {content} {query}")], cleanup)

    def names(self, name):
        """Names, namespaces and labels at and past their limits."""
        pick = self.random.choice
        resource = pick([r for r in self.kinds if r.plural not in ("namespaces", "customresourcedefinitions")])
        body = complete(resource, pick(examples(resource)), name)
        odd = ["A", "a_b", "a.b", "-a", "a-", "a" * 63, "a" * 64, "a" * 253, "a" * 254, "a/b", "%", "..", ".", "", "a b", "é", "1a", "a:b", "system:x", "0", "10.0.0.1", "a" * 52, "a" * 53]
        metadata = body["metadata"]
        which = pick(["name", "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "url", "query"])
        path = resource.path()
        if which == "name":
            metadata["name"] = pick(odd)
        elif which == "generateName":
            del metadata["name"]
            metadata["generateName"] = pick(odd)
        elif which == "namespace":
            metadata["namespace"] = pick(["oracle", "default", "A", ""])
            path = pick([path, resource.path("none"), resource.path("A"), resource.path("oracle-b")])
        elif which == "labels":
            metadata["labels"] = {pick(odd): pick(odd)}
        elif which == "annotations":
            metadata["annotations"] = pick([{pick(odd): "x"}, {"a": "x" * 262144}, {"a": "x" * 262143}])
        elif which == "finalizers":
            metadata["finalizers"] = [pick(["a", "a/b", "a/b/c", "orphan", "kubernetes", "é", "a/" + "x" * 64])]
        elif which == "ownerReferences":
            owner = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"}
            metadata["ownerReferences"] = pick([[owner], [owner, owner], [{**owner, "controller": True}, {**owner, "uid": "v", "controller": True}], [{}], [{**owner, "kind": "Event"}], [{**owner, "apiVersion": "a/b/c"}], [{**owner, "uid": ""}]])
        elif which == "url":
            one = pick(["A", "a_b", "%20", "%2e%2e", "%2F", "a%00", "é".encode().hex(), "a" * 254, "~", "a:b"])
            step = Step(pick(["GET", "PUT", "DELETE"]), f"{path}/{one}", body, what=f"url {one}")
            if step.method == "GET":
                step.body = None
            return Case("names", resource.kind, [step])
        else:
            step = Step("GET", f"{path}/{name}?" + pick(["resourceVersion=0", "resourceVersion=x", "resourceVersion=999999999&timeout=1s", "pretty=true", "x=y", "resourceVersionMatch=Exact"]), what="query")
            return Case("names", resource.kind, [step])
        return Case("names", resource.kind, [Step("POST", path + "?dryRun=All", body, what=f"{which}")])

    def denied(self, name):
        """The same as somebody who may do little: RBAC's sentences, impersonation."""
        pick = self.random.choice
        resource = pick(self.table.resources)
        headers = {"Impersonate-User": pick(["jane", "system:anonymous", "system:node:n", "system:serviceaccount:oracle:default", "system:kube-scheduler", "<b>&"])}
        headers.update(pick([{}, {}, {"Impersonate-Group": "system:authenticated"}, {"Impersonate-Uid": "u"}, {"Impersonate-Extra-a": "b"}, {"Impersonate-Group": "system:nodes"}]))
        if pick([0] * 9 + [1]):
            headers.pop("Impersonate-User")
        method, path = pick(["GET", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]), resource.path(pick(["oracle", "kube-system"]))
        if method in ("PUT", "PATCH", "DELETE") or pick([0, 1]):
            path += f"/{name}" if method != "POST" else ""
        if pick([0] * 5 + [1]) and resource.subresources:
            path += f"/{name}/{pick(list(resource.subresources))}"
        if pick([0] * 9 + [1]):
            path = pick(["/", "/metrics", "/healthz", "/logs", "/api", "/apis/apps", "/version", "/openapi/v2", "/none"])
        return Case("denied", resource.kind, [Step(method, path, None if method in ("GET", "HEAD", "OPTIONS", "DELETE") else {}, headers, f"{method} as {headers}")])

    def paths(self, name):
        """Paths and methods that nothing is served at."""
        pick = self.random.choice
        resource = pick(self.kinds)
        path = resource.path()
        tails = ["", "/", f"/{name}", f"/{name}/", f"/{name}/status", f"/{name}/scale", f"/{name}/nothing", f"/{name}/a/b/c", "//", f"//{name}", f"/{name}/status/x"]
        method = pick(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"])
        heads = [path, path, path.replace("/namespaces/oracle", ""), path.replace("/v1", "/v9"), path.replace("oracle", "none"), path + "x", path.upper(), "/watch" + path, path.replace("/namespaces", "/watch/namespaces") + "?timeoutSeconds=1"]
        head = pick(heads)
        where = head if "?" in head else head + pick(tails)
        return Case("paths", resource.kind, [Step(method, where, {} if method in ("POST", "PUT", "PATCH") else None, what=f"{method} {where.replace(name, 'NAME')}")])

    def watching(self, name):
        """A watch that ends after a second, of what was there and of what has happened since a revision."""
        pick = self.random.choice
        maps = [{**MAP, "metadata": {"name": name + x, "labels": {"oracle": name}}} for x in "ab"]
        query = f"watch=1&timeoutSeconds=1&labelSelector=oracle%3D{name}"
        steps = [Step("POST", MAPS, maps[0], what="base"), Step("POST", MAPS, maps[1], what="base"), Step("PUT", f"{MAPS}/{name}a", {**maps[0], "data": {"x": "y"}}, what="base"),
                 Step("DELETE", f"{MAPS}/{name}b", what="base")]
        since = pick(["", "&resourceVersion=0", "&resourceVersion=${0:metadata.resourceVersion}", "&resourceVersion=${1:metadata.resourceVersion}", "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
                      "&resourceVersion=1", "&sendInitialEvents=true", "&resourceVersionMatch=Exact&resourceVersion=1", "&resourceVersion=x"])
        accept = pick(["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/yaml", "application/json;stream=watch"])
        steps.append(Step("GET", f"{MAPS}?{query}{since}", headers={"Accept": accept}, what=f"watch {accept} {since}"))
        return Case("watch", "ConfigMap", steps, [f"{MAPS}/{name}a"])

    def subresource(self, name):
        """scale, binding, eviction, token, finalize, resize, ephemeralcontainers, log and reviews."""
        pick = self.random.choice
        pods, deployments = "/api/v1/namespaces/oracle/pods", "/apis/apps/v1/namespaces/oracle/deployments"
        pod = {**POD, "metadata": {"name": name, "labels": {"app": name}}}
        labels = {"app": name}
        deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
                      "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}}}
        scale = lambda **x: {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": name, "namespace": "oracle"}, "spec": {"replicas": 3}, **x}
        merge = {"Content-Type": "application/merge-patch+json"}
        base, one = [Step("POST", pods, pod, what="base")], f"{pods}/{name}"
        which = pick(["scale", "binding", "eviction", "token", "finalize", "resize", "ephemeral", "log", "review"])
        if which == "scale":
            one = f"{deployments}/{name}"
            bodies = [scale(), scale(spec={}), scale(spec={"replicas": -1}), scale(metadata={"name": "other"}), scale(metadata={"name": name, "resourceVersion": "1"}), scale(kind="Deployment"), scale(spec={"replicas": "x"}), scale(x=1)]
            steps = [Step("POST", deployments, deployment, what="base"), Step("GET", one + "/scale", what="get scale"), Step("PUT", one + "/scale" + pick(["", "?fieldValidation=Strict", "?dryRun=All"]), pick(bodies), what="put scale"),
                     Step("PATCH", one + "/scale", pick([{"spec": {"replicas": 5}}, {"spec": {"replicas": None}}, {"spec": {"replicas": -2}}, {"metadata": {"labels": {"a": "b"}}}]), merge, "patch scale"), Step("GET", one, what="get")]
            return Case("subresource", "Scale", steps, [one])
        if which == "binding":
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}}
            bodies = [binding, {**binding, "target": {"name": "n1"}}, {**binding, "target": {}}, {**binding, "target": {"kind": "X", "name": "n1"}}, {**binding, "metadata": {"name": name, "annotations": {"a": "b"}, "uid": "u"}}, {**binding, "metadata": {"name": "other"}}]
            where = pick([one + "/binding", one + "/binding", "/api/v1/namespaces/oracle/bindings"])
            return Case("subresource", "Binding", [*base, Step("POST", where, pick(bodies), what="bind"), Step("POST", where, binding, what="again"), Step("GET", one, what="get")], [one])
        if which == "eviction":
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            bodies = [eviction, {**eviction, "metadata": {"name": "other"}}, {**eviction, "deleteOptions": {"dryRun": ["All"]}}, {**eviction, "deleteOptions": {"gracePeriodSeconds": 5}}, {"kind": "Eviction", "apiVersion": "policy/v1"}, {**eviction, "apiVersion": "policy/v1beta1"},
                      {**eviction, "deleteOptions": {"preconditions": {"uid": "x"}}}]
            return Case("subresource", "Eviction", [*base, Step("POST", one + "/eviction" + pick(["", "?dryRun=All"]), pick(bodies), what="evict"), Step("GET", one, what="get")], [one])
        if which == "token":
            request = lambda **spec: {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
            bodies = [request(expirationSeconds=10), request(expirationSeconds=1 << 33), request(boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "none"}), request(boundObjectRef={"kind": "X", "apiVersion": "v1", "name": "x"}), request(audiences="x"), {"kind": "X"}]
            return Case("subresource", "TokenRequest", [Step("POST", f"/api/v1/namespaces/oracle/serviceaccounts/{pick(['default', 'none'])}/token", pick(bodies), what="token")])
        if which == "finalize":
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            one = f"/api/v1/namespaces/{name}"
            steps = [Step("POST", "/api/v1/namespaces", space, what="base"), Step("PUT", one + "/finalize", {**space, "spec": {"finalizers": pick([[], ["a"], ["a/b"], ["kubernetes", "kubernetes"]])}}, what="finalize"), Step("DELETE", one, what="delete"), Step("GET", one, what="get"),
                     Step("PUT", one + "/finalize", {**space, "spec": {"finalizers": []}}, what="finalize"), Step("GET", one, what="get")]
            return Case("subresource", "Namespace", steps)
        if which == "resize":
            resources = pick([{"requests": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, {"requests": {"example.com/a": "1"}}, {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}])
            base[0].body = {**pod, "spec": {"containers": [{**CONTAINER, "resources": pick([{}, {"requests": {"cpu": "500m", "memory": "64Mi"}}, {"limits": {"cpu": "1", "memory": "1Gi"}}])}]}}
            patch = {"spec": {"containers": [{"name": pick(["web", "other"]), "resources": resources, **pick([{}, {"image": "x"}])}]}}
            return Case("subresource", "Resize", [*base, Step("PATCH", one + "/resize", patch, {"Content-Type": "application/strategic-merge-patch+json"}, "resize"), Step("GET", one, what="get")], [one])
        if which == "ephemeral":
            container = pick([{"name": "debug", "image": "busybox"}, {"name": "web", "image": "x"}, {"name": "debug"}, {"name": "d", "image": "x", "ports": [{"containerPort": 1}]}, {"name": "d", "image": "x", "targetContainerName": "none"}, {"name": "d", "image": "x", "resources": {"limits": {"cpu": 1}}}])
            patch = {"spec": {"ephemeralContainers": [container]}}
            send = lambda body, what: Step("PATCH", one + "/ephemeralcontainers", body, {"Content-Type": "application/strategic-merge-patch+json"}, what)
            return Case("subresource", "EphemeralContainers", [*base, send(patch, "add"), send({"spec": {"ephemeralContainers": [{"name": "debug", "image": "other"}]}}, "change"), Step("GET", one, what="get")], [one])
        if which == "log":
            query = pick(["", "?container=none", "?tailLines=-1", "?sinceSeconds=0", "?sinceSeconds=1&sinceTime=2024-01-01T00:00:00Z", "?limitBytes=0", "?tailLines=x", "?follow=x", "?stream=x"])
            return Case("subresource", "Log", [*base, Step("GET", one + "/log" + query, what=f"log {query}"), Step(pick(["GET", "POST"]), one + pick(["/exec", "/attach", "/portforward"]) + pick(["", "?command=a", "?stdin=1&command=a"]), what="exec")], [one])
        kind = pick(["SelfSubjectAccessReview", "SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectRulesReview", "TokenReview", "SelfSubjectReview"])
        at = {"namespace": "oracle", "verb": "get", "resource": "pods"}
        specs = [{"resourceAttributes": at}, {"nonResourceAttributes": {"path": "/healthz", "verb": "get"}}, {}, {"user": "jane", "resourceAttributes": at}, {"user": "system:kube-scheduler", "resourceAttributes": {**at, "verb": "list"}}, {"user": "jane", "groups": ["system:masters"], "resourceAttributes": at},
                 {"user": "jane", "resourceAttributes": at, "nonResourceAttributes": {"path": "/x"}}, {"token": "x"}, {"token": ""}, {"resourceAttributes": {**at, "fieldSelector": {"rawSelector": "a=b"}}}, {"resourceAttributes": {**at, "labelSelector": {"requirements": [{"key": "a", "operator": "X"}]}}}]
        group = "authentication.k8s.io" if kind in ("TokenReview", "SelfSubjectReview") else "authorization.k8s.io"
        where = f"/apis/{group}/v1/" + ("namespaces/oracle/" if kind.startswith("Local") else "") + kind.lower() + "s"
        headers = pick([{}, {}, {"Impersonate-User": "jane"}, {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}])
        if kind == "SelfSubjectRulesReview":
            specs, headers = [{"namespace": "oracle"}, {}, {"namespace": "A"}], {}
        return Case("subresource", kind, [Step("POST", where, {"apiVersion": f"{group}/v1", "kind": kind, "spec": pick(specs), **pick([{}, {}, {"metadata": {"name": "x"}}])}, headers, "review")])
