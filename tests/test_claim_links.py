"""A chapter leads to the rows of the ledger; a claim that has no row, or is no claim, stays text."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

EXTENSIONS = Path(__file__).parents[1] / "book" / "_ext"
PROSE = "# Is it so?\n\nC6 says so, C66 and `C6` do not.\n\n## C6 in a heading\n\nC7 is not measured.\n"


@pytest.fixture
def build(tmp_path):
    source = tmp_path / "book"
    for folder in ("notebooks", "generated"):
        (source / folder).mkdir(parents=True)
    (source / "conf.py").write_text(
        f"import sys; sys.path.insert(0, {str(EXTENSIONS)!r})\n"
        "extensions = ['myst_nb', 'claim_links']; nb_execution_mode = 'off'\n"
    )
    (source / "index.md").write_text(
        "# Book\n\nC6 elsewhere.\n\n```{toctree}\nnotebooks/a\n```\n\n"
        "(claim-c6)=\n## C6: So\n\n(claim-c10)=\n## C10: So\n"
    )

    def run(claims, prose=PROSE):
        if claims is not None:
            (source / "generated" / "claims.json").write_text(json.dumps(claims))
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose)])
        nbformat.write(notebook, source / "notebooks" / "a.ipynb")
        out = tmp_path / "html"
        words = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-b", "html", str(source), str(out)]
        done = subprocess.run(words, capture_output=True, text=True)
        page = (out / "notebooks" / "a.html").read_text()
        return done.returncode, page.partition('role="main"')[2] or page, (out / "index.html").read_text()

    return run


def test_mentions_and_a_closing_line_lead_to_the_ledger(build):
    code, page, index = build({"notebooks/a": ["C6", "C10"]}, PROSE + "\n## Claims\n\nHere.\n\n## Take-away\n\nSo.\n")
    assert code == 0
    link = '<a class="reference internal" href="../index.html#claim-c6"><span class="std std-ref">C6</span></a>'
    assert f"{link} says so, C66 and" in page
    assert page.count(link) == 2  # in the prose and in the closing line; not as code, not in the heading
    closing = page.index("In the ledger: ")
    assert page.index("Here.") < closing < page.index("So.</p>")
    assert 'href="../index.html#claim-c10"' in page[closing:]
    assert "C7 is not measured" in page
    assert "C6 elsewhere" in index  # only chapters


@pytest.mark.parametrize("claims", [None, {}, {"notebooks/b": []}])
def test_a_chapter_without_claims_is_left_alone(build, claims):
    code, page, _ = build(claims)
    assert code == 0
    assert "In the ledger" not in page
    assert "#claim-" not in page


def test_without_a_section_on_claims_the_line_closes_the_chapter(build):
    code, page, _ = build({"notebooks/a": ["C10"]})
    assert code == 0
    assert page.index("C7 is not measured") < page.index("In the ledger: ")


def test_a_claim_without_a_row_stops_the_build(build):
    code, _, _ = build({"notebooks/a": ["C11"]})
    assert code != 0
