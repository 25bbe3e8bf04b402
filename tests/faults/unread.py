"""F17: nobody reads the log, its reader is gone, /metrics is read fifty times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.faults.figures import Figures, figures, percentiles
from tests.faults.site import Scale, Site

DROPPED = "gemma_serve_log_lines_dropped_total"
# Longer than an id has to be, so that its lines soon fill the pipe.
LONG_ID = "x" * 120
NUM_LINES = 2600
SCRAPE_S = 1 / 50


def nobody_reads_the_log(site: Site, scale: Scale) -> Figures:
    """Requests go on while the pipe is full; what does not fit is dropped, and counted."""
    before = site.value(DROPPED)
    site.sink.reads.clear()
    try:
        with (
            site.loaded("F17-blocked", **scale.load) as load,
            site.server.client() as http,
        ):
            for _ in range(NUM_LINES):
                http.get("/v1/models", headers={"x-request-id": LONG_ID})
        dropped = site.value(DROPPED) - before
    finally:
        site.sink.reads.set()
    assert dropped > 0
    return figures(load.ledger.entries, lines_dropped=dropped)


def metrics_are_scraped(site: Site, scale: Scale) -> Figures:
    """Fifty times a second: each scrape is answered, and so is each request."""
    with scraping(site) as seconds, site.loaded("F17-scraped", **scale.load) as load:
        pass
    return figures(load.ledger.entries, scrapes=len(seconds), scrape_s=percentiles(seconds))


@contextmanager
def scraping(site: Site) -> Iterator[list[float]]:
    """Ask for /metrics at that rate, or as fast as it is answered; how long each took."""
    seconds: list[float] = []
    stop = threading.Event()

    def scrape() -> None:
        with site.server.client() as http:
            while not stop.is_set():
                began_s = time.monotonic()
                assert http.get("/metrics").status_code == 200
                seconds.append(time.monotonic() - began_s)
                stop.wait(max(SCRAPE_S - seconds[-1], 0))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()
    assert len(seconds) > 0


def the_logs_reader_is_gone(site: Site, scale: Scale) -> Figures:
    """Requests go on when the pipe is closed (EPIPE); probes say that all is well."""
    site.sink.close()
    with site.loaded("F17-closed", **scale.load) as load:
        pass
    assert httpx.get(f"{site.url}/livez", timeout=30).status_code == 200
    return figures(load.ledger.entries)
