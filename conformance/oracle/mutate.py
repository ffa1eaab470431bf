"""Changes of one place in an object, drawn from what its type allows and what it does not."""

import copy
import json

# What only the server writes; changing it is tried less often than the rest.
OWN = {"managedFields", "selfLink", "creationTimestamp", "kind", "apiVersion"}


def places(table, type_name, value, path=()):
    """Every field of every object within `value`: (holder, field, path, whether it is there)."""
    if not isinstance(value, dict):
        return
    for field in table.fields(type_name):
        here = path + (field.name,)
        there = field.name in value
        yield value, field, here, there
        if there:
            yield from inside(table, field.type, value[field.name], here)


def inside(table, field_type, value, path):
    if field_type.startswith("[]") and isinstance(value, list):
        for i, item in enumerate(value):
            yield from inside(table, field_type[2:], item, path + (i,))
    elif field_type.startswith("{}") and isinstance(value, dict):
        for key, item in value.items():
            yield from inside(table, field_type[2:], item, path + (key,))
    else:
        yield from places(table, field_type, value, path)


def spelled(path):
    """`spec.containers[].image`"""
    text = ""
    for part in path:
        text += "[]" if isinstance(part, int) else ("." if text else "") + str(part)
    return text


class Mutator:
    """Makes changed copies of objects."""

    def __init__(self, table, values, random):
        self.table, self.values, self.random = table, values, random

    def mutate(self, type_name, original, within=None, gentle=False):
        """A changed copy, and what was done in words. `within` keeps changes below one top field; `gentle` ones decode."""
        changed = copy.deepcopy(original)
        found = [p for p in places(self.table, type_name, changed) if within is None or p[2][0] in within]
        found = [p for p in found if p[1].name not in OWN or self.random.random() < 0.1]
        # Fields of metadata and status are the same everywhere; those of spec are not.
        found = [p for p in found if p[2][0] not in ("metadata", "status") or within or self.random.random() < 0.25]
        if not found:
            return changed, "nothing"
        there = [p for p in found if p[3]]
        absent = [p for p in found if not p[3]]
        holder, field, path, present = self.random.choice(there if there and (not absent or self.random.random() < 0.5) else absent)
        what = self.act(holder, field, present, gentle)
        return changed, f"{what} {spelled(path)}"

    def act(self, holder, field, present, gentle):
        kinds = ["plausible", "edge", "edge"]
        if present:
            kinds += ["missing", "missing", "edge"]
        if not gentle:
            kinds += ["wrong", "null", "unknown"]
        kind = self.random.choice(kinds)
        if kind == "missing":
            del holder[field.name]
        elif kind == "null":
            holder[field.name] = None
        elif kind == "unknown":
            holder[field.name.capitalize() if self.random.random() < 0.3 else f"{field.name}X"] = 1
        else:
            holder[field.name] = getattr(self.values, kind)(*((field.type,) if kind == "wrong" else (field.type, field.enum)))
        return kind


def with_duplicate_key(document, random):
    """JSON text of `document` in which one key of an object stands twice, and the path of that key."""
    holders = []

    def collect(value, path):
        if isinstance(value, dict):
            holders.extend((value, key, path + (key,)) for key in value)
            for key, item in value.items():
                collect(item, path + (key,))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                collect(item, path + (i,))

    copied = copy.deepcopy(document)
    collect(copied, ())
    holder, key, path = random.choice(holders)
    marker = "zzDUPLICATEzz"
    holder[marker] = holder[key]
    return json.dumps(copied).replace(json.dumps(marker), json.dumps(key)), spelled(path)
