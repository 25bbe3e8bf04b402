"""
stdout and stderr as files that nobody waits for: a thread writes what they are given.

Whoever reads the log may stop. Then the pipe is full, and a write would hold up the event loop, or
a worker's step, until it is read again. Here lines wait instead, up to MAX_LINES; those beyond are
dropped, and counted.
"""

from __future__ import annotations

import io
import os
import queue
import select
import threading
import time
from multiprocessing import util

MAX_LINES = 2000
# What the end of a process leaves to a reader that is slow.
FLUSH_S = 1.0
POLL_S = 0.01


class Sink(io.TextIOBase):
    """One descriptor; `write` neither waits nor fails."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun_by = 0  # the process that has the thread: a fork leaves it behind
        self._beginning = threading.Lock()
        self._lines: queue.Queue[bytes] = queue.Queue(MAX_LINES)

    def write(self, text: str) -> int:
        """Have it written soon, in order; or dropped, where too much waits."""
        if self._begun_by != os.getpid():
            self._begin()
        try:
            self._lines.put_nowait(text.encode(errors="backslashreplace"))
        except queue.Full:
            count_dropped()
        return len(text)

    def wait_until_written(self) -> None:
        """Wait, with a bound: whoever ends the process leaves lines behind otherwise."""
        deadline_s = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < deadline_s:
            time.sleep(POLL_S)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def _begin(self) -> None:
        with self._beginning:
            if self._begun_by == os.getpid():
                return
            self._lines = queue.Queue(MAX_LINES)
            threading.Thread(target=self._write_lines, name="log-sink", daemon=True).start()
            # Also at the end of vLLM's processes, which have no atexit where they are forked.
            util.Finalize(None, self.wait_until_written, exitpriority=0)
            self._begun_by = os.getpid()

    def _write_lines(self) -> None:
        lines = self._lines
        while True:
            line = lines.get()
            try:
                _write_all(self._descriptor, line)
            except OSError:  # the reader is gone
                count_dropped()
            lines.task_done()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # somebody has made it non-blocking
            select.select([], [descriptor], [])


def count_dropped() -> None:
    """One line of the log is lost."""
    # vLLM's processes log too, and have none of our series.
    from gemma_serve import metrics

    metrics.LOG_LINES_DROPPED.inc()


STDOUT, STDERR = Sink(1), Sink(2)


def wait_until_written() -> None:
    """Both of them, each with its bound."""
    STDOUT.wait_until_written()
    STDERR.wait_until_written()
