"""Cases with upstream's answers, for tests that run without upstream (crates/apiserver/tests/server/recorded.rs).

A line is a case: `{"title", "steps": [{"method", "path", "headers", "body", "status", "warnings", "answer"}]}`. In answers,
`<uid>`, `<time>`, `<revision>`, `<ip>`, `<port>`, `<host>`, `<age>` and `<random>` stand for what differs each time.
"""

import json
import pathlib

import custom
from compare import Cleaner, document


def line(title, case, answers, said):
    """The case as a line; None where an answer or a body is no JSON or text."""
    steps = []
    for index, (step, answer) in enumerate(zip(case.steps, answers)):
        body = step.body
        if isinstance(body, bytes):
            try:
                body = body.decode()
            except UnicodeDecodeError:
                return None
        if callable(body) or answer.body.startswith(b"k8s\0"):
            return None
        headers = dict(step.headers)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        clean = Cleaner(said(case, index))
        steps.append({"method": step.method, "path": step.path, "headers": headers, "body": body, "status": answer.status,
                      "warnings": [clean.text(v) for k, v in answer.headers if k == "warning"], "answer": clean.value(document(answer))})
    return json.dumps({"title": title, "steps": steps}, ensure_ascii=False)


class Recorder:
    """Writes the cases that are asked for."""

    def __init__(self, path, wanted):
        self.out = open(path, "w") if path else None
        if path:
            pathlib.Path(path).with_name("definition.json").write_text(json.dumps(custom.served()) + "\n")
        self.wanted = None
        if wanted:
            first = {}
            with open(wanted) as lines:
                for told in map(json.loads, lines):
                    first.setdefault((told["kind"], told["what"]), told["case"])
            self.wanted = set(first.values())

    def offer(self, case, answers, said):
        if self.out and (self.wanted is None or case.number in self.wanted):
            text = line(f"{case.family} {case.subject}: {case.steps[-1].what}", case, answers, said)
            if text:
                self.out.write(text + "\n")

    def close(self):
        if self.out:
            self.out.close()
