"""The facts table (crates/kinds/src/facts.rs describes its form): kinds, fields, their types."""

import json
import pathlib
import re

TABLE = pathlib.Path(__file__).resolve().parents[2] / "crates/kinds/facts/v1.37.2.txt"
SCALARS = {"string", "int32", "int64", "float64", "bool", "bytes", "time", "microtime", "duration", "quantity",
           "intstr", "object", "any"}


class Field:
    """One field of a type. `type` is a scalar word or a type's name below any number of `[]` and `{}`."""

    def __init__(self, words):
        self.name, self.type = words[:2]
        self.tag, self.pointer, self.required, self.always, self.default, self.enum = None, False, False, None, None, []
        for word in words[2:]:
            if word.startswith("#"):
                self.tag = tuple(int(n) for n in word[1:].split("."))
            elif word == "ptr":
                self.pointer = True
            elif word == "req":
                self.required = True
            elif word.startswith("!"):
                self.always = json.loads(word[1:])
            elif word.startswith("="):
                self.default = json.loads(word[1:])
            elif word.startswith("enum="):
                self.enum = word[5:].replace("~", " ").split(",")


class Resource:
    """One `resource` line: what is served where."""

    def __init__(self, words):
        self.version, self.plural, self.singular, self.kind, scope, self.type = words[1:7]
        self.namespaced = scope == "namespaced"
        rest = dict(word.split("=", 1) for word in words[7:])
        self.verbs = rest.get("verbs", "").split(",")
        self.subresources = {}

    def root(self):
        return f"/api/{self.version}" if "/" not in self.version else f"/apis/{self.version}"

    def path(self, namespace="oracle"):
        return f"{self.root()}/namespaces/{namespace}/{self.plural}" if self.namespaced else f"{self.root()}/{self.plural}"

    def __repr__(self):
        return f"{self.version} {self.plural}"


class Table:
    """Everything."""

    def __init__(self, text=None):
        self.resources, self.types = [], {}
        fields = None
        for line in (text or TABLE.read_text()).splitlines():
            words = re.split(r" +", line.strip())
            if line.startswith("resource "):
                self.resources.append(Resource(words))
            elif line.startswith("type "):
                fields = self.types.setdefault(words[1], [])
            elif line.startswith(" sub "):
                self.resources[-1].subresources[words[1]] = words[4].split(",")
            elif line.startswith(" ") and not line.startswith(" col "):
                fields.append(Field(words))

    def fields(self, name):
        """Fields of a type; none of scalars."""
        return self.types.get(name, [])
