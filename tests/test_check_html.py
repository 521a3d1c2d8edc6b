"""The check of the built pages sees what it is for."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "book" / "tools"))

from check_html import problems

GOOD = """<link rel="stylesheet" href="_static/book.css"><script src="_static/x.js"></script>
<p>A <a href="https://arxiv.org">link</a> may leave.</p><img src="a.svg" alt="Error falls."><code>{term}</code>"""


def test_a_good_page_has_no_problem():
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    "bad",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        '<img src="https://example/x.png" alt="words">',
        '<img src="a.svg">',
        '<img src="a.svg" alt="">',
        '<img src="_images/a.svg" alt="_images/a.svg">',
        "<p>{term}`member`</p>",
        "<p>{{ gain }}</p>",
        "<p>better by nan points</p>",
        "<pre>Traceback (most recent call last):</pre>",
    ],
)
def test_a_bad_page_has_one(bad):
    assert len(problems(GOOD + bad)) == 1
