"""A chapter leads to the rows of the ledger; a claim that has no row, or is no claim, stays text."""

import json

import nbformat
import pytest
import tiny_book

PROSE = "# Is it so?\n\nC6 says so, C66 and `C6` do not.\n\n## C6 in a heading\n\nC7 is not measured.\n"


INDEX = """# Book

C6 elsewhere.

```{toctree}
notebooks/a
```

(claim-c6)=
## C6: So

(claim-c10)=
## C10: So
"""


@pytest.fixture
def build(tmp_path):
    source = tiny_book.begin(tmp_path, ["claim_links"], INDEX)
    (source / "generated").mkdir()

    def run(claims, prose=PROSE):
        if claims is not None:
            (source / "generated" / "claims.json").write_text(json.dumps(claims))
        nbformat.write(tiny_book.chapter(prose), source / "notebooks" / "a.ipynb")
        code, _, out = tiny_book.build(source, "-E")
        page = (out / "notebooks" / "a.html").read_text()
        return code, page.partition('role="main"')[2] or page, (out / "index.html").read_text()

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
