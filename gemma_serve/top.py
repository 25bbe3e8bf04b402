"""`gemma-serve top`: what a running server is doing, from its /metrics, in the terminal."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gemma_serve.errors import GemmaServeError
from gemma_serve.metrics_view import (
    PERCENTILES,
    VLLM_RELEASE,
    Latency,
    NotGemmaServeError,
    Reading,
    View,
    is_restart,
    read,
    sparkline,
    view,
)

KEY_VARIABLE = "GEMMA_SERVE_API_KEY"
TIMEOUT_S = 5.0
BAR_CELLS = 24
MAX_KEYS = 8
SPARK_CELLS = 30
LATENCY_NAMES = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "e2e": "whole request",
    "queue": "in the queue",
}


class TopError(GemmaServeError):
    """The server can't be reached, refused, or is no gemma-serve."""


@dataclass
class Watch:
    """The readings of one server that the window still holds, oldest first."""

    url: str
    window_s: float
    readings: deque[Reading] = field(default_factory=deque)
    generation_rates: deque[float] = field(default_factory=lambda: deque(maxlen=SPARK_CELLS))
    status: str | None = None

    def __post_init__(self) -> None:
        key = os.environ.get(KEY_VARIABLE)
        # The text format: OpenMetrics has other names for some samples.
        headers = {"accept": "text/plain"} | ({"authorization": f"Bearer {key}"} if key else {})
        try:
            self.client = httpx.Client(base_url=self.url, headers=headers, timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise self._unreachable(error) from error

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def look(self) -> None:
        """
        Read the server once more.

        Raises:
            TopError: it can't be reached, refused, or is no gemma-serve.
        """
        reading = self._read()
        if self.readings and is_restart(self.readings[-1], reading):
            self.readings.clear()
        if self.readings:
            rate = view(self.readings[-1], reading).generation_tokens_per_s
            self.generation_rates.append(rate or 0.0)
        self.readings.append(reading)
        # One reading that is older than the window stays: the window begins with it.
        while len(self.readings) > 2 and self.readings[1].at_s <= reading.at_s - self.window_s:
            self.readings.popleft()

    def view(self) -> View:
        """The window up to the latest reading."""
        return view(self.readings[0], self.readings[-1])

    def as_json(self) -> str:
        """One line for machines."""
        return json.dumps({"url": self.url, "status": self.status, **self.view().as_dict()})

    def _read(self) -> Reading:
        try:
            answer = self.client.get("/metrics")
            at_s = time.time()
            ready = self.client.get("/readyz")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.status_code in (401, 403):
            raise TopError(
                f"{self.url} asks for a key it knows; set {KEY_VARIABLE}, or name the port of "
                "server.metrics_port, which needs none."
            )
        self.status = _status_of(ready)
        if not answer.is_success:
            raise self._foreign(f"/metrics answers {answer.status_code}")
        try:
            return read(answer.text, at_s)
        except NotGemmaServeError as error:
            raise self._foreign(str(error)) from error

    def _foreign(self, why: str) -> TopError:
        return TopError(
            f"{self.url} is no gemma-serve ({why[:200]}); name one as "
            "'gemma-serve top http://HOST:PORT'."
        )

    def _unreachable(self, error: Exception) -> TopError:
        return TopError(
            f"No answer from {self.url} ({type(error).__name__}); start a server with "
            "'gemma-serve serve', or name another as 'gemma-serve top http://HOST:PORT'."
        )


def _status_of(answer: httpx.Response) -> str | None:
    """The probe's word; None on the metrics port, which has no probes."""
    try:
        return str(answer.json()["status"])
    except (ValueError, LookupError, TypeError):
        return None


def once(watch: Watch, interval_s: float, *, as_json: bool) -> None:
    """
    Look twice, an interval apart, and print what happened between.

    Raises:
        TopError: the server can't be reached, refused, or is no gemma-serve.
    """
    watch.look()
    time.sleep(interval_s)
    watch.look()
    if as_json:
        print(watch.as_json())
    else:
        Console().print(screen(watch))


def follow_as_json(watch: Watch, interval_s: float) -> None:
    """
    Print a line an interval until Ctrl-C.

    Raises:
        TopError: the server can't be reached, refused, or is no gemma-serve.
    """
    watch.look()
    while True:
        time.sleep(interval_s)
        watch.look()
        print(watch.as_json(), flush=True)


def follow(watch: Watch, interval_s: float) -> None:
    """
    Show the server until q or Ctrl-C, and wait for it where it goes away meanwhile.

    Raises:
        TopError: it can't be reached at first, refused, or is no gemma-serve.
    """
    watch.look()
    problem: str | None = None
    with (
        contextlib.suppress(KeyboardInterrupt),
        _keys() as pressed,
        Live(screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(screen(watch, problem), refresh=True)
            if pressed(interval_s) == "q":
                return
            try:
                watch.look()
                problem = None
            except TopError as error:
                problem = error.message


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str | None]]:
    """A function that waits for a key, up to some seconds, without Enter and without echo."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    terminal = sys.stdin.fileno()

    def pressed(timeout_s: float) -> str | None:
        can_read, _, _ = select.select([terminal], [], [], timeout_s)
        return os.read(terminal, 1).decode(errors="replace") if can_read else None

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


# --- what is shown


def screen(watch: Watch, problem: str | None = None) -> RenderableType:
    """The whole view: who serves, throughput, queue, cache, latency, errors."""
    shown = watch.view()
    parts: list[RenderableType] = [
        _levels(shown, list(watch.generation_rates)),
        "",
        _latency(shown),
    ]
    if shown.keys:
        parts += ["", _keys_table(shown)]
    if problem:
        parts = [Text(problem, style="bold red"), "", *parts]
    return Panel(
        Group(*parts),
        title=_title(shown, watch.status),
        title_align="left",
        subtitle=f"{watch.url}, last {shown.window_s:.0f} s; q leaves",
        subtitle_align="left",
        box=box.ROUNDED,
        border_style="dim",
        padding=(1, 2),
    )


def _title(shown: View, status: str | None) -> Text:
    server = shown.server
    words = [server.get("dtype"), _release(server.get("vllm_version")), status]
    if shown.uptime_s is not None:
        words.append(f"up {duration(shown.uptime_s)}")
    title = Text(f" {server.get('profile', '?')} ", style="bold")
    return title.append(" · ".join(word for word in words if word) + " ", style="not bold")


def _release(version: str | None) -> str:
    if version is None or version.startswith(f"{VLLM_RELEASE}."):
        return f"vLLM {version or '?'}"
    return f"vLLM {version}, not {VLLM_RELEASE}: figures may be missing"


def _levels(shown: View, rates: list[float]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=11)
    table.add_column(no_wrap=True)
    table.add_column(overflow="crop", no_wrap=True)
    tokens = f"{number(shown.prompt_tokens_per_s)} in, {number(shown.generation_tokens_per_s)} out"
    table.add_row("tokens/s", tokens, Text(sparkline(rates, SPARK_CELLS), style="cyan"))
    finished = f"{number(shown.finished_per_s)} finished/s"
    queue = f"{number(shown.running)} running, {number(shown.waiting)} waiting"
    table.add_row("requests", queue, finished)
    table.add_row("KV cache", percent(shown.kv_cache_usage), _bar(shown.kv_cache_usage))
    hits = f"{percent(shown.prefix_cache_hit_rate)} of prompt tokens"
    table.add_row("prefix hits", hits, f"{number(shown.preemptions)} preemptions")
    table.add_row("errors", _errors(shown.errors), _errors(shown.errors_since_start, " in all"))
    return table


def _errors(counts: Mapping[str, int], when: str = "") -> Text:
    text = f"{counts['4xx']} 4xx, {counts['5xx']} 5xx, {counts['499']} left{when}"
    return Text(text, style="bold red" if counts["5xx"] else "")


def _bar(share: float | None) -> Text:
    filled = round((share or 0.0) * BAR_CELLS)
    style = "red" if filled > 0.9 * BAR_CELLS else "cyan"
    return Text("█" * filled, style=style).append("░" * (BAR_CELLS - filled), style="dim")


def _latency(shown: View) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("latency", style="dim", no_wrap=True, min_width=21)
    for name in (*(f"p{percentile}" for percentile in PERCENTILES), "mean", "requests"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    for key, name in LATENCY_NAMES.items():
        table.add_row(name, *_latency_cells(shown.latencies[key]))
    return table


def _latency_cells(latency: Latency) -> list[str]:
    values = [*latency.percentiles_s.values(), latency.mean_s]
    return [*(seconds(value) for value in values), number(latency.count)]


def _keys_table(shown: View) -> Table:
    """The keys that had the most tokens generated; of many, the first few."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("key", style="dim", no_wrap=True, min_width=21)
    for name in ("requests", "tokens in", "tokens out"):
        table.add_column(name, justify="right", no_wrap=True, min_width=8)
    most = sorted(shown.keys.items(), key=lambda item: -item[1]["generation_tokens"])
    for key, use in most[:MAX_KEYS]:
        table.add_row(Text(key), *(number(count) for count in use.values()))
    return table


def number(value: float | None) -> str:
    """With thousands separated; one place below 100, unless it is a count."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) and value < 100 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of 1 as a percentage."""
    return "-" if share is None else f"{share:.1%}"


def seconds(value: float | None) -> str:
    """A latency in the unit that it is read in."""
    if value is None:
        return "-"
    return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.2f} s"


def duration(value_s: float) -> str:
    """How long something has run, in its two largest units."""
    minutes, secs = divmod(int(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (secs, "s")]
    first = next((place for place, (count, _) in enumerate(units) if count), len(units) - 1)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])
