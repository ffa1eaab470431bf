"""Cases about one object of a built-in kind: made, changed, patched, applied, deleted, read in every form."""

import copy
import json

import protobuf
from case import Case, Step
from examples import APART, complete, examples
from mutate import with_duplicate_key

MERGE, STRATEGIC, PATCH, APPLY = ("application/merge-patch+json", "application/strategic-merge-patch+json",
                                  "application/json-patch+json", "application/apply-patch+yaml")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIALS = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class Objects:
    """Makes cases; `draw` picks a family and a kind."""

    def __init__(self, table, mutator, random):
        self.table, self.mutator, self.random = table, mutator, random
        self.kinds = [r for r in table.resources if examples(r) and "create" in r.verbs]
        self.families = [(self.create, 8), (self.update, 7), (self.status, 2), (self.patch, 6), (self.apply, 4), (self.forms, 2),
                         (self.delete, 2), (self.listing, 2), (self.duplicate, 1), (self.protobuf, 2)]

    def draw(self, name):
        makers, weights = zip(*self.families)
        return self.random.choices(makers, weights)[0](self.random.choice(self.kinds), name)

    def place(self, resource, name):
        path = resource.path(APART.get(resource.plural, "oracle"))
        whole = f"widgets.{name}.example.com" if resource.plural == "customresourcedefinitions" else name
        return path, f"{path}/{whole}"

    def example(self, resource, name):
        return complete(resource, self.random.choice(examples(resource)), name)

    def mutated(self, resource, original, **how):
        """One change, sometimes two."""
        changed, what = self.mutator.mutate(resource.type, original, **how)
        if self.random.random() < 0.15:
            changed, more = self.mutator.mutate(resource.type, changed, **how)
            what += f", {more}"
        return changed, what

    def query(self, **parameters):
        """Sometimes dry run and a mode of field validation."""
        mode = self.random.choice([None, None, "Ignore", "Warn", "Strict", "Strict"])
        if mode:
            parameters["fieldValidation"] = mode
        text = "&".join(f"{k}={v}" for k, v in parameters.items())
        return f"?{text}" if text else ""

    def create(self, resource, name):
        path, one = self.place(resource, name)
        body, what = self.mutated(resource, self.example(resource, name))
        if self.random.random() < 0.05:
            body, what = self.example(resource, name), "nothing"
            if self.random.random() < 0.5:
                body["metadata"]["generateName"] = "gen-"
                del body["metadata"]["name"]
                return Case("create", resource.kind, [Step("POST", path + "?dryRun=All", body, what="generateName")])
        if self.random.random() < 0.7:
            return Case("create", resource.kind, [Step("POST", path + self.query(dryRun="All"), body, what=what)])
        steps = [Step("POST", path + self.query(), body, what=what), Step("GET", one, what="get")]
        return Case("create", resource.kind, steps, [one])

    def update(self, resource, name):
        """The object is sent back changed, as read, as first written, or with another revision or uid."""
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        changed, what = self.mutated(resource, base)
        metadata = changed.get("metadata")
        kind = self.random.choice(["bare", "bare", "current", "old", "uid"])
        if isinstance(metadata, dict) and kind != "bare":
            key, value = {"current": ("resourceVersion", "${0:metadata.resourceVersion}"), "old": ("resourceVersion", "1"),
                          "uid": ("uid", self.random.choice(["${0:metadata.uid}", "11111111-2222-3333-4444-555555555555"]))}[kind]
            metadata.setdefault(key, value)
        steps = [Step("POST", path, base, what="base"), Step("PUT", one + self.query(), changed, what=f"{kind} {what}"), Step("GET", one, what="get")]
        return Case("update", resource.kind, steps, [one])

    def status(self, resource, name):
        subresources = [s for s in resource.subresources if s == "status"]
        if not subresources:
            return self.update(resource, name)
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        changed, what = self.mutated(resource, {**base, "status": base.get("status", {})}, within=("status",))
        if self.random.random() < 0.3:
            changed, more = self.mutated(resource, changed, gentle=True)
            what += f", {more}"
        if self.random.random() < 0.5:
            step = Step("PUT", one + "/status" + self.query(), changed, what=what)
        else:
            step = Step("PATCH", one + "/status" + self.query(), {"status": changed.get("status")}, {"Content-Type": self.random.choice([MERGE, STRATEGIC])}, what)
        return Case("status", resource.kind, [Step("POST", path, base, what="base"), step, Step("GET", one + "/status", what="get")], [one])

    def patch(self, resource, name):
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        changed, what = self.mutated(resource, base)
        kind = self.random.choice([MERGE, STRATEGIC, PATCH])
        if resource.plural == "customresourcedefinitions" and kind == STRATEGIC:
            kind = MERGE
        body = self.operations(base, changed) if kind == PATCH else self.difference(base, changed)
        if kind == STRATEGIC and self.random.random() < 0.3:
            body, what = self.directive(body), f"directive {what}"
        step = Step("PATCH", one + self.query(), body, {"Content-Type": kind}, f"{kind.split('/')[1].split('+')[0]} {what}")
        return Case("patch", resource.kind, [Step("POST", path, base, what="base"), step, Step("GET", one, what="get")], [one])

    def difference(self, a, b):
        """The merge patch from a to b."""
        if not (isinstance(a, dict) and isinstance(b, dict)):
            return b
        patch = {k: None for k in a if k not in b}
        patch.update({k: self.difference(a.get(k), v) for k, v in b.items() if k not in a or a[k] != v})
        return patch

    def operations(self, a, b):
        """A JSON patch about as far from a to b; some of its operations fail."""
        found = []

        def walk(x, y, path):
            if isinstance(x, dict) and isinstance(y, dict):
                for key in {**x, **y}:
                    here = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
                    if key not in y:
                        found.append({"op": "remove", "path": here})
                    elif key not in x:
                        found.append({"op": "add", "path": here, "value": y[key]})
                    else:
                        walk(x[key], y[key], here)
            elif isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
                for i, (p, q) in enumerate(zip(x, y)):
                    walk(p, q, f"{path}/{i}")
            elif x != y:
                found.append({"op": "replace", "path": path, "value": y})

        walk(a, b, "")
        extra = [{"op": "test", "path": "/metadata/name", "value": a["metadata"].get("name")}, {"op": "test", "path": "/kind", "value": "Nothing"},
                 {"op": "remove", "path": "/spec/none"}, {"op": "copy", "from": "/metadata/name", "path": "/metadata/labels"}, {"op": "jump", "path": "/spec"},
                 {"op": "move", "from": "/metadata/labels", "path": "/metadata/annotations"}, {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}},
                 {"op": "replace", "path": "/spec/containers/9/name", "value": "x"}, {"op": "add", "path": "metadata", "value": 1}, {"path": "/spec"}]
        if self.random.random() < 0.3:
            found.insert(self.random.choice([0, len(found)]), self.random.choice(extra))
        return found

    def directive(self, patch):
        """A strategic merge patch with one of its directives somewhere."""
        patch = copy.deepcopy(patch)
        holders = []

        def walk(value):
            if isinstance(value, dict):
                holders.append(value)
                for item in list(value.values()):
                    walk(item)
            elif isinstance(value, list):
                for item in value:
                    walk(item)

        walk(patch)
        holder = self.random.choice(holders) if holders else {}
        key = next(iter(holder), "x")
        which = self.random.choice(["replace", "merge", "delete", "nonsense", "retain", "order", "primitive"])
        if which == "retain":
            holder["$retainKeys"] = self.random.choice([[key], [], "x", [1]])
        elif which == "order":
            holder[f"$setElementOrder/{key}"] = self.random.choice([[{"name": "side"}, {"name": "web"}], ["a"], "x"])
        elif which == "primitive":
            holder["$deleteFromPrimitiveList/finalizers"] = self.random.choice([["a/b"], "x"])
        else:
            holder["$patch"] = which
        return patch

    def apply(self, resource, name):
        """Two managers, who may disagree, and what each leaves away."""
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        base["metadata"]["labels"] = {"mine": "1", **base["metadata"].get("labels", {})}
        second, what = self.mutated(resource, base)
        third, more = self.mutated(resource, base, gentle=True)
        headers = {"Content-Type": APPLY}
        send = lambda manager, body, what, extra="": Step("PATCH", f"{one}?fieldManager={manager}{extra}", body, headers, what)
        begin = send("first", base, "first") if self.random.random() < 0.6 else Step("POST", path + "?fieldManager=first", base, what="base")
        force = self.random.choice(["", "", "&force=true", "&force=false"])
        steps = [begin, send("second", second, f"second {what}", force), send("first", third, f"again {more}", self.random.choice(["", "&force=true"])),
                 Step("GET", one, what="get")]
        return Case("apply", resource.kind, steps, [one])

    def forms(self, resource, name):
        """One object and a list of it in each form that can be asked for."""
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        base["metadata"]["labels"] = {"oracle": name, **base["metadata"].get("labels", {})}
        accepts = [TABLE, PARTIAL, PARTIALS, "application/yaml", protobuf.MEDIA, f"{protobuf.MEDIA}, */*", "application/cbor", "text/plain", "*/*", "application/*",
                   TABLE + ",application/json", PARTIAL.replace("json", "vnd.kubernetes.protobuf", 1), TABLE.replace("v=v1", "v=v1beta1"), "application/json;q=0.1,application/yaml",
                   "application/json;pretty=1", "application/json;as=Nothing", ""]
        chosen = self.random.sample(accepts, 4)
        steps = [Step("POST", path, base, {"Accept": self.random.choice(["application/json", chosen[0]])}, "base")]
        for accept in chosen:
            steps.append(Step("GET", one, headers={"Accept": accept}, what=accept))
            query = f"?labelSelector=oracle%3D{name}" + self.random.choice(["", "&pretty=true", "&includeObject=Object", "&includeObject=None", "&includeObject=x"])
            steps.append(Step("GET", path + query, headers={"Accept": accept}, what=f"list {accept}"))
        return Case("forms", resource.kind, steps, [one])

    def delete(self, resource, name):
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        if self.random.random() < 0.4:
            base["metadata"]["finalizers"] = self.random.choice([["example.com/a"], ["orphan"], ["foregroundDeletion"], ["a"]])
        bodies = [None, {}, {"preconditions": {"uid": "${0:metadata.uid}"}}, {"preconditions": {"uid": "x"}}, {"preconditions": {"resourceVersion": "1"}},
                  {"preconditions": {"resourceVersion": "${0:metadata.resourceVersion}"}}, {"propagationPolicy": "Foreground"}, {"propagationPolicy": "Orphan"}, {"propagationPolicy": "x"},
                  {"orphanDependents": True}, {"orphanDependents": False}, {"orphanDependents": True, "propagationPolicy": "Orphan"}, {"gracePeriodSeconds": 0}, {"gracePeriodSeconds": 7},
                  {"gracePeriodSeconds": -1}, {"dryRun": ["All"]}, {"dryRun": ["x"]}, {"kind": "DeleteOptions", "apiVersion": "v1", "x": 1}, {"kind": "Pod", "apiVersion": "v1"}, "x", "[]", {"gracePeriodSeconds": "x"}]
        query = self.random.choice(["", "", "", "?dryRun=All", "?gracePeriodSeconds=3", "?gracePeriodSeconds=x", "?propagationPolicy=Background", "?orphanDependents=true", "?propagationPolicy=x"])
        body = self.random.choice(bodies)
        steps = [Step("POST", path, base, what="base"), Step("DELETE", one + query, body, {"Content-Type": "application/json"} if body is not None else {}, f"{body} {query}"),
                 Step("GET", one, what="get"), Step("DELETE", one, what="again"), Step("GET", one, what="get")]
        return Case("delete", resource.kind, steps, [one])

    def listing(self, resource, name):
        """Three objects, listed by selectors and in pages, then deleted by a selector."""
        path, one = self.place(resource, name)
        if resource.plural in ("customresourcedefinitions", "namespaces"):
            return self.forms(resource, name)
        steps, cleanup = [], []
        for letter in "abc":
            body = self.example(resource, name + letter)
            body["metadata"]["labels"] = {"oracle": name, "letter": letter}
            steps.append(Step("POST", path, body, what="base"))
            cleanup.append(one + letter)
        mine = f"labelSelector=oracle%3D{name}"
        selectors = ["", ",letter", ",!letter", ",letter in (a,b)", ",letter notin (a)", ",letter!=a", ",letter=", ",letter==c", ",x y", ",letter in ()", ",letter>1", ",-a=b", ",letter=a%2C", ",a=" + "x" * 64]
        fields = ["metadata.name={n}a", "metadata.name!={n}a", "metadata.namespace=oracle", "metadata.namespace!=oracle", "spec.x=1", "status.phase=Pending", "spec.nodeName=", "type=Opaque",
                  "metadata.name", "metadata.name={n}a,metadata.name={n}b", "involvedObject.name=a", "spec.unschedulable=true", "reason=r", "metadata.labels=1", "status.successful=0"]
        for _ in range(3):
            query = mine + self.random.choice(selectors).replace(" ", "%20").replace("!", "%21").replace("=", "%3D").replace(">", "%3E")
            if self.random.random() < 0.4:
                query += "&fieldSelector=" + self.random.choice(fields).replace("{n}", name).replace("=", "%3D").replace("!", "%21")
            steps.append(Step("GET", f"{path}?{query}", what="selectors"))
        first = len(steps)
        steps.append(Step("GET", f"{path}?{mine}&limit=2", what="page"))
        steps.append(Step("GET", f"{path}?{mine}&limit=2&continue=${{{first}:metadata.continue}}", what="next page"))
        odd = ["limit=-1", "limit=x", "continue=x", "resourceVersion=x", "resourceVersion=1", "resourceVersion=0", "resourceVersion=1&resourceVersionMatch=Exact", "resourceVersionMatch=Exact",
               "resourceVersion=0&resourceVersionMatch=Exact", "resourceVersion=0&resourceVersionMatch=NotOlderThan", "resourceVersionMatch=x&resourceVersion=1", "sendInitialEvents=true", "timeoutSeconds=x",
               "allowWatchBookmarks=x", "watch=0", "watch=false", "watch=x&timeoutSeconds=1&resourceVersion=x", "fieldSelector=x", "labelSelector=%3D", "pretty=x", "timeout=x", "timeout=1s"]
        steps.append(Step("GET", f"{path}?{mine}&{self.random.choice(odd)}", what="odd query"))
        steps.append(Step("DELETE", f"{path}?{mine}&" + self.random.choice(["dryRun=All", "limit=1", "fieldSelector=metadata.name%3D" + name + "b", "gracePeriodSeconds=0", "propagationPolicy=Foreground", "x=y"]), what="deletecollection"))
        steps.append(Step("GET", f"{path}?{mine}", headers={"Accept": TABLE}, what="rest"))
        return Case("list", resource.kind, steps, cleanup)

    def duplicate(self, resource, name):
        path, one = self.place(resource, name)
        text, where = with_duplicate_key(self.example(resource, name), self.random)
        return Case("duplicate", resource.kind, [Step("POST", path + self.query(dryRun="All"), text, what=f"duplicate {where}")])

    def protobuf(self, resource, name):
        """A body in protobuf, and a broken one."""
        path, one = self.place(resource, name)
        base = self.example(resource, name)
        data = protobuf.encode(base, resource.type)
        headers = {"Content-Type": protobuf.MEDIA, "Accept": self.random.choice([protobuf.MEDIA, "application/json"])}
        steps = [Step("POST", path, data, headers, "base"), Step("GET", one, headers={"Accept": protobuf.MEDIA}, what="get")]
        broken = self.random.choice([data[:len(data) // 2], data[:-9], b"k8s\0", b"", b"{}", data[:20] + b"\xff" * 5, json.dumps(base).encode()])
        steps.append(Step("PUT", one, broken, headers, "broken"))
        changed = {**base, "metadata": {**base["metadata"], "labels": {"x": "y"}}}
        steps.append(Step("PUT", one, protobuf.encode(changed, resource.type), headers, "labelled"))
        return Case("protobuf", resource.kind, steps, [one])
