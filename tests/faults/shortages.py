"""F14: few file descriptors, a full disk, little memory, and a clock that jumps."""

from __future__ import annotations

import contextlib
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil

from tests.faults.answers import other_alone
from tests.faults.figures import Figures, figures
from tests.faults.ledger import End, under_load
from tests.faults.raw import RawClient
from tests.faults.site import Scale, Site, descendants, site_of
from tests.faults.starts import in_time, refused_start
from tests.faults.unread import DROPPED

NUM_DESCRIPTORS, NUM_IDLE = 256, 300
REQUESTS = "gemma_serve_http_requests_total"
FAKETIME = "/usr/lib/*-linux-gnu/faketime/libfaketimeMT.so.1"
GIB = 1024**3
JUMPS_S = (3600, -3600, 0)


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
        finished = site.finished()
        with under_load(
            site.url,
            scale.num_clients,
            name="F14-disk",
            num_requests=scale.requests,
            num_tokens=scale.num_tokens,
            **site.asking,
        ) as load:
            pass
        answered = site.value(REQUESTS, status="200", method="POST") - answered
        dropped = site.value(DROPPED) - before
        finished = site.finished() - finished
    assert load.ledger.count(End.COMPLETED) == load.ledger.sent == answered == finished
    assert not load.ledger.wrong(), load.ledger.wrong()[:5]
    assert dropped >= load.ledger.sent
    site.assert_at_rest()
    with site.server.client() as http:
        assert not other_alone(http, load.ledger.entries, scale.compared, scale.num_tokens)
    return figures(load.ledger.entries, lines_dropped=dropped)


# --- servers of their own


def memory_is_limited(profile: Path, directory: Path, scale: Scale) -> Figures:
    """A start that gets no more memory ends by itself, with one sentence, and leaves nothing."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 * GIB, 3 * GIB))

    return refused_start([profile], directory, prepare=limit)


def disk_is_full_at_the_start(profile: Path, directory: Path, scale: Scale) -> Figures:
    """A start that can't write its files ends with one sentence that says so."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    return in_time({"no place": refused_start([profile], directory, prepare=limit)}, scale)


def clock_jumps(profile: Path, directory: Path, scale: Scale) -> Figures:
    """The wall clock goes an hour ahead and two back under load: nobody notices."""
    libraries = list(Path("/").glob(FAKETIME[1:]))
    assert libraries, "libfaketime is not there: apt-get install faketime"
    clock = directory / "clock"
    directory.mkdir(parents=True, exist_ok=True)
    clock.write_text("+0")
    environ = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    with site_of(profile, directory, environ=environ) as site:
        with site.loaded("F14-clock", **scale.load | {"requests": 0}) as load:
            for offset_s in JUMPS_S:
                time.sleep(2)
                clock.write_text(f"{offset_s:+d}")
                time.sleep(2)
                assert site.status_of("/livez") == 200
                assert abs(clock_of(site) - time.time() - offset_s) < 60
            load.wait_for(scale.requests)
        assert load.ledger.summary().keys() == {"sent", "completed"}, load.ledger.summary()
    return figures(load.ledger.entries, jumps_s=JUMPS_S)


def clock_of(site: Site) -> float:
    """The wall clock as the server has it, by its log's last line."""
    *_, last = site.access.read_text().splitlines()
    return datetime.fromisoformat(json.loads(last)["time"]).timestamp()
