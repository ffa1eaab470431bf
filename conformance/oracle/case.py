"""A case: requests that both servers are sent one after another, each answer compared."""

import json
import re
import time

VARIABLE = re.compile(r"\$\{(\d+):([^}]*)\}")
JSON = "application/json"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Step:
    """One request. In path and body, `${2:metadata.resourceVersion}` stands for what the server itself answered to the
    case's third request. `body` is bytes, text, or a document that is sent as JSON."""

    def __init__(self, method, path, body=None, headers=None, what="", compare=True):
        self.method, self.path, self.body, self.headers = method, path, body, dict(headers or {})
        self.what, self.compare = what, compare

    def request(self, answers):
        """(method, path, headers, body) as sent, given the answers of the same server before it."""
        fill = lambda text: VARIABLE.sub(lambda m: lookup(answers, int(m[1]), m[2]), text)
        body = self.body
        if callable(body):
            body = body(answers)
        headers = {"User-Agent": "oracle/1", **self.headers}
        if body is not None and not isinstance(body, bytes):
            text = body if isinstance(body, str) else json.dumps(body)
            body = fill(text).encode(errors="surrogatepass")
            headers.setdefault("Content-Type", JSON)
        return self.method, fill(self.path), headers, body


def settle(server, answer):
    """Waits until the server has told, in the status, what it thinks of a definition's names, and serves it."""
    path = f"{DEFINITIONS}/{lookup([answer], 0, 'metadata.name')}"
    for _ in range(40):
        now = server.ask("GET", path, {}, None).json() or {}
        if now.get("kind") != "CustomResourceDefinition":
            return
        status = now.get("status") or {}
        conditions = {c.get("type"): c.get("status") for c in status.get("conditions") or []}
        accepted = lookup([answer], 0, "spec.names.kind") == status.get("acceptedNames", {}).get("kind")
        if accepted and (conditions.get("Established") == "True" or conditions.get("NamesAccepted") == "False"):
            return
        time.sleep(0.02)


def lookup(answers, index, path):
    value = answers[index].json() if index < len(answers) else None
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)


class Case:
    """Steps about one kind. `subject` names the kind, `family` how it was made."""

    def __init__(self, family, subject, steps, cleanup=()):
        self.family, self.subject, self.steps, self.cleanup = family, subject, list(steps), list(cleanup)
        # What its objects are called, and which one of its run it is.
        self.name, self.number = "", 0

    def run(self, server):
        """Answers to the steps; what the case has made is taken away again."""
        answers = []
        for step in self.steps:
            method, path, headers, body = step.request(answers)
            answers.append(server.ask(method, path, headers, body))
            if path.startswith(DEFINITIONS) and method in ("POST", "PUT", "PATCH") and answers[-1].status < 300:
                settle(server, answers[-1])
        for path in self.cleanup:
            headers = {"Content-Type": JSON}
            last = server.ask("DELETE", path, headers, b'{"gracePeriodSeconds":0,"propagationPolicy":"Background"}')
            if last.status in (200, 202) and b'"finalizers"' in last.body:
                server.ask("PATCH", path, {"Content-Type": "application/merge-patch+json"}, b'{"metadata":{"finalizers":null}}')
        return answers
