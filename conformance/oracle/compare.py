"""What differs between two answers, after what has to differ was taken out."""

import base64
import datetime
import difflib
import json
import re

import protobuf

UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} \w+( m=\S+)?")
SERVICE = re.compile(r"\b10\.96\.\d+\.\d+\b")
TOKEN_VOLUME = re.compile(r"\bkube-api-access-[a-z0-9]{5}\b")
REVISION = re.compile(r"(resource ?version(?: in object meta)?[^0-9]{1,4})\d+(, current: \d+| \(\d+\))?", re.I)
IN_RECORD = re.compile(r"in record \(\d+\)")
GENERATED = re.compile(r"generateName['\"]: ['\"]([^'\"]+)['\"]")
QUOTED = re.compile(r"(: |- )(['\"])(.*)\2$", re.M)
KEY = re.compile(r"^([ -]*)(['\"])([^'\"]*)\2:", re.M)
ITEM = re.compile(r" *(- |-$|[^ ]+:( |$))")
PORTS = re.compile(r"\b(\d+:)(3[0-9]{4})(/(?:TCP|UDP|SCTP))")
YAML_PORT = re.compile(r"\b((?:nodePort|healthCheckNodePort): )(3[0-9]{4})\b")
# What follows is a diff by a library whose form is not stable.
DIFFED = re.compile(r"((?:spec is immutable after creation|pod updates may not change fields|is immutable after creation|existing ephemeral containers [^ ]+ may not be changed)[^\n]*)\n.*", re.S)
AGE = re.compile(r"\d+s")
# Audit-Id and dates are made anew for each request; lengths follow from bodies.
HEADERS = ["content-type", "warning", "cache-control", "retry-after", "vary", "x-content-type-options", "allow", "location",
           "content-encoding", "www-authenticate"]


class Cleaner:
    """Takes out what has to differ. What the request itself says is kept as it is."""

    def __init__(self, request_text):
        self.said = request_text
        bases = "|".join(re.escape(base[:58]) for base in set(GENERATED.findall(request_text)))
        self.generated = re.compile(rf"({bases})[bcdfghjklmnpqrstvwxz2456789]{{5}}\b") if bases else None
        self.now = datetime.datetime.now(datetime.timezone.utc)

    def text(self, text):
        text = UUID.sub(lambda m: m[0] if m[0] in self.said else "<uid>", text)
        text = DIFFED.sub(r"\1<diff>", TIME.sub(self._time, text))
        text = SERVICE.sub(lambda m: m[0] if m[0] in self.said else "<ip>", text)
        port = lambda m: m[0] if m[2] in self.said else f"{m[1]}<port>{m[3] if m.lastindex > 2 else ''}"
        text = YAML_PORT.sub(port, PORTS.sub(port, text))
        text = TOKEN_VOLUME.sub("kube-api-access-<random>", text)
        if self.generated:
            text = self.generated.sub(r"\1<random>", text)
        text = IN_RECORD.sub("in record (<revision>)", REVISION.sub(r"\1<revision>", text))
        return re.sub(r"127\.0\.0\.1:\d+", "<host>", text)

    def _time(self, match):
        try:
            at = datetime.datetime.fromisoformat(match[0][:19].replace(" ", "T")).replace(tzinfo=datetime.timezone.utc)
        except ValueError:
            return match[0]
        return "<time>" if abs((self.now - at).total_seconds()) < 7200 else match[0]

    def value(self, value, key=None):
        if isinstance(value, dict):
            value = {k: self.value(v, k) for k, v in value.items()}
            if "resourceVersion" in value and str(value["resourceVersion"]).isdigit() and value["resourceVersion"] != "0":
                value["resourceVersion"] = "<revision>"
            if isinstance(value.get("managedFields"), list):
                value["managedFields"].sort(key=lambda e: json.dumps(e, sort_keys=True))
            # Upstream keeps bindings in a Go map, and asks components all at once.
            anyhow = {"SelfSubjectRulesReview": ("resourceRules", "nonResourceRules"), "ComponentStatusList": ("items",)}
            for field in anyhow.get(str(value.get("kind")), ()):
                holder = value if field in value else value.get("status") or {}
                if isinstance(holder.get(field), list):
                    holder[field].sort(key=lambda e: json.dumps(e, sort_keys=True))
            return value
        if isinstance(value, list):
            return [self.value(v, key) for v in value]
        if key in ("nodePort", "healthCheckNodePort") and isinstance(value, int) and str(value) not in self.said:
            # Upstream's dry runs count on past the end of the range.
            return "<port>" if 30000 <= value <= 32767 + 2768 else value
        if key == "cells" and isinstance(value, str) and AGE.fullmatch(value):
            return "<age>"
        if key == "continue" and value:
            return self._token(value)
        return self.text(value) if isinstance(value, str) else value

    def _token(self, token):
        try:
            inside = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            inside["rv"] = "<revision>"
            return inside
        except ValueError:
            return token


def document(answer):
    """The body as JSON documents say it: a document, or text; and how it was encoded."""
    kind = (answer.header("content-type") or "").split(";")[0]
    if not answer.body:
        return ""
    if answer.body.startswith(b"k8s\0"):
        return protobuf.decode(answer.body)
    if kind in ("application/json", ""):
        try:
            return json.loads(answer.body)
        except ValueError:
            lines = answer.body.decode(errors="replace").splitlines()
            try:
                return [json.loads(line) for line in lines]
            except ValueError:
                pass
    text = answer.body.decode(errors="replace")
    # Which quotes a YAML writer chooses, and where it breaks lines, says nothing.
    return QUOTED.sub(r"\1\3", folded(KEY.sub(r"\1\3:", text))) if kind == "application/yaml" else text


def folded(text):
    """YAML with each plain text on one line."""
    lines = []
    for line in text.splitlines():
        if lines and line.startswith(" ") and not ITEM.match(line) and not lines[-1].endswith((":", "|", "|-", ">", ">-")):
            lines[-1] += " " + line.strip()
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def general(text):
    """A message without names and numbers: answers that differ alike are one cause."""
    text = re.sub(r'\\"', "'", str(text))
    text = re.sub(r'"[^"]{0,400}"', '"…"', text)
    text = re.sub(r"\bc\d+[a-z]*\b", "NAME", text)
    return re.sub(r"\d+", "N", text)[:300]


def brief(value):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 400 else text[:400] + "…"


def differences(step_text, upstream, ours):
    """[(what in general, upstream's, ours)], empty if the answers agree."""
    clean = Cleaner(step_text)
    a, b = clean.value(document(upstream)), clean.value(document(ours))
    found = []
    if upstream.status != ours.status:
        reason = lambda s, d: d.get("message", "") if s >= 400 and isinstance(d, dict) else (d if s >= 400 else "")
        words = reason(upstream.status, a) or reason(ours.status, b)
        what = f"status {upstream.status} is {ours.status}: {general(words)}"
        return [(what, brief(a), brief(b))]
    for name in HEADERS:
        mine, theirs = (sorted(clean.text(v) for k, v in x.headers if k == name) for x in (upstream, ours))
        if mine != theirs:
            lacking, extra = [v for v in mine if v not in theirs], [v for v in theirs if v not in mine]
            found.append((f"header {name}: {general(lacking)} is {general(extra)}", brief(mine), brief(theirs)))
    if isinstance(a, dict) and isinstance(b, dict) and a.get("kind") == b.get("kind") == "Status":
        found += of_status(a, b)
    else:
        found += [(f"{place(p)}: {k}", f"{p} {brief(x)}", brief(y)) for p, k, x, y in of_values(a, b, "")]
    if not found and upstream.header("content-type") == "application/json" and key_order(a) != key_order(b):
        found.append(("order of keys", brief(key_order(a)), brief(key_order(b))))
    return found


def key_order(value):
    if isinstance(value, dict):
        return [[k, key_order(v)] for k, v in value.items()]
    return [key_order(v) for v in value] if isinstance(value, list) else None


def of_status(a, b):
    causes = lambda s: [json.dumps(c, sort_keys=True) for c in (s.get("details") or {}).get("causes") or []]
    mine, theirs = causes(a), causes(b)
    if len({c.get("message") for c in (a.get("details") or {}).get("causes") or [] if c.get("reason") == "FieldManagerConflict"}) > 1:
        # Upstream keeps managers in a Go map: they come in any order, each one's fields together.
        (a, mine), (b, theirs) = by_manager(a), by_manager(b)
    found = []
    if sorted(mine) != sorted(theirs):
        for side, sign, other in ((mine, "lacks", theirs), (theirs, "adds", mine)):
            rest = list(other)
            for cause in side:
                if cause in rest:
                    rest.remove(cause)
                    continue
                said = json.loads(cause)
                field = re.sub(r"\[[^\]]*\]", "[]", said.get("field", ""))
                what = f"{sign} cause {said.get('reason')} {field}: {general(said.get('message', ''))}"
                found.append((what, brief(said) if sign == "lacks" else "", brief(said) if sign == "adds" else ""))
        return found
    if mine != theirs:
        found.append(("order of causes", brief(mine), brief(theirs)))
    rest = lambda s: {k: v for k, v in s.items() if k != "message"}
    found += [(f"Status {p}: {k}", brief(x), brief(y)) for p, k, x, y in of_values(rest(a), rest(b), "")]
    if a.get("message") != b.get("message") and mine == theirs:
        found.append((f"message: {general(a.get('message'))} is {general(b.get('message'))}", brief(a.get("message")), brief(b.get("message"))))
    return found


def by_manager(status):
    """A conflict with its causes, and the lines of its message, sorted by manager."""
    causes = sorted(status["details"].get("causes") or [], key=lambda c: c.get("message", ""))
    head, *parts = status.get("message", "").split("conflicts with ")
    message = head + "".join(sorted(part.strip() + "\n" for part in parts))
    return {**status, "message": message, "details": {**status["details"], "causes": causes}}, [json.dumps(c, sort_keys=True) for c in causes]


def place(path):
    """A path as causes name it: OpenAPI's schemas and operations are told apart by what differs in them, not by name."""
    match = re.match(r"(components\.schemas|definitions|paths)\.", path)
    return f"{match[1]}.*.{path.rsplit('.', 1)[-1]}" if match else path


def of_values(a, b, path):
    """(path without indices, what, upstream's, ours) of each place that differs."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            here = f"{path}.{key}" if path else key
            if re.search(r"managedFields|\.f:", path) and key not in ("fieldsV1", "manager", "operation", "time", "apiVersion", "subresource"):
                here = path if key.startswith("k:") else here
            if key not in b:
                yield here, "lacking", a[key], "absent"
            elif key not in a:
                yield here, "added", "absent", b[key]
            else:
                yield from of_values(a[key], b[key], here)
    elif isinstance(a, list) and isinstance(b, list):
        if len(a) == len(b):
            for x, y in zip(a, b):
                yield from of_values(x, y, f"{path}[]")
        else:
            yield path, "other length", a, b
    elif type(a) is not type(b):
        yield path, f"{type(a).__name__} is {type(b).__name__}", a, b
    elif a != b:
        if isinstance(a, str) and "\n" in a:
            lines = [l for l in difflib.unified_diff(a.splitlines(), b.splitlines(), n=0, lineterm="")][2:]
            yield path, "other text", "\n".join(lines)[:400], ""
        else:
            yield path, "other", a, b
