"""What the person at the terminal sees while the server starts, runs and ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TextIO, cast

from rich.console import Console

from gemma_serve import log_sink
from gemma_serve.engine.timeline import Timeline

DOING = {
    "import": "Importing vLLM...",
    "start": "Starting the engine and loading the model...",
    "render": "Loading the tokenizer...",
    "warm_up": "Warming up...",
    "quality": "Checking the quality against the reference...",
}
LABELS = {"kv_cache": "KV cache", "warm_up": "warm-up"}


class Progress:
    """Lines on stderr, and a spinner where stderr is a terminal; or lines of the log."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.logger: logging.Logger | None = None  # where JSON is wanted

    def wait_for_nobody(self) -> None:
        """From here on a reader of stderr that stops, or goes away, holds nothing up."""
        self.console = Console(file=cast(TextIO, log_sink.STDERR), highlight=False)

    def say(self, line: str) -> None:
        """One line."""
        if self.logger is not None:
            self.logger.info("%s", line.strip())
            return
        self.console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that something is under way; a line instead of a spinner where there is none."""
        if self.logger is not None or not self.console.is_terminal:
            self.say(DOING[what])
            yield
            return
        with self.console.status(DOING[what]):
            yield

    def phase(self, name: str, seconds: float) -> None:
        """A phase of the start is over."""
        self.say(f"  {LABELS.get(name, name):<10} {seconds:6.1f} s")

    def ready(self, url: str, names: Sequence[str], timeline: Timeline, *, docs: bool) -> None:
        """The server takes requests."""
        self.say(f"  {'ready':<10} {timeline.ready_s:6.1f} s")
        where = f"; docs at {url}/docs" if docs else ""
        self.say(f"Serving {', '.join(names)} at {url} (Ctrl-C stops{where})")
