"""Leave out of the theme's styles what nothing in the book names: most of the rules, and nearly all of the icons.

The theme has one sheet for all that it can do, with every icon of three fonts, and no setting for less: 0.3 MB of rules
and up to 0.3 MB of fonts on each page, of the 2 MB that a page may weigh. Sphinx copies them anew in every build; this
runs when all pages are written. What counts as named is generous: a word of any page or script, wherever it stands.
"""

import re
from pathlib import Path

import tinycss2
from fontTools import subset

WORD = re.compile(r"[A-Za-z_][\w-]*")
# "bs-${name}" or "bs-" + name: a script puts names together that begin so
BEGINNING = re.compile(r"([A-Za-z][\w-]*-)(?:\$\{|[\"'`])")
CLASS = re.compile(r"\.([A-Za-z_][\w-]*)")
CHOICE = re.compile(r":(?:not|is|where|has)\([^()]*\)")
# These name every icon there is, and every word of the book.
NOT_READ = ("fontawesome.js", "searchindex.js")
FACE = re.compile(r"(@font-face\{[^}]*src:)url\(\.\./(vendor/fontawesome/webfonts/[\w-]+)\.woff2\)[^}]*\}")
STRING = re.compile(r'"([^"]*)"')


def setup(app):
    app.connect("build-finished", _leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def named(folder):
    """Return the words of all pages and scripts of a built book, and beginnings of those that scripts put together."""
    words, beginnings = set(), set()
    for kind in ("html", "js"):
        for path in Path(folder).rglob(f"*.{kind}"):
            if path.name in NOT_READ or "mathjax" in path.relative_to(folder).parts:
                continue
            text = path.read_text("utf-8")
            words.update(WORD.findall(text))
            if kind == "js":
                beginnings.update(BEGINNING.findall(text))
    return words, tuple(beginnings)


def without_idle_rules(style, words, beginnings=()):
    """Return a style sheet without the rules that apply to nothing, because a class they ask for is named nowhere."""

    def idle(selector):
        return any(name not in words and not name.startswith(beginnings) for name in CLASS.findall(selector))

    def kept(rules):
        for rule in rules:
            if rule.type == "qualified-rule":
                selectors = tinycss2.serialize(rule.prelude)
                while CHOICE.search(selectors):
                    selectors = CHOICE.sub("", selectors)  # classes that need not be there
                if not all(map(idle, selectors.split(","))):
                    yield rule.serialize()
            elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
                inside = "".join(kept(tinycss2.parse_rule_list(rule.content)))
                if inside:
                    yield f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}{{{inside}}}"
            else:
                yield rule.serialize()

    return "".join(kept(tinycss2.parse_stylesheet(style)))


def with_small_fonts(style, folder):
    """Let the icons' fonts hold only those that a style sheet shows; ``folder`` is where it lies."""
    codes = ",".join(sorted({f"{ord(character):x}" for string in STRING.findall(style) for character in string}))
    for _, name in FACE.findall(style):
        font = folder.parent / name
        words = [
            f"{font}.ttf",
            f"--unicodes={codes}",
            "--layout-features=",
            "--flavor=woff",
            f"--output-file={font}.woff",
        ]
        subset.main(words)
        for kind in ("ttf", "woff2"):
            font.with_suffix(f".{kind}").unlink()
    return FACE.sub(r'\1url(../\2.woff) format("woff")}', style)


def _leave_out(app, error):
    if error is None and app.builder.format == "html":
        words, beginnings = named(app.outdir)
        for path in (Path(app.outdir) / "_static" / "styles").glob("*.css"):
            style = without_idle_rules(path.read_text("utf-8"), words, beginnings)
            path.write_text(with_small_fonts(style, path.parent), "utf-8")
