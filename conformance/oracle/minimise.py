"""Smaller cases for a cause: what can be left out of the body while the difference stays."""

import copy
import itertools
import json
import re

from case import Case, Step
from compare import differences

TRIALS = 40


class Minimiser:
    """Runs changed copies of cases under names of their own."""

    def __init__(self, both):
        self.both, self.numbers = both, itertools.count(1)

    def renamed(self, case, old):
        new = f"{old}m{next(self.numbers)}"
        swap = lambda text: re.sub(rf"\b{old}(?=[abc]?\b)", new, text)

        def step(s):
            body = json.loads(swap(json.dumps(s.body))) if isinstance(s.body, (dict, list)) else s.body
            return Step(s.method, swap(s.path), body, s.headers, s.what)

        return Case(case.family, case.subject, [step(s) for s in case.steps], [swap(p) for p in case.cleanup])

    def still(self, case, index, old, what):
        """Whether the case, run anew, differs in the same way."""
        trial = self.renamed(case, old)
        mine, theirs = self.both(trial.run)
        said = " ".join(f"{s.path} {s.body}" for s in trial.steps[:index + 1])
        return any(found == what for found, _, _ in differences(said, mine[index], theirs[index]))

    def minimise(self, case, index, name, what):
        """A case as small as a few trials make it; the case itself if its difference is not seen again."""
        body = case.steps[index].body
        if not isinstance(body, dict):
            return case
        trials, smallest = 0, case
        progress = True
        while progress:
            progress = False
            for path in sorted(paths(smallest.steps[index].body), key=len):
                if trials >= TRIALS:
                    return smallest
                trials += 1
                smaller = copy.copy(smallest)
                smaller.steps = list(smallest.steps)
                old = smaller.steps[index]
                smaller.steps[index] = Step(old.method, old.path, without(old.body, path), old.headers, old.what)
                if self.still(smaller, index, name, what):
                    smallest, progress = smaller, True
                    break
        return smallest


def paths(value, path=()):
    """Paths of everything that can be left out, but for what names the object."""
    if isinstance(value, dict):
        for key, item in value.items():
            if path + (key,) not in (("metadata",), ("metadata", "name"), ("kind",), ("apiVersion",)):
                yield path + (key,)
            yield from paths(item, path + (key,))
    elif isinstance(value, list) and len(value) > 1:
        for i, item in enumerate(value):
            yield path + (i,)
            yield from paths(item, path + (i,))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from paths(item, path + (i,))


def without(value, path):
    copied = copy.deepcopy(value)
    holder = copied
    for part in path[:-1]:
        holder = holder[part]
    del holder[path[-1]]
    return copied
