"""Rules and icons that nothing names are left out of the theme's styles; all others stay, as they apply."""

import re
import shutil
from importlib.metadata import files
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("tinycss2", reason="no tinycss2: pip install -e '.[book]'")
import idle_styles
from fontTools.ttLib import TTFont

WORDS = {"here", "there", "fa-sun"}

# Rules that stay as they are, for their classes are named, or need not be there.
KEPT = {
    "no class": "a:hover{color:red}",
    "a named class": "p.here>.there:first-child{color:red}",
    "one of two": ".gone,.here{color:red}",
    "one that must not be there": ".here:not(.gone){color:red}",
    "one that may be there": ":is(.gone,html) a{color:red}",
    "brackets in brackets": ".here:not(:is(.gone,.lost)):hover{color:red}",
    "brackets beside a comma": ".here:not(.gone,.lost:is(.x)){color:red}",
    "an attribute": '[class*="gone"]{color:red}',
    "a beginning of a script's": ".bs-tip-auto{color:red}",
    "variables": ":root{--a:1px}",
    "a font": "@font-face{font-family:x;src:url(y.woff)}",
    "an animation": "@keyframes gone{from{color:red}}",
    "a number": "a{width:.5em}",
    "in a medium": "@media (min-width:1.5px){.here{color:red}}",
    "in two": "@supports (a:b){@media print{.here{color:red}}}",
}
IDLE = {
    "a class": ".gone{color:red}",
    "both": ".gone .here,.lost{color:red}",
    "an icon": '.fa-moon:before,.fa-night:before{content:"x"}',
    "beside one that need not be there": ".gone:not(.here){color:red}",
    "in a medium": "@media print{.gone{color:red}}",
    "in two": "@supports (a:b){@media print{.gone{color:red}}}",
}


@pytest.mark.parametrize("rule", KEPT.values(), ids=KEPT)
def test_what_applies_stays(rule):
    assert idle_styles.without_idle_rules(rule, WORDS, ("bs-",)) == rule


@pytest.mark.parametrize("rule", IDLE.values(), ids=IDLE)
def test_what_is_idle_goes(rule):
    assert idle_styles.without_idle_rules(rule, WORDS, ("bs-",)) == ""
    whole = "a{color:red}" + rule + ".here{color:red}"
    assert idle_styles.without_idle_rules(whole, WORDS) == "a{color:red}.here{color:red}"


def test_words_come_from_pages_and_scripts(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.html").write_text('<i class="fa-solid fa-page">')
    (tmp_path / "a.js").write_text("'fa-script'; `bs-${name}-auto`")
    (tmp_path / "fontawesome.js").write_text("'fa-every'")
    (tmp_path / "mathjax").mkdir()
    (tmp_path / "mathjax" / "a.js").write_text("'fa-formula'")
    words, beginnings = idle_styles.named(tmp_path)
    assert words >= {"fa-solid", "fa-page", "fa-script"}
    assert not words & {"fa-every", "fa-formula"}
    assert idle_styles.named(tmp_path / "mathjax")[0] == {"fa-formula"}
    assert beginnings == ("bs-",)


@pytest.fixture
def theme(tmp_path):
    """Return a built book of one page, with styles and fonts as Sphinx copies them from the theme."""
    source = next(Path(f.locate()) for f in files("pydata-sphinx-theme") if f.name == "fa-solid-900.ttf").parents[3]
    shutil.copytree(source, tmp_path / "_static", ignore=shutil.ignore_patterns("*.map"))
    (tmp_path / "a.html").write_text('<p class="here"><i class="fa-solid fa-sun"></i></p>')
    return SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))


def test_a_built_book_keeps_the_icons_that_it_shows(theme):
    static = theme.outdir / "_static"
    style, fonts = static / "styles" / "pydata-sphinx-theme.css", static / "vendor" / "fontawesome" / "webfonts"
    before = style.read_text("utf-8")
    sun, moon = '.fa-sun:before{content:"\uf185"}', "fa-rotate-270"
    with TTFont(fonts / "fa-solid-900.ttf") as font:
        whole = font.getBestCmap()
    idle_styles._leave_out(theme, OSError("the build has failed"))
    assert style.read_text("utf-8") == before
    idle_styles._leave_out(theme, None)
    after = style.read_text("utf-8")
    assert len(after) < 0.5 * len(before)
    assert sun in after
    assert moon in before
    assert moon not in after
    with TTFont(fonts / "fa-solid-900.woff") as font:
        shown = font.getBestCmap()
    assert 0xF185 in shown
    assert len(shown) < 0.1 * len(whole)
    # Each font that is asked for is there, and no other.
    assert {path.name for path in fonts.iterdir()} == set(re.findall(r"[\w-]+\.woff2?\b", after))
