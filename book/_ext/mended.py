"""Mend what the theme and its extensions write into every page: weight that no reader needs, errors, and barriers.

Each page passes through here as text on its way to the disk. A mend that no longer finds what it is for does nothing;
tests/browser then says what is wrong with the pages.
"""

import hashlib
import re
from pathlib import Path

from sphinx.jinja2glue import BuiltinTemplateLoader


class MendedTemplates(BuiltinTemplateLoader):
    """Sphinx's own templates, mended."""

    def render(self, template, context):
        """Return the page that a template makes, mended."""
        return mend(super().render(template, context), context.get("pagename", ""))


def setup(app):
    # A setting that changes with the extensions has every page written anew.
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    app.add_config_value("mended_by", hashlib.sha256(code).hexdigest(), "html")
    app.connect("config-inited", _take_over)
    app.connect("builder-inited", _forget_sources)
    app.connect("autodoc-skip-member", skipped)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _take_over(app, config):
    config.template_bridge = "mended.MendedTemplates"


def _forget_sources(app):
    # sphinx.ext.viewcode keeps a page while its module is the same, though the pages around it may look different now.
    changed = max(path.stat().st_mtime for path in (Path(__file__), Path(app.srcdir) / "_config.yml") if path.is_file())
    for page in (Path(app.outdir) / "_modules").rglob("*.html"):
        if page.stat().st_mtime < changed:
            page.unlink()


def skipped(app, what, name, thing, skip, options):
    """Leave out the fields of a named tuple, which its parameters describe: Python says only "Alias for field 0"."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def mend(page, name):
    """Return the text of the page of a name, mended."""
    if name != "search":
        page = without_search(page)
    if name == "_modules/index":
        page = with_lists_in_items(page)
    for mended in (
        without_idle_design, without_icon_script, without_thebe, in_the_readers_theme, with_named_folds,
        with_listed_sources, without_second_ids,
    ):  # fmt: skip
        page = mended(page)
    return page


def _script(source):
    return re.compile(rf'\s*<script[^>]*\bsrc="[^"]*{source}[^"]*"[^>]*></script>')


ICONS, SEARCH = _script(r"scripts/fontawesome\.js"), _script(r"(?:searchtools|language_data|searchindex)\.js")


def without_icon_script(page):
    """Leave out 1.5 MB of icons as a script: the theme's styles bring the same icons as a font."""
    return ICONS.sub("", page)


DESIGN = re.compile(
    r'\s*<(?:link|script)[^>]*"[^"]*(?:sphinx-design[^"]*\.css|design-tabs\.js)[^"]*"[^>]*>(?:</script>)?'
)


def without_idle_design(page):
    """Leave out the styles of cards and grids where there are none."""
    return page if re.search(r'class="[^"]*\bsd-', page) else DESIGN.sub("", page)


def without_search(page):
    """Leave out the search and its index, which only the page of results uses: searching while one types is off."""
    return SEARCH.sub("", page)


THEBE = re.compile(
    r'\s*<link[^>]*sphinx-thebe\.css[^>]*>|\s*<script type="text/x-thebe-config">.*?</script>'
    r"|\s*<script>(?:const THEBE_JS_URL|kernelName) ?=[^<]*</script>",
    re.S,
)


def without_thebe(page):
    """Leave out thebe, which stays off: it would run code on a far server, and its settings came twice, an error."""
    return _script(r"sphinx-thebe\.js").sub("", THEBE.sub("", page))


THEME = re.compile(r'dataset\.theme = localStorage\.getItem\("theme"\) \|\| ""')


def in_the_readers_theme(page):
    """Begin in the theme that the reader's system asks for, instead of an error and a flash of another."""
    page = page.replace('localStorage.getItem("mode") || ""', 'localStorage.getItem("mode") || "auto"')
    return THEME.sub(
        'dataset.theme = localStorage.getItem("theme") || '
        '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")',
        page,
    )


FOLD = re.compile(r'(<a class="(?:current )?reference internal[^>]*>([^<]+)</a><details[^>]*><summary)>')


def with_named_folds(page):
    """Name the folds of the contents, which are an arrow alone, after the page whose parts they hold."""
    return FOLD.sub(r'\1 aria-label="Parts of \2">', page)


def with_listed_sources(page):
    """Say that the sources of the bibliography are items of the list they are in; the other name is out of use."""
    return page.replace(' role="doc-biblioentry"', ' role="listitem"')


TREE = re.compile(r"(?<=</h1>)\s*<ul>.*</ul>", re.S)


def with_lists_in_items(page):
    """Put the modules of a package into its item of the list of modules, not beside it, where no list may be."""

    def nested(tree):
        # Each list but the outermost belongs to the item before it, which ends where the list does.
        return tree[0].replace("</li>\n<ul>", "\n<ul>").replace("</ul>", "</ul></li>").removesuffix("</li>")

    return TREE.sub(nested, page)


ID = re.compile(r'(<[a-z][a-z0-9]* [^>]*?)\bid="([^"]*)"')


def without_second_ids(page):
    """Let a name stand for one place, the first: each exercise comes with the same one."""
    taken = set()

    def once(found):
        if found[2] in taken:
            return found[1].rstrip() + " "
        taken.add(found[2])
        return found[0]

    # Scripts and their data are no elements, whatever they look like.
    parts = re.split(r"(<(script|style)\b.*?</\2>)", page, flags=re.S)
    return "".join(part if place % 3 else ID.sub(once, part) for place, part in enumerate(parts) if place % 3 != 2)
