"""Where a server's output goes: a pipe whose reader may pause, or go away."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path
from typing import IO

POLL_S = 0.05


class Sink:
    """The pipe and its reader, which copies what comes to a file."""

    def __init__(self, log: Path) -> None:
        log.touch()
        self.log, self.reads, self.closed = log, threading.Event(), threading.Event()
        self.reads.set()
        self._descriptor, writing = os.pipe()
        self.output: IO[bytes] = os.fdopen(writing, "wb")
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    def drain(self) -> None:
        """Read what is left of writers that are all gone."""
        self._thread.join(10)
        assert not self._thread.is_alive()

    def close(self) -> None:
        """The reader goes away: who writes from now on gets EPIPE."""
        self.closed.set()
        self._thread.join()

    def _copy(self) -> None:
        with self.log.open("ab", buffering=0) as file, os.fdopen(self._descriptor, "rb", 0) as pipe:
            while not self.closed.is_set():
                if not self.reads.wait(POLL_S) or not select.select([pipe], [], [], POLL_S)[0]:
                    continue
                if not (piece := pipe.read(65_536)):
                    return
                file.write(piece)
