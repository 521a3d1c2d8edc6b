"""Leave out of the theme's styles what nothing in the book names: most of the rules, and nearly all of the icons.

Sphinx copies the theme's styles and fonts anew in every build; this runs when all pages are written. What counts as
named is generous: a word of any page or script, wherever it stands.
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
FACE = re.compile(r"@font-face\{[^}]*?(vendor/fontawesome/webfonts/[\w-]+)\.woff2\)[^}]*\}")
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
    codes = {ord(character) for string in STRING.findall(style) for character in string}

    def small(face):
        font = folder / ".." / face[1]
        if not _cut(font, codes):
            return ""  # of this font nothing is left
        address = face[0].index("src:")
        return f'{face[0][:address]}src:url(../{face[1]}.woff) format("woff")}}'

    return FACE.sub(small, style)


def _cut(font, codes):
    """Write the glyphs of some codes as NAME.woff beside a font, in place of it; return how many there are."""
    whole = font.with_suffix(".ttf")
    options = subset.Options(flavor="woff", layout_features=[], notdef_outline=False)
    with subset.load_font(str(whole), options) as face:
        wanted = codes & set(face.getBestCmap())
        if wanted:
            cutter = subset.Subsetter(options)
            cutter.populate(unicodes=wanted)
            cutter.subset(face)
            subset.save_font(face, str(font.with_suffix(".woff")), options)
    whole.unlink()
    font.with_suffix(".woff2").unlink()
    return len(wanted)


def _leave_out(app, error):
    if error is None and app.builder.format == "html":
        words, beginnings = named(app.outdir)
        for path in (Path(app.outdir) / "_static" / "styles").glob("*.css"):
            style = without_idle_rules(path.read_text("utf-8"), words, beginnings)
            path.write_text(with_small_fonts(style, path.parent), "utf-8")
