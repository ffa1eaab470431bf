"""Protobuf bodies by the facts table's field numbers: documents to bytes, and bytes to documents.

Decoding keeps what the wire holds, zeros too: two answers that differ in that differ.
"""

import base64
import datetime
import json
import struct

import facts

MAGIC = b"k8s\0"
MEDIA = "application/vnd.kubernetes.protobuf"
TABLE = facts.Table()
META = ("Status", "DeleteOptions", "PartialObjectMetadata", "PartialObjectMetadataList", "Table", "APIResourceList",
        "APIGroupList", "APIGroup", "APIVersions", "WatchEvent")


def type_name(version, kind):
    if kind in META:
        return f"meta.v1.{kind}"
    for resource in TABLE.resources:
        if resource.version == version and kind.removesuffix("List") == resource.kind:
            return resource.type + ("List" if kind != resource.kind else "")
    group = version.split("/")[0].split(".")[0] if "/" in version else "core"
    return f"{group}.{version.split('/')[-1]}.{kind}"


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def chunk(tag, data):
    return varint(tag << 3 | 2) + varint(len(data)) + data


def fields_of(data):
    """[(field number, value)]: numbers of varints, bytes of the rest."""
    found, at = [], 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        if key & 7 == 0:
            found.append((key >> 3, number()))
        elif key & 7 == 2:
            length = number()
            found.append((key >> 3, data[at:at + length]))
            at += length
        else:
            width = 8 if key & 7 == 1 else 4
            found.append((key >> 3, data[at:at + width]))
            at += width
    return found


def decode(body):
    """The document in an envelope; text that says why if there is none."""
    try:
        envelope = dict(fields_of(body[4:]))
        meta = {k: v.decode() for k, v in fields_of(envelope.get(1, b""))}
        version, kind = meta.get(1, ""), meta.get(2, "")
        return {"kind": kind, "apiVersion": version, **read(type_name(version, kind), envelope.get(2, b""))}
    except (IndexError, UnicodeDecodeError, AttributeError) as error:
        return f"no protobuf: {error} {body[:80]!r}"


def read(name, data):
    found, out = fields_of(data), {}
    for field in TABLE.fields(name):
        values = at_path(found, field.tag)
        if not values:
            continue
        if field.type.startswith("[]"):
            out[field.name] = [value_of(field.type[2:], v) for v in values]
        elif field.type.startswith("{}"):
            entries = [dict(fields_of(v)) for v in values]
            out[field.name] = {e.get(1, b"").decode(): value_of(field.type[2:], e.get(2, b"")) for e in entries}
        else:
            out[field.name] = value_of(field.type, values[-1])
    return out


def at_path(found, path):
    if not path:
        return []
    here = [v for tag, v in found if tag == path[0]]
    return here if len(path) == 1 else [v for inner in here for v in at_path(fields_of(inner), path[1:])]


def value_of(kind, wire):
    if kind == "string":
        return wire.decode()
    if kind in ("int32", "int64", "bool"):
        return bool(wire) if kind == "bool" else (wire - (1 << 64) if wire >> 63 else wire)
    if kind == "bytes":
        return base64.b64encode(wire).decode()
    if kind == "float64":
        return struct.unpack("<d", wire)[0]
    if kind.startswith("[]"):
        return [value_of(kind[2:], v) for tag, v in fields_of(wire) if tag == 1]
    inner = dict(fields_of(wire))
    if kind in ("time", "microtime"):
        at = datetime.datetime.fromtimestamp(inner.get(1, 0), datetime.timezone.utc)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ") + (f" {inner[2]}" if inner.get(2) and kind == "microtime" else "")
    if kind in ("quantity", "object", "any"):
        return inner.get(1, b"").decode(errors="replace")
    if kind == "intstr":
        return inner.get(3, b"").decode() if inner.get(1) else inner.get(2, 0)
    return inner.get(1, 0) if kind == "duration" else read(kind, wire)


def encode(document, type_of):
    """The envelope of an object that decodes: types of values are those of the facts table."""
    meta = chunk(1, document.get("apiVersion", "").encode()) + chunk(2, document.get("kind", "").encode())
    return MAGIC + chunk(1, meta) + chunk(2, write(type_of, document)) + chunk(3, b"") + chunk(4, b"")


def write(name, document):
    out = b""
    for field in TABLE.fields(name):
        value = document.get(field.name)
        if value is None or not field.tag:
            continue
        if field.type.startswith("[]"):
            parts = [(field.tag[-1], field.type[2:], v) for v in value]
        elif field.type.startswith("{}"):
            inner = field.type[2:]
            parts = [(field.tag[-1], None, piece(1, "string", k) + piece(2, inner, v)) for k, v in value.items()]
        else:
            parts = [(field.tag[-1], field.type, value)]
        for tag, kind, part in parts:
            data = chunk(tag, part) if kind is None else piece(tag, kind, part)
            for outer in reversed(field.tag[:-1]):
                data = chunk(outer, data)
            out += data
    return out


def piece(tag, kind, value):
    if kind in ("int32", "int64", "bool"):
        return varint(tag << 3) + varint(int(value))
    if kind == "float64":
        return varint(tag << 3 | 1) + struct.pack("<d", value)
    return chunk(tag, content(kind, value))


def content(kind, value):
    if kind == "string":
        return value.encode()
    if kind == "bytes":
        return base64.b64decode(value)
    if kind.startswith("[]"):
        return b"".join(piece(1, kind[2:], v) for v in value)
    if kind in ("time", "microtime"):
        at = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        return varint(8) + varint(int(at.timestamp())) + varint(16) + varint(at.microsecond * 1000)
    if kind == "quantity":
        return chunk(1, str(value).encode())
    if kind in ("object", "any"):
        return chunk(1, json.dumps(value).encode())
    if kind == "intstr":
        return varint(8) + varint(0) + varint(16) + varint(value) if isinstance(value, int) else varint(8) + varint(1) + chunk(3, value.encode())
    return write(kind, value)
