"""Hypothesis strategies that spoil valid files: their bytes, the header of safetensors, the parts of a zip, JSON."""

import copy
import io
import json
import zipfile

from hypothesis import strategies as st

NUMBERS = [0, 1, 2, 3, 4, 8, 9, 255, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, 10**30, -1, -8, 1.5, 8.0]
VALUES = [*NUMBERS, True, False, None, "", "w", "F32", "F64", "I64", "BOOL", "C64", "F8_E4M3", "F4", [], [0], [[2]]]
VALUES += [{}, {"w": 1}, float("nan"), float("inf")]
NAMES = ["w", "n", "", "__metadata__", "module.w", "_orig_mod.module.w", "\ud800", "\0", "dtype", "shape", "é" * 40]


@st.composite
def bytes_of(draw, seeds):
    """A seed with a few bytes flipped, set, cut out, put in or doubled."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "set", "cut", "drop", "insert", "double", "number"]))
        at = draw(st.integers(0, max(0, len(content) - 1)))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and content:
            content[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x30, 0x7B]))
        elif kind == "cut":
            del content[at:]
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 64))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(min_size=1, max_size=16))
        elif kind == "double":
            content[at:at] = content[at : at + draw(st.integers(1, 64))]
        else:
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from([0, 1, len(content), 2**15, 2**31, 2**40, 2**63, 2**64 - 1]))
            content[at : at + size] = number.to_bytes(8, "little")[:size]
    return bytes(content)


@st.composite
def json_of(draw, thing):
    """A JSON value with some of its parts replaced, renamed, left out or added."""
    thing = json.loads(json.dumps(thing))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(thing))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        kind = draw(st.sampled_from(["replace", "replace", "remove", "copy", "rename"]))
        if kind == "replace":
            holder[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif kind == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            value = holder.pop(key) if kind == "rename" else holder[key]
            holder[draw(st.sampled_from(NAMES))] = value
    return thing


def _places(thing):
    """Yield every (list or dict, index or key) below a JSON value."""
    for key in list(thing) if isinstance(thing, dict) else range(len(thing)) if isinstance(thing, list) else ():
        yield thing, key
        yield from _places(thing[key])


@st.composite
def safetensors_of(draw, seeds):
    """A seed whose header was changed as JSON, framed with its right length or nearly so."""
    seed = draw(st.sampled_from(seeds))
    length = int.from_bytes(seed[:8], "little")
    header, data = draw(json_of(json.loads(seed[8 : 8 + length]))), seed[8 + length :]
    text = json.dumps(header).encode()
    if draw(st.booleans()):
        text = draw(bytes_of([text]))
    if draw(st.booleans()):
        data = data[: draw(st.integers(0, len(data)))] + bytes(draw(st.integers(0, 16)))
    n = max(0, len(text) + draw(st.sampled_from([0, 0, 0, 0, 0, -1, 1, 8, 2**40])))
    return n.to_bytes(8, "little") + text + data


@st.composite
def zip_of(draw, seeds):
    """A seed whose parts were changed, left out, doubled or compressed, in a zip that is whole again."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(seeds)))) as old:
        parts = [(name, old.read(name)) for name in old.namelist()]
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(parts) - 1)) if draw(st.booleans()) else 0  # the first one is the pickle
        name, content = parts[at]
        kind = draw(st.sampled_from(["bytes", "bytes", "bytes", "remove", "rename", "copy"]))
        if kind == "bytes":
            parts[at] = name, draw(bytes_of([content]))
        elif kind == "remove" and len(parts) > 1:
            del parts[at]
        elif kind == "rename":
            parts[at] = draw(st.sampled_from(["archive/data/9", "archive/data.pkl", "data/0", "../0", "x"])), content
        else:
            parts.append((f"{name}{draw(st.integers(0, 3))}", content))
    file = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if draw(st.integers(0, 9)) == 0 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", packing) as new:
        for name, content in dict(parts).items():
            new.writestr(name, content)
    return file.getvalue()
