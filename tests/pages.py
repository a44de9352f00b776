"""README and the pages of docs/ as their readers see them: blocks of code, commands in those, and code in the text."""

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
COMMENT = re.compile(r"\s{2,}# .*$")


class Block(NamedTuple):
    """A block of code.

    Attributes:
      line: of the page, from 1, at which its content begins.
      language: as it is written; empty where none is.
      text: its content.
    """

    line: int
    language: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """All blocks of code of a page, fenced or indented."""
    return [
        Block(token.map[0] + (2 if token.type == "fence" else 1), token.info.strip(), token.content)
        for token in _parsed(page)
        if token.type in ("fence", "code_block")
    ]


def commands_of(block: Block) -> list[str]:
    """The commands of a `bash` block, each on one line, without the comments behind them."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+", " ", COMMENT.sub("", line)).strip() for line in lines if line.strip()]


def commands_on(page: str) -> list[str]:
    """All commands of a page, in their order."""
    return [command for block in blocks_of(page) if block.language == "bash" for command in commands_of(block)]


def inline_code_on(page: str) -> list[str]:
    """What a page has as code within its text, tables included, each on one line."""
    return [part.content for part in _parts_of(page) if part.type == "code_inline"]


def texts_on(page: str) -> list[str]:
    """What a page says outside of code, as it is shown: piece by piece, without its markup."""
    return [part.content for part in _parts_of(page) if part.type == "text"]


def images_on(page: str) -> list[Path]:
    """The files that a page shows as images."""
    sources = [str(part.attrs["src"]) for part in _parts_of(page) if part.type == "image"]
    return [((ROOT / page).parent / source).resolve() for source in sources]


def text_lines_of(page: str) -> list[tuple[int, str]]:
    """The lines of a page's paragraphs, each with its number, from 1; those of tables and blocks of code are none."""
    lines = (ROOT / page).read_text().splitlines()
    paragraphs = [range(*token.map) for token in _parsed(page) if token.type == "paragraph_open"]
    return [(number + 1, lines[number]) for paragraph in paragraphs for number in paragraph]


def _parts_of(page: str) -> list[Token]:
    """What the text of a page consists of, tables and the words of links and images included."""
    within = [part for token in _parsed(page) for part in token.children or ()]
    return within + [part for image in within for part in image.children or ()]


def _parsed(page: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text())
