"""A streamed answer is stripped as the whole one is, wherever the pieces break."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gemma_serve.triton.stripping import Stripper

# White space of every kind that str.strip knows, among letters.
TEXTS = st.text("ab \t\n\r\x0b\x0c\x1c\x85\xa0\u1680\u2003\u2028\u3000\ufeff", max_size=8)


@given(st.lists(TEXTS, max_size=12))
def test_pieces_are_the_stripped_whole(pieces: list[str]) -> None:
    """What is given out, joined, is str.strip of the whole text."""
    stripper = Stripper()
    assert "".join(map(stripper.add, pieces)) == "".join(pieces).strip()


@given(st.lists(TEXTS, max_size=12))
def test_nothing_is_held_but_white_space(pieces: list[str]) -> None:
    """After each piece, what came so far is out but for the white space at its end."""
    stripper, given_out = Stripper(), ""
    for number, piece in enumerate(pieces, 1):
        given_out += stripper.add(piece)
        assert given_out == "".join(pieces[:number]).strip()


def test_first_word_comes_at_once() -> None:
    """A word is not held back for what may follow it."""
    stripper = Stripper()
    assert [stripper.add(text) for text in (" ", "\nRome", " ", "is \n", "")] == [
        *("", "Rome", "", " is", ""),
    ]
