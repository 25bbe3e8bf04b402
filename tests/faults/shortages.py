"""F14: few file descriptors, a full disk, little memory, and a clock that jumps."""

from __future__ import annotations

import contextlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.commands import running_into
from tests.faults.figures import Figures, figures
from tests.faults.ledger import End, under_load
from tests.faults.raw import RawClient
from tests.faults.sink import Sink
from tests.faults.site import Scale, Site, descendants, site_of
from tests.faults.unread import DROPPED

NUM_DESCRIPTORS, NUM_IDLE = 256, 300
REQUESTS = "gemma_serve_http_requests_total"
FAKETIME = "/usr/lib/*-linux-gnu/faketime/libfaketimeMT.so.1"
GIB = 1024**3


@contextmanager
def limited(pid: int, limit: int, most: int) -> Iterator[None]:
    """A running process with another soft limit for a while."""
    process = psutil.Process(pid)
    before = process.rlimit(limit)
    process.rlimit(limit, (most, before[1]))
    try:
        yield
    finally:
        process.rlimit(limit, before)


def descriptors_run_out(site: Site, scale: Scale) -> Figures:
    """
    More idle connections than the process may have descriptors: new ones wait, none is refused,
    and all are answered when the idle ones have been closed.
    """
    processes = descendants(site)
    with (
        limited(site.pid, psutil.RLIMIT_NOFILE, NUM_DESCRIPTORS),
        contextlib.ExitStack() as idle,
        site.loaded("F14-descriptors", **scale.load) as load,
    ):
        for number in range(NUM_IDLE):
            client = RawClient(site.url, f"F14-idle-{number}", {})
            idle.callback(client.close)
    assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    assert descendants(site) >= processes
    return figures(load.ledger.entries, idle_connections=NUM_IDLE)


def disk_is_full(site: Site, scale: Scale) -> Figures:
    """No file can be written (RLIMIT_FSIZE): requests go on, lines of the log are counted."""
    before = site.value(DROPPED)
    with limited(site.pid, psutil.RLIMIT_FSIZE, 0):
        # The access log is one of those files: here the gateway's ledger is its counter.
        answered = site.value(REQUESTS, status="200", method="POST")
        with under_load(
            site.url,
            32,
            name="F14-disk",
            num_requests=scale.requests,
            num_tokens=scale.num_tokens,
            headers=site.server.headers,
        ) as load:
            pass
        answered = site.value(REQUESTS, status="200", method="POST") - answered
        dropped = site.value(DROPPED) - before
    assert load.ledger.count(End.COMPLETED) == load.ledger.sent == answered
    assert dropped >= load.ledger.sent
    site.assert_at_rest()
    return figures(load.ledger.entries, lines_dropped=dropped)


# --- servers of their own


def memory_is_limited(profile: Path, directory: Path, scale: Scale) -> Figures:
    """A start that gets no more memory ends by itself, with one sentence, and leaves nothing."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * GIB, 3 * GIB))

    return refused_start(profile, directory, limit)


def disk_is_full_at_the_start(profile: Path, directory: Path, scale: Scale) -> Figures:
    """A start that can't write its files ends with one sentence that says so."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    return refused_start(profile, directory, limit)


def refused_start(profile: Path, directory: Path, limit: Callable[[], None]) -> Figures:
    """Start under a limit of the process's; hold the end to what is promised of a failed start."""
    directory.mkdir(parents=True, exist_ok=True)
    began_s, sink = time.monotonic(), Sink(directory / "output.log")
    words = ["serve", profile, "--set=server.port=0"]
    with tempfile.TemporaryDirectory(prefix="f-") as temporary:
        environ = {"TMPDIR": temporary}
        with running_into(sink.output, words, sink.log, environ, limit) as command:
            sink.output.close()
            code, took_s = command.ended(), time.monotonic() - began_s
        assert not list(Path(temporary).rglob("gemma-serve*"))
    sink.drain()
    assert code != 0
    assert command.last_line().startswith("gemma-serve: "), command.output()
    assert "Traceback" not in command.output()
    return {"exit_code": code, "exit_s": round(took_s, 1), "said": command.last_line()}


def clock_jumps(profile: Path, directory: Path, scale: Scale) -> Figures:
    """The wall clock goes an hour ahead and two back under load: nobody notices."""
    [library, *_] = [*Path("/").glob(FAKETIME[1:]), None]
    if library is None:
        return {"not_run": "libfaketime is not installed"}
    clock = directory / "clock"
    directory.mkdir(parents=True, exist_ok=True)
    clock.write_text("+0")
    environ = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with site_of(profile, directory, environ=environ) as site:
        with site.loaded("F14-clock", **scale.load) as load:
            for offset in ("+3600", "-3600", "+0"):
                time.sleep(2)
                clock.write_text(offset)
                time.sleep(2)
                assert httpx.get(f"{site.url}/livez", timeout=30).status_code == 200
        assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    return figures(load.ledger.entries)
