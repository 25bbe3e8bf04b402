"""A node is gone when it was missing for some looks in a row."""

from __future__ import annotations

from gemma_serve.engine.nodes import LOOKS, Absence


def test_one_look_is_none() -> None:
    """A look at which it is there again begins anew."""
    absence = Absence()
    looks = [True] * (LOOKS - 1) + [False] + [True] * LOOKS

    said = [absence.is_sure(missing=missing) for missing in looks]

    assert said == [False] * (2 * LOOKS - 1) + [True]
