"""Differences grouped by cause, and told."""

import collections
import json
import pathlib
import re

ACCEPTED = pathlib.Path(__file__).resolve().parent / "accepted.txt"


def accepted():
    """[(pattern over `family kind what`, reason)]: lines of `PATTERN  ## REASON`."""
    found = []
    for line in ACCEPTED.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, reason = line.split("  ## ")
            found.append((re.compile(pattern.strip()), reason.strip()))
    return found


class Report:
    """Counts and examples."""

    def __init__(self):
        self.requests = self.differing = 0
        self.accepted, self.by_reason = accepted(), collections.Counter()
        self.causes, self.families = {}, collections.Counter()
        self.everything = []

    def add(self, case, index, found):
        self.requests += 1
        self.families[case.family] += 1
        step, counted = case.steps[index], False
        for what, upstream, ours in found:
            title = f"{case.family} {case.subject} {what}"
            reason = next((r for p, r in self.accepted if p.search(title)), None)
            if reason:
                self.by_reason[reason] += 1
                continue
            counted = True
            cause = self.causes.setdefault(what, {"count": 0, "kinds": collections.Counter(), "example": None})
            cause["count"] += 1
            cause["kinds"][case.subject] += 1
            body = step.body if isinstance(step.body, (str, dict, list, type(None))) else repr(step.body)
            example = {"case": case.number, "family": case.family, "kind": case.subject, "what": what, "done": step.what, "request": f"{step.method} {step.path[:300]}", "headers": step.headers,
                       "upstream": upstream, "ours": ours, "body": body}
            if index:
                example["before"] = [s.body if isinstance(s.body, (dict, list)) else repr(s.body)[:300] for s in case.steps[:index]]
            self.everything.append(example)
            if cause["example"] is None or len(json.dumps(example, default=repr)) < len(json.dumps(cause["example"], default=repr)):
                cause["example"], cause["case"] = example, (case, index)
        self.differing += counted

    def minimise(self, minimiser, count):
        """Replaces the examples of the biggest causes by smaller ones."""
        for what, cause in self.ordered()[:count]:
            case, index = cause["case"]
            if case.name:
                smaller = minimiser.minimise(case, index, case.name, what)
                cause["example"]["body"] = smaller.steps[index].body

    def ordered(self):
        return sorted(self.causes.items(), key=lambda c: (-c[1]["count"], c[0]))

    def show(self, out):
        for what, cause in self.ordered()[:400]:
            example = cause["example"]
            kinds = ", ".join(f"{k} {n}" for k, n in cause["kinds"].most_common(6))
            body = json.dumps(example["body"], default=repr)
            print(f"{cause['count']:5}  {what}\n       [{kinds}] e.g. {example['family']}: {example['done']}: {example['request']}\n"
                  f"       upstream {example['upstream'][:300]}\n       ours     {example['ours'][:300]}\n       body     {body[:200]}", file=out)
        print(f"{self.requests} requests, {self.differing} differ, {len(self.causes)} causes; accepted: {sum(self.by_reason.values())}", file=out)

    def write_all(self, path):
        with open(path, "w") as out:
            for example in self.everything:
                out.write(json.dumps(example, default=repr) + "\n")

    def write(self, path, seed):
        """The section of the documentation."""
        lines = ["# The oracle", "", f"Written by `make oracle SEED={seed}`: {self.requests} requests to kube-apiserver v1.37.2 and to our server, the same to both, "
                 "answers compared after identities, times, revisions and addresses given out were taken out (`conformance/oracle/`).", "",
                 "| requests about | sent |", "|---|---|"]
        lines += [f"| {family} | {count} |" for family, count in sorted(self.families.items())]
        lines += ["", f"Answers that differ: {self.differing} of {self.requests}, of {len(self.causes)} causes.", "", "| differs | times | kinds |", "|---|---|---|"]
        for what, cause in self.ordered()[:60]:
            text = what.replace("|", "\\|")[:160]
            lines.append(f"| {text} | {cause['count']} | {', '.join(k for k, _ in cause['kinds'].most_common(4))} |")
        lines += ["", "Accepted differences:", "", "| reason | times |", "|---|---|"]
        lines += [f"| {reason} | {count} |" for reason, count in self.by_reason.most_common()]
        pathlib.Path(path).write_text("\n".join(lines) + "\n")
