"""The project's pages, taken apart: headings, links, code blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
_FOLDERS = ("docs", "benchmarks", "deploy", "gemma_serve")
_WHERE = ("*.md", "llms.txt", *(f"{folder}/**/*.md" for folder in _FOLDERS))
# A comment that tells the reader what a command needs, and the tests to leave it alone: behind the
# command, or above those it holds for.
_NEEDS = re.compile(r"#\s*needs (.+)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a bash block, whole: with its continued lines and its comment."""

    page: Path
    line: int
    text: str
    needs: str | None  # what no test machine has; None: it is tried

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def words(self) -> list[str]:
        """As a shell splits it, without comments and variables before it."""
        text = self.text.replace("\\\n", " ").replace(".venv/bin/", "")
        words = shlex.split(text, comments=True)
        start = next((n for n, word in enumerate(words) if not re.match(r"\w+=", word)), 0)
        return words[start:]


def all_pages() -> list[Path]:
    """Every page that a reader may open."""
    return sorted({page for where in _WHERE for page in ROOT.glob(where)})


@cache
def _tokens(page: Path) -> tuple[Token, ...]:
    return tuple(MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")))


def _inline(page: Path) -> Iterator[tuple[int, Token]]:
    for token in _tokens(page):
        for child in token.children or ():
            yield (token.map or [0])[0] + 1, child


def links(page: Path) -> Iterator[tuple[int, str]]:
    """Where links and pictures lead, with the line of their paragraph."""
    for line, token in _inline(page):
        target = token.attrs.get("href") or token.attrs.get("src")
        if target:
            yield line, str(target)


def code_spans(page: Path) -> Iterator[tuple[int, str]]:
    """Code within sentences, with the line of its paragraph."""
    for line, token in _inline(page):
        if token.type == "code_inline":
            yield line, token.content


@cache
def anchors(page: Path) -> frozenset[str]:
    """The headings of a page, as GitHub names them in addresses."""
    tokens = _tokens(page)
    titles = [text.content for at, text in pairwise(tokens) if at.type == "heading_open"]
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return [
        Block(page, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for token in _tokens(page)
        if token.type == "fence"
    ]


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page's bash blocks."""
    for block in blocks(page):
        if block.language == "bash":
            yield from _commands_of(block)


def _commands_of(block: Block) -> Iterator[Command]:
    needs_from_here, text, start = None, "", block.line
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if not text and line.lstrip().startswith("#"):
            said = _NEEDS.search(line)
            needs_from_here = said[1] if said else needs_from_here
            continue
        start = start if text else number
        text += line + "\n"
        if not _goes_on(text):
            said = _NEEDS.search(text)
            if text.strip():
                yield Command(block.page, start, text.strip(), said[1] if said else needs_from_here)
            text = ""
    assert not text, f"{block.page.name}:{start}: a command without an end"


def _goes_on(text: str) -> bool:
    """Whether the shell would read another line."""
    if text.rstrip().endswith(("\\", "|", "&&")):
        return True
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False
