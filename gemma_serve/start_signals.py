"""SIGINT and SIGTERM while there is no event loop yet that hears them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StartSignals:
    """Either signal ends the start by a KeyboardInterrupt, from the time this is made."""

    def __init__(self) -> None:
        self.came = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """
        End a with block by the KeyboardInterrupt, whatever became of it in there.

        What a library imports may make another error of it (pydantic's SchemaError, in a model
        that was being built), or try the next best thing and go on.

        Raises:
            KeyboardInterrupt: a signal came.
        """
        try:
            yield
        except Exception as error:
            if self.came:
                raise KeyboardInterrupt from error
            raise
        if self.came:
            raise KeyboardInterrupt
