"""Follows the links of these pages, as GitHub shows them and as they were built, without a network.

python docs/check_links.py build/docs README.md experiments/notebooks/*.ipynb

Files and anchors have to be there. Of links to other hosts only the form is looked at.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

PAGES = Path(__file__).parent
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


class Page(NamedTuple):
    """What a page has that matters to links.

    Attributes:
      links: where it links to, as written.
      anchors: what can be linked to in it.
    """

    links: tuple[str, ...]
    anchors: frozenset[str]


@cache
def read_markdown(path: Path) -> Page:
    """Links and headings of a Markdown file or a notebook; headings have the anchors that GitHub gives them."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or ()]
    links = [str(token.attrs[key]) for token in inline for key in ("href", "src") if key in token.attrs]
    seen: Counter[str] = Counter()
    anchors = []
    for opening, content in pairwise(tokens):
        if opening.type == "heading_open":
            slug = _slug(content)
            anchors.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return Page(tuple(links), frozenset(anchors))


@cache
def read_html(path: Path) -> Page:
    """Links and ids of an HTML file."""
    reader = _HtmlReader()
    reader.feed(path.read_text())
    return Page(tuple(reader.links), frozenset(reader.anchors))


def dead_links(path: Path, read: Callable[[Path], Page], suffix: str) -> Iterator[str]:
    """A line for each link of a page that leads nowhere.

    Args:
      path: of the page.
      read: reads it, and the pages that it links to.
      suffix: of pages that `read` can read; in other files no anchors are looked for.
    """
    page = read(path)
    for link in dict.fromkeys(page.links):
        url = urlsplit(link)
        target = path.parent / unquote(url.path) if url.path else path
        if url.scheme or url.netloc:
            if url.scheme not in ("http", "https", "mailto") or (url.netloc and not HOST.fullmatch(url.netloc)):
                yield f"{path}: {link} is no address"
        elif not target.exists():
            yield f"{path}: {link}: there is no {target}"
        elif url.fragment and target.suffix == suffix and unquote(url.fragment) not in read(target).anchors:
            yield f"{path}: {link}: {target} has no anchor {url.fragment!r}"


def main(built: Path, others: Sequence[Path]) -> int:
    """Prints dead links; returns the exit code.

    Args:
      built: folder of the HTML.
      others: Markdown files beside those of this folder.
    """
    html = sorted(built.glob("**/*.html"))
    if not html:
        print(f"{built} holds no HTML; run `make docs`", file=sys.stderr)
        return 2
    markdown = [*others, *sorted(PAGES.glob("*.md"))]
    dead = [line for path in markdown for line in dead_links(path, read_markdown, ".md")]
    dead += [line for path in html for line in dead_links(path, read_html, ".html")]
    print("\n".join(dead), file=sys.stderr, end="\n" if dead else "")
    return 1 if dead else 0


def _slug(heading: Token) -> str:
    text = "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


class _HtmlReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.anchors.append(value)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("built", type=Path, help="folder of the pages as they were built")
    parser.add_argument("others", nargs="*", type=Path, help="Markdown files elsewhere, and notebooks")
    arguments = parser.parse_args()
    sys.exit(main(arguments.built, arguments.others))
