"""What the person at the terminal sees while the server starts, runs and ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from rich.console import Console

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
    """Lines on stderr, and a spinner where stderr is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, line: str) -> None:
        """One line."""
        self.console.print(line, markup=False, soft_wrap=True)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that something is under way; a line instead of a spinner where there is none."""
        if not self.console.is_terminal:
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
