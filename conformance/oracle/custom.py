"""Cases about CustomResourceDefinitions and the objects they define."""

import copy

from case import Case, Step
from examples import WIDGET, named

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SPEC = {"type": "object", "required": ["size"], "properties": {
    "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3}, "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
    "name": {"type": "string", "minLength": 2, "maxLength": 5, "pattern": "^[a-z]+$"}, "ratio": {"type": "number", "multipleOf": 0.5, "exclusiveMaximum": True, "maximum": 3},
    "port": {"x-kubernetes-int-or-string": True}, "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}, "note": {"type": "string", "nullable": True},
    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 3}, "map": {"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2},
    "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": {"type": "object", "required": ["id"], "properties": {
        "id": {"type": "string"}, "n": {"type": "integer", "default": 1}}}},
    "when": {"type": "string", "format": "date-time"}, "address": {"type": "string", "format": "ipv4"}, "either": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "embedded": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}},
    "x-kubernetes-validations": [{"rule": "!has(self.name) || self.size > 1", "message": "a name needs size"}, {"rule": "!has(oldSelf.name) || self.name == oldSelf.name", "messageExpression": "'name was ' + oldSelf.name"}]}
STATUS = {"type": "object", "properties": {"ready": {"type": "boolean"}, "replicas": {"type": "integer"}}}
OBJECTS = [{"spec": {}}, {"spec": {"size": 2, "name": "abc", "port": "http", "tags": ["a", "b"], "parts": [{"id": "x"}, {"id": "y", "n": 2}], "free": {"a": {"b": 1}}, "map": {"a": 1}, "note": None}},
           {"spec": {"size": 9, "ratio": 1.5, "when": "2024-01-01T00:00:00Z", "address": "10.0.0.1", "either": {"a": "x"}, "embedded": {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}}}, "status": {"ready": True}}]
EDGES = {"size": [0, 1, 10, "3", 2.0, 2.5, None, 1 << 70], "color": ["green", "", None, 1], "name": ["a", "abcdef", "ABC", "", None, 5], "ratio": [3, 0.3, "x", 1e400], "port": [1, "a", 1.5, True, None],
         "free": [{}, {"x": [1, {"y": None}]}, [], None], "note": [None, "x", 1], "tags": [["a", "a"], ["a", "b", "c", "d"], [1], None, "a", [None]], "map": [{"a": "x"}, {"a": 1, "b": 2, "c": 3}, None, {"a": None}],
         "parts": [[{"id": "x"}, {"id": "x"}], [{}], [{"id": None}], [{"id": "x", "unknown": 1}], {}, [None], [{"id": "x", "n": "1"}]], "when": ["yesterday", "2024-01-01", ""], "address": ["::1", "x", ""],
         "either": [{}, {"a": "1", "b": "2"}, {"c": "3"}], "embedded": [{}, {"apiVersion": "v1"}, {"apiVersion": "v1", "kind": "X", "metadata": {"name": "a", "x": 1}}, {"apiVersion": 1, "kind": "X"}], "unknown": [1, {"a": 1}]}
# Changes of a schema: what a definition may not say, and what it may.
SCHEMA_EDGES = [("type", "nonsense"), ("type", None), ("type", "integer"), ("properties", {"a": {}}), ("properties", {"a": {"type": "string", "default": 1}}), ("items", {"type": "string"}), ("additionalProperties", True),
                ("additionalProperties", {"type": "string"}), ("nullable", True), ("$ref", "#/x"), ("uniqueItems", True), ("allOf", [{"type": "object"}]), ("anyOf", [{"properties": {"zz": {"minimum": 1}}}]), ("not", {"required": ["a"]}),
                ("x-kubernetes-preserve-unknown-fields", False), ("x-kubernetes-int-or-string", True), ("x-kubernetes-list-type", "map"), ("x-kubernetes-list-type", "x"), ("x-kubernetes-map-type", "atomic"), ("x-kubernetes-map-type", "x"),
                ("x-kubernetes-embedded-resource", True), ("x-kubernetes-validations", [{"rule": "self.nothing"}]), ("x-kubernetes-validations", [{"rule": ""}]), ("x-kubernetes-validations", [{"rule": "1"}]), ("x-kubernetes-validations", [{"rule": "self.size ="}]),
                ("x-kubernetes-validations", [{"rule": "true", "message": "a\nb"}]), ("x-kubernetes-validations", [{"rule": "true", "reason": "x"}]), ("x-kubernetes-validations", [{"rule": "true", "fieldPath": ".none"}]), ("pattern", "("), ("format", "x"),
                ("required", ["zz"]), ("enum", []), ("enum", [{"a": 1}]), ("default", {}), ("default", {"size": 0}), ("minimum", 3), ("maxLength", -1), ("description", "d"), ("title", 1), ("example", {"a": 1}), ("externalDocs", {"url": "x"})]
DEFINITION_EDGES = [("scope", "x"), ("scope", None), ("scope", "Cluster"), ("group", "example"), ("group", "other.com"), ("group", "x.k8s.io"), ("group", ""), ("names", {}), ("names", {"plural": "widgets", "kind": "widget"}), ("names", {"plural": "Widgets", "kind": "Widget"}),
                    ("names", {"plural": "widgets", "kind": "Widget", "shortNames": ["A"], "categories": ["all"]}), ("names", {"plural": "widgets", "kind": "Widget", "listKind": "Widget"}), ("preserveUnknownFields", True), ("preserveUnknownFields", False), ("versions", []),
                    ("conversion", {"strategy": "None"}), ("conversion", {"strategy": "Webhook"}), ("conversion", {"strategy": "x"}), ("unknown", 1)]
VERSION_EDGES = [("name", "V1"), ("name", ""), ("name", "v1beta"), ("served", False), ("storage", False), ("served", "x"), ("schema", None), ("schema", {}), ("subresources", {"status": {}}), ("subresources", {"scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}}),
                 ("subresources", {"scale": {"specReplicasPath": "spec.size"}}), ("subresources", {"scale": {"specReplicasPath": ".x", "statusReplicasPath": ".status[0]", "labelSelectorPath": ".y"}}), ("deprecated", True), ("deprecationWarning", "old"), ("selectableFields", [{"jsonPath": ".spec.color"}]),
                 ("selectableFields", [{"jsonPath": ".spec.none"}]), ("selectableFields", [{"jsonPath": ".metadata.name"}]), ("selectableFields", [{"jsonPath": ".spec.color"}] * 9), ("additionalPrinterColumns", [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]),
                 ("additionalPrinterColumns", [{"name": "A", "type": "x", "jsonPath": "spec"}]), ("additionalPrinterColumns", [{"name": "", "type": "string", "jsonPath": ".a[?(@.b)]", "format": "x", "priority": -1}])]


def definition(name):
    """A definition with what a schema can say."""
    spec = copy.deepcopy(WIDGET)
    spec["versions"][0]["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"spec": copy.deepcopy(SPEC), "status": STATUS}}
    spec["versions"][0]["subresources"] = {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}}
    spec["versions"][0]["additionalPrinterColumns"] = [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]
    spec["versions"][0]["selectableFields"] = [{"jsonPath": ".spec.color"}]
    return named({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.NAME.example.com"}, "spec": spec}, name)


def served():
    """The definition that both servers hold while cases about its objects run."""
    return definition("shop") | {"metadata": {"name": "widgets.shop.example.com"}}


class Custom:
    """Draws definitions, and objects of one definition that both servers hold (group `shop.example.com`)."""

    def __init__(self, random):
        self.random = random

    def draw(self, name):
        return self.define(name) if self.random.random() < 0.35 else self.objects(name)

    def define(self, name):
        pick = self.random.choice
        body = definition(name)
        version = body["spec"]["versions"][0]
        holder, edges, where = pick([(body["spec"], DEFINITION_EDGES, "spec"), (version, VERSION_EDGES, "version"), (version["schema"]["openAPIV3Schema"], SCHEMA_EDGES, "schema"),
                                     (version["schema"]["openAPIV3Schema"]["properties"]["spec"], SCHEMA_EDGES, "spec schema"), (version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["tags"], SCHEMA_EDGES, "list schema"),
                                     (version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["parts"]["items"]["properties"]["id"], SCHEMA_EDGES, "string schema")])
        key, value = pick(edges)
        if value is None:
            holder.pop(key, None)
        else:
            holder[key] = value
        if pick([0, 0, 1]):
            return Case("definition", "CustomResourceDefinition", [Step("POST", DEFINITIONS + "?dryRun=All", body, what=f"{where} {key}={value}")])
        one = f"{DEFINITIONS}/widgets.{name}.example.com"
        patch = {"spec": body["spec"]}
        steps = [Step("POST", DEFINITIONS, definition(name), what="base"), Step("PATCH", one, patch, {"Content-Type": "application/merge-patch+json"}, f"{where} {key}={value}")]
        return Case("definition", "CustomResourceDefinition", steps, [one])

    def mutated(self, original):
        pick = self.random.choice
        changed = copy.deepcopy(original)
        key = pick(list(EDGES))
        value = pick(EDGES[key])
        spec = changed.setdefault("spec", {})
        if pick([0] * 5 + [1]):
            key, value = pick([("spec", None), ("spec", "x"), ("spec", []), ("status", {"ready": "x"}), ("status", {"unknown": 1}), ("extra", 1), ("metadata", {"name": changed["metadata"]["name"], "x": 1}), ("metadata", {"name": changed["metadata"]["name"], "labels": {"a": 1}}),
                               ("metadata", {"name": changed["metadata"]["name"], "creationTimestamp": "x"}), ("apiVersion", "shop.example.com/v2"), ("kind", "Gadget"), ("metadata", {"name": "A_b"})])
            changed[key] = value
        else:
            spec[key] = value
        return changed, f"{key}={str(value)[:40]}"

    def objects(self, name):
        pick = self.random.choice
        path = "/apis/shop.example.com/v1/namespaces/oracle/widgets"
        one = f"{path}/{name}"
        base = {"apiVersion": "shop.example.com/v1", "kind": "Widget", "metadata": {"name": name}, **copy.deepcopy(pick(OBJECTS))}
        changed, what = self.mutated(base)
        mode = pick(["", "", "fieldValidation=Strict", "fieldValidation=Ignore", "fieldValidation=Warn"])
        query = f"?{mode}" if mode else ""
        made = Step("POST", path, base, what="base")
        which = pick(["create", "create", "update", "merge", "json", "apply", "status", "scale", "forms", "list", "delete"])
        if which == "create":
            return Case("custom create", "Widget", [Step("POST", f"{path}?dryRun=All" + (f"&{mode}" if mode else ""), changed, what=what)])
        after = {
            "update": lambda: [Step("PUT", one + query, changed, what=what)],
            "merge": lambda: [Step("PATCH", one + query, {k: v for k, v in changed.items() if v != base.get(k)}, {"Content-Type": pick(["application/merge-patch+json", "application/strategic-merge-patch+json"])}, what)],
            "json": lambda: [Step("PATCH", one + query, [{"op": pick(["add", "replace", "remove", "test"]), "path": f"/spec/{pick(list(EDGES))}", "value": pick([1, "x", ["a"]])}], {"Content-Type": "application/json-patch+json"}, "json patch")],
            "apply": lambda: [Step("PATCH", f"{one}?fieldManager=second{pick(['', '&force=true'])}" + (f"&{mode}" if mode else ""), changed, {"Content-Type": "application/apply-patch+yaml"}, what),
                              Step("PATCH", f"{one}?fieldManager=third", {**base, "spec": {"size": 4, "parts": [{"id": "x", "n": 7}]}}, {"Content-Type": "application/apply-patch+yaml"}, "third")],
            "status": lambda: [Step("PUT", one + "/status" + query, {**changed, "status": pick([{"ready": True}, {"ready": 1}, {"x": 1}, None])}, what=f"status {what}"), Step("GET", one + "/status", what="get status")],
            "scale": lambda: [Step("GET", one + "/scale", what="get scale"), Step("PATCH", one + "/scale", {"spec": {"replicas": pick([1, 5, 99, -1])}}, {"Content-Type": "application/merge-patch+json"}, "scale")],
            "forms": lambda: [Step("GET", pick([one, f"{path}?fieldSelector=metadata.name%3D{name}"]), headers={"Accept": accept}, what=accept) for accept in
                              ["application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"]],
            "list": lambda: [Step("GET", f"{path}?fieldSelector=metadata.name%3D{name}{extra}", what=f"list {extra}") for extra in ["", ",spec.color%3Dred", ",spec.color%3Dblue", ",spec.size%3D1", "&limit=1"]],
            "delete": lambda: [Step("DELETE", one + pick(["", "?dryRun=All", "?propagationPolicy=Foreground"]), what="delete"), Step("DELETE", one, what="again")],
        }[which]()
        return Case(f"custom {which}", "Widget", [made, *after, Step("GET", one, what="get")], [one])
