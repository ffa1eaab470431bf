#!/usr/bin/env python3
"""Writes the first inputs of every target to fuzz/corpus, from this repository's test data and, where the Go module cache
has it, upstream's."""

import base64
import glob
import json
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"
MODULES = os.environ.get("GOMODCACHE", os.path.expanduser("~/go/pkg/mod"))
LARGEST = 16 << 10

SELECTORS = [
    "a=b", "a==b,c!=d", "x in (a,b),y notin (c)", "!x,y", "a>5,b<7", "in in (in)", "k8s.io/a = ", "a,",
    "metadata.name=x", "spec.nodeName!=n1,status.phase=Running", r"metadata.name=a\,b\=c\\",
]
EXPRESSIONS = [
    "object.spec.replicas <= 5", "has(object.metadata.labels) && 'a' in object.metadata.labels",
    "self.all(x, x.startsWith('a'))", "object.metadata.name.matches('^[a-z]+$')", "[1,2,3].map(x, x * 2).sum() == 12",
    "quantity('1Gi').isGreaterThan(quantity('5M'))", "url('https://a/b').getHost()", "duration('1h') > duration('3m')",
    "timestamp('2026-01-01T00:00:00Z') + duration('1h')", "ip('10.0.0.1').family() == 4", "cidr('10.0.0.0/8').containsIP('10.1.1.1')",
    "'%s is %d'.format(['a', 5])", "optional.of(1).orValue(2)", "object.?spec.?replicas.orValue(0)", "{'a': 1, 'b': [1, 2]}['b'][0]",
    "object.metadata.labels.exists_one(k, k == 'a') ? 'x' : \"y\"", "sets.contains([1,2],[1])", "semver('1.2.3').major()",
    "JSONPatch{op: 'add', path: '/a', value: 1}", "Object{spec: Object.spec{replicas: 1}}", "'a,b'.split(',').join('-').replace('a','b')",
    "authorizer.group('').resource('pods').namespace('d').check('get').allowed()", "b'abc'.size() + 0x1F + 1u", "-1.5e3 < 2.0",
    "[[1],[2]].all(x, x.all(y, y > 0))", "'abc'.find('[a-z]+') == r'\\d'", "dyn(1) == 1.0", "lists.range(5).filter(i, i % 2 == 0)",
]
SCALARS = [
    "1", "100m", "1.5Gi", "-3e6", "1E", "0.000000001", "9223372036854775807", "1Ki", "5n", "12u", "2026-01-02T03:04:05Z",
    "2026-01-02T03:04:05.123456+02:00", "{.spec.containers[*].name}", "{.items[?(@.a==1)].b}", ".metadata.name", "50%",
    "example.com/name", "a-b.c", "X_Y",
]
URLS = [
    "/api/v1/namespaces/a/pods/b/log?follow=true", "/apis/apps/v1/deployments?watch=1&resourceVersion=5&allowWatchBookmarks=true",
    "/api/v1/pods?limit=5&continue=" + base64.urlsafe_b64encode(b'{"v":"meta.k8s.io/v1","rv":5,"start":"a/b\\u0000"}').decode().rstrip("="),
    "/api/v1/nodes/n1:10250/proxy/a/b?c=d", "/api/v1/pods?labelSelector=a%3Db&fieldSelector=metadata.name%3Dx&timeoutSeconds=3",
    "/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
    "/api/v1/watch/namespaces/a/pods/b", "/apis/a.b/v1/namespaces/%2e%2e/c?resourceVersion=0&resourceVersionMatch=Exact",
    "/x?accept=application/json;as=Table;v=v1;g=meta.k8s.io,application/vnd.kubernetes.protobuf&pretty=1",
]
PATCHES = [
    '[{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"test","path":"/metadata/name","value":"a"}]',
    '[{"op":"copy","from":"/spec","path":"/metadata/x"},{"op":"move","from":"/metadata/x","path":"/x"},{"op":"remove","path":"/x"}]',
    '{"metadata":{"labels":{"a":null,"b":"c"},"annotations":null},"spec":{"replicas":3}}',
    '{"spec":{"containers":[{"name":"c","image":"x"},{"$patch":"delete","name":"d"}],"$setElementOrder/containers":[{"name":"c"}]}}',
    '{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["b"]},"spec":{"$retainKeys":["a"],"$patch":"replace"}}',
]
SCHEMA = {
    "type": "object", "required": ["spec"], "properties": {
        "spec": {
            "type": "object", "x-kubernetes-validations": [{"rule": "self.size < 5 || has(self.names)", "message": "m"}],
            "properties": {
                "size": {"type": "integer", "default": 3, "minimum": 1, "maximum": 10},
                "names": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 9, "pattern": "^a"}},
                "ports": {
                    "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                    "items": {"type": "object", "required": ["port"], "properties": {"port": {"x-kubernetes-int-or-string": True}, "p": {"type": "string", "enum": ["TCP", "UDP"], "default": "TCP"}}},
                },
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "more": {"type": "object", "additionalProperties": {"type": "number", "nullable": True, "multipleOf": 0.5}},
                "raw": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
                "when": {"type": "string", "format": "date-time"},
            },
        },
    },
}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
        "versions": [{
            "name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "selectableFields": [{"jsonPath": ".spec.size"}],
        }],
    },
}
WIDGET = {
    "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
    "spec": {"size": 2, "names": ["a", "ab"], "ports": [{"port": 1}, {"port": "x", "p": "UDP"}], "more": {"a": 1.5, "b": None}, "free": {"x": [1]}},
}


def texts(value):
    return json.dumps(value, separators=(",", ":")).encode()


def lines(path):
    for line in (ROOT / path).read_text().splitlines():
        if line.strip():
            yield json.loads(line)


def ruled(expression):
    """The definition with the expression as a rule of its spec."""
    definition = json.loads(json.dumps(DEFINITION))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rule = expression.replace("object.metadata", "self").replace("object", "self")
    schema["properties"]["spec"]["x-kubernetes-validations"] = [{"rule": rule, "fieldPath": ".size", "messageExpression": "string(self.size)"}]
    return definition


def write(target, inputs):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for data in inputs:
        if len(data) <= LARGEST:
            (folder / f"seed-{count:04}").write_bytes(data)
            count += 1
    print(f"{target}: {count}")


def main():
    objects = [case["object"] for case in lines("crates/kinds/tests/data/upstream_rules.jsonl")]
    protobuf = [case for case in lines("crates/kinds/tests/data/upstream_protobuf.jsonl") if "protobuf" in case]
    applied = [step for case in lines("crates/apimachinery/tests/data/apply_upstream.jsonl") for step in case]
    objects += [case["object"] for case in protobuf if "object" in case]
    extensions = [case["object"] for case in lines("crates/kinds/tests/data/upstream_extensions.jsonl")]
    objects += extensions[::5]
    encoded = [texts(value) for value in objects]
    upstream = glob.glob(f"{MODULES}/k8s.io/pod-security-admission@*/test/testdata/*/v1.35/*/*.yaml")
    ours = glob.glob(f"{ROOT}/examples/**/*.yaml", recursive=True)
    write("json", encoded + [texts(step["sent"]) for step in applied[:200]])
    write("yaml", [pathlib.Path(path).read_bytes() for path in upstream + ours] + [b"a: &x [1, ~, 'y']\nb: *x\n? c\n: |\n  d\n"])
    write("protobuf", [base64.b64decode(case["protobuf"]) for case in protobuf])
    write("patches", [value + b"\0" + patch.encode() for value in encoded[:200] for patch in PATCHES])
    write("apply", [value + b"\0" + value for value in encoded])
    write("selectors", [one.encode() + b"\0" + b'{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"x","operator":"In","values":["y"]}]}' for one in SELECTORS])
    write("expressions", [one.encode() + b"\0" + encoded[at % len(encoded)] for at, one in enumerate(EXPRESSIONS)])
    write("scalars", [one.encode() + b"\0" + SCALARS[at - 1].encode() for at, one in enumerate(SCALARS)])
    write("definition", [texts(DEFINITION) + b"\0" + texts(WIDGET) + b"\0" + texts(dict(WIDGET, spec={}))] +
          [texts(ruled(one)) + b"\0" + texts(WIDGET) + b"\0" + texts(WIDGET) for one in EXPRESSIONS])
    write("builtin", encoded + [value + b"\0" + value for value in encoded])
    write("requests", [url.encode() for url in URLS])
    write("spdy", [
        b"\xff" + bytes.fromhex("8003000600000004000000010000000100000003616263"),
        b"\x05" + bytes.fromhex("80030004000000040000000080030007000000080000000000000000800300030000000800000001000000058003000900000008000000010000ffff"),
    ])
    write("websocket", [
        bytes([number]) + bytes.fromhex("8283000000000061628180000000008880000000008983000000006162638282000000 00ff00".replace(" ", ""))
        for number in range(5)
    ])


main()
