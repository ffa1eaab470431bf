"""Values of a field's type: plausible ones, ones at and past limits, and ones of other types."""

EDGES = {
    "string": ["", "a", "A_b", "x" * 63, "x" * 64, "x" * 253, "x" * 254, "a.b", "-a", "a b", "a/b", "é", "1",
               "10.0.0.1", "2001:db8::1", "10.0.0.0/8", "http://x/", "\u0000", "a\nb"],
    "int32": [0, 1, -1, 2, 100, 65535, 65536, 2147483647, 2147483648, -2147483649],
    "int64": [0, 1, -1, 30, 2147483648, 9223372036854775807],
    "float64": [0, 0.5, -1],
    "bool": [True, False],
    "bytes": ["aGk=", "", "%%%", "aGk"],
    "time": ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5+01:00", "yesterday", ""],
    "microtime": ["2024-01-01T00:00:00.123456Z", "2024-01-01T00:00:00Z", "yesterday"],
    "duration": ["1s", "1h2m", "-1s", "1"],
    "quantity": ["1", "0", "-1", "1000m", "0.5", "1.5Gi", "1e3", "abc", "", 5, "1Ei", "0.1m", "100000000000000000000"],
    "intstr": [1, 0, -1, 8080, 65536, "50%", "101%", "http", "-1", "", "a_b", "10", "abcdefghijklmnop"],
    "object": [{"a": 1}, {"apiVersion": "v1", "kind": "X"}],
    "any": [{"a": 1}, [1], "x", 1],
}

WRONG = {
    "string": [1, True, {}, [], 1.5], "int32": ["1", 1.5, True, {}, "a"], "int64": ["1", 1.5, [], "a"],
    "float64": ["a", []], "bool": ["true", 1, {}], "bytes": [1, {}, []], "time": [1, {}], "microtime": [1, {}],
    "duration": [1, {}], "quantity": [True, {}, []], "intstr": [1.5, True, {}, []], "object": ["x", 1, []], "any": [None],
}

PLAUSIBLE = {
    "string": ["a", "web", "example.com/a"], "int32": [1, 3, 80], "int64": [1, 30], "float64": [0.5], "bool": [True, False],
    "bytes": ["aGk="], "time": ["2024-01-01T00:00:00Z"], "microtime": ["2024-01-01T00:00:00.000001Z"], "duration": ["30s"],
    "quantity": ["1", "100m", "1Gi"], "intstr": [80, "25%", "http"], "object": [{"a": 1}], "any": [{"a": 1}],
}


class Values:
    """Draws values for types of a facts table."""

    def __init__(self, table, random):
        self.table, self.random = table, random

    def plausible(self, field_type, enum=(), depth=0):
        """A value that decodes and that may be valid."""
        pick = self.random.choice
        if field_type.startswith("[]"):
            return [self.plausible(field_type[2:], enum, depth + 1)]
        if field_type.startswith("{}"):
            return {pick(["a", "cpu", "memory", "example.com/a"]): self.plausible(field_type[2:], enum, depth + 1)}
        if enum:
            return pick(enum)
        if field_type in PLAUSIBLE:
            return pick(PLAUSIBLE[field_type])
        result = {}
        for field in self.table.fields(field_type):
            if field.required or (depth < 4 and self.random.random() < 0.25):
                result[field.name] = self.plausible(field.type, field.enum, depth + 1)
        return result

    def edge(self, field_type, enum=()):
        """A value that decodes, mostly, and that may be past a limit."""
        pick = self.random.choice
        if field_type.startswith("[]"):
            inner = field_type[2:]
            one = self.edge(inner, enum) if self.random.random() < 0.5 else self.plausible(inner, enum)
            return pick([[], [one], [one, one], [None], [self.plausible(inner, enum), self.edge(inner, enum)]])
        if field_type.startswith("{}"):
            key = pick(["", "a", "A_b", "x" * 64, "x" * 254, "a/b/c", "-a", "cpu", "requests.cpu", "é", "a b"])
            return pick([{}, {key: self.edge(field_type[2:])}, {key: self.plausible(field_type[2:])}])
        if enum:
            return pick([*enum, "", "Nonsense", enum[0].lower()])
        if field_type in EDGES:
            return pick(EDGES[field_type])
        return pick([{}, self.plausible(field_type, enum)])

    def wrong(self, field_type):
        """A value of another type."""
        pick = self.random.choice
        if field_type.startswith("[]"):
            return pick(["x", 1, {}, [self.wrong(field_type[2:])], {"a": "b"}])
        if field_type.startswith("{}"):
            return pick(["x", 1, [], {"a": self.wrong(field_type[2:])}])
        if field_type in WRONG:
            return pick(WRONG[field_type])
        return pick(["x", 1, [], True])
