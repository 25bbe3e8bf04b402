"""The part of the bad inputs that is sent in each run: the table of code and that of the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.reliability.subset import PARTS, Part

PAGE = Path(__file__).parents[2] / "docs" / "behaviour.md"


def test_the_page_has_the_same_table() -> None:
    """docs/behaviour.md says what subset.py does, class by class."""
    _, _, section = PAGE.read_text().partition("## Bad inputs")
    rows = re.findall(r"^\| ([A-L]) \| .* \| ([^|]*) \|$", section, re.MULTILINE)
    told = {letter: part.partition(";")[0] for letter, part in rows}
    assert {letter: told[letter] for letter in PARTS} == {
        letter: str(part) for letter, part in PARTS.items()
    }
    # Their tests are elsewhere, and are named.
    assert all(told[letter].startswith("`tests/") for letter in told.keys() - PARTS.keys())
    assert set(told) == set("ABCDEFGHIJKL")


@pytest.mark.parametrize(
    ("part", "sent"), [(Part(), [0, 1, 2, 3, 4, 5, 6]), (Part(every=3), [0, 3, 6])], ids=str
)
def test_part(part: Part, sent: list[int]) -> None:
    """Every so many-th case, from the first on."""
    assert list(part.of(range(7))) == sent
