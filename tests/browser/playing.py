"""What a reader does: move the slider of an interactive figure, and look a word up."""

ROOTS = "[data-interactive]"
MOST_TABS = 30


def play(page):
    """Move the first slider of each interactive figure of a page by keys and by mouse; return what does not respond."""
    figures = page.locator(ROOTS).all()
    return [f"figure {place}: {problem}" for place, figure in enumerate(figures, 1) for problem in _play(page, figure)]


def _play(page, figure):
    slider = figure.locator("input[type=range]:visible").first
    said = figure.locator("[data-part=says]").first
    if not slider.count():
        return ["has no slider"]
    if not said.count() or not said.evaluate("e => e.ariaLive || e.role || e.localName === 'output'"):
        return ["has no live region that says what has changed"]
    slider.scroll_into_view_if_needed()
    return [*_by_keys(page, figure, slider, said), *_by_mouse(page, slider, said)]


def _by_keys(page, figure, slider, said):
    # From the figure on by the Tab key alone, as those do who have no mouse.
    figure.evaluate("e => { e.tabIndex = -1; e.focus({ preventScroll: true }); }")
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if slider.evaluate("e => e === document.activeElement"):
            break
    else:
        return ["the Tab key does not reach its slider"]
    page.keyboard.press("Home")
    texts = [said.inner_text()]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End"):
        page.keyboard.press(key)
        texts.append(said.inner_text())
    return [] if texts[0] != texts[1] != texts[2] != texts[3] != texts[4] else ["its keys change nothing"]


def _by_mouse(page, slider, said):
    box = slider.bounding_box()
    height = box["y"] + box["height"] / 2
    at = [box["x"] + share * box["width"] for share in (0.1, 0.45, 0.9)]
    page.mouse.click(at[0], height)
    texts = [said.inner_text()]
    page.mouse.down()
    for place in at[1:]:
        page.mouse.move(place, height, steps=5)
        texts.append(said.inner_text())
    page.mouse.up()
    page.mouse.click(at[1], height)
    texts.append(said.inner_text())
    return [] if texts[0] != texts[1] != texts[2] != texts[3] else ["the mouse changes nothing"]


def search(page, address, word):
    """Type a word into the search box of the first page; return the pages that are found, as paths."""
    page.goto(address + "index.html")
    page.keyboard.press("Control+k")
    page.locator("dialog input[type=search]").first.fill(word)
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    # Sphinx says in a headline that the search has ended; the theme does not show it.
    page.locator("#search-results h2", has_text="Search Results").wait_for(state="attached")
    links = page.locator("#search-results a").evaluate_all("links => links.map(link => link.href)")
    return [link.removeprefix(address).split("?")[0] for link in links]
