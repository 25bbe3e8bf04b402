"""A signal that a library makes something else of still ends the start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from gemma_serve.start_signals import StartSignals


@pytest.fixture
def signals() -> Iterator[StartSignals]:
    """Heard for the length of a test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield StartSignals()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_that_became_another_error(signals: StartSignals, number: int) -> None:
    """As pydantic does it in the middle of an import."""
    with pytest.raises(KeyboardInterrupt), signals.obeyed():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt as error:
            raise ValueError("Error building model") from error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_that_was_swallowed(signals: StartSignals, number: int) -> None:
    """As `try: import fast; except: fast = None` does it."""
    went_on = False
    with pytest.raises(KeyboardInterrupt), signals.obeyed():
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            went_on = True
    assert went_on


def test_other_errors_stay_what_they_are(signals: StartSignals) -> None:
    """Without a signal nothing is an interrupt."""
    with pytest.raises(ValueError, match="broken"), signals.obeyed():
        raise ValueError("broken")
    with signals.obeyed():
        pass
