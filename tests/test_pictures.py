"""Pictures lose bytes and nothing that is seen."""

import io
import re
import xml.etree.ElementTree as ET
from base64 import b64decode, b64encode
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pictures
import pytest
from pictures import compact
from PIL import Image

import wamlib.plot  # sets the style of the book's figures

SVG = "{http://www.w3.org/2000/svg}"


def picture(lines=3):
    fig, axes = plt.subplots(1, 2, figsize=(6, 2.5), layout="constrained")
    for index in range(lines):
        axes[0].errorbar(
            range(5), np.arange(5) ** 2 / (index + 1), 0.5, marker="osD"[index], capsize=2, label=f"α & <{index}>"
        )
    axes[0].set(xscale="symlog", xlabel="Members", ylabel="Error (%)")
    axes[0].legend()
    axes[1].imshow(np.arange(12).reshape(3, 4), interpolation="none")
    plt.close(fig)
    text = io.StringIO()
    fig.savefig(text, format="svg")
    return text.getvalue()


def parts(text, tag):
    return list(ET.fromstring(text).iter(SVG + tag))


def test_half_of_the_bytes_go_and_no_mark():
    before, after = picture(), compact(picture())
    assert len(after) < 0.7 * len(before)
    for tag in ("use", "path", "image"):
        assert len(parts(after, tag)) == len(parts(before, tag)) > 0
    assert wamlib.plot  # whose style the picture has


def test_every_reference_leads_somewhere():
    after = compact(picture())
    ids = {part.get("id") for part in ET.fromstring(after).iter() if part.get("id")}
    assert set(re.findall(r'href="#([\w.-]+)"|url\(#([\w.-]+)\)', after))
    assert {a or b for a, b in re.findall(r'href="#([\w.-]+)"|url\(#([\w.-]+)\)', after)} <= ids


def test_places_stay_within_a_hundredth_of_a_point():
    def place(part):
        move = re.match(r"translate\((\S+) (\S+)\)", part.get("transform", "translate(0 0)"))
        return [float(part.get(axis, 0)) + float(moved) for axis, moved in zip("xy", move.groups(), strict=True)]

    def places(text):
        return np.array([place(part) for part in parts(text, "use")])

    np.testing.assert_allclose(places(compact(picture())), places(picture()), atol=0.0051)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("M 1.50 2.25 L 3.000000 4 L 5 6 L 7 8", "M1.50 2.25L3 4 5 6 7 8"),
        ("M 0 0 L 1 1 M 2 2 L 3 3 z", "M0 0L1 1M2 2L3 3z"),
        ("M 0 0 Q 1 1 2 2 Q 3 3 4 4 L 5 5 z M 6 6", "M0 0Q1 1 2 2 3 3 4 4L5 5zM6 6"),
        ("m 0 0 L 1 1 l 2 2 \nl -0.0012 -3.126", "m0 0L1 1l2 2 0 -3.13"),
        ("M 0 0 z z", "M0 0zz"),
        ("M 0 0 L 1 1 l 2 2 L 3 3 L 1e-05 4", "M0 0L1 1l2 2L3 3 1e-05 4"),
    ],
)
def test_paths_lose_what_no_reader_needs(before, after):
    picture = '<svg xmlns="http://www.w3.org/2000/svg"><path d="{}"/></svg>'
    assert f'd="{after}"' in compact(picture.format(before))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('<use transform="translate(63.625977 0)"/>', '<use x="63.63"/>'),
        ('<use transform="translate(0 -1.5)"/>', '<use y="-1.5"/>'),
        ('<use x="1" transform="translate(2 3.126)"/>', '<use x="1" transform="translate(2 3.13)"/>'),
        ('<use transform="translate(1 2) scale(0.015625)"/>', '<use transform="translate(1 2) scale(0.015625)"/>'),
        ('<path transform="translate(1.23456 2)"/>', '<path transform="translate(1.23 2)"/>'),
        ('<defs><path d="M0.0012 0"/></defs>', '<defs><path d="M0.0012 0"/></defs>'),
        ('<g><g><path style="fill: red"/></g></g>', '<path class="a"/></svg>'),
        ('<g id="g"><path/></g><use href="#g"/>', '<g id="a"><path/></g><use href="#a"/>'),
    ],
)
def test_moves_become_places_and_idle_groups_go(before, after):
    assert after in compact(f'<svg xmlns="http://www.w3.org/2000/svg">{before}</svg>')


def test_what_is_compact_stays_as_it_is():
    after = compact(picture())
    assert compact(after) == after


def test_words_keep_their_spaces():
    text = '<svg xmlns="http://www.w3.org/2000/svg"><g><text>a  b <tspan> c </tspan> d</text></g></svg>'
    assert "<text>a  b <tspan> c </tspan> d</text>" in compact(text)


@pytest.mark.parametrize("colours", [2, 200, 5_000])
def test_a_picture_with_few_colours_gets_a_palette_and_keeps_every_pixel(colours):
    values = np.random.default_rng(0).integers(0, 256, (colours, 3))[np.arange(6_400) % colours].reshape(80, 80, 3)
    before = Image.fromarray(values.astype("uint8")).convert("RGBA")
    data = io.BytesIO()
    before.save(data, "png")
    address = pictures.PNG + b64encode(data.getvalue()).decode()
    after = pictures.with_palette(address)
    shown = Image.open(io.BytesIO(b64decode(after.removeprefix(pictures.PNG))))
    assert shown.convert("RGBA").tobytes() == before.tobytes()
    assert (len(after) < len(address)) == (colours <= 256)


def test_a_picture_one_sees_through_stays():
    data = io.BytesIO()
    Image.new("RGBA", (9, 9), (1, 2, 3, 100)).save(data, "png")
    address = pictures.PNG + b64encode(data.getvalue()).decode()
    assert pictures.with_palette(address) == address


def test_a_picture_without_styles_gets_none():
    assert "style" not in compact('<svg xmlns="http://www.w3.org/2000/svg"><path d="M 0 0"/></svg>')


def test_colours_are_no_references():
    text = '<svg xmlns="http://www.w3.org/2000/svg"><path id="fff" d="M0 0"/><path style="fill: #fff"/></svg>'
    assert "fill:#fff" in compact(text)


def test_the_pictures_of_a_built_book_are_made_compact_and_of_a_failed_one_not(tmp_path):
    file = tmp_path / "_images" / "a.svg"
    file.parent.mkdir()
    before = picture()
    file.write_text(before)
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
    pictures._shrink(app, OSError())
    assert file.read_text() == before
    pictures._shrink(app, None)
    assert file.read_text() == compact(before)


@pytest.fixture
def seen(browser, tmp_path):
    def look(text):
        (tmp_path / "x.svg").write_text(text, "utf-8")
        page = browser.new_page(viewport={"width": 700, "height": 300})
        page.goto((tmp_path / "x.svg").as_uri())
        shot = Image.open(io.BytesIO(page.screenshot())).convert("L")
        page.close()
        return np.asarray(shot, dtype=float)

    return look


def test_a_browser_shows_the_same(seen):
    before, after, other = (seen(text) for text in (picture(), compact(picture()), picture(lines=2)))
    assert np.ptp(before) > 200  # something is seen
    assert np.abs(before - after).mean() < 0.2
    assert np.abs(before - other).mean() > 0.4  # a line that is missing would be
