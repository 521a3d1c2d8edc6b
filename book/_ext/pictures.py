"""Write the figures of the book in fewer bytes: nothing that is seen changes, and no chapter has to run again.

matplotlib wraps every mark in groups of its own, names each, repeats its style, moves every letter by a transform, and
writes six decimals of a point. It has no setting for any of these; without this the heaviest page has over 2 MB.
"""

import io
import itertools
import re
import string
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from pathlib import Path

from PIL import Image

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
DECIMALS = re.compile(r"-?\d+\.\d{3,}")
PLACES = ("d", "x", "y", "points", "width", "height")
MOVE = re.compile(r"translate\((\S+) (\S+)\)")
LETTER = re.compile(r"\s*([MLHVCSQTAZ])\s*", re.I)  # of a step of a path
REPEATED = re.compile(r"([LHVCSQTAlhvcsqta])[^A-Za-z]*(?:\1[^A-Za-z]*)+")
REFERENCE = re.compile(r"#([\w.-]+)")
PNG = "data:image/png;base64,"
COMPACT = "compact"  # class of a picture that has been through here


def setup(app):
    app.connect("build-finished", _shrink)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _shrink(app, error):
    if error is None and app.builder.format == "html":
        for path in (Path(app.outdir) / "_images").glob("*.svg"):
            text = path.read_text("utf-8")
            if (short := compact(text)) != text:
                path.write_text(short, "utf-8")


def compact(text):
    """Return the text of an SVG picture that shows the same in fewer bytes.

    Places are rounded to hundredths of a point, far below what a screen shows. Inside of ``<defs>`` all decimals stay:
    what is defined there may be drawn much larger. Compacting twice changes nothing.
    """
    ET.register_namespace("", SVG.strip("{}"))
    root = ET.fromstring(text)
    if root.get("class") == COMPACT:
        return text
    for metadata in root.findall(f"{SVG}metadata"):
        root.remove(metadata)
    names = _names()
    ids = {name: next(names) for name in dict.fromkeys(REFERENCE.findall(text)) if f'id="{name}"' in text}
    classes, defined = {}, {id(part) for defs in root.iter(f"{SVG}defs") for part in defs.iter()}
    for part in root.iter():
        _shorten(part, ids, exact=id(part) in defined)
        if style := re.sub(r"\s*([:;])\s*", r"\1", part.attrib.pop("style", "").strip(" ;")):
            if style not in classes:
                classes[style] = next(names)
            part.set("class", classes[style])
    _unwrap(root)
    if classes:
        rules = ET.Element(f"{SVG}style")
        rules.text = "".join(f".{name}{{{style}}}" for style, name in classes.items())
        root.insert(0, rules)
    root.set("class", COMPACT)
    return ET.tostring(root, encoding="unicode").replace(" />", "/>") + "\n"


def _names():
    """Yield a, b, ..., z, aa, ab, ...: short names, each once."""
    for length in itertools.count(1):
        yield from ("".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=length))


def _shorten(part, ids, exact):
    """Give one element short names and places, and no white space around it."""
    if (name := part.attrib.pop("id", None)) in ids:
        part.set("id", ids[name])
    if LINK in part.attrib:
        part.set("href", part.attrib.pop(LINK))
    if part.tag == f"{SVG}use" and "x" not in part.attrib and (move := MOVE.fullmatch(part.get("transform", ""))):
        del part.attrib["transform"]  # each letter of each word has one
        part.attrib.update((axis, place) for axis, place in zip("xy", move.groups(), strict=True) if float(place))
    for key, value in part.attrib.items():
        if key in PLACES:
            value = value if exact else DECIMALS.sub(_hundredths, value)
            part.set(key, _steps(value) if key == "d" else " ".join(value.split()))
        elif key == "transform" and not exact:  # a scale keeps its decimals
            part.set(key, MOVE.sub(lambda move: DECIMALS.sub(_hundredths, move[0]), value))
        elif value.startswith(PNG):
            part.set(key, with_palette(value))
        elif "#" in value and key != "style":  # of a style, the "#" begins a colour
            part.set(key, REFERENCE.sub(lambda found: "#" + ids.get(found[1], found[1]), value))
    # White space between elements is drawn nowhere but in words.
    if part.tag not in (f"{SVG}text", f"{SVG}tspan"):
        part.text = part.text if (part.text or "").strip() else None
        for child in part:
            child.tail = child.tail if (child.tail or "").strip() else None


def _hundredths(number):
    return f"{round(float(number[0]), 2) + 0.0:.2f}".rstrip("0").rstrip(".")  # adding 0.0 turns -0.0 into 0.0


def _steps(path):
    """Write a path without what a reader of paths does not need: spaces around letters, and a letter that repeats."""
    plain = LETTER.sub(r"\1", " ".join(path.split()))
    return REPEATED.sub(lambda run: run[1] + run[0][1:].replace(run[1], " "), plain)


def with_palette(address):
    """Return the address of the same picture, pixel by pixel, in greys or with a palette if that is shorter.

    matplotlib writes four bytes a pixel, and a colour map has 256 colours.
    """
    image = Image.open(io.BytesIO(b64decode(address.removeprefix(PNG))))
    plain = image.convert("RGB")
    if image.convert("RGBA").getextrema()[3] != (255, 255):
        return address
    for small in (plain.convert("L"), plain.quantize(256, dither=Image.Dither.NONE)):
        if small.convert("RGB").tobytes() == plain.tobytes():
            data = io.BytesIO()
            small.save(data, "png", optimize=True)
            return min(address, PNG + b64encode(data.getvalue()).decode(), key=len)
    return address


def _unwrap(part):
    """Put what groups without any attribute hold in their place."""
    for child in list(part):
        _unwrap(child)
        if child.tag == f"{SVG}g" and not child.attrib and not child.text:
            place = list(part).index(child)
            part[place : place + 1] = list(child)
