"""Links of the built site: to pages and headings that are there, and to nothing on other hosts."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements of which a browser fetches the address by itself, and the attribute that holds it.
_FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class _Page(HTMLParser):
    """Addresses and anchors of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        # a canonical address names the page, nobody fetches it
        if tag in _FETCHED and given.get("rel") not in ("canonical", "edit"):
            self.fetched += [given[_FETCHED[tag]]] if given.get(_FETCHED[tag]) else []


def _page(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def wrong_links(site: Path) -> list[str]:
    """What is wrong with the links of all pages of a site, as lines of text.

    Links to other hosts are not followed; files that a page needs must not be there.
    """
    pages = {path.resolve(): _page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for address in (*page.links, *page.fetched):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                outside = address in page.fetched and parts.scheme != "data"
                found += [f"{where}: needs {address} from the network"] if outside else []
                continue
            if parts.path.startswith("/"):  # 404.html, which is served from any place
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{where}: {address} leads to no file")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                found.append(f"{where}: {address} leads to no heading")
    return sorted(set(found))
