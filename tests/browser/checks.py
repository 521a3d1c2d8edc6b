"""What is asked of the pages: each check takes the visits and returns what is wrong, as a list of sentences."""

from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 2_000_000


def complaints(visits):
    """Nothing goes wrong in the console."""
    return [f"{each.name} complains: {text}" for each in visits for text in each.complaints]


def requests(visits):
    """Nothing is loaded from another machine."""
    return [f"{each.name} asks for {url}" for each in visits for url in each.outside]


def links(visits, folder, address):
    """Each link inside the book leads to a file of it, and to a place that is there."""
    anchors = {each.name: set(each.anchors) for each in visits}
    return [
        f"{each.name} links to {link.removeprefix(address)}, {problem}"
        for each in visits
        for link in dict.fromkeys(each.links)
        if link.startswith(address) and (problem := _dead(link, Path(folder), anchors))
    ]


def _dead(link, folder, anchors):
    parts = urlsplit(link)
    name, anchor = unquote(parts.path).lstrip("/"), unquote(parts.fragment)
    if not name or name.endswith("/"):
        name += "index.html"
    if not (folder / name).is_file():
        return "which does not exist"
    if anchor and name in anchors and anchor not in anchors[name]:
        return "where nothing has that name"
    return None


def twice(visits):
    """No element of a page has the name of another, else a link leads to the first of them."""
    return [
        f"{each.name} has {count} elements of the name {anchor}"
        for each in visits
        for anchor, count in Counter(each.anchors).items()
        if count > 1
    ]


def pictures(visits):
    """Each picture says what it shows, and shows something."""
    found = []
    for each in visits:
        for picture in each.pictures:
            if not picture["alt"]:
                found.append(f"{each.name} shows {picture['name']} without alt text")
            if picture["empty"]:
                found.append(f"{each.name} shows {picture['name']}, which is empty")
    return found


def dark(visits):
    """Pictures and their words can be seen in the dark theme."""
    return [f"{each.name} in dark: {problem}" for each in visits for problem in each.dark]


def access(visits):
    """Axe finds nothing serious or critical."""
    return [f"{each.name} {violation}" for each in visits for violation in each.violations]


def width(visits):
    """No page is wider than a phone."""
    return [f"{each.name} is too wide for a phone, {problem}" for each in visits for problem in each.too_wide]


def weight(visits):
    """No page weighs more than 2 MB."""
    return [f"{each.name} weighs {each.transferred / 1e6:.2f} MB" for each in visits if each.transferred > MOST_BYTES]
