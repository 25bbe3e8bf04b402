"""A signal that a library makes something else of still ends the start."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from gemma_serve.start_signals import StartSignals


@pytest.fixture
def signals() -> Iterator[StartSignals]:
    """Heard for the length of a test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield StartSignals()
    for number, handler in before.items():
        signal.signal(number, handler)


def other_error(number: int) -> None:
    """As pydantic does it in the middle of an import."""
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt as error:
        raise ValueError("Error building model") from error


def next_best(number: int) -> None:
    """As `try: import fast; except: fast = None` does it."""
    with contextlib.suppress(KeyboardInterrupt):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("imported", [other_error, next_best])
def test_interrupt_in_an_import(
    signals: StartSignals, imported: Callable[[int], None], number: int
) -> None:
    """It ends the start, whatever the library made of it."""
    with pytest.raises(KeyboardInterrupt), signals.obeyed():
        imported(number)
    assert signals.came


def test_other_errors_stay_what_they_are(signals: StartSignals) -> None:
    """Without a signal nothing is an interrupt."""
    with pytest.raises(ValueError, match="invalid literal"), signals.obeyed():
        int("a")
    with signals.obeyed():
        int("1")
